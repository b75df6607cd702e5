"""Every torch LR scheduler composes by multiplication, whatever it is attached to."""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import Parameter
from torch.optim import Optimizer, lr_scheduler, swa_utils

from tests.reference import lrs, watch
from warmopt import Warmed

UPDATES, STEPS = 200, 50

SCHEDULERS: dict[str, Callable[[Optimizer], Any]] = {
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda t: 0.99**t),
    "MultiplicativeLR": lambda o: lr_scheduler.MultiplicativeLR(o, lambda t: 0.99),
    "StepLR": lambda o: lr_scheduler.StepLR(o, 7),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [5, 12], 0.5),
    "ConstantLR": lambda o: lr_scheduler.ConstantLR(o, 0.5, 8),
    "LinearLR": lambda o: lr_scheduler.LinearLR(o, 1.0, 0.1, UPDATES),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.99),
    "PolynomialLR": lambda o: lr_scheduler.PolynomialLR(o, UPDATES, 2.0),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 150, 1e-3),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(
        o, 15
    ),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, 25),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.5, UPDATES + 1),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o,
        [lr_scheduler.ConstantLR(o, 0.5, 5), lr_scheduler.ExponentialLR(o, 0.99)],
        [10],
    ),
    "ChainedScheduler": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o, 0.5, 5), lr_scheduler.ExponentialLR(o, 0.99)], o
    ),
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=5),
    "SWALR": lambda o: swa_utils.SWALR(o, 0.01, 15),
}

BEGIN_LOW = ("ConstantLR", "SequentialLR", "ChainedScheduler")  # at half, for a while


def test_the_table_has_every_scheduler_of_torch() -> None:
    bases = {"LRScheduler", "_LRScheduler"}
    known = {
        name
        for name, value in vars(lr_scheduler).items()
        if inspect.isclass(value)
        and issubclass(value, lr_scheduler.LRScheduler)
        and name not in bases
    }
    assert known | {"SWALR"} == SCHEDULERS.keys()


def bare(tensor_lr: bool) -> Optimizer:
    """Momentum, so that the cyclic schedules have something to move."""
    params = [Parameter(torch.zeros(1)) for _ in range(2)]
    for param in params:
        param.grad = torch.ones(1)
    groups = [
        {"params": params[:1]},
        {"params": params[1:], "lr": torch.tensor(0.2) if tensor_lr else 0.2},
    ]
    lr = torch.tensor(0.1) if tensor_lr else 0.1
    return torch.optim.Adam(groups, lr=lr, foreach=False)


def curve(optimizer: Optimizer, scheduler: Any, every: int, watched: Optimizer) -> list:
    """LRs and betas that `watched` steps at; the scheduler steps every so often."""
    seen = watch(watched, lambda inner: [lrs(inner), inner.param_groups[0]["betas"]])
    for update in range(1, UPDATES + 1):
        optimizer.step()
        if update % every == 0:
            if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
                scheduler.step(1.0)  # never better, so it fires, in the warmup too
            else:
                scheduler.step()
    return seen


@pytest.mark.parametrize("tensor_lr", [False, True], ids=["float", "tensor"])
@pytest.mark.parametrize("every", [1, 10], ids=["per_update", "per_epoch"])
@pytest.mark.parametrize("attached", ["warmed", "before_wrapping", "after_wrapping"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_effective_lr_is_the_schedules_times_the_factor(
    name: str, attached: str, every: int, tensor_lr: bool
) -> None:
    tolerance = 1e-6 if tensor_lr else 0.0  # the product is then rounded to float32
    optimizer = bare(tensor_lr)
    expected = curve(optimizer, SCHEDULERS[name](optimizer), every, optimizer)

    inner = bare(tensor_lr)
    if attached == "before_wrapping":
        scheduler = SCHEDULERS[name](inner)
    warmed = Warmed(inner, steps=STEPS)
    if attached != "before_wrapping":
        scheduler = SCHEDULERS[name](warmed if attached == "warmed" else inner)
    begins_low = not tensor_lr and name in BEGIN_LOW
    expectation = (
        pytest.warns(UserWarning, match="let only one of them do it")
        if begins_low
        else contextlib.nullcontext()
    )
    with expectation:
        actual = curve(warmed, scheduler, every, inner)

    for update, (one, other) in enumerate(zip(expected, actual, strict=True), start=1):
        factor = min(update / STEPS, 1.0)
        scaled = [lr * factor for lr in one[0]]
        assert other[0] == pytest.approx(scaled, rel=tolerance, abs=0.0)
        assert one[1] == other[1]
    assert lrs(optimizer) == lrs(warmed)
    assert expected != [expected[0]] * UPDATES, "the schedule never moved"


@pytest.mark.parametrize("attached", ["warmed", "wrapped"])
def test_the_order_warning_comes_only_when_it_is_true(attached: str) -> None:
    warmed = Warmed(bare(False), steps=STEPS)
    target = warmed if attached == "warmed" else warmed.wrapped
    scheduler = lr_scheduler.ExponentialLR(target, 0.9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warmed.step()
        scheduler.step()

    warmed = Warmed(bare(False), steps=STEPS)
    target = warmed if attached == "warmed" else warmed.wrapped
    scheduler = lr_scheduler.ExponentialLR(target, 0.9)
    with pytest.warns(UserWarning, match=r"before `optimizer.step\(\)`"):
        scheduler.step()


def test_a_resumed_scheduler_and_warmup_go_on_in_any_order() -> None:
    def run(restore_at: int | None, order: tuple[str, ...]) -> list[Any]:
        warmed = Warmed(bare(False), steps=STEPS)
        scheduler = lr_scheduler.CosineAnnealingLR(warmed, 150)
        used = []
        for update in range(100):
            if update == restore_at:
                saved = {"o": warmed.state_dict(), "s": scheduler.state_dict()}
                optimizer: Any = bare(False)
                for action in order:
                    if action == "wrap":
                        optimizer = Warmed(optimizer, steps=STEPS)
                    elif action == "schedule":
                        scheduler = lr_scheduler.CosineAnnealingLR(optimizer, 150)
                    else:
                        optimizer.load_state_dict(saved["o"])
                scheduler.load_state_dict(saved["s"])
                warmed = optimizer
            warmed.step()
            used.append(warmed.get_last_lr())
            scheduler.step()
        return used

    expected = run(None, ())
    assert run(20, ("wrap", "schedule", "load")) == expected
    assert run(20, ("schedule", "wrap", "load")) == expected
    assert run(20, ("schedule", "load", "wrap")) == expected
