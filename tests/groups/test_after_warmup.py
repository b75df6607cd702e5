"""`AfterWarmup`: a scheduler that waits by itself, as the loop that asks `done`."""

from __future__ import annotations

import copy
import itertools
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

from tests.groups.test_schedulers import SCHEDULERS, bare
from tests.support.optimizers import sgd
from warmopt import AfterWarmup, Warmed

UPDATES = 24

Event = Callable[[Warmed], None]


def run(
    name: str,
    steps: int,
    by_loop: bool,
    every: int = 1,
    cut: int | None = None,
    events: dict[int, Event] | None = None,
) -> list[list[float]]:
    """The LRs of each update; the loop that asks `done` itself is the oracle."""

    def build() -> tuple[Warmed, Any]:
        optimizer = Warmed(bare(False), steps=steps)
        scheduler = SCHEDULERS[name](optimizer)
        return optimizer, scheduler if by_loop else AfterWarmup(scheduler)

    used: list[list[float]] = []
    optimizer, scheduler = build()
    is_plateau = name == "ReduceLROnPlateau"
    warmed_up = optimizer.done
    for update in range(UPDATES):
        if update == cut:
            states = optimizer.state_dict(), scheduler.state_dict()
            optimizer, scheduler = build()
            optimizer.load_state_dict(states[0])
            scheduler.load_state_dict(states[1])
        (events or {}).get(update, lambda _: None)(optimizer)
        if update % every == 0:
            warmed_up = optimizer.done  # before the update, or the epoch
        optimizer.step()
        used.append(optimizer.get_last_lr())
        if (update + 1) % every == 0 and (warmed_up or not by_loop):
            scheduler.step(*([1.0] if is_plateau else []))
    return used


@pytest.fixture(autouse=True)
def low_beginnings_are_known() -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The first update runs at LR")
        yield


@pytest.mark.parametrize("every", [1, 4], ids=["per_update", "per_epoch"])
@pytest.mark.parametrize("steps", [0, 1, 5])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_it_waits_as_the_loop_does(name: str, steps: int, every: int) -> None:
    expected = run(name, steps, by_loop=True, every=every)
    assert run(name, steps, by_loop=False, every=every) == expected
    without = run(name, 0, by_loop=True, every=every)
    assert expected[steps:] == without[: UPDATES - steps] or every > 1


@pytest.mark.parametrize("cut", [0, 3, 4, 5, 6, 9])
def test_a_resumed_run_goes_on_as_the_whole_one(cut: int) -> None:
    """Also in the update that ends the warmup, and in the one after it."""
    for name in ("ExponentialLR", "ReduceLROnPlateau", "OneCycleLR"):
        whole = run(name, 5, by_loop=False)
        assert run(name, 5, by_loop=False, cut=cut) == whole


@pytest.mark.parametrize("again", [2, 6])
def test_it_waits_for_a_later_warmup_too(again: int) -> None:
    events: dict[int, Event] = {12: lambda warmed: warmed.rewarm(steps=again)}
    used = run("ExponentialLR", 5, by_loop=False, events=events)
    assert used == run("ExponentialLR", 5, by_loop=True, events=events)
    assert used[11] > used[12] < used[12 + again] > used[13 + again]


def test_a_warmup_that_is_ended_by_hand_is_seen_after_the_next_update() -> None:
    events: dict[int, Event] = {3: lambda warmed: warmed.rewarm(steps=0)}
    used = run("ExponentialLR", 9, by_loop=False, events=events)
    assert [lr for lr, _ in used[3:6]] == [0.1, 0.1, 0.1 * 0.99]


def test_it_waits_for_the_end_of_an_adaptive_warmup() -> None:
    optimizer = Warmed(bare(False), steps=100, mode="adaptive")
    scheduler = AfterWarmup(lr_scheduler.ExponentialLR(optimizer, 0.5))
    waited = 0
    while optimizer.param_groups[0]["lr"] == 0.1:
        optimizer.step()
        scheduler.step()
        waited += 1
        assert optimizer.done or scheduler.last_epoch == 0
    assert 1 < waited < 100
    assert scheduler.last_epoch == 1


