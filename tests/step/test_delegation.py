"""All else goes to the wrapped optimizer: attributes, arguments, return values."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from torch.nn import Parameter

from tests.support.optimizers import ROWS, assert_same, sgd, snapshot
from tests.support.reference import lrs, stepped_at
from warmopt import Warmed


def test_attributes_reach_the_wrapped_optimizer() -> None:
    class Switch(torch.optim.SGD):
        mode = "train"

        def eval(self) -> None:
            self.mode = "eval"

    inner = Switch([Parameter(torch.zeros(1))], lr=1.0)
    warmed = Warmed(inner, steps=2)
    warmed.eval()
    assert warmed.mode == "eval"
    assert warmed.state is inner.state
    assert warmed.defaults is inner.defaults
    for name in ("param_groups", "state", "defaults"):
        new = copy.copy(getattr(inner, name))
        setattr(warmed, name, new)
        assert getattr(inner, name) is new
    with pytest.raises(AttributeError, match="no attribute 'missing'"):
        _ = warmed.missing
    with pytest.raises(AttributeError, match="wrapped"):
        _ = Warmed.__new__(Warmed).missing  # the same happens while it is unpickled
    assert isinstance(warmed, torch.optim.Optimizer)
    assert {warmed: 1}[warmed] == 1


def test_an_attribute_error_in_a_mode_is_not_masked() -> None:
    def broken(update: float, steps: float) -> float:
        return update.missing if update > 1 else 0.5

    warmed = Warmed(sgd()[1], steps=4, mode=broken)
    warmed.step()
    with pytest.raises(AttributeError, match="'int' object has no attribute 'missing'"):
        _ = warmed.factors


def test_arguments_and_return_value_pass_through() -> None:
    class Strange(torch.optim.SGD):
        def step(self, *args: Any, **kwargs: Any) -> Any:
            return args, kwargs, self.param_groups[0]["lr"]

    param = Parameter(torch.zeros(1))
    warmed = Warmed(Strange([param], lr=1.0), steps=4)
    assert warmed.step(None, 1, two=2) == ((None, 1), {"two": 2}, 0.25)
    assert warmed.step() == ((), {}, 0.5)
    assert Warmed(Strange([param], lr=1.0), steps=0).step(3) == ((3,), {}, 1.0)


def test_zero_grad_is_the_wrapped_optimizers() -> None:
    param, optimizer = sgd()
    warmed = Warmed(optimizer, steps=2)
    warmed.zero_grad(set_to_none=False)
    assert param.grad.item() == 0.0
    warmed.zero_grad()
    assert param.grad is None


@pytest.mark.parametrize("name", ["ScheduleFreeSGD", "ScheduleFreeAdamW"])
def test_schedule_free_switches_between_its_weights(name: str) -> None:
    """Its train() and eval() move the parameters, as they do without the wrapper."""
    row = ROWS[f"pytorch_optimizer.{name}"]
    params, expected_params = row.params(), row.params()
    warmed, expected = row.wrap(params, steps=4), row.build(expected_params)
    for update in range(1, 7):
        for switch in ("eval", "train"):
            getattr(warmed, switch)()
            getattr(expected, switch)()
            assert_same(snapshot(expected, expected_params), snapshot(warmed, params))
        row.step(warmed, params, update)
        factor = min(update / 4, 1.0)
        stepped_at(
            expected, [factor], partial(row.step, expected, expected_params, update)
        )
    trained = params[0].detach().clone()
    warmed.eval()
    assert not torch.equal(params[0], trained)


def test_arguments_of_the_wrapped_optimizer_reach_it() -> None:
    class Strange(torch.optim.SGD):
        def zero_grad(self) -> None:  # type: ignore[override]
            super().zero_grad(set_to_none=False)

        def state_dict(self, full: bool = False) -> Any:
            return {**super().state_dict(), "full": full}

        def load_state_dict(self, state_dict: Any, strict: bool = True) -> None:
            self.strict = strict
            super().load_state_dict(state_dict)

    param = Parameter(torch.zeros(1))
    param.grad = torch.ones(1)
    warmed = Warmed(Strange([param], lr=1.0), steps=3)
    warmed.zero_grad()
    assert param.grad.item() == 0.0
    state = warmed.state_dict(full=True)
    assert state["full"]
    warmed.load_state_dict(state, strict=False)
    assert warmed.strict is False


def test_a_warmup_is_called_like_the_wrapped_optimizer_where_classes_give_names() -> (
    None
):
    """Loggers name optimizers so, and those names must not change."""

    class Mine(Warmed):
        pass

    for called in (Warmed, Mine):
        adam = called(torch.optim.Adam([Parameter(torch.zeros(1))]), steps=2)
        sgd_ = called(sgd()[1], steps=2)
        assert [type(each).__name__ for each in (adam, sgd_)] == ["Adam", "SGD"]
        assert type(sgd_) is type(called(sgd()[1], steps=2))
        assert isinstance(sgd_, called)
        assert not isinstance(sgd_, torch.optim.SGD)
        assert repr(sgd_).startswith(f"{called.__name__} (")
    copied = copy.deepcopy(Warmed(sgd()[1], steps=2))
    assert type(copied) is type(Warmed(sgd()[1], steps=2))
    assert repr(copied).startswith("Warmed (")


def test_each_new_wrapper_takes_away_the_hooks_of_those_that_are_gone() -> None:
    _, optimizer = sgd()
    names = [name for name in vars(optimizer) if name.endswith("_hooks")]

    def hooks() -> list[int]:
        return [len(getattr(optimizer, name)) for name in names]

    kept = Warmed(optimizer, steps=2)
    once = hooks()
    del kept
    for _ in range(5):
        Warmed(optimizer, steps=2)
    assert hooks() == once
    assert sum(once) > 3


@pytest.mark.parametrize("hooked", [False, True])
def test_a_mocked_step_is_called_at_the_effective_lr_and_counted(hooked: bool) -> None:
    """A mock has every attribute that it is asked for."""
    _, optimizer = sgd()
    warmed = Warmed(optimizer, steps=4)
    if hooked:
        warmed.register_step_post_hook(lambda *_: None)
    seen = []
    optimizer.step = MagicMock(side_effect=lambda: seen.append(lrs(optimizer)[0]))
    for _ in range(5):
        warmed.step()
    assert seen == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert optimizer.step.call_count == 5
    assert warmed.done
