"""`Warmed.of`: a class that builds an optimizer and wraps it."""

from __future__ import annotations

import copy
import inspect
import pickle
import warnings
from functools import partial
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.nn import Parameter
from torch.optim import SGD, AdamW, Optimizer

from tests.support.reference import effective, lrs, watch
from warmopt import Warmed


class Mine(Warmed):
    """A subclass of a user."""


def build(params: Any, momentum: float = 0.0) -> Optimizer:
    return SGD(params, lr=1.0, momentum=momentum)


MADE = {
    "class": lambda: Warmed.of(SGD, 4)([Parameter(torch.zeros(1))], lr=1.0),
    "function": lambda: Warmed.of(build, steps=4)([Parameter(torch.zeros(1))], 0.5),
    "partial": lambda: Warmed.of(partial(SGD, lr=1.0), 4)([Parameter(torch.zeros(1))]),
    "subclass": lambda: Mine.of(build, steps=4)([Parameter(torch.zeros(1))]),
}


@pytest.mark.parametrize("made", MADE.values(), ids=MADE)
def test_what_it_builds_is_wrapped_and_is_saved_as_any_other(made: Any) -> None:
    warmed = made()
    assert isinstance(warmed, Mine) == (made is MADE["subclass"])
    assert type(warmed).__name__ == "SGD"
    assert effective(warmed, 2) == [0.25, 0.5]
    for again in (copy.deepcopy(warmed), pickle.loads(pickle.dumps(warmed))):
        assert again.factors == [0.75]


def test_it_is_an_optimizer_class_with_the_name_and_signature_of_the_wrapped() -> None:
    made: Any = Warmed.of(AdamW, steps=4)
    assert issubclass(made, Warmed)
    assert made.__name__ == "AdamW"
    assert inspect.signature(made) == inspect.signature(AdamW)
    assert repr(made) == "Warmed.of(<class 'torch.optim.adamw.AdamW'>, steps=4)"


def test_it_can_be_pickled_and_copied() -> None:
    made: Any = Warmed.of(build, steps=4, mode="cosine")
    for again in (pickle.loads(pickle.dumps(made)), copy.deepcopy(made)):
        assert repr(again) == repr(made)
        assert issubclass(again, Warmed)
        warmed = again([Parameter(torch.zeros(1))], momentum=0.5)
        assert warmed.param_groups[0]["momentum"] == 0.5
        assert warmed.param_groups[0]["warmup_mode"] == "cosine"


def test_a_mistake_is_told_before_anything_is_built() -> None:
    wrong: Any = Warmed.of
    with pytest.raises(TypeError, match="epochs is not an argument of Warmed"):
        wrong(SGD, epochs=4)
    with pytest.raises(TypeError, match="unexpected keyword argument 'xyz'"):
        wrong(SGD, steps=4, xyz=1)
    with pytest.raises(TypeError) as refused:
        wrong(build([Parameter(torch.zeros(1))]), steps=4)
    assert str(refused.value) == (
        "optimizer must be a class, or a function that returns an optimizer, got an "
        "object of SGD. Wrap that object by Warmed(optimizer, steps=1000)."
    )


def import_distributed() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it compiles in a way that is deprecated
        import torch.distributed.optim
    return torch.distributed.optim


def test_optimizers_in_the_backward_pass_each_warm() -> None:
    apply_in_backward = import_distributed()._apply_optimizer_in_backward
    params = [Parameter(torch.zeros(1)) for _ in range(2)]
    apply_in_backward(Warmed.of(SGD, steps=4), params, {"lr": 1.0})
    for _ in range(2):
        torch.stack([*params]).sum().backward()
    assert [param.item() for param in params] == [-0.75, -0.75]


def test_the_local_optimizer_of_zero_warms_and_its_state_is_loaded() -> None:
    sharded = import_distributed().ZeroRedundancyOptimizer
    dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())
    try:

        def begin() -> tuple[Any, list[float]]:
            params = [Parameter(torch.ones(2))]
            params[0].grad = torch.ones(2)
            made: Any = Warmed.of(SGD, steps=4)
            zero = sharded(params, made, lr=1.0)
            return zero, watch(zero.optim.wrapped, lambda inner: lrs(inner)[0])

        zero, used = begin()
        zero.step()
        zero.param_groups[0]["lr"] = 2.0  # as a scheduler does
        zero.step()
        zero.consolidate_state_dict()
        again, used_again = begin()
        again.load_state_dict(zero.state_dict())
        again.step()
        assert (used, used_again) == ([0.25, 1.0], [1.5])
    finally:
        dist.destroy_process_group()
