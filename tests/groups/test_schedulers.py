"""Every torch LR scheduler multiplies with the warmup, whatever it is attached to."""

from __future__ import annotations

import contextlib
import inspect
import itertools
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import Parameter
from torch.optim import Optimizer, lr_scheduler, swa_utils

from tests.support.reference import lrs, watch
from warmopt import Warmed

pytestmark = pytest.mark.usefixtures("with_and_without_the_plain_step")

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

# At half, for a while; and those that rise by themselves.
BEGIN_LOW = ("ConstantLR", "SequentialLR", "ChainedScheduler", "OneCycleLR", "CyclicLR")


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
    """An optimizer with momentum, so that the cyclic schedules can move it."""
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
    """LRs and betas at the steps of `watched`; the scheduler steps less often."""
    seen = watch(watched, lambda inner: [lrs(inner), inner.param_groups[0]["betas"]])
    for update in range(1, UPDATES + 1):
        optimizer.step()
        if update % every == 0:
            if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
                scheduler.step(1.0)  # never better, so it acts, in the warmup too
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
    tolerance = 1e-6 if tensor_lr else 0.0  # the product is rounded to float32
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


@pytest.mark.parametrize(
    "order", list(itertools.permutations(["wrap", "schedule", "load"]))
)
def test_a_resumed_scheduler_and_warmup_go_on_in_any_order(
    order: tuple[str, ...],
) -> None:
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

    assert run(20, order) == run(None, ())


# If a group is added in mid-run, the other torch schedulers raise an error or leave the
# new group at its own LR, bare or wrapped.
TAKE_LATE_GROUPS = (
    *("StepLR", "MultiStepLR", "LinearLR", "ExponentialLR", "PolynomialLR"),
    *("CosineAnnealingLR", "SequentialLR", "ChainedScheduler", "ReduceLROnPlateau"),
)
TOOK_NO_LATE_GROUPS = ("SequentialLR", "ReduceLROnPlateau")  # in older releases


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("attached", ["warmed", "wrapped"])
def test_a_late_group_is_scheduled_as_without_warmup_and_warms_by_itself(
    name: str, attached: str
) -> None:
    joins = 11

    def used(optimizer: Optimizer, inner: Optimizer, target: Optimizer) -> list[Any]:
        scheduler = SCHEDULERS[name](target)
        seen = watch(inner, lrs)
        for update in range(1, joins + STEPS + 20):
            if update == joins + 1:
                late = Parameter(torch.zeros(1))
                late.grad = torch.ones(1)
                optimizer.add_param_group({"params": [late], "lr": 0.3})
            optimizer.step()
            plateau = isinstance(scheduler, lr_scheduler.ReduceLROnPlateau)
            try:
                scheduler.step(*([1.0] if plateau else []))
            except Exception as error:
                return [*seen, [type(error), str(error)]]
        return seen

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The first update runs at LR")
        inner = bare(False)
        expected = used(inner, inner, inner)
        inner = bare(False)
        warmed = Warmed(inner, steps=STEPS)
        actual = used(warmed, inner, warmed if attached == "warmed" else inner)
    assert len(actual) == len(expected)
    for update, (one, other) in enumerate(zip(expected, actual, strict=True), start=1):
        if isinstance(one[0], type):
            assert one == other
            continue
        since = (update, update, update - joins)
        factors = [min(n / STEPS, 1.0) for n in since]
        assert other == [lr * f for lr, f in zip(one, factors, strict=False)]
    moved = not isinstance(expected[-1][0], type) and expected[-1][2] != 0.3
    if name not in TOOK_NO_LATE_GROUPS or moved:
        assert moved == (name in TAKE_LATE_GROUPS)


def test_a_momentum_that_is_scheduled_and_warms_up_is_the_product() -> None:
    optimizer = bare(False)
    expected = curve(optimizer, SCHEDULERS["OneCycleLR"](optimizer), 1, optimizer)
    inner = bare(False)
    warmed = Warmed(inner, steps=STEPS, momentum_start=0.5)
    with pytest.warns(UserWarning, match="let only one of them do it"):
        actual = curve(warmed, SCHEDULERS["OneCycleLR"](warmed), 1, inner)
    for update, ((_, one), (_, other)) in enumerate(
        zip(expected, actual, strict=True), start=1
    ):
        factor = min(0.5 + 0.5 * update / STEPS, 1.0)
        assert other == (pytest.approx(one[0] * factor, rel=1e-15), one[1])
    assert optimizer.param_groups[0]["betas"] == warmed.param_groups[0]["betas"]


@pytest.mark.parametrize("steps", [0, 1, 5])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_schedule_that_waits_for_the_warmup_begins_right_after_it(
    name: str, steps: int
) -> None:
    """The recipe in the README: its first LR is that of the first update after the
    warmup. Also if the run is saved and resumed before its first update.
    """
    optimizer = bare(False)
    expected = curve(optimizer, SCHEDULERS[name](optimizer), 1, optimizer)

    def run(cut: int | None) -> list[list[float]]:
        used: list[list[float]] = []
        optimizer = Warmed(bare(False), steps=steps)
        scheduler = SCHEDULERS[name](optimizer)
        for update in range(20):
            if update == cut:
                states = optimizer.state_dict(), scheduler.state_dict()
                optimizer = Warmed(bare(False), steps=steps)
                scheduler = SCHEDULERS[name](optimizer)
                optimizer.load_state_dict(states[0])
                scheduler.load_state_dict(states[1])
            warmed_up = optimizer.done
            optimizer.step()
            used.append(optimizer.get_last_lr())
            if warmed_up:
                plateau = isinstance(scheduler, lr_scheduler.ReduceLROnPlateau)
                scheduler.step(*([1.0] if plateau else []))
        return used

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The first update runs at LR")
        whole = run(None)
        assert whole[steps:] == [lr for lr, _ in expected[: 20 - steps]]
        for cut in range(1, 20, 1 if steps else 5):
            assert run(cut) == whole
