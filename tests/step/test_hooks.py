"""Hooks run exactly once, wherever they are registered, and see the base LR."""

from __future__ import annotations

import copy
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import Parameter

from tests.support.optimizers import ROWS, sgd
from tests.support.reference import lrs
from warmopt import Warmed

SGD = ROWS["sgd-loop"]


def test_hooks_and_profiler_run_once_per_step() -> None:
    """On the wrapper or on the wrapped optimizer; own hooks and global ones."""
    from torch.optim.optimizer import (
        register_optimizer_step_post_hook,
        register_optimizer_step_pre_hook,
    )

    _, optimizer = sgd()
    warmed = Warmed(optimizer, steps=2)
    calls: list[str] = []
    handles = [
        warmed.register_step_pre_hook(lambda *_: calls.append("own pre")),
        optimizer.register_step_post_hook(lambda *_: calls.append("own post")),
        register_optimizer_step_pre_hook(lambda *_: calls.append("global pre")),
        register_optimizer_step_post_hook(lambda *_: calls.append("global post")),
    ]
    try:
        for _ in range(3):
            calls.clear()
            with torch.profiler.profile() as profile:
                warmed.step()
            assert calls == ["global pre", "own pre", "own post", "global post"]
            names = [event.name for event in profile.events()]
            assert [n for n in names if n.startswith("Optimizer.step")] == [
                "Optimizer.step#SGD.step"
            ]
    finally:
        for handle in handles:
            handle.remove()


def test_hooks_from_before_the_wrapping_run_once_and_may_change_the_arguments() -> None:
    class Taking(torch.optim.SGD):
        def step(self, closure: None = None, scale: float = 1.0) -> float:
            return scale * lrs(self)[0]

    optimizer = Taking([Parameter(torch.zeros(1))], lr=1.0)
    calls: list[Any] = []

    def before(inner: torch.optim.Optimizer, args: Any, options: Any) -> Any:
        calls.append((inner, args, options))
        return args, {"scale": 8.0}

    optimizer.register_step_pre_hook(before)
    optimizer.register_step_post_hook(lambda inner, *_: calls.append(inner))
    warmed = Warmed(optimizer, steps=2)
    assert [warmed.step(None, scale=2.0) for _ in range(3)] == [4.0, 8.0, 8.0]
    assert calls == [(optimizer, (optimizer, None), {"scale": 2.0}), optimizer] * 3


