"""Criteria on trial: functions of a `Reading`, like the criteria of warmopt.

A criterion becomes part of warmopt only if docs/study.md says that it has won. To try a
new one, add it to `RULES`.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from statistics import fmean, variance

from warmopt.criteria import (
    CRITERIA,
    Criterion,
    InverseRootVariance,
    Reading,
    UpdateRMS,
)


def surges(reading: Reading) -> list[tuple[float, int]]:
    """Returns two numbers for each tensor: its surge, and how many elements it has.

    The surge is the mean g^2 in the window, divided by v before the window. If it is 1,
    v stays as it is. It is computed from how v moved, where c_t = 1 - beta2^t is the
    bias correction: c_t v_t = beta2^D c_(t-D) v_(t-D) + (1 - beta2^D) g^2.
    """
    if reading.beta2 is None or reading.samples < reading.window:
        return []
    kept = reading.beta2**reading.span
    old = 1.0 - reading.beta2 ** (reading.update - reading.span)
    new = 1.0 - reading.beta2**reading.update
    return [
        ((new * math.exp(drift) - kept * old) / (1.0 - kept), size)
        for drift, size in zip(reading.drifts, reading.sizes, strict=True)
        if not math.isnan(drift)
    ]


def share(found: list[tuple[bool, int]]) -> float:
    """The share of elements in tensors for which it is true; nan without elements."""
    weight = sum(size for _, size in found)
    return sum(size for yes, size in found if yes) / weight if weight else math.nan


@dataclass(frozen=True)
class Clock:
    """Ignores the reading: settles at `updates`, or at `memories` / (1 - beta2)."""

    updates: int = 25
    memories: float | None = None

    def __call__(self, reading: Reading) -> bool:
        if self.memories is None or reading.beta2 is None:
            return reading.update >= self.updates
        return reading.update >= self.memories / (1.0 - reading.beta2)


@dataclass(frozen=True)
class Guarded:
    """`InverseRootVariance`, and `UpdateRMS` has settled too."""

    ratio: float = 1.5
    threshold: float = 0.02

    def __call__(self, reading: Reading) -> bool:
        settled = InverseRootVariance(self.threshold)(reading)
        return settled and UpdateRMS(self.ratio)(reading)


@dataclass(frozen=True)
class Calm:
    """`InverseRootVariance`, and g^2 is not far above v in most elements."""

    limit: float = 1.5
    quantile: float = 0.9
    threshold: float = 0.02

    def __call__(self, reading: Reading) -> bool:
        calm = share([(surge <= self.limit, n) for surge, n in surges(reading)])
        settled = InverseRootVariance(self.threshold)(reading)
        return settled and calm >= self.quantile


@dataclass(frozen=True)
class Agreement:
    """Settles if g^2 is near v, not above and not below, in most elements."""

    factor: float = 1.5
    quantile: float = 0.9

    def __call__(self, reading: Reading) -> bool:
        within = [
            (1 / self.factor <= surge <= self.factor, size)
            for surge, size in surges(reading)
        ]
        return share(within) >= self.quantile


@dataclass(frozen=True)
class NullDrift:
    """`Drift`, but with a tolerance that is wide enough for stationary gradients.

    docs/study-plan.md says how much log v_t - log v_(t-D) spreads for independent
    gradients of excess `kappa`. The tolerance is at least `spreads` times that.
    """

    tol: float = 0.25
    spreads: float = 2.0
    kappa: float = 0.1
    quantile: float = 0.75

    def __call__(self, reading: Reading) -> bool:
        beta2, d, t = reading.beta2, reading.span, reading.update
        if beta2 is None or reading.samples < reading.window or t < 2 * d:
            return False
        limit = max(self.tol * d * (1.0 - beta2), self.spreads * self.null(t, d, beta2))
        quiet = [
            (abs(drift) < limit, size)
            for drift, size in zip(reading.drifts, reading.sizes, strict=True)
            if not math.isnan(drift)
        ]
        return share(quiet) >= self.quantile

    def null(self, t: int, d: int, beta2: float) -> float:
        """Standard deviation of the drift over D updates if there is no real drift."""

        def averaged(t: int) -> float:
            """How many gradients v averages over (Kish)."""
            decayed = beta2**t
            return (1 + beta2) * (1 - decayed) / ((1 - beta2) * (1 + decayed))

        shared = beta2**d * (1 - beta2 ** (t - d)) / (1 - beta2**t)
        return math.sqrt(
            self.kappa * (1 / averaged(t) + (1 - 2 * shared) / averaged(t - d))
        )


@dataclass(frozen=True)
class LossCalm:
    """`InverseRootVariance`, and the training loss rises by no more than its noise.

    The training loop fills `losses`. The mean of the last `span` updates is compared
    with the mean of the `span` updates before. It may be higher by `spreads` standard
    errors of the difference.
    """

    span: int = 20
    spreads: float = 1.0
    threshold: float = 0.02
    losses: deque[float] = field(default_factory=lambda: deque(maxlen=1000))

    def __call__(self, reading: Reading) -> bool:
        if not InverseRootVariance(self.threshold)(reading):
            return False
        last = list(self.losses)[-2 * self.span :]
        if len(last) < 2 * self.span or not all(map(math.isfinite, last)):
            return False
        before, now = last[: self.span], last[self.span :]
        noise = math.sqrt((variance(before) + variance(now)) / self.span)
        return fmean(now) <= fmean(before) + self.spreads * noise


@dataclass(frozen=True)
class LossFalls(LossCalm):
    """`InverseRootVariance`, and the training loss is near its lowest value.

    Near means within `spreads` standard deviations of single losses.
    """

    def __call__(self, reading: Reading) -> bool:
        settled = InverseRootVariance(self.threshold)(reading)
        spans = [
            list(self.losses)[i : i + self.span]
            for i in range(len(self.losses) % self.span, len(self.losses), self.span)
        ]
        if not settled or not spans or not all(map(math.isfinite, self.losses)):
            return False
        noise = math.sqrt(variance(spans[-1]))
        return fmean(spans[-1]) <= min(map(fmean, spans)) + self.spreads * noise


RULES: dict[str, type[Criterion]] = {
    **CRITERIA,
    "clock": Clock,
    "guarded": Guarded,
    "calm": Calm,
    "agreement": Agreement,
    "null_drift": NullDrift,
    "loss_calm": LossCalm,
    "loss_falls": LossFalls,
}
"""All criteria by name, beginning with those of warmopt."""
