"""How a factor climbs: the pure rule of the aligned pace, from a reading to a state."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = [
    "CLIMBING",
    "HOLDING",
    "LOOKING",
    "LOWERED",
    "RAMPING",
    "RULES",
    "Climb",
    "Limits",
    "after_on_device",
    "on_device",
    "plain",
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


def e1(a: float, gain: float) -> float:
    r""":math:`\text{gain} \cdot a / (1 - |a|)`, as good as without limit near 1."""
    near = min(max(a, -0.999), 0.999)
    return gain * near / (1.0 - abs(near))


def align(a: float, gain: float) -> float:
    """In proportion: gain x a."""
    return gain * a


RULES: dict[str, Callable[[float, float], float]] = {"E1": e1, "align": align}
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
    """Where a climb stands.

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

    phase: int
    factor: float
    best: float
    since: int = 0
    logs: float = 0.0
    seen: int = 0
    signal: float = 0.0
    ramp_from: int = 0

    @classmethod
    def begun(cls, start: float) -> Climb:
        """The state before the first update."""
        return cls(LOOKING, start, start)

    def after(self, alignment: float, done: int, limits: Limits) -> Climb:
        """The state after a reading. One that is nan is no reading: nothing moves.

        Args:
            alignment: The reading, in [-1, 1].
            done: Updates done, from which a ramp would begin.
            limits: The constants.
        """
        phase, factor, best, since, logs, seen, signal, ramp_from = self
        is_over = phase in (RAMPING, HOLDING) or factor >= 1.0
        if is_over or alignment != alignment:  # only nan is not itself
            return self
        rate = RULES[limits.rule](alignment, limits.gain)
        rate = min(max(rate, -limits.most), limits.most)
        factor = min(factor * math.exp(rate), 1.0)
        is_new = False
        if phase != CLIMBING:
            seen, signal = seen + 1, signal + alignment
            if seen == LOOK:
                if signal >= LOOK * limits.threshold:
                    phase = CLIMBING
                elif phase == LOOKING:
                    phase, seen, signal, is_new = LOWERED, 0, 0.0, True
                    factor = min(factor, limits.start) * LOWER
                else:
                    phase, ramp_from = RAMPING, done
        if is_new or factor > RISE * best:
            best, since, logs = factor, 0, 0.0
        else:
            since, logs = since + limits.every, logs + limits.every * math.log(factor)
            if phase == CLIMBING and since >= limits.stall and factor < 1.0:
                phase, factor = HOLDING, min(math.exp(logs / since), 1.0)
        return Climb(phase, factor, best, since, logs, seen, signal, ramp_from)


def on_device(number: float, device: torch.device) -> Tensor:
    """The same number as a tensor, int64 or float64."""
    dtype = torch.int64 if isinstance(number, int) else torch.float64
    return torch.tensor(number, dtype=dtype, device=device)


def plain(value: Any) -> Any:
    """The number in such a tensor; any other value is returned as it is."""
    is_ours = isinstance(value, Tensor) and value.ndim == 0
    return value.item() if is_ours else value


def after_on_device(now: Any, alignment: Tensor, done: Tensor, limits: Limits) -> Any:
    """What `Climb.after` does, by tensor operations: nothing is read on the host."""
    where = torch.where
    if limits.rule == "E1":
        near = alignment.clamp(-0.999, 0.999)
        rate = limits.gain * near / (1.0 - near.abs())
    else:
        rate = limits.gain * alignment
    factor = now.factor * rate.clamp(-limits.most, limits.most).exp()
    factor = factor.clamp(max=1.0)
    is_looking = now.phase < RAMPING
    seen, signal = now.seen + is_looking, now.signal + alignment * is_looking
    has_looked = is_looking & (seen == LOOK)
    found = where(signal >= LOOK * limits.threshold, CLIMBING, now.phase + 1)
    phase = where(has_looked, found, now.phase)
    is_new = has_looked & (phase == LOWERED)
    factor = where(is_new, factor.clamp(max=limits.start) * LOWER, factor)
    seen, signal = where(is_new, 0, seen), where(is_new, 0.0, signal)
    ramp_from = where(has_looked & (phase == RAMPING), done, now.ramp_from)
    is_new = is_new | (factor > RISE * now.best)
    best = where(is_new, factor, now.best)
    since = where(is_new, 0, now.since + limits.every)
    logs = where(is_new, 0.0, now.logs + limits.every * factor.log())
    is_stalled = (phase == CLIMBING) & (since >= limits.stall) & (factor < 1.0)
    is_stalled = is_stalled & ~is_new
    mean = (logs / since.clamp(min=1)).exp().clamp(max=1.0)
    factor, phase = where(is_stalled, mean, factor), where(is_stalled, HOLDING, phase)
    new = phase, factor, best, since, logs, seen, signal, ramp_from
    moves = (now.phase != RAMPING) & (now.phase != HOLDING) & (now.factor < 1.0)
    moves = moves & ~alignment.isnan()
    kept: Any = (where(moves, n, old) for n, old in zip(new, now, strict=True))
    return Climb(*kept)
