"""A long run: each update counts, at the right factor; memory does not grow."""

from __future__ import annotations

import gc
import resource
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import Parameter
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from warmopt import Adaptive, Warmed

STEPS, AGAIN = 1024, 3000  # the length, and updates between two warmups
MIB = 2**20


def held() -> tuple[int, int]:
    """Blocks that Python has allocated, and bytes of the process (torch's too)."""
    gc.collect()
    pages = Path("/proc/self/statm").read_text().split()[1]
    return sys.getallocatedblocks(), int(pages) * resource.getpagesize()


def ones(optimizer: type[Optimizer]) -> tuple[Parameter, Optimizer]:
    param = Parameter(torch.zeros(1, dtype=torch.float64))
    param.grad = torch.ones_like(param)
    return param, optimizer([param], lr=1.0)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    "updates", [20_000, pytest.param(1_000_000, marks=pytest.mark.long)]
)
def test_a_long_run_counts_exactly_and_does_not_grow(updates: int) -> None:
    """The sum of all updates is exact, because each is a multiple of 2**-13."""
    param, optimizer = ones(SGD)
    warmed = Warmed(optimizer, steps=STEPS)
    scheduler = LambdaLR(warmed, lambda update: 0.5 ** (4 * update // updates))
    never = Adaptive(criterion=lambda _: False)
    adaptive = Warmed(ones(Adam)[1], steps=2 * AGAIN, mode=never)
    moved = 0.0
    for update in range(updates):
        again = update % AGAIN
        if again == 0:
            warmed.rewarm()
            adaptive.rewarm()
        warmed.step()
        scheduler.step()
        count = min(again + 1, STEPS)
        moved += 0.5 ** (4 * update // updates) * count / STEPS
        assert warmed.param_groups[0]["warmup_updates"] == count
        if again < AGAIN // 10:
            adaptive.step()
            assert adaptive.param_groups[0]["warmup_updates"] == again + 1
        if update == updates // 10:
            before = held()
    assert -param.item() == moved
    blocks, resident = (now - old for now, old in zip(held(), before, strict=True))
    assert blocks < 1000  # a leak would add one block per update
    assert resident < MIB
