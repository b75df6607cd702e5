"""How fast an adaptive ramp goes, verdict by verdict, without an optimizer."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.adaptive import SHAPES, WAYS, never, walked
from warmopt._groups.schedule import Schedule
from warmopt.adaptive import Adaptive


def paced(schedule: Schedule, verdicts: list[bool]) -> tuple[list[float], bool]:
    """The factors of a ramp with one verdict before each update, and whether it ended.

    This is the adaptive rule, with whole numbers and fractions for the progress.
    """
    adaptive, steps = schedule.pace, int(schedule.steps)
    last, progress, rest = schedule.last_update(steps), Fraction(0), None
    factors = []
    for settled in verdicts:
        fast = adaptive.fast
        if fast is None:
            fast = min(math.ceil(steps / 3), 100)
        fast = min(fast, steps)
        if adaptive.on_settled == "accelerate":
            progress += Fraction(steps, fast) if settled else 1
        elif settled or rest is not None:
            if adaptive.on_settled == "end":
                rest = Fraction(last)
            elif rest is None:
                rest = max((last - progress) / fast, Fraction(1))
            progress += rest
        else:
            progress += 1
        ramped = float(progress - schedule.offset)
        if progress >= last:
            return [*factors, 1.0], True
        factors.append(
            schedule.shape(ramped, steps, schedule.start)
            if ramped > 0
            else schedule.start
        )
    return factors, False


@given(
    shape=st.sampled_from(SHAPES),
    on_settled=st.sampled_from(WAYS),
    steps=st.integers(1, 60) | st.just(310),
    fast=st.none() | st.integers(1, 80),
    offset=st.sampled_from([0, 0, 1, 9]),
    start=st.sampled_from([None, 0.5, 1.0, 3.0]),
    verdicts=st.lists(st.booleans() | st.sampled_from([True] * 9), max_size=80),
)
@example("linear", "accelerate", 54, 49, 0, None, [True] * 49)  # 54 / 49 rounds down
@settings(max_examples=200)
def test_any_verdicts_are_paced_as_the_rule_says(
    shape: str,
    on_settled: Any,
    steps: int,
    fast: int | None,
    offset: int,
    start: float | None,
    verdicts: list[bool],
) -> None:
    """It also never falls, ends exactly at 1, and not after the fixed warmup."""
    adaptive = Adaptive(criterion=never, shape=shape, on_settled=on_settled, fast=fast)
    schedule = Schedule(adaptive, steps, start, offset)
    last = schedule.last_update(steps)
    verdicts = [*verdicts, *[last > 500] * last]  # `saturating` is 37 times as long
    factors, ended = walked(schedule, verdicts)
    expected, _ = paced(schedule, verdicts)
    assert ended
    assert len(factors) <= last
    assert factors[-1] == 1.0
    assert factors == pytest.approx(expected, rel=1e-9, abs=1e-12)
    down = schedule.start > 1.0
    assert factors == sorted(factors, reverse=down)


@pytest.mark.parametrize("on_settled", WAYS)
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 100, 299, 301, 2000])
def test_settled_from_the_first_update_on_it_takes_the_fast_length(
    on_settled: Any, steps: int
) -> None:
    schedule = Schedule(Adaptive(on_settled=on_settled), steps)
    factors, _ = walked(schedule, [True] * steps)
    fast = min(-(-steps // 3), 100)
    assert len(factors) == (1 if on_settled == "end" else fast)
    assert schedule.pace.fast_updates(steps) == fast


@pytest.mark.parametrize(
    ("on_settled", "factors"),
    [
        ("accelerate", [0.1, 0.35, 0.6, 0.7, 0.8, 0.9, 1.0]),
        ("ramp", [0.1, 0.325, 0.55, 0.775, 1.0]),
        ("end", [0.1, 1.0]),
    ],
)
def test_only_accelerate_slows_down_again(
    on_settled: Any, factors: list[float]
) -> None:
    verdicts = [False, True, True, *[False] * 20]
    schedule = Schedule(Adaptive(on_settled=on_settled, fast=4), 10)
    assert walked(schedule, verdicts)[0] == pytest.approx(factors)
