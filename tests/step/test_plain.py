"""The plain step: what it takes, what it hands over, and that nothing depends on it."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import Parameter

from tests.support.optimizers import assert_same, snapshot
from tests.support.reference import watch
from warmopt import Adaptive, Warmed
from warmopt._update import plain, planner

# A group of each kind of plain step: one, and three with LRs of their own; and, written
# as a negative number, three that share one LR.
GROUPS = pytest.mark.parametrize("groups", [1, 3, -3])


@pytest.fixture
def updates(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Grows by one for each step that an `Update` runs."""
    seen: list[int] = []

    class Counted(planner.Update):
        def run(self, *args: Any) -> Any:
            seen.append(1)
            return super().run(*args)

    monkeypatch.setattr(planner, "Update", Counted)
    return seen


def build(groups: int, steps: int = 40, **options: Any) -> tuple[Warmed, list[Any]]:
    params = [Parameter(torch.ones(2)) for _ in range(abs(groups))]
    for param in params:
        param.grad = torch.ones(2)
    each: list[dict[str, Any]] = [{"params": [param]} for param in params]
    for index, group in enumerate(each if groups > 0 else ()):
        group["lr"] = 1.0 + index
    return Warmed(torch.optim.SGD(each, lr=1.0, momentum=0.9), steps, **options), params


@GROUPS
def test_only_the_first_updates_and_the_last_ones_are_not_plain(
    groups: int, updates: list[int]
) -> None:
    warmed, _ = build(groups)
    for _ in range(60):
        warmed.step()
    assert warmed.done
    assert len(updates) == 2 + 2  # the last notices that there is nothing left to do


def test_between_readings_steps_are_plain(updates: list[int]) -> None:
    params = [Parameter(torch.ones(64)) for _ in range(3)]
    adam = torch.optim.Adam([{"params": [param]} for param in params])
    mode = Adaptive(criterion=lambda reading: False, every=5)
    warmed = Warmed(adam, steps=200, mode=mode)
    for _ in range(101):
        for param in params:
            param.grad = torch.randn(64)
        warmed.step()
    assert len(updates) == 2 + 20  # the first, and those after which is a reading


def with_hook(warmed: Warmed) -> None:
    handle = warmed.register_step_pre_hook(lambda *_: None)
    warmed.step()
    handle.remove()


def with_closure(warmed: Warmed) -> None:
    warmed.step(lambda: 0.0)


def at_lr_0(warmed: Warmed) -> None:
    group = warmed.param_groups[-1]
    base, group["lr"] = group["lr"], 0.0
    warmed.step()
    group["lr"] = base


