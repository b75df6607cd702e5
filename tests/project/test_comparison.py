"""The comparison in the README: each cell is what happens, or what a record says."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    ExponentialLR,
    ReduceLROnPlateau,
)

from tests.support import ROOT
from tests.support.comparison import TOTAL, WAYS, Loop, N, Way

WAY = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name.strip("*"))
README = (ROOT / "README.md").read_text()
ROW = r"^\| {} \|(.*)\|$"
YES, NO = "yes", "no"


def cosine(optimizer: Any) -> Any:
    return CosineAnnealingLR(optimizer, TOTAL)


def plateau(optimizer: Any) -> Any:
    scheduler: Any = ReduceLROnPlateau(optimizer, patience=2)
    step = scheduler.step
    scheduler.step = lambda: step(1.0)  # a loss that never falls
    return scheduler


SCHEDULES: dict[str, Callable[[Any], Any]] = {
    "cosine": cosine,
    "exponential": lambda optimizer: ExponentialLR(optimizer, 0.9),
    "restarts": lambda optimizer: CosineAnnealingWarmRestarts(optimizer, 3),
    "plateau": plateau,
}


def cells(way: Way) -> list[str]:
    found = re.search(ROW.format(re.escape(way.name)), README, re.MULTILINE)
    assert found, way.name
    return [cell.strip() for cell in found[1].split("|")]


def cell(way: Way, head: str) -> str:
    found = re.search(r"^\| +\|(.*)\|$", README, re.MULTILINE)
    assert found
    heads = [each.strip() for each in found[1].split("|")]
    return cells(way)[next(i for i, each in enumerate(heads) if head in each)]


@WAY
def test_each_way_is_a_linear_warmup_to_the_full_rate(way: Way) -> None:
    loop = Loop(way, cosine)
    for _ in range(N + 2):
        loop.update()
    assert loop.used[:N] == sorted(loop.used[:N])
    assert loop.used[0] <= 1 / N
    assert max(loop.used) == pytest.approx(1.0, abs=1e-4)


@WAY
def test_lines(way: Way) -> None:
    assert cell(way, "extra lines") == str(way.lines)


def composes(way: Way, schedule: Callable[[Any], Any]) -> bool:
    """Whether the schedule is followed, beside the warmup or after it."""
    alone = Loop(Way("", "scheduler = schedule(optimizer)"), schedule)
    try:
        loop = Loop(way, schedule)
        for each in (alone, loop):
            for _ in range(3 * N):
                each.update()
    except (TypeError, ValueError):
        return False
    later = loop.used[N:]
    beside, after = alone.used[N:], alone.used[: 2 * N]
    return later == pytest.approx(beside) or later == pytest.approx(after)


@WAY
def test_composes_with_any_schedule(way: Way) -> None:
    takes = "schedule(" in way.setup
    works = takes and all(composes(way, each) for each in SCHEDULES.values())
    assert cell(way, "scheduler") == (YES if works else NO)


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step..` before")
@WAY
def test_counts_real_updates(way: Way) -> None:
    """GradScaler skips the first two steps, whose gradients are not finite."""
    loop = Loop(way, cosine)
    fresh = Loop(way, cosine)
    scaler = torch.amp.GradScaler("cpu", init_scale=1.0)

    def step() -> None:
        scaler.scale(torch.ones(()))
        scaler.step(loop.optimizer)
        scaler.update()

    for value in (torch.inf, torch.inf, 1.0):
        loop.update(torch.full((2,), value), step)
    fresh.update()
    assert len(loop.used) == 1
    right = loop.used == pytest.approx(fresh.used, abs=1e-4)
    assert cell(way, "real updates") == (YES if right else NO)


@WAY
def test_resumes_from_the_state_of_the_optimizer(way: Way) -> None:
    whole, first, second = (Loop(way, cosine) for _ in range(3))
    for _ in range(3):
        whole.update()
    for _ in range(2):
        first.update()
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    second.update()
    second.update()
    third = whole.used[2]
    right = second.used[0] == pytest.approx(third, abs=1e-4)
    whole.update()
    right = right and second.used[1] == pytest.approx(whole.used[3], abs=1e-4)
    assert cell(way, "checkpoint") == (YES if right else NO)


def depends_on_the_gradients(way: Way) -> bool:
    seen = []
    for length in (0.0, 1.0):
        torch.manual_seed(0)
        loop = Loop(way, cosine)
        for _ in range(3 * N):
            loop.update(torch.ones(2) + length * torch.randn(2))
        seen.append(loop.used)
    return seen[0] != seen[1]


@pytest.mark.filterwarnings("ignore:The warmup of param group 0 holds")
@WAY
def test_may_end_or_hold_by_itself(way: Way) -> None:
    """A warmup that is the same whatever the gradients are cannot."""
    ours = way is WAYS[0]
    if ours:
        way = Way(way.name, way.setup.replace("steps=n", "steps=n, mode='aligned'"))
    assert cell(way, "itself") == (YES if depends_on_the_gradients(way) else NO)


RECORDED = dict(
    zip(
        (way.name for way in WAYS),
        (
            "warmopt",
            "pytorch_warmup LinearWarmup",
            "SequentialLR",
            "transformers linear schedule",
            "timm step_update",
        ),
        strict=True,
    )
)


@WAY
def test_the_cost_is_that_of_the_record(way: Way) -> None:
    record = re.search(r"benchmarks/results/[\w-]+\.json", README)
    assert record
    rows = json.loads((ROOT / record[0]).read_text())["rows"]
    added = [
        row["added_us"]
        for state in ("warming", "done")
        for row in rows
        if (row["case"], row["state"]) == ("machinery-1", state)
        and row["contender"] == RECORDED[way.name]
    ]
    assert cell(way, "µs") == " / ".join(f"{us:.1f}" for us in added)
