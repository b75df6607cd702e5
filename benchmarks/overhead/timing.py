"""Times a step and the bare step in turn, so that a busy machine slows down both.

A *block* is many calls of the same step. Blocks of the bare step (A) and of a contender
(B) are timed in the order A B B A; this is a *quad*. The first blocks are slower than
the rest, so before each quad run two blocks, B A, that are not counted. With them, each
kind of block comes once after A and once after B. To balance what is left, every second
quad has the roles of A and B swapped.

In a *round* every contender has one quad, in random order. One of the contenders is the
bare step again: the *control*. Its true ratio is 1, so what the control shows is noise,
and a ratio of that size proves nothing.
"""

from __future__ import annotations

import gc
import itertools
import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

Step = Callable[[], object]
Clock = Callable[[Step, int], dict[str, float]]
"""Returns the nanoseconds of so many steps, for each kind of time.

The first kind is the one by which the size of a block is chosen.
"""

BLOCK_NS = 450_000  # if longer, the control varies more; if shorter, the clock does
RESAMPLES = 2000
WIDEST = 0.02  # the interval of a small effect may not be wider
# Smaller effects change from one process to the next, because objects are at other
# places in memory: the same step was measured at 0.992 and at 1.002, each time with a
# small interval.
LEAST_EFFECT = 0.01


def thread_clock(step: Step, count: int) -> dict[str, float]:
    """Measures CPU time of this thread; the time of other processes is left out."""
    steps = itertools.repeat(None, count)
    start = time.thread_time_ns()
    for _ in steps:
        step()
    return {"cpu": time.thread_time_ns() - start}


@dataclass
class Runner:
    """A contender, and the times that were measured for it.

    Attributes:
        period: Steps after which its work repeats. A block has a multiple of that many
            steps; otherwise the median would hide the step that costs more.
        seat: Entered around everything that the contender does.
        block: Steps per block.
        bare: For each kind of time and each quad, nanoseconds per bare step.
        own: The same for the contender's own steps.
    """

    name: str
    step: Step
    state: str = ""
    period: int = 1
    seat: AbstractContextManager[object] = field(default_factory=nullcontext)
    block: int = 0
    bare: dict[str, list[float]] = field(default_factory=dict)
    own: dict[str, list[float]] = field(default_factory=dict)
    _turned: bool = False

    def begin(self, bare: Step, clock: Clock) -> None:
        """Clears all times; chooses a block in which the slower step takes BLOCK_NS."""

        def slowest() -> float:
            return max(
                min(next(iter(clock(step, self.block).values())) for _ in range(3))
                for step in (bare, self.step)
            )

        self.bare, self.own, self.block = {}, {}, self.period
        while (taken := slowest()) < BLOCK_NS / 2:
            self.block *= 2
        periods = self.block / self.period * BLOCK_NS / taken
        self.block = self.period * max(1, round(periods))

    def quad(self, bare: Step, clock: Clock) -> None:
        """Times A B B A, and every second time B A A B."""
        order = (bare, self.step, self.step, bare)
        if self._turned:
            order = (self.step, bare, bare, self.step)
        for step in (order[1], order[0]):
            clock(step, self.block)
        # Between the blocks nothing is computed: it would slow down the next one.
        taken = [clock(step, self.block) for step in order]
        if self._turned:
            taken = [taken[i] for i in (1, 0, 3, 2)]
        for kind in taken[0]:
            a1, b1, b2, a2 = (times[kind] / self.block / 2 for times in taken)
            self.bare.setdefault(kind, []).append(a1 + a2)
            self.own.setdefault(kind, []).append(b1 + b2)
        self._turned = not self._turned


def measure(
    bare: Step,
    runners: list[Runner],
    clock: Clock,
    seconds: float,
    least: int,
    most: int,
    progress: Callable[[float], object] = lambda share: None,
) -> None:
    """Runs rounds for so many seconds, but at least `least` and at most `most` rounds.

    Args:
        progress: Called with the part of the work that is done, from 0 to 1.
    """
    shuffled = random.Random(0)
    with _no_gc():
        for runner in runners:
            with runner.seat:
                runner.begin(bare, clock)
        start = time.perf_counter()
        for done in range(most):
            spent = (time.perf_counter() - start) / seconds
            if done >= least and spent >= 1:
                break
            for runner in shuffled.sample(runners, len(runners)):
                with runner.seat:
                    runner.quad(bare, clock)
            progress(max((done + 1) / most, min(spent, (done + 1) / least)))


@contextmanager
def _no_gc() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class Estimate(NamedTuple):
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float

    def covers(self, value: float) -> bool:
        """Whether the value is in the interval."""
        return self.low <= value <= self.high


def estimate(statistic: Callable[..., np.ndarray], *columns: np.ndarray) -> Estimate:
    """Computes a statistic and its interval, by bootstrap over the rounds.

    A round is drawn with the numbers of all columns, so noise that the columns have in
    common cancels out.

    Args:
        statistic: Takes arrays in which the last axis is the rounds.
        *columns: Each has one number per round.
    """
    rounds = len(columns[0])
    drawn = np.random.default_rng(0).integers(rounds, size=(RESAMPLES, rounds))
    low, high = np.percentile(statistic(*(c[drawn] for c in columns)), (2.5, 97.5))
    return Estimate(float(statistic(*columns)), float(low), float(high))


def _median(values: np.ndarray) -> np.ndarray:
    return np.median(values, axis=-1)


def ratio(runner: Runner, kind: str) -> Estimate:
    """Its step divided by the bare step."""
    return estimate(_median, np.divide(runner.own[kind], runner.bare[kind]))


def _added(runner: Runner, kind: str) -> np.ndarray:
    return np.subtract(runner.own[kind], runner.bare[kind])


def added_ns(runner: Runner, kind: str) -> Estimate:
    """The nanoseconds that it adds to a step."""
    return estimate(_median, _added(runner, kind))


def share(runner: Runner, peer: Runner, kind: str) -> Estimate | None:
    """What it adds, divided by what the peer adds; None if the peer may add nothing."""
    if added_ns(peer, kind).low <= 0:
        return None
    return estimate(
        lambda ours, theirs: _median(ours) / _median(theirs),
        _added(runner, kind),
        _added(peer, kind),
    )


def unresolved(ratio: Estimate, control: Estimate) -> str:
    """Returns why a ratio must not be quoted; empty if it may be."""
    if not control.covers(1):
        return "the control is off 1"
    if ratio.low <= control.high and control.low <= ratio.high:
        return "within the control"
    if abs(ratio.value - 1) < LEAST_EFFECT:
        return "less than 1 %"
    if ratio.high - ratio.low >= max(WIDEST, abs(ratio.value - 1) / 4):
        return "interval too wide"
    return ""
