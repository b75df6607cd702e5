"""All else goes to the wrapped optimizer: attributes, arguments, return values."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
import torch
from torch.nn import Parameter

from tests.support.optimizers import ROWS, assert_same, sgd, snapshot
from tests.support.reference import stepped_at
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
