"""The wrong one of two objects, or the same one twice: each is told, and told once."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint import state_dict as dcp
from torch.nn import Parameter

from tests.support.optimizers import sgd
from tests.support.reference import effective
from warmopt import Warmed

ALONE = "SGD is stepped by itself"


def test_the_wrapped_optimizer_stepped_alone_is_told_once() -> None:
    """Nothing warms then, and nothing else would say so."""
    param, bare = sgd()
    warmed = Warmed(bare, steps=4)
    with pytest.warns(UserWarning, match=ALONE) as told:
        bare.step()
    assert str(told[0].message) == (
        "SGD is stepped by itself, at its full LR. It only warms up in the step of "
        "the Warmed around it. Step that one, or build it with steps=0."
    )
    assert told[0].filename == __file__
    for _ in range(3):
        bare.step()
    assert param.item() == -4.0
    assert effective(warmed, 2) == [0.25, 0.5]


def build(case: str) -> tuple[Warmed, torch.optim.Optimizer]:
    _, bare = sgd()
    warmed = Warmed(bare, steps=0 if case == "no warmup" else 2)
    if case == "done":
        warmed.rewarm(0)
    elif case == "lr 0":
        bare.param_groups[0]["lr"] = 0.0
    elif case == "stepped":
        warmed.step()
    elif case == "gone":
        warmed = Warmed(sgd()[1], steps=2)
    return warmed, bare


@pytest.mark.parametrize("case", ["no warmup", "done", "lr 0", "stepped", "gone"])
def test_nothing_is_told_where_nothing_is_lost(case: str) -> None:
    kept, bare = build(case)
    bare.step()
    del kept


def test_steps_of_the_wrapper_leave_no_hook_behind() -> None:
    warmed = Warmed(sgd()[1], steps=2)
    for each in (warmed, copy.deepcopy(warmed)):
        assert len(each.wrapped._optimizer_step_pre_hooks) == 1
        each.step()
        assert not each.wrapped._optimizer_step_pre_hooks


def test_a_distributed_checkpoint_of_the_bare_optimizer_is_not_taken_for_a_step() -> (
    None
):
    """It makes a step at LR 0."""
    model = torch.nn.Linear(2, 1)
    bare = torch.optim.AdamW(model.parameters(), lr=1.0)
    warmed = Warmed(bare, steps=4)
    assert dcp.get_optimizer_state_dict(model, bare)["state"]
    assert warmed.factors == [0.25]


# --- a cell that is run twice ---------------------------------------------------------


@pytest.mark.parametrize(
    ("updates", "where"),
    [
        (3, "3 of 10 updates done, next factor 0.4"),
        (10, "done"),
    ],
)
@pytest.mark.parametrize("kept", [True, False])
def test_a_second_wrapper_says_where_the_warmup_goes_on(
    updates: int, where: str, kept: bool
) -> None:
    _, bare = sgd()
    first = Warmed(bare, steps=10)
    for _ in range(updates):
        first.step()
    if not kept:
        del first
    with pytest.warns(UserWarning, match="was wrapped before") as told:
        second = Warmed(bare, steps=10)
    assert str(told[0].message) == (
        f"SGD was wrapped before, and its warmup goes on: {where}. Call rewarm() to "
        "begin again."
    )
    assert told[0].filename == __file__
    second.rewarm()
    assert effective(second, 2) == [0.1, 0.2]


def test_a_wrapper_that_never_stepped_and_a_checkpoint_are_gone_on_from_silently() -> (
    None
):
    _, bare = sgd()
    Warmed(bare, steps=10)
    warmed = Warmed(bare, steps=10)
    warmed.step()
    _, resumed = sgd()
    resumed.load_state_dict(warmed.state_dict())
    assert Warmed(resumed, steps=10).factors == [0.2]


def test_the_wrapper_wrapped_again_says_what_to_do_and_that_works() -> None:
    optimizer: Any = Warmed(torch.optim.SGD([Parameter(torch.zeros(1))], 1.0), 10)
    optimizer.step()
    with pytest.raises(ValueError, match="to use other arguments"):
        optimizer = Warmed(optimizer, steps=10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optimizer = Warmed(optimizer.wrapped, steps=5)
    assert optimizer.factors == [0.4]