def at_lr_0_in_the_middle(warmed: Warmed) -> None:
    group = warmed.param_groups[len(warmed.param_groups) // 2]
    base, group["lr"] = group["lr"], 0.0
    warmed.step()
    group["lr"] = base


def at_another_lr_in_the_middle(warmed: Warmed) -> None:
    warmed.param_groups[len(warmed.param_groups) // 2]["lr"] = 0.7
    warmed.step()


def at_another_count_in_the_middle(warmed: Warmed) -> None:
    warmed.param_groups[len(warmed.param_groups) // 2]["warmup_updates"] += 1
    warmed.step()


def at_another_count(warmed: Warmed) -> None:
    warmed.param_groups[-1]["warmup_updates"] += 1
    warmed.step()


def frozen(warmed: Warmed) -> None:
    (param,) = warmed.param_groups[-1]["params"]
    for _ in range(7):  # the update after 8 others is the one that asks
        warmed.step()
    param.requires_grad_(False)
    warmed.step()
    param.requires_grad_(True)


def with_a_new_group(warmed: Warmed) -> None:
    new = Parameter(torch.ones(2))
    new.grad = torch.ones(2)
    warmed.wrapped.add_param_group({"params": [new], "lr": 5.0})
    warmed.step()


def with_other_groups(warmed: Warmed) -> None:
    """A framework puts equal groups with other parameters in their place."""
    for index, group in enumerate(warmed.param_groups):
        other = Parameter(torch.full((2,), 3.0))
        other.grad = torch.ones(2)
        warmed.param_groups[index] = {**group, "params": [other]}
    warmed.step()


def with_equal_groups(warmed: Warmed) -> None:
    warmed.param_groups[:] = [dict(group) for group in warmed.param_groups]
    warmed.step()


def with_one_equal_group(warmed: Warmed) -> None:
    warmed.param_groups[-1] = dict(warmed.param_groups[-1])
    warmed.step()


def at_numpy_lrs(warmed: Warmed) -> None:
    """Of which one is 0: then nothing that was scaled may stay so."""
    for group in warmed.param_groups:
        group["lr"] = np.float32(0.1)
    warmed.step()
    warmed.param_groups[-1]["lr"] = np.float32(0.0)
    warmed.step()
    warmed.param_groups[-1]["lr"] = 0.3


def failing(warmed: Warmed) -> None:
    del warmed.param_groups[-1]["nesterov"]
    with pytest.raises(KeyError):
        warmed.step()
    warmed.param_groups[-1]["nesterov"] = False


def writing_lrs(warmed: Warmed) -> None:
    """As optimizers do that set their own LR: it is in effective units."""
    step = warmed.wrapped.step

    def write() -> None:
        step()
        for group in warmed.param_groups:
            group["lr"] = group["lr"] * 0.5

    write.hooked = True
    warmed.wrapped.step = write
    warmed.step()
    del warmed.wrapped.step


UNUSUAL = [with_hook, with_closure, at_lr_0, at_another_count, frozen, failing]
UNUSUAL += [with_a_new_group, with_other_groups, with_equal_groups, writing_lrs]
UNUSUAL += [with_one_equal_group, at_numpy_lrs, at_lr_0_in_the_middle]
UNUSUAL += [at_another_lr_in_the_middle, at_another_count_in_the_middle]


@GROUPS
@pytest.mark.parametrize("happens", UNUSUAL)
def test_whatever_happens_it_is_as_if_there_were_no_plain_step(
    groups: int, happens: Callable[[Warmed], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []
    for is_used in (True, False):
        monkeypatch.setattr(plain, "is_used", is_used)
        warmed, params = build(groups)
        seen = []
        for update in range(30):
            if update == 1:
                happens(warmed)
            warmed.step()
            live = [group["params"][0] for group in warmed.param_groups]
            lrs = [group["lr"] for group in warmed.param_groups]
            seen.append([warmed.get_last_lr(), warmed.factors, lrs])
        runs.append([seen, list(snapshot(warmed, [*params, *live]))])
    assert_same(runs[1], runs[0])


@GROUPS
def test_a_wrapper_is_freed_with_its_last_reference(groups: int) -> None:
    """And so are its parameters: nothing waits for the garbage collector."""
    gc.disable()
    try:
        warmed, params = build(groups)
        for _ in range(5):
            warmed.step()
        warmed.step(lambda: 0.0)
        kept = [weakref.ref(warmed), *map(weakref.ref, params)]
        del warmed, params
        assert [each() for each in kept] == [None] * len(kept)
    finally:
        gc.enable()


@GROUPS
def test_the_wrapped_optimizer_may_be_exchanged(groups: int) -> None:
    warmed, params = build(groups, steps=4)
    warmed.step()
    other = [Parameter(torch.zeros(2)) for _ in params]
    for param in other:
        param.grad = torch.ones(2)
    warmed.wrapped = torch.optim.SGD([{"params": [p]} for p in other], lr=1.0)
    before = [param.clone() for param in params]
    warmed.step()
    assert_same(before, params)
    assert [param.tolist() for param in other] == [[-1 / 4] * 2] * abs(groups)


def test_the_momentum_warms_at_every_update_from_0_too() -> None:
    warmed, _ = build(1, steps=10, momentum_start=0.0)
    seen = watch(warmed.wrapped, lambda inner: inner.param_groups[0]["momentum"])
    for _ in range(10):
        warmed.step()
    assert seen == pytest.approx([0.09 * update for update in range(1, 11)])


@GROUPS
def test_the_last_lrs_are_those_of_the_groups_as_they_are(groups: int) -> None:
    warmed, _ = build(groups)
    warmed.step()
    warmed.step()
    warmed.param_groups[-1] = dict(warmed.param_groups[-1])
    warmed.step()
    assert warmed.get_last_lr() == [
        3 / 40 * (1.0 + i * (groups > 0)) for i in range(abs(groups))
    ]
