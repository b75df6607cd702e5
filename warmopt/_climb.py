"""How a factor climbs: the pure rule of the aligned pace, from a reading to a state.

It is written once, for plain numbers and for tensors that stay on their device. So it
has no branches: `where` chooses between two values.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

__all__ = [
    "CLIMBING",
    "HOLDING",
    "LOOKING",
    "LOWERED",
    "NUMBERS",
    "RAMPING",
    "RULES",
    "TENSORS",
    "Climb",
    "Limits",
]

LOOK = 8  # readings in a search for a signal
LOWER = 0.01  # by this factor the second search is lower than the first
RISE = 1.02  # a new best is higher than the last one by this factor

# The phases. A search that finds nothing goes on to the next phase.
LOOKING = 0  # climbs, and looks whether there is a signal
LOWERED = 1  # the same once more, a hundred times lower
RAMPING = 2  # there is none: a plain ramp to 1
CLIMBING = 3  # there is one
HOLDING = 4  # it has stalled


class Arithmetic(NamedTuple):
    """What differs between plain numbers and tensors."""

    where: Callable[[Any, Any, Any], Any]
    exp: Callable[[Any], Any]
    log: Callable[[Any], Any]
    clip: Callable[[Any, float, float], Any]


NUMBERS = Arithmetic(
    where=lambda condition, yes, no: yes if condition else no,
    exp=math.exp,
    log=math.log,
    clip=lambda value, least, most: min(max(value, least), most),
)
TENSORS = Arithmetic(torch.where, torch.exp, torch.log, torch.clamp)


def e1(a: Any, gain: float, clip: Callable[[Any, float, float], Any]) -> Any:
    r""":math:`\text{gain} \cdot a / (1 - |a|)`, as good as without limit near 1."""
    near = clip(a, -0.999, 0.999)
    return gain * near / (1.0 - abs(near))


def align(a: Any, gain: float, clip: Callable[[Any, float, float], Any]) -> Any:
    """In proportion: gain x a."""
    return gain * a


RULES: dict[str, Callable[..., Any]] = {"E1": e1, "align": align}
"""By how much the logarithm of the factor moves, from the alignment in [-1, 1]."""


class Limits(NamedTuple):
    """The constants of a climb.

    Attributes:
        rule: A name of `RULES`.
        gain: What it multiplies by.
        most: The most that the logarithm of the factor moves at a reading.
        start: The first factor.
        every: Updates between two readings.
        stall: Updates without a new best after which it has stalled.
        threshold: The least mean of the first readings that is a signal.
    """

    rule: str
    gain: float
    most: float
    start: float
    every: int
    stall: int
    threshold: float


class Climb(NamedTuple):
    """Where a climb stands. Each number may be a tensor.

    Attributes:
        phase: One of the phases above.
        factor: Factor of the next update. In a ramp it is the factor at its beginning.
        best: The highest factor, to 2 %, since the phase began.
        since: Updates since that rose.
        logs: Sum of the logarithms of the factor over those updates.
        seen: Readings in the search for a signal.
        signal: Their sum.
        ramp_from: Updates done when the ramp began.
    """

    phase: Any
    factor: Any
    best: Any
    since: Any = 0
    logs: Any = 0.0
    seen: Any = 0
    signal: Any = 0.0
    ramp_from: Any = 0

    @classmethod
    def begun(cls, start: float) -> Climb:
        """The state before the first update."""
        return cls(LOOKING, start, start)

    def on(self, device: torch.device) -> Climb:
        """The same numbers as tensors on a device: int64, and float64."""
        kinds = {int: torch.int64, float: torch.float64}
        return Climb(
            *(torch.tensor(n, dtype=kinds[type(n)], device=device) for n in self)
        )

    def after(
        self, alignment: Any, done: Any, limits: Limits, of: Arithmetic = NUMBERS
    ) -> Climb:
        """The state after a reading. One that is nan is no reading: nothing moves.

        Args:
            alignment: The reading, in [-1, 1].
            done: Updates done, from which a ramp would begin.
            limits: The constants.
            of: `NUMBERS`, or `TENSORS`.
        """
        where = of.where
        rate = RULES[limits.rule](alignment, limits.gain, of.clip)
        rate = of.clip(rate, -limits.most, limits.most)
        factor = of.clip(self.factor * of.exp(rate), 0.0, 1.0)
        # The search for a signal.
        is_looking = self.phase < RAMPING
        seen = self.seen + where(is_looking, 1, 0)
        signal = self.signal + where(is_looking, alignment, 0.0)
        has_looked = (seen == LOOK) & is_looking
        is_found = signal >= LOOK * limits.threshold
        found = where(is_found, CLIMBING, self.phase + 1)
        phase = where(has_looked, found, self.phase)
        is_lowered = phase > self.phase
        is_lowered = is_lowered & (phase == LOWERED)
        lower = of.clip(factor, 0.0, limits.start) * LOWER
        factor = where(is_lowered, lower, factor)
        seen, signal = where(is_lowered, 0, seen), where(is_lowered, 0.0, signal)
        ramp_from = where(phase == RAMPING, done, self.ramp_from)
        # Has it stalled?
        is_best = (factor > RISE * self.best) | is_lowered
        best = where(is_best, factor, self.best)
        since = where(is_best, 0, self.since + limits.every)
        logs = self.logs + limits.every * of.log(factor)
        logs = where(is_best, 0.0, logs)
        is_stalled = (phase == CLIMBING) & (since >= limits.stall) & (factor < 1.0)
        mean = of.exp(logs / of.clip(since, 1, math.inf))
        factor = where(is_stalled, of.clip(mean, 0.0, 1.0), factor)
        phase = where(is_stalled, HOLDING, phase)
        new = Climb(phase, factor, best, since, logs, seen, signal, ramp_from)
        # What is over does not move any more.
        is_on = (self.phase != RAMPING) & (self.phase != HOLDING) & (self.factor < 1.0)
        moves = is_on & (alignment == alignment)  # nan is not itself
        return Climb(*(where(moves, n, o) for n, o in zip(new, self, strict=True)))
