"""The obvious twin of `Warmed`: a loop that sets the LR by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.optim import Optimizer


def stepped_at(
    optimizer: Optimizer, factors: list[float], step: Callable[[], Any]
) -> list[float]:
    """Runs `step` with the LR of each group x its factor; returns the LRs it used."""
    bases = [group["lr"] for group in optimizer.param_groups]
    for group, base, factor in zip(optimizer.param_groups, bases, factors, strict=True):
        group["lr"] = base * factor
    used = [float(group["lr"]) for group in optimizer.param_groups]
    step()
    for group, base in zip(optimizer.param_groups, bases, strict=True):
        group["lr"] = base
    return used


def lrs(optimizer: Optimizer) -> list[float]:
    return [
        float(lr) if isinstance(lr := group["lr"], Tensor) else lr
        for group in optimizer.param_groups
    ]
