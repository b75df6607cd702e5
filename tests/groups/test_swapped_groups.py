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


@pytest.mark.parametrize("tensor_lr", [False, True])
@pytest.mark.parametrize("parts", [1, 2, 3])
def test_groups_that_are_stepped_in_parts_are_counted_once_per_update(
    parts: int, tensor_lr: bool
) -> None:
    """As ZeRO 3 of DeepSpeed does: one part has parameters, and all else is empty."""
    lr = torch.tensor(1.0) if tensor_lr else 1.0
    groups = [group(), group(warmup_steps=2)]
    optimizer = torch.optim.SGD(groups, lr=lr)
    warmed = Warmed(optimizer, steps=4)
    pieces = [[group()["params"] for _ in range(parts)] for _ in groups]
    for one in optimizer.param_groups:
        one["params"] = []
    used = watch(optimizer, lambda inner: list(map(float, lrs(inner))))
    for update in range(6):
        right = [min((update + 1) / n, 1.0) for n in (4, 2)]
        if update == 2:
            warmed.load_state_dict(warmed.state_dict())
        for index, own in enumerate(pieces):
            for part in own:
                optimizer.param_groups[index]["params"] = part
                warmed.step()
                assert used[-1][index] == right[index]
                optimizer.param_groups[index]["params"] = []
        assert list(map(float, warmed.factors)) == [
            min((update + 2) / n, 1.0) for n in (4, 2)
        ]
    assert warmed.done


def test_a_group_that_is_empty_on_this_rank_warms_with_the_others() -> None:
    optimizer = torch.optim.SGD([group(), group()], lr=1.0)
    optimizer.param_groups[1]["params"] = []
    warmed = Warmed(optimizer, steps=4)
    for update in range(1, 5):
        assert warmed.factors == [update / 4] * 2
        warmed.step()
    assert warmed.done


def test_new_parameters_in_a_group_cost_it_one_count_at_most() -> None:
    optimizer = torch.optim.SGD([group()], lr=1.0)
    warmed = Warmed(optimizer, steps=10)
    used = watch(optimizer, lrs)
    for update in range(1, 8):
        if update == 4:
            optimizer.param_groups[0]["params"] = group()["params"]
        warmed.step()
    assert used[-1] in ([0.6], [0.7])  # the plain step does not look at parameters


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
