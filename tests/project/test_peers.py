"""Exactly the numbers of other libraries: every row of the table, at every length."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from docs.scripts.write_coming_from import PAGE, page
from tests.support.pages import blocks
from tests.support.peers import LR, ROWS, Row, build
from tests.support.reference import watch
from warmopt import Warmed
from warmopt._groups.schedule import Schedule

LENGTHS = (1, 2, 3, 5, 10, 100, 1000)
STEPPED = 100  # longer ones only ask the schedule, to save time
CASES = [(row, n) for row in ROWS for n in LENGTHS if n >= row.least]
RUN = [case for case in CASES if case[0].run]


def name(value: Row | int) -> str:
    return str(value) if isinstance(value, int) else f"{value.peer}-{value.ours}"


def used_by(optimizer: Any, updates: int, scheduler: Any = None) -> list[float]:
    """LRs that the wrapped step saw."""
    inner = getattr(optimizer, "wrapped", optimizer)
    used = watch(inner, lambda inner: inner.param_groups[0]["lr"])
    for _ in range(updates):
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
    return used


def ours(row: Row, n: int) -> list[float]:
    """Our factors of updates 1 to n + 3, relative to the peer's base LR."""
    keywords = row.keywords(n)
    if n <= STEPPED:
        optimizer = Warmed(build(row.lr * LR, row.beta2(n)), **keywords)
        return [lr / LR for lr in used_by(optimizer, n + 3)]
    schedule = Schedule(**{"mode": "linear", "steps": None, **keywords})
    rule = schedule.steps_from_beta2
    steps = rule(row.beta2(n)) if rule else schedule.steps
    assert steps is not None
    return [row.lr * schedule.factor(t, steps, schedule.start) for t in range(1, n + 4)]


def assert_equal(row: Row, got: list[float], peer: list[float], ulps: int) -> None:
    """Equal within `ulps` units in the last place, except at `row.apart`."""
    assert len(got) == len(peer)
    for t, (factor, expected) in enumerate(zip(got, peer, strict=True), start=1):
        near = abs(factor - expected) <= ulps * math.ulp(max(factor, expected))
        assert near != (t in row.apart), f"update {t}: {factor!r} and {expected!r}"


@pytest.mark.parametrize(("row", "n"), CASES, ids=name)
def test_ours_is_the_formula_of_the_peer(row: Row, n: int) -> None:
    formula = [row.factor(t, n) for t in range(1, n + 4)]
    assert_equal(row, ours(row, n), formula, row.ulps)


@pytest.mark.parametrize(("row", "n"), RUN, ids=name)
def test_ours_is_what_the_peer_does(row: Row, n: int) -> None:
    assert_equal(row, ours(row, n), row.theirs_used(n), row.run_ulps)


def test_the_count_of_what_is_compared() -> None:
    """Rows, rows x lengths, and the same for peers that run, so that none gets lost."""
    rows_run = sum(row.run is not None for row in ROWS)
    assert (len(ROWS), len(CASES), rows_run, len(RUN)) == (59, 394, 27, 179)


def test_a_tolerance_has_a_reason() -> None:
    for row in ROWS:
        assert bool(row.because) == bool(row.ulps or row.run_ulps), name(row)


def test_the_untuned_rows_take_a_side_where_it_matters() -> None:
    """pytorch_warmup truncates the length, so it differs from the one in the paper."""
    rows = [row for row in ROWS if "Untuned" in row.theirs]
    for paper, truncated in zip(rows[::2], rows[1::2], strict=True):
        assert paper.theirs == truncated.theirs
        assert ours(paper, 100) != ours(truncated, 100)


@pytest.mark.parametrize(("beta2", "length"), [(0.999, 1999), (0.95, 39)])
def test_the_lengths_in_the_notes_are_those_of_pytorch_warmup(
    beta2: float, length: int
) -> None:
    row = next(row for row in ROWS if row.run and "UntunedLinear" in row.theirs)
    assert row.run(row.theirs, length, beta2).index(LR) + 1 == length


def scope(n: int, total: int, k: int) -> dict[str, Any]:
    weight = build(LR, 0.999).param_groups[0]["params"][0]
    sizes = {"lr": LR, "n": n, "total": total, "k": k}
    return {"torch": torch, "Warmed": Warmed, "weight": weight, **sizes}


def test_the_page_keeps_their_decay() -> None:
    """Its second last block is the linear schedule of transformers."""
    from transformers import get_linear_schedule_with_warmup

    n, total = 7, 50
    *_, block, _ = blocks(page())
    names = scope(n, total, 1)
    exec(block, names)
    theirs = build(LR, 0.999)
    scheduler = get_linear_schedule_with_warmup(theirs, n, total)
    expected = used_by(theirs, total, scheduler)
    assert used_by(names["optimizer"], total, names["scheduler"]) == expected


def test_the_page_has_a_scheduler_called_once_an_epoch() -> None:
    """Its last block is a linear warmup over n epochs of k updates."""
    n, k = 5, 7
    *_, block = blocks(page())
    names = scope(n, n * k, k)
    exec(block, names)
    expected = [LR * min(1.0, i // k / n) for i in range((n + 2) * k)]
    assert used_by(names["optimizer"], (n + 2) * k) == expected


def test_the_page_is_made_from_the_table() -> None:
    """If it is not: python -m docs.scripts.write_coming_from."""
    assert PAGE.read_text(encoding="utf-8") == page()
