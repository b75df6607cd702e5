"""The simple twin of `Warmed`: a loop that sets the LR by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from warmopt import Warmed


def stepped_at(
    optimizer: Optimizer, factors: list[float], step: Callable[[], Any]
) -> list[float]:
    """Runs `step` with the LR of each group x its factor; returns the LRs it used."""
    groups = optimizer.param_groups
    bases = [group["lr"] for group in groups]
    for group, base, factor in zip(groups, bases, factors, strict=True):
        group["lr"] = base * factor
    scaled = [group["lr"] for group in groups]
    used = [float(lr) for lr in scaled]
    step()
    for group, base, lr, factor in zip(groups, bases, scaled, factors, strict=True):
        written = group["lr"] is not lr  # by the optimizer: in effective units
        group["lr"] = group["lr"] / factor if written else base
    return used


def lrs(optimizer: Optimizer) -> list[float]:
    return [
        float(lr) if isinstance(lr := group["lr"], Tensor) else lr
        for group in optimizer.param_groups
    ]


def watch(optimizer: Optimizer, look: Callable[[Optimizer], Any]) -> list[Any]:
    """Notes what `look` sees in every step; hooks would see the base LR."""
    seen, step = [], optimizer.step

    def noting(*args: Any, **kwargs: Any) -> Any:
        seen.append(look(optimizer))
        return step(*args, **kwargs)

    noting._wrapped_by_lr_sched = True  # as schedulers mark theirs
    optimizer.step = noting
    return seen


def effective(warmed: Warmed, updates: int) -> list[float]:
    """The effective LR of group 0 in each of `updates` steps."""
    used = watch(warmed.wrapped, lambda inner: lrs(inner)[0])
    for _ in range(updates):
        warmed.step()
    return used
