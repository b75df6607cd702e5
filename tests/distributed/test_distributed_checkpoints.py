"""Checkpoints of a warmup in real process groups, loaded by another number of ranks.

Functions named `check_` run on all ranks, and so do those in checkpoint_files.py. The
tests compare what they return.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from torch.distributed import checkpoint
from torch.distributed.checkpoint import state_dict as dcp
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ExponentialLR

from tests.support.checkpoint_files import (
    FORMS,
    MOVES,
    ONE_PROCESS,
    load,
    parameters,
    run,
    save,
)
from tests.support.engines import Wrap, bare, build, factors_of, train
from tests.support.ranks import Ranks
from tests.support.reference import stepped_at
from warmopt import Warmed

pytestmark = [pytest.mark.xdist_group("ranks"), ONE_PROCESS]

STEPS = 4  # length of the warmup
SAVED, LAST = 2, 6

warm: Wrap = partial(Warmed, steps=STEPS)


def check_resume(*loading: Any) -> list[Any]:
    """The parameters after each of the next updates."""
    training, seen = load(*loading), []
    for update in range(SAVED + 1, LAST + 1):
        train(training, update)
        seen.append(parameters(training[0]))
    return seen


def by_hand(kind: str, updates: list[int]) -> list[Any]:
    """The same with a bare optimizer in one process; the LR is set by hand.

    `updates` gives the number that each update has in the warmup. After the warmup, the
    factor is 1.
    """
    model, (optimizer,) = build("one-process", kind, bare)
    seen = []
    for number, update in enumerate(updates, start=1):
        lengths = [group["warmup_steps"] for group in optimizer.param_groups]
        factors = [min(update / length, 1.0) for length in lengths]
        stepped_at(optimizer, factors, partial(train, (model, [optimizer]), number))
        seen.append(parameters(model))
    return seen[SAVED:]


CHECKPOINTS = [
    (engine, kind, form)
    for engine, kind, forms in [
        ("fsdp2", "adam", FORMS),
        ("fsdp2", "adam-tensor-lr", FORMS),
        ("fsdp2", "sgd", ["plain", "flattened"]),  # torch can gather no stateless one,
        ("ddp", "adam", FORMS),
        ("fsdp1", "adam", ["plain", "flattened"]),  # nor FSDP1 on a CPU: it crashes,
        ("fsdp1", "momentum", ["plain", "flattened"]),
        ("in-backward", "adam", ["flattened"]),  # nor several optimizers
        ("zero-outside", "adam", ["consolidated"]),
        ("zero-inside", "adam", ["consolidated"]),
    ]
    for form in forms
]


@pytest.mark.parametrize(("engine", "kind", "form"), CHECKPOINTS)
@MOVES
def test_a_checkpoint_resumes_on_another_number_of_ranks(
    groups: dict[int, Ranks],
    tmp_path: Path,
    saved: int,
    loaded: int,
    engine: str,
    kind: str,
    form: str,
) -> None:
    """Bit-equal to a run that was not interrupted, from the middle of the warmup on."""
    args = (engine, kind, warm, form, tmp_path)
    run(groups, saved, save, *args, SAVED)
    seen = run(groups, loaded, check_resume, *args)
    assert seen == by_hand(kind, [1, 2, 3, 4, 5, 6])


# --- checkpoints of a warmed optimizer for a bare one, and the other way round --------


@pytest.mark.parametrize("form", ["plain", "flattened"])
@MOVES
def test_a_bare_optimizer_loads_a_warmed_checkpoint(
    groups: dict[int, Ranks], tmp_path: Path, saved: int, loaded: int, form: str
) -> None:
    """It continues at the full LR."""
    run(groups, saved, save, "fsdp2", "adam", warm, form, tmp_path, SAVED)
    seen = run(groups, loaded, check_resume, "fsdp2", "adam", bare, form, tmp_path)
    assert seen == by_hand("adam", [1, 2, STEPS, STEPS, STEPS, STEPS])


def check_resume_partly(*loading: Any) -> list[Any]:
    planner = checkpoint.DefaultLoadPlanner(allow_partial_load=True)
    return check_resume(*loading, planner)


@pytest.mark.parametrize("form", FORMS)
@MOVES
def test_a_bare_checkpoint_loads_and_the_warmup_begins(
    groups: dict[int, Ranks], tmp_path: Path, saved: int, loaded: int, form: str
) -> None:
    """torch is told to keep what the files do not have."""
    run(groups, saved, save, "fsdp2", "adam", bare, form, tmp_path, SAVED)
    args = ("fsdp2", "adam", warm, form, tmp_path)
    seen = run(groups, loaded, check_resume_partly, *args)
    assert seen == by_hand("adam", [STEPS, STEPS, 1, 2, 3, 4])


def scheduled(optimizer: Optimizer) -> Optimizer:
    ExponentialLR(optimizer, 0.9)  # it writes `initial_lr` into the groups
    return optimizer


# This is torch's own rule for group keys: the keys of a scheduler meet it too.
KEYS = pytest.mark.parametrize(
    ("wrap", "key"),
    [(scheduled, "initial_lr"), (warm, "warmup_updates")],
    ids=["scheduler", "warmup"],
)


def check_refusal(wrap: Wrap, form: str, folder: Path, key: str) -> None:
    missing = rf"Missing key in checkpoint state_dict: optimizer\.param_groups.*{key}"
    with pytest.raises(checkpoint.CheckpointException, match=missing):
        load("fsdp2", "adam", wrap, form, folder)


@KEYS
@pytest.mark.parametrize("form", ["plain", "flattened"])
def test_torch_refuses_files_that_lack_a_key_unless_asked_not_to(
    groups: dict[int, Ranks], tmp_path: Path, form: str, wrap: Wrap, key: str
) -> None:
    groups[2].run(save, "fsdp2", "adam", bare, form, tmp_path, SAVED)
    groups[2].run(check_refusal, wrap, form, tmp_path, key)


@KEYS
def test_torch_refuses_a_gathered_state_with_a_key_more_on_one_process(
    groups: dict[int, Ranks], tmp_path: Path, wrap: Wrap, key: str
) -> None:
    groups[2].run(save, "fsdp2", "adam", wrap, "gathered", tmp_path, SAVED)
    with pytest.raises(KeyError, match=rf"param_groups\.0\.{key}"):
        load("one-process", "adam", bare, "gathered", tmp_path)


def check_in_memory(form: str) -> list[float]:
    source, target = build("fsdp2", "adam", bare), build("fsdp2", "adam", warm)
    train(source, 1)
    state = dcp.get_optimizer_state_dict(*source, options=FORMS[form])
    dcp.set_optimizer_state_dict(*target, state, options=FORMS[form])
    return factors_of(target)


def check_in_memory_refused(form: str) -> None:
    with pytest.raises(KeyError, match=r"param_groups\..*\.warmup_updates"):
        check_in_memory(form)


def check_in_memory_warned(form: str) -> None:
    with pytest.warns(UserWarning, match="of an optimizer without warmup"):
        assert check_in_memory(form) == [1 / 4, 1 / 2]


@pytest.mark.parametrize(
    ("form", "check"),
    [("plain", check_in_memory_warned), ("flattened", check_in_memory_refused)],
)
def test_a_bare_state_that_goes_through_no_file(
    groups: dict[int, Ranks], form: str, check: Callable[[str], None]
) -> None:
    groups[2].run(check, form)
