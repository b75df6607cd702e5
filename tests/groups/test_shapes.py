"""The shapes: their formulas, their ends, and what all of them share."""

from __future__ import annotations

import math
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmopt import shapes
from warmopt._groups.schedule import Schedule
from warmopt.shapes import MODES, last_update

ALL = sorted({mode.shape for mode in MODES.values()}, key=lambda shape: shape.__name__)
STEPS = st.integers(1, 10_000)
RECTIFIABLE = st.floats(5.001, 10_000)
START = st.floats(0.001, 1.0)


def lengths(shape: shapes.Shape) -> st.SearchStrategy[float]:
    return RECTIFIABLE if shape is shapes.rectified else STEPS


@pytest.mark.parametrize("shape", ALL)
@given(st.data())
def test_it_rises_from_start_to_one(shape: shapes.Shape, data: st.DataObject) -> None:
    """Never falling, never outside start to 1; start at update 0, 1 at the end."""
    steps, start = data.draw(lengths(shape)), data.draw(START)
    end = last_update(shape, steps)
    low = data.draw(st.integers(0, end))
    high = data.draw(st.integers(low, end))
    ulp = 4e-16  # two roundings in start + (1 - start) * x
    assert start - ulp <= shape(low, steps, start)
    assert shape(low, steps, start) <= shape(high, steps, start) + ulp
    assert shape(high, steps, start) <= 1.0
    assert shape(0, steps, start) == pytest.approx(start, abs=ulp)
    assert shape(end, steps, start) == 1.0


@pytest.mark.parametrize("shape", ALL)
@given(st.data())
def test_it_falls_to_one_from_a_start_above(
    shape: shapes.Shape, data: st.DataObject
) -> None:
    steps, start = data.draw(lengths(shape)), data.draw(st.floats(1.0, 1000.0))
    end = last_update(shape, steps)
    low = data.draw(st.integers(0, end))
    high = data.draw(st.integers(low, end))
    assert shape(low, steps, start) >= shape(high, steps, start) * (1 - 1e-12)
    assert shape(high, steps, start) >= 1.0
    assert shape(end, steps, start) == 1.0


@given(
    st.sampled_from([name for name in MODES if not MODES[name].steps_from_beta2]),
    st.integers(0, 1000),
    st.one_of(st.none(), st.floats(0.001, 10.0)),
    st.integers(0, 100),
)
def test_a_schedule_ends_at_its_last_update(
    mode: str, steps: int, start: float | None, offset: int
) -> None:
    """Exactly 1 there and after; at `start` before the ramp."""
    schedule = Schedule(mode, steps, start, offset)
    end = schedule.last_update(steps)
    assert end >= (steps + offset if steps else 0)
    for update in (max(end, 1), end + 1, end + 1000):
        assert schedule.factor(update, steps, schedule.start) == 1.0
    if steps and offset:
        assert schedule.factor(offset, steps, schedule.start) == schedule.start
    if steps > 1 and start != 1.0 and mode != "staircase":
        assert schedule.factor(end - 1, steps, schedule.start) != 1.0 or end > steps


def test_the_ends_of_what_a_schedule_allows() -> None:
    assert Schedule("linear", 2**53).steps == 2**53
    with pytest.raises(ValueError, match=r"2\*\*53"):
        Schedule("linear", 2**53 + 1)
    assert Schedule("linear", 0.3, total_steps=1).steps == 1
    assert Schedule("linear", 1).offset == 0
    with pytest.raises(ValueError, match="finite number"):
        Schedule(lambda t, n: math.inf, 8).factor(1, 8, 0.0)


@pytest.mark.parametrize("shape", ALL)
def test_a_shape_given_as_a_function_has_its_end(shape: shapes.Shape) -> None:
    assert Schedule(shape, 7).last_update(7) == last_update(shape, 7)


def test_a_function_is_asked_from_update_one_to_the_last() -> None:
    schedule = Schedule(lambda t, n: 0.5, 4, offset=2)
    factors = [schedule.factor(update, 4, 0.0) for update in range(1, 8)]
    assert factors == [0.0, 0.0, 0.5, 0.5, 0.5, 0.5, 1.0]


def test_a_builtin_that_tells_no_signature_is_a_mode() -> None:
    assert Schedule(min, 8).factor(2, 8, 0.0) == 2.0


