"""Mixed precision with a real GradScaler on a CPU: a skipped step is not an update."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import Parameter
from torch.optim import Optimizer

from tests.support.optimizers import ROWS, Row, assert_same, snapshot
from tests.support.reference import stepped_at
from warmopt import Warmed

FUSED = [name for name in ROWS if "fused" in name]
PLAIN = ["sgd-loop", "adamw-loop", "adamw-foreach", "adam-tensor_lr"]
INFINITE = 2  # the update with infinite gradients


def scaled_grads(row: Row, params: list[Parameter], update: int) -> None:
    row.set_grads(params, update)
    for param in params:
        param.grad *= 2.0 if update != INFINITE else torch.inf


def new_scaler(**options: Any) -> torch.amp.GradScaler:
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0, **options)
    scaler.scale(torch.ones(()))
    return scaler


@pytest.mark.parametrize("unscaled", [False, True], ids=["", "unscaled_first"])
@pytest.mark.parametrize("name", [*PLAIN, *FUSED])
def test_a_skipped_step_is_not_an_update(name: str, unscaled: bool) -> None:
    row = ROWS[name]
    params, twins = row.params(), row.params()
    warmed, bare = row.wrap(params, steps=4), row.build(twins)
    factors = iter([0.25, 0.5, 0.5, 0.75, 1.0, 1.0])
    scales = []
    scalers = [new_scaler(growth_interval=2) for _ in range(2)]
    for update in range(1, 7):
        for optimizer, each, scaler in zip(
            (warmed, bare), (params, twins), scalers, strict=True
        ):
            row.set_grads(each, update)
            for param in each:
                param.grad *= scaler.get_scale() if update != INFINITE else torch.inf
            if unscaled:
                scaler.unscale_(optimizer)
                torch.nn.utils.clip_grad_norm_(each, 1.0)
        scalers[0].step(warmed)
        stepped_at(bare, [next(factors)], lambda: scalers[1].step(bare))
        for scaler in scalers:
            scaler.update()
        scales.append(scalers[0].get_scale())
        assert scalers[1].get_scale() == scales[-1]
        assert_same(snapshot(bare, twins), snapshot(warmed, params))
    assert scales == [2.0, 1.0, 1.0, 2.0, 2.0, 4.0]  # first halved, then grown
    assert warmed.done
    assert not hasattr(warmed, "found_inf")


def _saved(optimizer: Optimizer) -> int:
    return int(optimizer.state_dict()["param_groups"][0]["warmup_updates"])


ASKS = {
    "save": _saved,
    "save_the_wrapped": lambda warmed: _saved(warmed.wrapped),
    "copy": lambda warmed: _saved(copy.deepcopy(warmed)),
    "factor": lambda warmed: warmed.factors[0] * 4 - 1,
    "repr": lambda warmed: int(re.search(r"(\d) of 4", repr(warmed))[1]),
}


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS)
@pytest.mark.parametrize("name", FUSED)
def test_whoever_asks_after_a_skipped_step_finds_it_not_counted(
    name: str, ask: Callable[[Warmed], float]
) -> None:
    """On a GPU nobody knows yet, at this point, if the kernel skipped the update."""
    row = ROWS[name]
    params = row.params()
    warmed, scaler = row.wrap(params, steps=4), new_scaler()
    for update, count in ((1, 1), (INFINITE, 1), (3, 2)):
        scaled_grads(row, params, update)
        scaler.step(warmed)
        assert ask(warmed) == count
        scaler.update(2.0)


def test_without_the_scaler_again_every_step_counts() -> None:
    row = ROWS["adam-fused"]
    params = row.params()
    warmed, scaler = row.wrap(params, steps=4), new_scaler()
    scaled_grads(row, params, INFINITE)
    scaler.step(warmed)
    row.step(warmed, params, 3)
    assert warmed.factors == [0.5]


def test_optimizers_on_one_scaler_are_skipped_each_for_itself() -> None:
    params = [Parameter(torch.ones(2)) for _ in range(2)]
    optimizers = [
        Warmed(torch.optim.AdamW([params[0]], lr=0.1, fused=True), steps=4),
        Warmed(torch.optim.SGD([params[1]], lr=0.1), steps=4),
    ]
    scaler = new_scaler()
    for values, factors in (
        ((2.0, 2.0), (0.5, 0.5)),
        ((torch.inf, 2.0), (0.5, 0.75)),
        ((2.0, torch.inf), (0.75, 0.75)),
    ):
        for param, value, optimizer in zip(params, values, optimizers, strict=True):
            param.grad = torch.full((2,), value)
            scaler.step(optimizer)
        scaler.update(2.0)
        assert tuple(each.factors[0] for each in optimizers) == factors
