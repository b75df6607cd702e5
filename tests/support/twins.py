"""The same run twice: warmed by `Warmed`, or by a schedule that does it by hand.

All factors are powers of two times a small whole number, so products are exact. The two
runs must be bit-equal, inside any framework.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch.nn import Parameter
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from tests.support.reference import watch
from warmopt import Warmed

STEPS = 4
LR = 0.25


def decay(update: int) -> float:
    """The schedule of the base LR, counted from 0."""
    return 0.5 ** (update // 2)


def factor(update: int) -> float:
    return min((update + 1) / STEPS, 1.0)


def used_lrs(updates: int) -> list[float]:
    """The LRs at which the wrapped optimizer must have stepped."""
    return [LR * decay(update) * factor(update) for update in range(updates)]


def build(
    params: Iterable[Parameter], by_hand: bool = False, **options: Any
) -> tuple[Optimizer, LambdaLR, list[float]]:
    """Optimizer, its scheduler, and the LRs that the inner step sees."""
    inner = AdamW(params, lr=LR, **options)
    if by_hand:
        outer: Optimizer = inner
        scheduler = LambdaLR(outer, lambda update: decay(update) * factor(update))
    else:
        outer = Warmed(inner, steps=STEPS)
        scheduler = LambdaLR(outer, decay)
    return outer, scheduler, watch(inner, lambda _: inner.param_groups[0]["lr"])


def samples(number: int) -> torch.Tensor:
    return torch.randn(number, 3, generator=torch.Generator().manual_seed(1))
