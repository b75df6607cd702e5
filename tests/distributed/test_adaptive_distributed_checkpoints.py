"""Checkpoints of an adaptive warmup, loaded by another number of ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch.optim import Optimizer

from tests.distributed.test_adaptive_distributed import (
    CAP,
    adaptive,
    over_all_ranks,
    rows_of,
)
from tests.support.checkpoint_files import (
    FORMS,
    MOVES,
    ONE_PROCESS,
    load,
    parameters,
    run,
    save,
)
from tests.support.engines import Training, Wrap, build, train, warmed_of
from tests.support.ranks import Ranks
from warmopt import Warmed

pytestmark = [pytest.mark.xdist_group("ranks"), ONE_PROCESS]

SAMPLES = 7  # in a row
SAVED = 11  # updates: inside the window, and inside the fast pace


def progress(training: Training) -> list[Any]:
    """What the groups hold to decide with, and what has been decided."""
    (warmed,) = warmed_of(training)
    keys = ("warmup_updates", "warmup_fast", "warmup_settled", "warmup_done")
    groups = [[group[key] for key in keys] for group in warmed.param_groups]
    return [groups, warmed.factors]


def parted(optimizer: Optimizer) -> Warmed:
    """Each of its groups is its own pool: the second one misses the first update."""
    warmed = adaptive(optimizer)
    first, second = warmed.param_groups[:2]
    lr = second["lr"]

    def hold(*_: Any) -> None:
        second["lr"] = lr if first["warmup_updates"] else 0.0

    warmed.register_step_pre_hook(hold)
    return warmed


def check_rest(
    engine: str, kind: str, wrap: Wrap, *stored: Any
) -> tuple[list[Any], list[Any]]:
    """The progress from loading on (or from the start), and the readings."""
    args = engine, kind, wrap
    training = load(*args, *stored) if stored else build(*args)
    first = SAVED if stored else 0
    said = [progress(training)]
    for update in range(first + 1, CAP + 1):
        train(training, update)
        said.append([*progress(training), parameters(training[0])])
    return said, rows_of(warmed_of(training)[0].trace)


@pytest.mark.parametrize("wrap", [adaptive, parted])
@pytest.mark.parametrize("form", FORMS)
@MOVES
def test_a_checkpoint_resumes_exactly_on_another_number_of_ranks(
    groups: dict[int, Ranks],
    tmp_path: Path,
    saved: int,
    loaded: int,
    form: str,
    wrap: Wrap,
) -> None:
    """Progress, pace, window and readings: as if it had not stopped."""
    args = ("fsdp2", "adam-long", wrap, form, tmp_path)
    run(groups, saved, save, *args, SAVED)
    said, rows = run(groups, loaded, check_rest, *args)
    expected, readings = check_rest("one-process", *args[1:3])
    assert 0 < said[0][0][0][1] < SAVED
    assert said[0] == expected[SAVED][:2]
    assert said[1:] == expected[SAVED + 1 :]
    rest = [row for row in readings if row[1] > SAVED]
    assert repr(rows) == repr(rest)


def check_progress(*args: Any) -> list[Any]:
    training = build(*args)
    for update in range(1, SAVED + 1):
        train(training, update)
    return progress(training)


@pytest.mark.parametrize(
    ("engine", "form"),
    [
        ("fsdp1", "plain"),
        ("fsdp1", "flattened"),
        ("zero-outside", "consolidated"),
        ("zero-inside", "consolidated"),
    ],
)
@pytest.mark.parametrize(("saved", "loaded"), [(2, 4), (4, 2)])
def test_with_a_process_group_the_progress_resumes_and_the_window_fills_anew(
    groups: dict[int, Ranks],
    tmp_path: Path,
    saved: int,
    loaded: int,
    engine: str,
    form: str,
) -> None:
    args = (engine, "adam-long", over_all_ranks, form, tmp_path)
    run(groups, saved, save, *args, SAVED)
    uninterrupted = run(groups, saved, check_progress, *args[:3])
    said, rows = run(groups, loaded, check_rest, *args)
    assert said[0] == uninterrupted
    assert 0 < said[0][0][0][1] < SAVED
    assert rows[0][SAMPLES] == 1
    assert said[-1][0][0][3]  # done
