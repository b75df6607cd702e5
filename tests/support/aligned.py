"""An aligned warmup on a small regression, and a loop that compares by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from warmopt import Aligned, Trace, Warmed
from warmopt._climb import Climb
from warmopt._keys import CLIMB

SIZES = ((8, 4), (4,), (4, 1))  # so small that every element is in the sample


def adam(params: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(params, lr=0.1)


class Regression:
    """A small network, its data, and an optimizer that warms up with the mode."""

    def __init__(
        self,
        make: Callable[[Any], torch.optim.Optimizer] = adam,
        steps: int = 200,
        groups: bool = False,
        trace: Trace | None = None,
        watch: Sequence[Any] = (),
        dtype: torch.dtype = torch.float32,
        **aligned: Any,
    ) -> None:
        generator = torch.Generator().manual_seed(0)
        self.params = [
            Parameter(0.3 * torch.randn(size, generator=generator).to(dtype))
            for size in SIZES
        ]
        each: Any = [{"params": [p]} for p in self.params] if groups else self.params
        mode = Aligned(**aligned)
        self.warmed = Warmed(make(each), steps, mode, trace=trace, watch=watch)

    def loss(self, update: int, params: Sequence[Tensor] | None = None) -> Tensor:
        """The loss of a batch: the number of the update decides which."""
        generator = torch.Generator().manual_seed(update)
        weight, bias, out = self.params if params is None else params
        x = torch.randn(16, 8, generator=generator)
        noise = 0.1 * torch.randn(16, 1, generator=generator)
        made = torch.tanh(x.to(weight) @ weight + bias) @ out
        return (
            (made - (x[:, :3].sum(1, keepdim=True) + noise).to(weight)).square().mean()
        )

    def step(self, update: int) -> None:
        self.warmed.zero_grad()
        self.loss(update).backward()
        self.warmed.step()

    def run(self, updates: range) -> list[list[float]]:
        """Steps, and returns the effective LRs."""
        used = []
        for update in updates:
            self.step(update)
            used.append([float(lr) for lr in self.warmed.get_last_lr()])
        return used

    def state(self, group: int = 0) -> Climb:
        return Climb(*map(self.warmed.param_groups[group].__getitem__, CLIMB))


def ratios(params: list[Parameter]) -> Iterator[float | None]:
    """The ratio of the slopes, by hand: take one before each step."""
    before: Any = None
    while True:
        grads = torch.cat([p.grad.detach().double().reshape(-1) for p in params])
        at = torch.cat([p.detach().double().reshape(-1) for p in params])
        if before is None:
            yield None
        else:
            old, was = before
            step = was - at
            there = float(old @ step)
            yield max(-1.0, min(1.0, float(grads @ step) / there)) if there > 0 else 0.0
        before = grads.clone(), at.clone()
