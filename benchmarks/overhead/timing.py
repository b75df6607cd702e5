"""Times steps against a bare step, in pairs, so that a busy machine harms both alike.

Blocks of the bare step (A) and of a contender (B) are timed as A B B A: a *quad*. One
discarded block of each goes before, B A, since the first are dearer; so either kind
follows either kind once. Every other quad is turned round, for what is left of that.
In a round every contender has one quad, in random order; one contender is the bare step
again, the *control*, whose true ratio is 1. What it shows, nobody may claim.
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
"""Nanoseconds of that many steps, by kind of time; the first sets the block size."""

BLOCK_NS = 450_000  # in longer blocks the control spreads more, in shorter the clock
RESAMPLES = 2000
WIDEST = 0.02  # interval of a ratio of which something may be said
# What is less differs from one process to the next, by where objects lie in memory,
# with intervals that do not touch: a step was seen at 0.992 that is at 1.002 elsewhere.
LEAST_EFFECT = 0.01


def thread_clock(step: Step, count: int) -> dict[str, float]:
    """CPU time of this thread, so that being preempted by others does not count."""
    steps = itertools.repeat(None, count)
    start = time.thread_time_ns()
    for _ in steps:
        step()
    return {"cpu": time.thread_time_ns() - start}


@dataclass
class Runner:
    """A contender and what was measured of it.

    Attributes:
        period: Steps after which its work repeats; a block is a multiple of them, or
            the median would hide the dear one.
        seat: Entered around everything that it does.
        block: Steps per block.
        bare: Nanoseconds a step of the bare blocks of each quad, by kind of time.
        own: The same of its own blocks.
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
        """Forgets all; chooses blocks of about BLOCK_NS, of the dearer step."""

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
        """Times A B B A, or every other time B A A B."""
        order = (bare, self.step, self.step, bare)
        if self._turned:
            order = (self.step, bare, bare, self.step)
        for step in (order[1], order[0]):
            clock(step, self.block)
        # Nothing is computed between the blocks: it would make the next one dearer.
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
    """Runs rounds for so many seconds, but no fewer than `least` nor more than `most`.

    Args:
        progress: Called with the share of the work that is done.
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
    """Bootstraps a statistic of columns with one number per round.

    Rounds are drawn whole, so what the columns share cancels.

    Args:
        statistic: Of arrays whose last axis is the rounds.
    """
    rounds = len(columns[0])
    drawn = np.random.default_rng(0).integers(rounds, size=(RESAMPLES, rounds))
    low, high = np.percentile(statistic(*(c[drawn] for c in columns)), (2.5, 97.5))
    return Estimate(float(statistic(*columns)), float(low), float(high))


def _median(values: np.ndarray) -> np.ndarray:
    return np.median(values, axis=-1)


def ratio(runner: Runner, kind: str) -> Estimate:
    """Its step over the bare step."""
    return estimate(_median, np.divide(runner.own[kind], runner.bare[kind]))


def _added(runner: Runner, kind: str) -> np.ndarray:
    return np.subtract(runner.own[kind], runner.bare[kind])


def added_ns(runner: Runner, kind: str) -> Estimate:
    """What it adds to a step."""
    return estimate(_median, _added(runner, kind))


def share(runner: Runner, peer: Runner, kind: str) -> Estimate | None:
    """What it adds over what the peer adds; None where that might be nothing."""
    if added_ns(peer, kind).low <= 0:
        return None
    return estimate(
        lambda ours, theirs: _median(ours) / _median(theirs),
        _added(runner, kind),
        _added(peer, kind),
    )


def unresolved(ratio: Estimate, control: Estimate) -> str:
    """Why nothing may be said of a ratio; empty where something may."""
    if not control.covers(1):
        return "the control is off 1"
    if ratio.low <= control.high and control.low <= ratio.high:
        return "within the control"
    if abs(ratio.value - 1) < LEAST_EFFECT:
        return "less than 1 %"
    if ratio.high - ratio.low >= max(WIDEST, abs(ratio.value - 1) / 4):
        return "interval too wide"
    return ""
