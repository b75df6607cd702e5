"""Factors that the training loop sets by hand, which are not part of warmopt.

A `Hand` sees the loss and the parameters. Its factor multiplies the LR of the update.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from statistics import fmean
from typing import Any, Protocol

import torch
from torch import Tensor

from warmopt._climb import CLIMBING, HOLDING, RAMPING, Climb
from warmopt.aligned import Aligned

Params = list[Tensor]


class Hand(Protocol):
    """What the loop asks: the factor before each update, then what the step did."""

    factor: float

    def before(self, params: Params, loss: float) -> None:
        """Sets the factor of the update that comes; the gradients are there."""

    def after(self, params: Params, again: Callable[[], Any]) -> None:
        """Looks at the step; `again` computes new gradients of the same batch."""

    def told(self) -> dict[str, Any]:
        """What is recorded of it."""


def flat(params: Params, of_gradients: bool) -> Tensor:
    found = [p.grad if of_gradients else p for p in params]
    parts = [
        (torch.zeros_like(p) if each is None else each).detach().reshape(-1)
        for p, each in zip(params, found, strict=True)
    ]
    return torch.cat(parts)


class Climbing:
    """The climb of `Aligned`, on all elements and without a lag, with a change.

    Args:
        steps: The cap in updates.
        change: "fresh" for none; "same_batch" compares with new gradients of the batch
            of the step; "sign" uses only the sign, times 0.5; "noise" puts a number
            from [-1, 1] in its place; "edge" adds 0.1, so it aims past the minimum;
            "second" climbs on after a stall, slowly, until the alignment falls.
        seed: Of the noise.
    """

    RISE, KEPT, FALL = 0.003, 0.98, 0.05  # of "second": pace, memory, how far a falls

    def __init__(self, steps: int, change: str, seed: int) -> None:
        if change not in CHANGES:
            raise ValueError(f"change must be one of {', '.join(CHANGES)}.")
        self.limits, self.steps, self.change = Aligned().limits, steps, change
        if change == "noise":  # else the search for a signal would end in a ramp
            self.limits = self.limits._replace(threshold=-1.0)
        self.climb, self.factor = Climb.begun(self.limits.start), self.limits.start
        self.done, self.length = 0, 0
        self.random = torch.Generator().manual_seed(seed)
        self.last: tuple[Tensor, Tensor] | None = None  # the step, and its gradients
        self.mean = self.at_stall = math.nan  # of the alignment, once it has stalled
        self.recent: deque[float] = deque(maxlen=self.limits.stall)
        self.is_over = False

    def before(self, params: Params, loss: float) -> None:
        if self.is_over:
            return
        gradients = flat(params, of_gradients=True)
        if self.change != "same_batch" and self.last is not None:
            self._read(gradients)
        self.last = flat(params, of_gradients=False), gradients

    def after(self, params: Params, again: Callable[[], Any]) -> None:
        self.done += 1
        if self.is_over or self.last is None:
            return
        begun, gradients = self.last
        self.last = begun - flat(params, of_gradients=False), gradients
        if self.change == "same_batch":
            again()
            self._read(flat(params, of_gradients=True))

    def _read(self, gradients: Tensor) -> None:
        assert self.last is not None
        step, before = self.last
        by = float(before @ step)
        a = float(gradients @ step) / by if by > 0.0 else 0.0
        a = min(max(a, -1.0), 1.0)
        if self.change == "sign":
            a = math.copysign(0.5, a)
        elif self.change == "noise":
            a = 2.0 * float(torch.rand((), generator=self.random)) - 1.0
        elif self.change == "edge":
            a = min(a + 0.1, 1.0)
        self.recent.append(a)
        self.climb = self.climb.after(a, self.done, self.limits)
        phase, self.factor = self.climb.phase, self.climb.factor
        if phase == RAMPING:
            begun = self.climb.ramp_from
            share = (self.done + 1 - begun) / max(self.steps - begun, 1)
            self.factor += (1.0 - self.factor) * min(share, 1.0)
        elif phase == HOLDING and self.change == "second":
            self._climb_on(a)
            return
        if phase == HOLDING or self.factor >= 1.0 or self.done >= self.steps:
            self._end()

    def _climb_on(self, a: float) -> None:
        """Rises slowly until the mean alignment is lower than it was at the stall."""
        if math.isnan(self.at_stall):
            self.mean = self.at_stall = fmean(self.recent)
        self.mean = self.KEPT * self.mean + (1.0 - self.KEPT) * a
        if self.mean < self.at_stall - self.FALL or self.done >= self.steps:
            self._end()
            return
        self.factor = min(self.factor * math.exp(self.RISE), 1.0)
        self.climb = self.climb._replace(factor=self.factor)
        if self.factor >= 1.0:
            self._end()

    def _end(self) -> None:
        self.is_over, self.last, self.length = True, None, self.done

    def told(self) -> dict[str, Any]:
        reason = {CLIMBING: "held", HOLDING: "held", RAMPING: "ramped"}
        full = self.factor >= 1.0 and self.climb.phase != RAMPING
        ended = "full" if full else reason.get(self.climb.phase, "held")
        return {
            "length": self.length if self.is_over else None,
            "reason": ended,
            "factor": round(self.factor, 6),
        }


CHANGES = ("fresh", "same_batch", "sign", "noise", "edge", "second")


class LossGap:
    """The warmup of Riabinin et al., 2026, from the loss less a target.

    The paper has no kappa for Adam; it is that of sign methods here, the sum of m n
    over the matrices.

    Args:
        target: The loss at the end of the run.
    """

    DIV, SIGMA_F, POINTS, LEAST = 100.0, 1e-3, 500, 1e-8

    def __init__(self, target: float) -> None:
        self.target, self.factor = target, 1.0 / self.DIV
        self.first = self.peak = math.nan
        self.done, self.length = 0, None

    def before(self, params: Params, loss: float) -> None:
        if self.length is not None or not math.isfinite(loss):
            return
        gap = max(loss - self.target, self.LEAST)
        if math.isnan(self.first):
            self.first = gap
            self.peak = self._best_peak(params) if gap > 0.03 else gap
        if gap <= self.peak:
            self.factor, self.length = 1.0, self.done
            return
        at = torch.tensor(gap, dtype=torch.float64)
        self.factor = float(self._eta(at, self.peak))

    def after(self, params: Params, again: Callable[[], Any]) -> None:
        self.done += 1

    def _eta(self, gap: Tensor, peak: float) -> Tensor:
        """The factor at a gap; 1 / DIV at the first gap, 1 at the peak."""
        k2 = (self.first * (self.DIV - 1.0)) / (self.first - peak) ** 2
        k0, k1 = k2 * peak**2, 1.0 - 2.0 * k2 * peak
        return (gap / (k0 + k1 * gap + k2 * gap**2)).clamp(0.0, 1.0)

    def _best_peak(self, params: Params) -> float:
        """The peak of a scan whose curve is nearest to a cosine and a line."""
        kappa = float(sum(p.numel() for p in params if p.ndim >= 2))
        gaps = torch.linspace(0.01, self.first - 0.01, self.POINTS, dtype=torch.float64)
        costs = []
        for peak in gaps.tolist():
            rise = 0.5 - 0.5 * (math.pi * gaps / peak).cos()
            share = (self.first - gaps) / (self.first - peak)
            line = 1.0 / self.DIV + (1.0 - 1.0 / self.DIV) * share
            wanted = torch.where(gaps <= peak, rise, line)
            weight = (-((gaps - peak) ** 2) * self.SIGMA_F * kappa / 2.0).exp()
            missed = (self._eta(gaps, peak) - wanted).square()
            costs.append(float((weight * missed).sum()))
        return float(gaps[costs.index(min(costs))])

    def told(self) -> dict[str, Any]:
        return {"length": self.length, "factor": round(self.factor, 6)}
