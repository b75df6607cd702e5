"""What a wrapper tells the user: `get_last_lr` and its repr."""

from __future__ import annotations

import torch
from torch.nn import Parameter

from tests.support.optimizers import sgd
from warmopt import Warmed


def test_get_last_lr_is_what_the_step_used() -> None:
    _, optimizer = sgd(lr=2.0)
    warmed = Warmed(optimizer, steps=4)
    assert warmed.get_last_lr() == [0.5]  # what the first step will use
    warmed.step()
    optimizer.param_groups[0]["lr"] = 8.0
    assert warmed.get_last_lr() == [0.5]
    warmed.rewarm()
    assert warmed.get_last_lr() == [2.0]  # as before the first step
    while not warmed.done:
        warmed.step()
    optimizer.param_groups[0]["lr"] = 3.0
    assert warmed.get_last_lr() == [3.0]


def test_get_last_lr_of_a_group_not_yet_stepped_is_what_it_will_step_at() -> None:
    warmed = Warmed(sgd()[1], steps=4)
    warmed.step()
    warmed.add_param_group({"params": [Parameter(torch.zeros(1))]})
    assert warmed.get_last_lr() == [0.25, 0.25]


def test_repr_tells_where_the_warmup_stands() -> None:
    params = [Parameter(torch.zeros(1)) for _ in range(2)]
    groups = [{"params": params[:1]}, {"params": params[1:], "warmup_steps": 1}]
    warmed = Warmed(torch.optim.SGD(groups, lr=1.0), steps=3)
    warmed.step()
    head = (
        "Warmed (\n"
        "    mode: linear\n"
        "    group 0: 1 of 3 updates done, next factor 0.6667\n"
        "    group 1: done\n"
        ") SGD (\n"
    )
    assert repr(warmed).startswith(head)
    warmed.rewarm(groups=[0], steps=0)
    assert repr(warmed).startswith("Warmed (\n    mode: linear\n    done\n) SGD (\n")
