"""A warmup is saved and loaded: with which optimizer, and where it continues."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint import state_dict as dcp
from torch.nn import Parameter

from tests.support.optimizers import ROWS, Row, assert_same, sgd, snapshot
from tests.support.reference import effective, stepped_at
from warmopt import Warmed

SGD = ROWS["sgd-loop"]


@pytest.mark.parametrize(
    ("cut", "loader"), [(0, "warmed"), (2, "warmed"), (2, "wrapped"), (5, "warmed")]
)
def test_a_run_saved_and_loaded_goes_on_bit_equal(
    row: Row, cut: int, loader: str, tmp_path: Path
) -> None:
    """Through a file that is read with weights_only=True, into a new optimizer."""
    params, expected_params = row.params(), row.params()
    warmed = row.wrap(params, steps=5)
    expected = row.wrap(expected_params, steps=5)
    for update in range(1, cut + 1):
        row.step(warmed, params, update)
        row.step(expected, expected_params, update)
    torch.save([warmed.state_dict(), params], tmp_path / "checkpoint.pt")

    state, saved_params = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    params = [Parameter(param.detach().clone()) for param in saved_params]
    warmed = row.wrap(params, steps=5)
    warmed.param_groups[0]["lr"] = 0.5
    (warmed if loader == "warmed" else warmed.wrapped).load_state_dict(state)
    for update in range(cut + 1, 9):
        row.step(warmed, params, update)
        row.step(expected, expected_params, update)
        assert_same(snapshot(expected, expected_params), snapshot(warmed, params))


@pytest.mark.parametrize("flatten", [False, True])
def test_a_distributed_checkpoint_resumes_warmup_and_rewarm(flatten: bool) -> None:
    """Its flattened form reads only keys that the live groups have."""
    options = dcp.StateDictOptions(flatten_optimizer_state_dict=flatten)

    def new() -> tuple[torch.nn.Module, Warmed]:
        model = torch.nn.Linear(2, 1)
        return model, Warmed(torch.optim.AdamW(model.parameters()), steps=1000)

    model, warmed = new()
    for rewarm, factor in ((None, 0.006), (10, 0.6), (0, 1.0)):
        if rewarm is not None:
            warmed.rewarm(steps=rewarm)
        for _ in range(5):
            warmed.step()
        state = dcp.get_optimizer_state_dict(model, warmed, options=options)
        other_model, other = new()
        dcp.set_optimizer_state_dict(other_model, other, state, options=options)
        assert warmed.factors == other.factors == [factor]


def test_a_checkpoint_loaded_before_wrapping_resumes_as_well() -> None:
    """You can load before or after wrapping."""
    params = SGD.params()
    warmed = SGD.wrap(params, steps=4)
    SGD.step(warmed, params, 1)
    bare = SGD.build(SGD.params())
    bare.load_state_dict(warmed.state_dict())
    assert Warmed(bare, steps=4).factors == [0.5]


def test_a_warmed_checkpoint_loads_into_the_bare_optimizer(row: Row) -> None:
    """It continues at the base LR and ignores the keys of the warmup."""
    params, expected_params = row.params(), row.params()
    warmed, bare = row.wrap(params, steps=4), row.build(params)
    expected = row.build(expected_params)
    row.step(warmed, params, 1)
    stepped_at(expected, [0.25], lambda: row.step(expected, expected_params, 1))
    bare.load_state_dict(warmed.state_dict())
    for update in (2, 3):
        row.step(bare, params, update)
        row.step(expected, expected_params, update)
    assert_same(snapshot(expected, expected_params), snapshot(bare, params))


def test_a_bare_checkpoint_leaves_the_warmup_where_it_was() -> None:
    params = SGD.params()
    warmed = SGD.wrap(params, steps=4)
    SGD.step(warmed, params, 1)
    bare = SGD.build(SGD.params())
    bare.param_groups[0]["lr"] = 0.7
    with pytest.warns(UserWarning, match="goes on from where it was") as warned:
        warmed.load_state_dict(bare.state_dict())
    assert [warning.filename for warning in warned] == [__file__]
    assert warmed.param_groups[0]["lr"] == 0.7
    assert warmed.factors == [0.5]
    assert warmed.param_groups[0]["warmup_mode"] == "linear"


def test_loading_keeps_a_groups_own_length_and_start() -> None:
    _, optimizer = sgd()
    optimizer.param_groups[0].update(warmup_steps=2, warmup_start=0.5)
    warmed = Warmed(optimizer, steps=4)
    with pytest.warns(UserWarning, match="without warmup"):
        warmed.load_state_dict(sgd()[1].state_dict())
    assert warmed.factors == [0.75]


@pytest.mark.parametrize(("steps", "factor"), [(8, 0.25), (2, 1.0), (1, 1.0), (0, 1.0)])
def test_the_length_in_the_code_holds_over_the_one_of_the_saved_run(
    steps: int, factor: float
) -> None:
    params = SGD.params()
    warmed = SGD.wrap(params, steps=4)
    SGD.step(warmed, params, 1)
    resumed = SGD.wrap(params, steps=steps)
    resumed.load_state_dict(warmed.state_dict())
    assert resumed.factors == [factor]
    SGD.step(resumed, params, 2)
    assert resumed.get_last_lr() == [0.1 * factor]


def test_a_warmup_once_over_stays_over() -> None:
    """Also if the code that loads it asks for a longer one."""
    params = SGD.params()
    warmed = SGD.wrap(params, steps=1)
    SGD.step(warmed, params, 1)
    resumed = SGD.wrap(params, steps=100, mode="cosine")
    resumed.load_state_dict(warmed.state_dict())
    assert resumed.done
    assert resumed.factors == [1.0]


class OwnLoading(torch.optim.SGD):
    """Loads in its own way and runs no hooks, like bitsandbytes."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        saved = copy.deepcopy(state_dict["param_groups"])
        for group, new in zip(self.param_groups, saved, strict=True):
            new["params"] = group["params"]
        self.__setstate__({"state": {}, "param_groups": saved})


def test_loading_that_runs_no_hooks_is_checked_and_completed_too() -> None:
    warmed = Warmed(OwnLoading([Parameter(torch.zeros(1))], lr=1.0), steps=4)
    warmed.step()
    saved = copy.deepcopy(warmed.state_dict())
    while not warmed.done:
        warmed.step()
    warmed.load_state_dict(saved)
    assert effective(warmed, 1) == [0.5]
    with pytest.warns(UserWarning, match="without warmup"):
        warmed.load_state_dict(sgd()[1].state_dict())
    assert warmed.factors == [0.75]
    saved["param_groups"][0]["warmup_mode"] = "cosine"
    with pytest.raises(ValueError, match="begun with, 'cosine'"):
        warmed.load_state_dict(saved)
