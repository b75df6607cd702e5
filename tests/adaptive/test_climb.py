"""The rule of the aligned pace, from a reading to a factor: numbers in, numbers out."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from warmopt import Aligned
from warmopt._climb import (
    CLIMBING,
    HOLDING,
    LOOK,
    LOOKING,
    LOWERED,
    RAMPING,
    Climb,
    Limits,
    after_on_device,
    on_device,
    plain,
)
from warmopt._measure import comparison

LIMITS = Aligned().limits
readings = st.floats(-1.0, 1.0) | st.sampled_from([-1.0, 0.0, 1.0])
limits = st.builds(
    Limits,
    rule=st.sampled_from(["E1", "align"]),
    gain=st.floats(0.01, 0.9),
    most=st.floats(0.01, 0.9),
    start=st.floats(0.001, 0.5),
    every=st.integers(1, 5),
    stall=st.integers(1, 40),
    threshold=st.floats(-0.5, 0.5),
)


def climb(alignments: list[float], limits: Limits = LIMITS) -> list[Climb]:
    """The state after each reading."""
    now, states = Climb.begun(limits.start), []
    for number, alignment in enumerate(alignments, 1):
        now = now.after(alignment, number * limits.every, limits)
        states.append(now)
    return states


class Plain:
    """The same rule as one would write it down, with lists and branches."""

    def __init__(self, limits: Limits) -> None:
        self.limits, self.factor = limits, limits.start
        self.phase, self.best = LOOKING, limits.start
        self.seen: list[float] = []  # readings of this search
        self.below: list[float] = []  # factors since the best

    def read(self, a: float) -> None:
        limits = self.limits
        if self.phase in (RAMPING, HOLDING) or self.factor >= 1.0:
            return
        if limits.rule == "align":
            rate = limits.gain * a
        else:
            a_near = math.copysign(min(abs(a), 0.999), a)
            rate = limits.gain * a_near / (1 - abs(a_near))
        rate = math.copysign(min(abs(rate), limits.most), rate)
        self.factor = min(1.0, self.factor * math.exp(rate))
        is_lowered = False
        if self.phase in (LOOKING, LOWERED):
            self.seen.append(a)
            if len(self.seen) == 8:
                if sum(self.seen) >= 8 * limits.threshold:
                    self.phase = CLIMBING
                elif self.phase == LOOKING:
                    self.phase, self.seen, is_lowered = LOWERED, [], True
                    self.factor = 0.01 * min(self.factor, limits.start)
                else:
                    self.phase = RAMPING
        if self.factor > 1.02 * self.best or is_lowered:
            self.best, self.below = self.factor, []
        else:
            self.below.append(self.factor)
        updates = len(self.below) * limits.every
        if self.phase == CLIMBING and updates >= limits.stall and self.factor < 1.0:
            logs = 0.0
            for factor in self.below:
                logs += limits.every * math.log(factor)
            self.factor, self.phase = min(math.exp(logs / updates), 1.0), HOLDING


@given(st.lists(readings, max_size=60), limits)
def test_it_is_the_plain_rule(alignments: list[float], limits: Limits) -> None:
    plain = Plain(limits)
    for alignment, state in zip(alignments, climb(alignments, limits), strict=True):
        plain.read(alignment)
        assert (state.factor, state.phase) == (plain.factor, plain.phase)
        assert 0.0 < state.factor <= 1.0


@given(st.lists(readings | st.just(math.nan), max_size=60), limits)
def test_tensors_follow_the_same_rule(alignments: list[float], limits: Limits) -> None:
    """But for the last bits: torch has an exponential function of its own."""
    device, begun = torch.device("cpu"), Climb.begun(limits.start)
    now: Any = Climb(*(on_device(number, device) for number in begun))
    both = zip(alignments, climb(alignments, limits), strict=True)
    for number, (alignment, expected) in enumerate(both, 1):
        done = torch.tensor(number * limits.every)
        now = after_on_device(now, on_device(alignment, device), done, limits)
        if abs(expected.factor / (1.02 * expected.best) - 1.0) < 1e-9:
            return  # the last bit would decide
        for one, other in zip(map(plain, now), expected, strict=True):
            assert type(one) is type(other)
            assert one == pytest.approx(other, rel=1e-9, abs=1e-12)


@given(
    st.lists(
        st.floats(-2.0, 2.0) | st.sampled_from([0.0, math.nan, math.inf]),
        min_size=3,
        max_size=3,
    )
)
def test_tensors_make_the_same_reading(sums: list[float]) -> None:
    for signal in ("ratio", "tensor", "adam"):
        if signal == "adam" and not (sums[1] >= 0.0 and sums[2] >= 0.0):
            continue  # sums of squares
        one = comparison.alignment(signal, *sums)
        tensor = torch.tensor(sums, dtype=torch.float64)
        other = comparison.alignment_on_device(signal, tensor)
        assert plain(other) == pytest.approx(one, rel=1e-12, nan_ok=True)


@given(st.lists(readings | st.just(math.nan), max_size=60), limits)
def test_nan_is_no_reading(alignments: list[float], limits: Limits) -> None:
    known = [each for each in alignments if each == each]
    states = climb(alignments, limits)
    if known:
        one, other = states[-1], climb(known, limits)[-1]
        assert one._replace(ramp_from=0) == other._replace(ramp_from=0)


def test_it_reaches_the_top_as_fast_as_it_may() -> None:
    factors = [state.factor for state in climb([1.0] * 50)]
    assert factors.index(1.0) + 1 == math.ceil(math.log(100) / 0.1)
    assert factors[46:] == [1.0] * 4


def test_noise_is_looked_at_twice_and_then_ramped() -> None:
    states = climb([0.05] * 20)
    assert [state.phase for state in states] == (
        [LOOKING] * (LOOK - 1) + [LOWERED] * LOOK + [RAMPING] * 5
    )
    assert states[LOOK - 1].factor == 0.0001
    assert states[-1].ramp_from == 2 * LOOK


def test_an_lr_that_is_too_hot_at_the_start_is_lowered_and_climbs() -> None:
    states = climb([-0.8] * LOOK + [0.9] * 30)
    assert states[LOOK - 1].phase == LOWERED
    assert states[LOOK - 1].factor < 0.0001
    assert states[-1].phase == CLIMBING
    assert states[-1].factor > 10 * states[LOOK - 1].factor


def test_it_holds_at_the_geometric_mean_of_what_it_has_stalled_at() -> None:
    states = climb([1.0] * 10 + [-0.5, 0.5] * 20)
    *_, last = states
    at = next(i for i, state in enumerate(states) if state.phase == HOLDING)
    assert at == 10 + 30 - 1
    best = 0.01 * math.exp(1.0)
    assert last.factor == pytest.approx(best * math.exp(-0.025), rel=1e-12)


@pytest.mark.parametrize(
    ("rule", "signal", "rates"),
    [
        ("align", "ratio", {0.5: 0.05, -1.0: -0.1}),
        ("align", "adam", {0.5: 0.15, 1.0: 0.3}),
        ("E1", "tensor", {0.5: 0.15, -0.2: -0.15 * 0.25, 1.0: 0.5}),
        ("E1", "ratio", {0.2: 0.15 * 0.25, 0.9: 0.1}),
    ],
)
def test_rates(rule, signal, rates: dict[float, float]) -> None:
    limits = Aligned(rule=rule, signal=signal).limits
    for alignment, rate in rates.items():
        (state,) = climb([alignment], limits)
        assert math.log(state.factor / 0.01) == pytest.approx(rate, rel=1e-12)
