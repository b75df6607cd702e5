"""Frameworks step some of the groups, and put others in their place, at any time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import Parameter

from tests.support.reference import lrs, watch
from warmopt import Warmed

pytestmark = pytest.mark.usefixtures("with_and_without_the_plain_step")


def group(**options: Any) -> dict[str, Any]:
    param = Parameter(torch.zeros(2))
    param.grad = torch.ones(2)
    return {"params": [param], **options}


@pytest.mark.parametrize("tensor_lr", [False, True])
def test_groups_that_are_stepped_one_at_a_time_warm_each_at_its_own_pace(
    tensor_lr: bool,
) -> None:
    """As ZeRO 1 and 2 of DeepSpeed do: a list of one group takes the place of all."""
    lr = torch.tensor(1.0) if tensor_lr else 1.0
    groups = [group(warmup_steps=0), group(), group(warmup_steps=2)]
    optimizer = torch.optim.SGD(groups, lr=lr)
    warmed = Warmed(optimizer, steps=4)
    used = watch(optimizer, lambda inner: float(lrs(inner)[0]))
    for _ in range(5):
        whole = optimizer.param_groups
        for one in whole:
            optimizer.param_groups = [one]
            warmed.step()
            assert float(warmed.get_last_lr()[0]) == used[-1]
        optimizer.param_groups = whole
    assert used[0::3] == [1.0] * 5
    assert used[1::3] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert used[2::3] == [0.5, 1.0, 1.0, 1.0, 1.0]
    assert warmed.done


def replaced(optimizer: torch.optim.Optimizer) -> None:
    optimizer.param_groups[1] = {**optimizer.defaults, **group()}


def popped_and_added(optimizer: torch.optim.Optimizer) -> None:
    optimizer.param_groups.pop()
    optimizer.add_param_group(group())


def in_a_new_list(optimizer: torch.optim.Optimizer) -> None:
    new = {**optimizer.defaults, **group()}
    optimizer.param_groups = [optimizer.param_groups[0], new]


@pytest.mark.parametrize("replace", [replaced, popped_and_added, in_a_new_list])
@pytest.mark.parametrize("done", [True, False])
def test_a_group_that_takes_the_place_of_another_one_warms_up(
    replace: Any, done: bool
) -> None:
    optimizer = torch.optim.SGD([group(), group()], lr=1.0)
    warmed = Warmed(optimizer, steps=4)
    for _ in range(6 if done else 2):
        warmed.step()
    used = watch(optimizer, lrs)
    replace(optimizer)
    assert not warmed.done
    assert warmed.factors[1] == 0.25
    for _ in range(5):
        warmed.step()
    assert [lr for _, lr in used] == [0.25, 0.5, 0.75, 1.0, 1.0]
    old = [1.0] * 5 if done else [0.75, 1.0, 1.0, 1.0, 1.0]
    assert [lr for lr, _ in used] == old
    assert warmed.done
