"""Under `torch.inference_mode`: what is made there works outside, as in bare torch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import Parameter

from tests.support.features import needs_differentiable_lr
from tests.support.optimizers import assert_same, snapshot
from warmopt import Adaptive, Trace, Warmed
from warmopt.criteria import Drift

STEPS = 6


def group(**options: Any) -> dict[str, Any]:
    return {"params": [Parameter(torch.ones(20))], **options}


def wrap(optimizer: torch.optim.Optimizer, mode: Any) -> Warmed:
    watch = {} if mode != "watched" else {"watch": [Drift()], "trace": Trace()}
    return Warmed(optimizer, STEPS, "linear" if mode == "watched" else mode, **watch)


def train(warmed: Warmed, updates: int) -> None:
    for update in range(updates):
        generator = torch.Generator().manual_seed(update)
        for each in warmed.param_groups:
            for param in each["params"]:
                param.grad = torch.randn(param.shape, generator=generator)
        warmed.step()


# What they need is made outside: parameters and states that are made there cannot be
# changed outside, bare or wrapped.


def add_a_group(warmed: Warmed) -> Callable[[], None]:
    new = group()
    return lambda: warmed.add_param_group(new)


def add_a_group_to_the_wrapped(warmed: Warmed) -> Callable[[], None]:
    new = group()
    return lambda: warmed.wrapped.add_param_group(new)


def load(warmed: Warmed) -> Callable[[], None]:
    saved = copy.deepcopy(warmed.state_dict())
    return lambda: warmed.load_state_dict(saved)


def load_through_the_wrapped(warmed: Warmed) -> Callable[[], None]:
    saved = copy.deepcopy(warmed.state_dict())
    return lambda: warmed.wrapped.load_state_dict(saved)


def load_and_rewarm(warmed: Warmed) -> Callable[[], None]:
    saved = copy.deepcopy(warmed.state_dict())

    def run() -> None:
        warmed.load_state_dict(saved)
        warmed.rewarm(4)

    return run


def rewarm(warmed: Warmed) -> Callable[[], None]:
    return lambda: warmed.rewarm(4)


def look(warmed: Warmed) -> Callable[[], None]:
    def run() -> None:
        assert repr(warmed)
        assert warmed.factors
        assert warmed.get_last_lr()
        assert not warmed.done

    return run


HAPPENS = [add_a_group, add_a_group_to_the_wrapped, load, load_through_the_wrapped]
HAPPENS += [rewarm, load_and_rewarm, look]


@pytest.mark.parametrize("happens", HAPPENS)
@pytest.mark.parametrize("mode", ["linear", Adaptive(every=2, window=2), "watched"])
@pytest.mark.parametrize("tensor_lr", [False, True])
def test_what_happens_there_is_as_if_it_had_happened_outside(
    happens: Callable[[Warmed], Any], mode: Any, tensor_lr: bool
) -> None:
    runs = []
    for inside in (False, True):
        torch.manual_seed(0)
        lr: Any = torch.tensor(0.1) if tensor_lr else 0.1
        warmed = wrap(torch.optim.AdamW([group()], lr=lr, foreach=False), mode)
        train(warmed, 3)
        happen = happens(warmed)
        with torch.inference_mode(inside):
            happen()
        train(warmed, 2 * STEPS)
        assert warmed.done
        params = [param for each in warmed.param_groups for param in each["params"]]
        runs.append([snapshot(warmed, params), warmed.factors])
    assert_same(*runs)


@pytest.mark.parametrize("tensor_lr", [False, True])
@pytest.mark.parametrize("mode", ["linear", "watched"])
def test_a_wrapper_that_is_made_there_works_outside(mode: str, tensor_lr: bool) -> None:
    lr: Any = torch.tensor(0.1) if tensor_lr else 0.1
    optimizer = torch.optim.AdamW([group()], lr=lr)
    with torch.inference_mode():
        warmed = wrap(optimizer, mode)
    train(warmed, STEPS)
    assert warmed.done


@needs_differentiable_lr
def test_a_differentiable_lr_keeps_its_gradient_if_it_was_wrapped_there() -> None:
    lr = torch.tensor(0.5, requires_grad=True)
    weight = Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight.clone()], lr=lr, differentiable=True)
    with torch.inference_mode():
        warmed = Warmed(optimizer, steps=4)
    (moved,) = warmed.param_groups[0]["params"]
    moved.grad = torch.ones(1)
    warmed.step()
    moved.sum().backward()
    assert lr.grad == -0.25
