"""What a warmup and a schedule will do, as far as it is known before any training."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch.nn import Parameter
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    ExponentialLR,
    LinearLR,
    LRScheduler,
    PolynomialLR,
    StepLR,
)

from warmopt._groups.schedule import Schedule
from warmopt.warmed import Warmed

__all__ = ["SCHEDULES", "Forecast", "base_lrs"]

SCHEDULES: dict[str, Callable[[Optimizer, int], LRScheduler]] = {
    "cosine": CosineAnnealingLR,
    "linear": lambda optimizer, updates: LinearLR(optimizer, 1.0, 0.0, updates),
    "polynomial": lambda optimizer, updates: PolynomialLR(optimizer, updates, 2.0),
    "exponential": lambda optimizer, updates: ExponentialLR(
        optimizer, 0.01 ** (1 / updates)
    ),
    "step": lambda optimizer, updates: StepLR(optimizer, -(-updates // 3)),
}
"""Schedulers of torch, made for an optimizer and the updates of a run. The polynomial
one is quadratic, the exponential one ends at a hundredth, and the one in steps divides
by ten after each third."""


def base_lrs(schedule: str, lr: float, updates: int) -> list[float]:
    """The LR of each update under one of `SCHEDULES`, without a warmup."""
    optimizer = SGD([Parameter(torch.zeros(1))], lr)
    scheduler = SCHEDULES[schedule](optimizer, updates)
    optimizer.step()  # a scheduler expects one
    found = []
    for _ in range(updates):
        found.append(float(optimizer.param_groups[0]["lr"]))
        scheduler.step()
    return found


class Forecast:
    """The factors that a warmup will have, or between which it will be.

    A fixed mode has one factor at each update. Adaptive and aligned mode decide while
    they train, so only the earliest and the latest they can do are known.

    Args:
        mode: As in `Warmed`, and so are the others.
        steps: Length in updates.
        start: Factor at update 0.
        offset: Updates at that factor.
        total_steps: Updates of the whole run, for a ratio.
        beta2: Of the optimizer.

    Attributes:
        told: The length in words.
        shown: Updates after which there is nothing more to see.

    Example:
        >>> Forecast("linear", 4).edges(5)
        [[0.25, 0.5, 0.75, 1.0, 1.0]]
        >>> latest, earliest = Forecast("adaptive", 300).edges(300)
        >>> latest.index(1.0), earliest.index(1.0) < 150
        (299, True)
    """

    def __init__(
        self,
        mode: str,
        steps: float | None,
        start: float | None = None,
        offset: int = 0,
        total_steps: int | None = None,
        beta2: float = 0.999,
    ) -> None:
        self._arguments = {"steps": steps, "mode": mode, "start": start}
        self._arguments |= {"offset": offset, "total_steps": total_steps}
        self._beta2 = beta2
        self._schedule = schedule = Schedule(mode, steps, start, offset, total_steps)
        rule = schedule.steps_from_beta2
        self._length = (rule(beta2) if rule else schedule.steps) or 0
        last = schedule.last_update(self._length)
        self.told = f"{'at most ' * schedule.pace.is_cap}{last} updates"
        # Some shapes come closer and closer to 1 for a very long time. Their curve is
        # cut where nothing more can be seen.
        self.shown = min(last, round(5 * self._length) + offset)
        self.shown += max(1, self.shown // 10)

    def edges(self, updates: int) -> list[list[float]]:
        """The factor of each update: one list, or the lowest and the highest."""
        pace, start = self._schedule.pace, self._schedule.start
        ramp = self._schedule.ramp(self._length, start)
        latest = [ramp.factor(update) for update in range(1, updates + 1)]
        if not pace.is_cap:
            return [latest]
        if not pace.has_start:  # it is not on a ramp: it may hold however low it is
            latest = [0.0] * updates
        earliest = self._earliest(updates)
        return [latest] if latest == earliest else [latest, earliest]

    def _earliest(self, updates: int) -> list[float]:
        """What happens if all gradients are equal: all settles, and all agrees."""
        weight, found = Parameter(torch.zeros(1)), list[float]()
        adam = Adam([weight], lr=1.0, betas=(0.9, self._beta2))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            optimizer = Warmed(adam, **self._arguments)  # type: ignore[arg-type]
            while not optimizer.done and len(found) < updates:
                found += optimizer.factors
                weight.grad = torch.ones(1)
                optimizer.step()
        return found + optimizer.factors * (updates - len(found))