def test_all_else_is_the_schedulers_own() -> None:
    optimizer = Warmed(bare(False), steps=2)
    cosine = lr_scheduler.CosineAnnealingLR(optimizer, 9)
    waiting = AfterWarmup(cosine)
    assert isinstance(waiting, lr_scheduler.LRScheduler)
    assert waiting.T_max == 9
    assert waiting.optimizer is optimizer
    assert waiting.get_last_lr() == cosine.get_last_lr()
    with pytest.raises(AttributeError, match="no attribute 'xyz'"):
        _ = waiting.xyz
    for again in (copy.deepcopy(waiting), pickle.loads(pickle.dumps(waiting))):
        assert again.state_dict() == waiting.state_dict()


def test_each_loads_the_state_of_the_other() -> None:
    optimizer = Warmed(bare(False), steps=0)
    bare_one, other = (lr_scheduler.StepLR(optimizer, 7) for _ in range(2))
    optimizer.step()
    bare_one.step()
    waiting = AfterWarmup(other)
    waiting.load_state_dict(bare_one.state_dict())
    assert waiting.last_epoch == 1
    waiting.step()
    bare_one.load_state_dict(waiting.state_dict())
    assert bare_one.last_epoch == 2


def test_an_optimizer_that_is_wrapped_on_is_found() -> None:
    from accelerate import Accelerator

    optimizer = Warmed(sgd()[1], steps=2)
    prepared = Accelerator(cpu=True).prepare(optimizer)
    scheduler = AfterWarmup(lr_scheduler.StepLR(prepared, 7))
    for _ in range(3):
        prepared.step()
        scheduler.step()
    assert scheduler.last_epoch == 1


@pytest.mark.parametrize("length", [None, 3])
@pytest.mark.parametrize("tensor_lr", [False, True])
@pytest.mark.parametrize("cut", [None, 4, 8, 9])
def test_a_warmup_at_each_restart(
    length: int | None, tensor_lr: bool, cut: int | None
) -> None:
    def build() -> tuple[Warmed, Any]:
        optimizer = Warmed(bare(tensor_lr), steps=2)
        cosine = lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=4, T_mult=2)
        return optimizer, cosine

    by_loop, cosine = build()
    right, was_done = [], False
    for _ in range(UPDATES):
        was_done = by_loop.done
        by_loop.step()
        right.append(by_loop.get_last_lr())
        if was_done:
            cosine.step()
            if cosine.T_cur == 0:
                by_loop.rewarm(length)
    rewarm = True if length is None else length
    used = []
    optimizer, scheduler = build()
    scheduler = AfterWarmup(scheduler, rewarm=rewarm)
    for update in range(UPDATES):
        if update == cut:
            states = optimizer.state_dict(), scheduler.state_dict()
            optimizer, scheduler = build()
            scheduler = AfterWarmup(scheduler, rewarm=rewarm)
            optimizer.load_state_dict(states[0])
            scheduler.load_state_dict(states[1])
        optimizer.step()
        used.append(optimizer.get_last_lr())
        scheduler.step()
    assert used == right
    assert any(a[0] > 2 * b[0] > 0 for b, a in itertools.pairwise(right[8:]))


def test_the_length_of_the_warmups_at_restarts_is_checked_at_once() -> None:
    optimizer = Warmed(sgd()[1], steps=2)
    cosine = lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=4)
    wrong: Any = "long"
    with pytest.raises(TypeError, match=r"^rewarm must be an int of updates in"):
        AfterWarmup(cosine, rewarm=wrong)
    with pytest.raises(ValueError, match=r"^rewarm must be an int of updates in"):
        AfterWarmup(cosine, rewarm=-1)


def test_the_wrong_object_is_told() -> None:
    wrong: Any = AfterWarmup
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    with pytest.raises(TypeError) as refused:
        wrong(Warmed(optimizer, steps=4))
    assert str(refused.value) == (
        "scheduler must be a scheduler of torch, got SGD. Build it first: "
        "AfterWarmup(CosineAnnealingLR(optimizer, 1000))."
    )
    with pytest.raises(TypeError) as refused:
        wrong(lr_scheduler.StepLR(optimizer, 7))
    assert str(refused.value) == (
        "scheduler must be one for a Warmed, got one for SGD. Build it with the "
        "Warmed: StepLR(warmed, ...)."
    )