def test_the_default_first_update_is_not_lost() -> None:
    for shape in ALL:
        assert shape(1, 100) > 0.0


@pytest.mark.parametrize("steps", [1, 2, 7, 100])
def test_closed_forms(steps: int) -> None:
    """Each shape against its formula, written in another way."""
    for t in range(1, steps + 1):
        p = t / steps
        approx = partial(pytest.approx, rel=1e-12)
        assert shapes.linear(t, steps) == p
        assert shapes.linear(t, steps, 0.5) == approx(0.5 * (1 + p))
        assert shapes.cosine(t, steps) == approx(math.sin(math.pi * p / 2) ** 2)
        assert shapes.sqrt(t, steps) == approx(p**0.5)
        assert shapes.one_minus_sqrt(t, steps) == approx(1 - (1 - p) ** 0.5)
        assert shapes.polynomial(t, steps, power=3) == approx(p**3)
        assert shapes.exponential(t, steps, 0.01) == approx(10 ** (-2 * (1 - p)))
        assert shapes.saturating(t, steps) == approx(-math.expm1(-p))
        assert shapes.log(t, steps) == approx(math.log(t + 1, steps + 1))
        assert shapes.constant(t, steps, 0.3) == (1.0 if t == steps else 0.3)


def test_the_defaults_are_those_of_the_docs() -> None:
    assert shapes.constant(1, 3) == 1 / 3
    assert shapes.staircase(1, 100) == 1 / 5
    assert shapes.exponential(1, 2) == 0.01**0.5
    assert shapes.polynomial(1, 2) == 0.5**2


def test_staircase_has_equal_plateaus() -> None:
    values = [shapes.staircase(t, 20, levels=4) for t in range(1, 21)]
    assert values == [0.25] * 5 + [0.5] * 5 + [0.75] * 5 + [1.0] * 5


@pytest.mark.parametrize("beta2", [0.98, 0.65])
def test_rectified_is_radams_rectification(beta2: float) -> None:
    """Against the formula as RAdam writes it."""
    rho_inf = 2 / (1 - beta2) - 1

    def rectification(k: int) -> float:
        rho = rho_inf - 2 * k * beta2**k / (1 - beta2**k)
        if rho <= 4:
            return 0.0
        above = (rho - 4) * (rho - 2) * rho_inf
        return math.sqrt(above / ((rho_inf - 4) * (rho_inf - 2) * rho))

    first = next(k for k in range(1, 100) if rectification(k))
    for t in range(1, 200):
        expected = rectification(t + first - 1)
        assert shapes.rectified(t, 2 / (1 - beta2)) == pytest.approx(
            expected, rel=1e-13
        )
    assert shapes.rectified(0.01, 2 / (1 - beta2)) >= 0.0


def test_what_can_never_be_rectified_is_refused() -> None:
    with pytest.raises(ValueError, match="must be > 5"):
        shapes.rectified(1, 5)
    for steps in (1.01e11, 1e13, 2.0**53):  # the search for the end would never end
        with pytest.raises(ValueError, match=r"at most 1e\+11 for the rectified"):
            last_update(shapes.rectified, steps)
    rule = MODES["radam"].steps_from_beta2
    assert rule is not None
    with pytest.raises(ValueError, match=r"beta2 > 0\.6, got 0\.6"):
        rule(0.6)


@pytest.mark.parametrize(
    ("mode", "beta2", "steps"),
    [
        ("untuned_linear", 0.999, 2000),
        ("untuned_linear", 0.95, 40),
        ("untuned_linear", 0.0, 2),
        ("untuned_exponential", 0.999, 1000),
        ("untuned_exponential", 0.995, 200),
        ("radam", 0.75, 8),
    ],
)
def test_untuned_lengths_are_rounded_not_cut(
    mode: str, beta2: float, steps: int
) -> None:
    rule = MODES[mode].steps_from_beta2
    assert rule is not None
    assert rule(beta2) == steps


def test_unending_shapes_end_where_float64_does() -> None:
    for shape, steps in ((shapes.saturating, 7), (shapes.rectified, 200.0)):
        end = last_update(shape, steps)
        assert shape(end, steps) == 1.0
        assert shape(end - 1, steps) < 1.0
        assert min(shape(end + t, steps) for t in range(1000)) == 1.0
