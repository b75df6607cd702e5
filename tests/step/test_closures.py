"""Steps with a closure, no matter how often or where it is called."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import pytorch_optimizer
import torch
from torch.nn import Parameter

from tests.support.optimizers import ROWS, assert_same, sgd, snapshot
from tests.support.reference import stepped_at
from warmopt import Warmed

SGD = ROWS["sgd-loop"]


def test_a_closure_sees_the_base_lr_and_may_set_it() -> None:
    param, optimizer = sgd(lr=2.0)
    warmed = Warmed(optimizer, steps=4)
    seen = []

    def closure() -> str:
        seen.append((warmed.param_groups[0]["lr"], torch.is_grad_enabled()))
        warmed.param_groups[0]["lr"] = 4.0
        return "loss"

    assert warmed.step(closure=closure) == "loss"
    assert seen == [(2.0, True)]
    assert warmed.param_groups[0]["lr"] == 4.0
    assert param.item() == -1.0  # 4 x 1/4
    assert warmed.get_last_lr() == [1.0]


def test_a_closure_called_many_times_is_one_update() -> None:
    row = ROWS["lbfgs-strong_wolfe"]
    params = row.params()
    warmed, calls = row.wrap(params, steps=4), 0

    def closure() -> torch.Tensor:
        nonlocal calls
        calls += 1
        assert warmed.param_groups[0]["lr"] == 0.1
        warmed.zero_grad()
        loss = sum(((param - 3) ** 2).sum() for param in params)
        loss.backward()
        return loss

    warmed.step(closure)
    assert calls > 2
    assert warmed.factors == [0.5]


@pytest.mark.parametrize("outside", [torch.enable_grad, torch.no_grad])
@pytest.mark.parametrize("name", ["sgd-loop", "adamw-foreach", "lbfgs-strong_wolfe"])
def test_a_closure_runs_in_the_grad_mode_that_the_bare_optimizer_gives_it(
    name: str, outside: Any
) -> None:
    def modes(optimizer: torch.optim.Optimizer) -> list[bool]:
        def closure() -> float:
            seen.append(torch.is_grad_enabled())
            return 1.0

        seen: list[bool] = []
        with outside():
            optimizer.step(closure)
            seen.append(torch.is_grad_enabled())
        return seen

    row = ROWS[name]
    assert modes(row.wrap(row.params(), steps=4)) == modes(row.build(row.params()))


def test_a_line_search_is_that_of_a_hand_scaled_loop() -> None:
    """LBFGS, strong Wolfe, on a real loss: same steps, same number of evaluations."""
    row, evaluations = ROWS["lbfgs-strong_wolfe"], []

    def step(optimizer: torch.optim.Optimizer, params: list[Parameter]) -> None:
        def closure() -> torch.Tensor:
            nonlocal calls
            calls += 1
            optimizer.zero_grad()
            loss = sum((param**4 - 3 * param).sum() for param in params)
            loss.backward()
            return loss

        calls = 0
        optimizer.step(closure)
        evaluations.append(calls)

    params, expected_params = row.params(), row.params()
    warmed, expected = row.wrap(params, steps=3), row.build(expected_params)
    for update in range(1, 6):
        step(warmed, params)
        factor = min(update / 3, 1.0)
        stepped_at(expected, [factor], partial(step, expected, expected_params))
        assert_same(snapshot(expected, expected_params), snapshot(warmed, params))
    assert evaluations[::2] == evaluations[1::2]
    assert max(evaluations) > 2


@pytest.mark.parametrize("by", ["closure", "two steps"])
def test_sam_around_warmed_is_a_hand_scaled_sam(by: str) -> None:
    """SAM's second step is that of the base optimizer, so wrap the base optimizer."""

    def base(groups: Any, **options: Any) -> Warmed:
        return Warmed(torch.optim.SGD(groups, **options), steps=4)

    def step(sam: Any, params: list[Parameter]) -> None:
        def closure() -> torch.Tensor:
            sam.zero_grad()
            loss = sum((param**4 - 3 * param).sum() for param in params)
            loss.backward()
            return loss

        closure()
        if by == "closure":
            sam.step(closure)
        else:
            sam.first_step(zero_grad=True)
            closure()
            sam.second_step(zero_grad=True)

    params, expected_params = SGD.params(), SGD.params()
    options = {"lr": 0.01, "momentum": 0.9}
    sam = pytorch_optimizer.SAM(params, base, **options)
    expected = pytorch_optimizer.SAM(expected_params, torch.optim.SGD, **options)
    for update in range(1, 7):
        step(sam, params)
        factor = min(update / 4, 1.0)
        stepped_at(expected, [factor], partial(step, expected, expected_params))
        assert_same(snapshot(expected, expected_params), snapshot(sam, params))
    assert sam.base_optimizer.done


def test_a_closure_beside_other_arguments_sees_the_base_lr() -> None:
    class Scaling(torch.optim.SGD):
        def step(self, closure: Any, scale: float) -> tuple[Any, float]:
            return closure(), scale

    warmed = Warmed(Scaling([Parameter(torch.zeros(1))], lr=1.0), steps=4)
    assert warmed.step(lambda: warmed.param_groups[0]["lr"], 2.0) == (1.0, 2.0)


@pytest.mark.parametrize("through", ["warmed", "wrapped"])
def test_a_group_added_in_the_closure_warms_at_once(through: str) -> None:
    param, optimizer = sgd()
    late = Parameter(torch.zeros(1))
    late.grad = torch.ones(1)
    warmed = Warmed(optimizer, steps=4)
    warmed.step()
    adder = warmed if through == "warmed" else warmed.wrapped
    warmed.step(lambda: adder.add_param_group({"params": [late]}))
    assert param.item() == -0.75
    assert late.item() == -0.25


def test_the_last_lr_is_the_one_used_though_the_closure_began_anew() -> None:
    param = Parameter(torch.zeros(1))
    warmed = Warmed(torch.optim.SGD([param], lr=1.0), steps=4)

    def closure() -> float:
        param.grad = torch.ones(1)
        warmed.rewarm(10)
        return 0.0

    warmed.step(closure)
    assert warmed.get_last_lr() == [0.1]
    assert param.item() == pytest.approx(-0.1)