def test_step_hooks_see_the_base_lr_and_may_set_it() -> None:
    """Own and global hooks; an example is an optimizer that steps the scheduler."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    param, optimizer = sgd()
    warmed = Warmed(optimizer, steps=4)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 0.5**t)
    base, saved = [], []

    def look(inner: torch.optim.Optimizer, *_: Any) -> None:
        base.append(lrs(inner)[0])

    def after(inner: torch.optim.Optimizer, *_: Any) -> None:
        saved.append(inner.state_dict()["param_groups"][0]["lr"])
        scheduler.step()

    handles = [
        warmed.register_step_pre_hook(look),
        warmed.register_step_post_hook(look),
        register_optimizer_step_post_hook(after),
    ]
    for _ in range(4):
        warmed.step()
    for handle in handles:
        handle.remove()
    assert base[::2] == base[1::2] == saved == [1.0, 0.5, 0.25, 0.125]
    assert param.item() == -(0.25 + 0.25 + 0.1875 + 0.125)
    assert warmed.done
    assert not optimizer._optimizer_step_pre_hooks


def test_hooks_of_a_step_that_calls_its_parents_leave_the_whole_step_scaled() -> None:
    class Child(torch.optim.SGD):
        def step(self, closure: None = None) -> None:
            used.append(lrs(self)[0])
            super().step(closure)
            used.append(lrs(self)[0])

    used: list[float] = []
    param = Parameter(torch.zeros(1))
    param.grad = torch.ones(1)
    warmed = Warmed(Child([param], lr=1.0), steps=4)
    warmed.register_step_post_hook(lambda *_: None)
    warmed.step()
    assert used == [0.25, 0.25]
    assert param.item() == -0.25
    assert warmed.get_last_lr() == [0.25]
    assert warmed.factors == [0.5]


def test_state_dict_hooks_run_once() -> None:
    warmed = Warmed(sgd()[1], steps=2)
    calls = []
    warmed.register_state_dict_post_hook(lambda *_: calls.append("saved"))
    warmed.register_load_state_dict_pre_hook(lambda *_: calls.append("loading"))
    warmed.load_state_dict(state_dict=warmed.state_dict())
    assert calls == ["saved", "loading"]


def decayed(warmed: Warmed) -> None:
    warmed.param_groups[0]["lr"] = warmed.param_groups[0]["lr"] * 0.0


def raised(warmed: Warmed) -> None:
    warmed.param_groups[0]["lr"] = warmed.param_groups[0]["lr"] + 1.0


def joined(warmed: Warmed) -> None:
    if len(warmed.param_groups) == 1:
        warmed.add_param_group({"params": [Parameter(torch.zeros(1))]})


def thawed(warmed: Warmed) -> None:
    for group in warmed.param_groups:
        group["params"][0].requires_grad_(True)


def begun_anew(warmed: Warmed) -> None:
    warmed.rewarm()


@pytest.mark.parametrize("lr", [1.0, torch.tensor(1.0)], ids=["float", "tensor"])
@pytest.mark.parametrize(
    ("after", "base", "frozen", "counts"),
    [
        (decayed, 1.0, False, [1]),
        (raised, 0.0, False, [0]),
        (joined, 1.0, False, [1, 0]),
        (thawed, 1.0, True, [0]),
        (begun_anew, 1.0, False, [0]),
    ],
)
def test_the_update_is_counted_before_what_a_hook_does_after_it(
    after: Callable[[Warmed], None],
    base: float,
    frozen: bool,
    counts: list[int],
    lr: Any,
) -> None:
    param = Parameter(torch.zeros(1), requires_grad=not frozen)
    param.grad = None if frozen else torch.ones(1)
    warmed = Warmed(torch.optim.SGD([param], lr=lr * base), steps=4)
    warmed.register_step_post_hook(lambda *_: after(warmed))
    warmed.step()
    assert [int(g["warmup_updates"]) for g in warmed.param_groups] == counts


def test_a_checkpoint_that_a_hook_takes_is_of_the_update_that_was_done() -> None:
    params, optimizer = sgd()
    warmed, saved = Warmed(optimizer, steps=4), []
    warmed.register_step_post_hook(
        lambda inner, *_: saved.append(copy.deepcopy(inner.state_dict()))
    )
    SGD.step(warmed, params, 1)
    resumed = Warmed(sgd()[1], steps=4)
    resumed.load_state_dict(saved[0])
    assert resumed.factors == warmed.factors == [0.5]


@pytest.mark.parametrize("lr", [1.0, torch.tensor(1.0)], ids=["float", "tensor"])
def test_an_update_counts_though_a_hook_after_it_fails(lr: Any) -> None:
    """The update was made: the parameters have moved."""
    param = Parameter(torch.zeros(1))
    warmed = Warmed(torch.optim.SGD([param], lr=lr), steps=4)

    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    handle = warmed.register_step_post_hook(fail)
    param.grad = torch.ones(1)
    with pytest.raises(ZeroDivisionError):
        warmed.step()
    handle.remove()
    assert param.item() == -0.25
    assert warmed.param_groups[0]["lr"] == 1.0
    assert warmed.factors == [0.5]


def test_where_no_hook_can_run_the_lr_is_scaled_all_the_same() -> None:
    """The user has replaced the `step` of the class, and other code has added hooks."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    def descend(self: torch.optim.Optimizer) -> None:
        for group in self.param_groups:
            for param in group["params"]:
                param.data -= group["lr"]

    param = Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([param], lr=1.0)
    optimizer.step = types.MethodType(descend, optimizer)  # type: ignore[method-assign]
    warmed = Warmed(optimizer, steps=4)
    handle = register_optimizer_step_post_hook(lambda *_: None)
    try:
        warmed.step()
        warmed.step()
    finally:
        handle.remove()
    assert param.item() == -0.75
    assert warmed.factors == [0.75]
