"""Copies, pickles and handles of a wrapper, and what is left when it is gone."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from typing import Any

import pytest
import torch
from torch.nn import Parameter

from tests.support.optimizers import sgd
from tests.support.reference import effective
from warmopt import Warmed
from warmopt.shapes import cosine


def _squared(update: float, steps: float) -> float:
    return (update / steps) ** 2


@pytest.mark.parametrize(
    "clone", [copy.deepcopy, lambda w: pickle.loads(pickle.dumps(w))]
)
@pytest.mark.parametrize("mode", ["linear", cosine, _squared])
def test_a_copy_goes_on_alone_from_the_same_point(clone, mode) -> None:
    param, optimizer = sgd()
    warmed = Warmed(optimizer, steps=4, mode=mode)
    torch.optim.lr_scheduler.ExponentialLR(warmed, 0.5)
    torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)  # it patches optimizer.step
    warmed.step()
    other = clone(warmed)
    assert other.factors == warmed.factors
    assert other.wrapped is not optimizer
    other_param = other.param_groups[0]["params"][0]
    other_param.grad = torch.ones(1)
    before = param.clone()
    other.step()
    assert torch.equal(param, before)
    assert not torch.equal(other_param, before)
    assert warmed.param_groups[0]["warmup_updates"] == 1
    assert other.param_groups[0]["warmup_updates"] == 2
    other.load_state_dict(warmed.state_dict())
    assert other.param_groups[0]["warmup_updates"] == 1


class KeepsAll(torch.optim.SGD):
    def __getstate__(self) -> dict[str, Any]:
        return dict(vars(self))


def test_a_pickled_or_copied_wrapped_optimizer_is_rid_of_our_hooks() -> None:
    """Also for a class that keeps all its attributes."""
    warmed = Warmed(KeepsAll([Parameter(torch.zeros(1))], lr=1.0), steps=4)
    warmed.step()
    other = pickle.loads(pickle.dumps(warmed.wrapped))
    copied = copy.deepcopy(warmed)
    copied.step()
    with pytest.warns(UserWarning, match="without warmup"):
        copied.load_state_dict(sgd()[1].state_dict())
    assert copied.factors == [0.75]
    other.load_state_dict(sgd()[1].state_dict())
    assert "warmup_updates" not in other.param_groups[0]


def test_a_framework_handle_that_copies_our_attributes_stays_in_step() -> None:
    """Lightning and Fabric make a subclass that copies __dict__ and forwards `step`."""
    _, optimizer = sgd()
    warmed = Warmed(optimizer, steps=2)
    handle = object.__new__(type("Handle", (Warmed,), {}))
    vars(handle).update(vars(warmed))
    while not warmed.done:
        warmed.step()
    handle.rewarm(steps=4)
    assert effective(warmed, 1) == [0.25]
    assert handle.get_last_lr() == [0.25]


def test_an_abandoned_wrapper_does_not_act() -> None:
    """Its hooks refer to it weakly, and no cycle keeps it alive."""
    _, optimizer = sgd()
    first = Warmed(optimizer, steps=4, mode="cosine")
    gone = weakref.ref(first)
    del first
    assert gone() is None
    for key in ("warmup_updates", "warmup_done", "warmup_mode", "warmup_length"):
        del optimizer.param_groups[0][key]
    second = Warmed(optimizer, steps=4)
    optimizer.load_state_dict(second.state_dict())
    assert second.factors == [0.25]


def test_the_wrapper_is_freed_with_its_last_reference() -> None:
    gc.collect()
    warmed = Warmed(sgd()[1], steps=2)
    warmed.step()
    gone = weakref.ref(warmed.wrapped)
    del warmed
    assert gone() is None
