"""Adaptive mode in one process: its pace, what it resumes from, and who decides."""

from __future__ import annotations

import copy
import gc
import io
import math
import pickle
import tracemalloc
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.nn import Parameter
from torch.optim import Optimizer

from tests.optimizers import ROWS, assert_same, snapshot
from warmopt import Warmed
from warmopt.adaptive import Adaptive
from warmopt.criteria import InverseRootVariance, Reading
from warmopt.schedule import Schedule
from warmopt.shapes import MODES
from warmopt.trace import Trace

ADAM = ROWS["adam-loop"]
WAYS = ("accelerate", "ramp", "end")
nan = math.nan


def never(_: Reading) -> bool:
    return False


def always(_: Reading) -> bool:
    return True


# --- the pace, without any optimizer --------------------------------------------------


def paced(schedule: Schedule, verdicts: list[bool]) -> tuple[list[float], bool]:
    """Factors of a ramp, a verdict before each update; and whether it came to its end.

    What the adaptive rule says, with whole numbers and fractions for the progress.
    """
    adaptive, steps = schedule.adaptive, int(schedule.steps)
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


def walked(schedule: Schedule, verdicts: list[bool]) -> tuple[list[float], bool]:
    """The same by `Adaptive` itself."""
    adaptive, steps = schedule.adaptive, schedule.steps
    last, fast, factors = schedule.last_update(steps), 0, []
    for update, settled in enumerate(verdicts, 1):
        fast = adaptive.next_fast(fast, settled)
        position = adaptive.position(update, fast, steps, last)
        factors.append(schedule.factor(position, steps, schedule.start))
        if position >= last:
            return factors, True
    return factors, False


SHAPES = [name for name in MODES if MODES[name].steps_from_beta2 is None]


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
    """Also: monotone, exactly 1 at the end, never after the fixed warmup's end."""
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
    assert schedule.adaptive.fast_updates(steps) == fast


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


@pytest.mark.parametrize(
    ("argument", "error"),
    [
        ({"criterion": 0.02}, TypeError),
        ({"on_settled": "stop"}, ValueError),
        ({"on_settled": None}, ValueError),
        ({"fast": 0}, ValueError),
        ({"fast": 1.5}, TypeError),
        ({"every": 0}, ValueError),
        ({"every": True}, TypeError),
        ({"every": None}, TypeError),
        ({"window": 1}, ValueError),
        ({"window": "5"}, TypeError),
        ({"shape": "adaptive"}, ValueError),
        ({"shape": Adaptive()}, ValueError),
    ],
)
def test_what_is_not_allowed_is_named(
    argument: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error, match=next(iter(argument))):
        Adaptive(**argument)


# --- around an optimizer --------------------------------------------------------------


def wrapped(steps: int | None = 60, **options: Any) -> tuple[Warmed, list[Parameter]]:
    params = ADAM.params()
    start, offset = options.pop("start", None), options.pop("offset", 0)
    trace = options.pop("trace", None)
    mode = Adaptive(**options)
    warmed = ADAM.wrap(
        params, steps=steps, mode=mode, start=start, offset=offset, trace=trace
    )
    return warmed, params


def run(
    warmed: Warmed, params: list[Parameter], updates: range, step: Any = ADAM.step
) -> list[list[float]]:
    """Steps, and returns the effective LRs."""
    used = []
    for update in updates:
        step(warmed, params, update)
        used.append(warmed.get_last_lr())
    return used


def test_the_default_is_the_preset_that_was_tested() -> None:
    assert Adaptive() == Adaptive(InverseRootVariance(0.02), every=5, window=5)


@pytest.mark.parametrize("shape", MODES)
def test_a_warmup_that_never_settles_is_the_fixed_one(shape: str) -> None:
    """To the bit: LRs, parameters, state, and the update after which it is done."""
    steps = 20 if shape in SHAPES else None
    row = ROWS["nadam-loop"]
    twins = row.params(), row.params()
    pair = [
        Warmed(row.make(params, lr=0.1, betas=(0.9, 0.95)), steps=steps, mode=mode)
        for params, mode in zip(
            twins, (shape, Adaptive(criterion=never, shape=shape, every=3)), strict=True
        )
    ]
    for update in range(1, 1000):
        for warmed, params in zip(pair, twins, strict=True):
            row.step(warmed, params, update)
        assert pair[0].get_last_lr() == pair[1].get_last_lr()
        assert_same(snapshot(pair[0], twins[0]), snapshot(pair[1], twins[1]))
        assert pair[0].done == pair[1].done
        if pair[0].done:
            break
    assert [warmed.done_reason for warmed in pair] == ["cap", "cap"]


def test_without_steps_the_cap_is_that_of_untuned_linear() -> None:
    params, expected = ADAM.params(), ADAM.params()
    adaptive = ADAM.wrap(params, mode=Adaptive(criterion=never))
    assert adaptive.factors == ADAM.wrap(expected, mode="untuned_linear").factors
    assert "0 of at most 2000 updates done" in repr(adaptive)


@pytest.mark.parametrize("on_settled", WAYS)
@pytest.mark.parametrize(("steps", "every"), [(60, 5), (61, 1), (7, 3), (400, 5)])
def test_a_verdict_is_used_one_interval_after_its_reading(
    on_settled: Any, steps: int, every: int
) -> None:
    """Always settled: read after `every`, judged after the next, fast from then on."""
    warmed, params = wrapped(
        steps, criterion=always, on_settled=on_settled, every=every
    )
    schedule = Schedule(Adaptive(on_settled=on_settled), steps)
    expected, _ = walked(schedule, [u > 2 * every for u in range(1, steps + 1)])
    used = run(warmed, params, range(1, len(expected) + 1))
    assert used == [[0.1 * factor] for factor in expected]
    assert warmed.done
    assert warmed.done_reason == "settled"
    assert warmed.factors == [1.0]


def test_the_pace_follows_the_verdict_of_each_reading() -> None:
    seen: list[int] = []

    def settled(reading: Reading) -> bool:
        seen.append(reading.update)
        return reading.update in (4, 6, 12)

    warmed, params = wrapped(criterion=settled, fast=8, every=2)
    fast = {7, 8, 9, 10, 15, 16}  # read after 4, judged after 6
    expected, _ = walked(
        Schedule(Adaptive(fast=8), 60), [u in fast for u in range(1, 19)]
    )
    used = run(warmed, params, range(1, 19))
    assert used == [[0.1 * factor] for factor in expected]
    assert seen == list(range(2, 17, 2))


def test_skipped_updates_count_for_nothing() -> None:
    """Base LR 0, an infinity under AMP, no gradient wanted: as if not there."""
    trace, quiet = Trace(), Trace()
    warmed, params = wrapped(40, every=2, window=2, trace=trace)
    calm, calm_params = wrapped(40, every=2, window=2, trace=quiet)
    scaler = torch.amp.GradScaler("cpu", init_scale=1.0, growth_interval=10**6)
    scaler.scale(torch.zeros(()))  # it begins with its first use
    for update in range(1, 25):
        ADAM.set_grads(params, update)
        params[0].grad[0, 0] = math.inf
        before = scaler.get_scale()
        scaler.unscale_(warmed)
        scaler.step(warmed)
        scaler.update()
        assert scaler.get_scale() == before / 2
        base, warmed.param_groups[0]["lr"] = warmed.param_groups[0]["lr"], 0.0
        for param in params:
            param.grad = None  # Adam would average it nonetheless
        warmed.step()
        warmed.param_groups[0]["lr"] = base
        for param in params:
            param.requires_grad_(False)
        warmed.step()
        for param in params:
            param.requires_grad_(True)
        ADAM.step(warmed, params, update)
        ADAM.step(calm, calm_params, update)
        assert warmed.get_last_lr() == calm.get_last_lr()
    assert_same(snapshot(calm, calm_params), snapshot(warmed, params))
    assert str(trace.rows) == str(quiet.rows)
    assert len(trace) > 3


def test_an_update_that_a_fused_step_skips_counts_for_nothing() -> None:
    def fused(trace: Trace) -> tuple[Warmed, list[Parameter]]:
        params = ADAM.params()
        mode = Adaptive(every=2, window=2)
        optimizer = torch.optim.Adam(params, lr=0.1, fused=True)
        return Warmed(optimizer, steps=40, mode=mode, trace=trace), params

    trace, quiet = Trace(), Trace()
    (warmed, params), (calm, calm_params) = fused(trace), fused(quiet)
    scaler = torch.amp.GradScaler("cpu", init_scale=1.0, growth_interval=10**6)
    scaler.scale(torch.zeros(()))  # it begins with its first use
    for update in range(1, 20):
        for spoiled in (True, False):
            ADAM.set_grads(params, update)
            if spoiled:
                params[0].grad[0, 0] = math.inf
            scaler.step(warmed)
            scaler.update(1.0)
        ADAM.step(calm, calm_params, update)
        assert warmed.factors == calm.factors
    assert str(trace.rows) == str(quiet.rows)
    assert len(trace) > 3


def test_after_the_end_nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    from warmopt import probe

    takes: list[int] = []
    take = probe.Probe._take
    monkeypatch.setattr(
        probe.Probe, "_take", lambda self, u: (takes.append(u), take(self, u))
    )
    warmed, params = wrapped(30, criterion=always, every=2, window=2)
    run(warmed, params, range(1, 40))
    assert warmed.done
    assert takes == [2, 4, 6, 8, 10, 12]
    takes.clear()
    fixed = ADAM.wrap(params, steps=30)
    run(fixed, params, range(1, 20))
    assert takes == []


def test_where_nothing_warms_nothing_is_read() -> None:
    params, trace = ADAM.params(), Trace()
    warmed = ADAM.wrap(params, steps=0, trace=trace)
    run(warmed, params, range(1, 20))
    assert list(trace) == []


def test_it_does_not_grow() -> None:
    """Bytes held from our own lines: after many readings no more than after few."""
    warmed, params = wrapped(10**6, every=1, window=3)
    ours, held = tracemalloc.Filter(True, "*/warmopt/*"), []
    tracemalloc.start()
    try:
        for updates in (range(200), range(200, 600)):
            for update in updates:  # `run` would leave floats in Python's free list
                ADAM.step(warmed, params, update)
            gc.collect()
            snap = tracemalloc.take_snapshot().filter_traces([ours])
            held.append(sum(stat.size for stat in snap.statistics("filename")))
    finally:
        tracemalloc.stop()
    assert 0 < held[1] < held[0] + 350  # a byte for each reading would show


# --- resume ---------------------------------------------------------------------------


def _saved(warmed: Warmed, params: list[Parameter]) -> Any:
    file = io.BytesIO()
    torch.save([warmed.state_dict(), [param.data for param in params]], file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def _put(data: list[torch.Tensor], params: list[Parameter]) -> None:
    for param, values in zip(params, data, strict=True):
        param.data.copy_(values)


def by_file(warmed: Warmed, params: list[Parameter], make: Any, trace: Trace) -> Any:
    state, data = _saved(warmed, params)
    fresh, fresh_params = make(trace)
    _put(data, fresh_params)
    fresh.load_state_dict(state)
    return fresh, fresh_params


def by_inner(warmed: Warmed, params: list[Parameter], make: Any, trace: Trace) -> Any:
    """Loaded by the optimizer that is wrapped."""
    state, data = _saved(warmed, params)
    fresh, fresh_params = make(trace)
    _put(data, fresh_params)
    fresh.wrapped.load_state_dict(state)
    return fresh, fresh_params


def before_wrapping(
    warmed: Warmed, params: list[Parameter], make: Any, trace: Trace
) -> Any:
    state, data = _saved(warmed, params)
    fresh_params = ADAM.params()
    _put(data, fresh_params)
    optimizer = ADAM.build(fresh_params)
    optimizer.load_state_dict(state)
    mode = warmed._clock.schedule.adaptive
    return Warmed(optimizer, steps=60, mode=mode, trace=trace), fresh_params


def by_copy(warmed: Warmed, params: list[Parameter], make: Any, trace: Trace) -> Any:
    copied, copied_params = copy.deepcopy((warmed, params))
    copied.trace.rows.clear()
    return copied, copied_params


def by_pickle(warmed: Warmed, params: list[Parameter], make: Any, trace: Trace) -> Any:
    loaded, loaded_params = pickle.loads(pickle.dumps((warmed, params)))
    loaded.trace.rows.clear()
    return loaded, loaded_params


def in_the_middle(reading: Reading) -> bool:
    """Settled only for a while, by the values as well as by the clock."""
    return 9 <= reading.update <= 15 and reading.inverse_root_variance < 10


@pytest.mark.parametrize(
    "way", [by_file, by_inner, before_wrapping, by_copy, by_pickle]
)
@pytest.mark.parametrize(
    ("criterion", "on_settled"),
    [
        (in_the_middle, "accelerate"),
        (in_the_middle, "ramp"),
        (InverseRootVariance(0.5), "accelerate"),
    ],
)
def test_resumed_at_any_update_it_goes_on_to_the_bit(
    way: Callable[..., Any], criterion: Any, on_settled: Any
) -> None:
    """LRs, parameters, state and readings; each point of an interval, each phase."""

    def make(trace: Trace) -> tuple[Warmed, list[Parameter]]:
        return wrapped(
            60,
            criterion=criterion,
            on_settled=on_settled,
            every=3,
            window=3,
            fast=20,
            trace=trace,
        )

    whole = Trace()
    warmed, params = make(whole)
    end = 36
    used, kept = [], []
    for update in range(1, end):
        kept.append(way(warmed, params, make, Trace()))
        used += run(warmed, params, range(update, update + 1))
    assert any(row["settled"] for row in whole)
    for done, (resumed, resumed_params) in enumerate(kept):
        assert run(resumed, resumed_params, range(done + 1, end)) == used[done:]
        assert_same(snapshot(warmed, params), snapshot(resumed, resumed_params))
        rows = [row for row in whole if row["judged_after"] > done]
        assert str(resumed.trace.rows) == str(rows)


@pytest.mark.parametrize("change", [{"window": 4}, {"every": 2}, {"window": 2}])
def test_another_window_in_the_code_goes_on_with_the_progress(
    change: dict[str, int],
) -> None:
    """The count and the pace stay; the window begins anew if it has another size."""
    warmed, params = wrapped(60, criterion=always, every=3, window=3)
    run(warmed, params, range(1, 11))
    state, _ = _saved(warmed, params)
    factors = warmed.factors
    other, others = wrapped(
        60, **{"criterion": always, "every": 3, "window": 3} | change
    )
    other.load_state_dict(state)
    assert other.factors == factors
    run(other, others, range(11, 60))
    assert other.done_reason == "settled"


def test_rewarm_starts_over() -> None:
    warmed, params = wrapped(20, criterion=always, every=2, window=2)
    used = run(warmed, params, range(1, 20))
    assert warmed.done
    warmed.rewarm()
    assert not warmed.done
    assert warmed.done_reason is None
    assert run(warmed, params, range(1, 20)) == used
    warmed.rewarm(0)
    assert warmed.done


HOSTILE = {
    "warmup_fast": [-1, 10**9, 1.5, "1", None, True, nan, torch.tensor(1)],
    "warmup_settled": [1, 0, "no", None, nan, torch.tensor(True)],
}
WINDOWS = ["text", 3, None, [], {}, torch.zeros(3), torch.zeros(0), nan]


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key in HOSTILE for value in HOSTILE[key]]
)
def test_a_hostile_value_is_refused_by_name(key: str, value: Any) -> None:
    warmed, params = wrapped(60, criterion=always, every=2, window=2)
    run(warmed, params, range(1, 9))
    state = copy.deepcopy(warmed.state_dict())
    before = copy.deepcopy(warmed.state_dict())
    state["param_groups"][0][key] = value
    with pytest.raises((TypeError, ValueError), match=key):
        warmed.load_state_dict(state)
    assert str(warmed.state_dict()) == str(before)


@pytest.mark.parametrize("key", ["warmup_ring", "warmup_latest"])
@pytest.mark.parametrize("value", WINDOWS, ids=str)
def test_a_window_that_is_none_begins_anew(key: str, value: Any) -> None:
    warmed, params = wrapped(60, criterion=always, every=2, window=2)
    run(warmed, params, range(1, 9))
    state = copy.deepcopy(warmed.state_dict())
    state["param_groups"][0][key] = value
    trace = Trace()
    fresh, fresh_params = wrapped(60, criterion=always, every=2, window=2, trace=trace)
    fresh.load_state_dict(state)
    run(fresh, fresh_params, range(9, 13))
    assert [row["update"] for row in trace] == [10]
    assert trace.rows[0]["samples"] == 1


def test_what_was_begun_adaptive_is_not_taken_for_a_fixed_warmup() -> None:
    adaptive, params = wrapped(60)
    with pytest.raises(ValueError, match=r"begun with, 'adaptive\(linear\)'"):
        ADAM.wrap(params, steps=60).load_state_dict(adaptive.state_dict())


def test_loading_a_bare_state_goes_on_from_where_it_was() -> None:
    warmed, params = wrapped(100, criterion=always)
    run(warmed, params, range(1, 31))
    factors = warmed.factors
    with pytest.warns(UserWarning, match="without warmup"):
        warmed.load_state_dict(ADAM.build(ADAM.params()).state_dict())
    assert warmed.factors == factors


# --- who decides ----------------------------------------------------------------------


def two_groups(
    *options: dict[str, Any], **adaptive: Any
) -> tuple[Warmed, list[Parameter]]:
    """A group for each of two parameters, of which the second never settles."""
    params = ADAM.params()
    groups: list[dict[str, Any]] = [
        {"params": [param], **extra}
        for param, extra in zip(params, options or ({}, {}), strict=True)
    ]
    trace = Trace()
    mode = Adaptive(every=2, window=2, **adaptive)
    optimizer = torch.optim.Adam(groups, lr=0.1)
    return Warmed(optimizer, steps=60, mode=mode, trace=trace), params


def small(reading: Reading) -> bool:
    """The first of the parameters has fewer elements."""
    return sum(reading.sizes) == 12


def test_groups_that_began_together_keep_the_ratio_of_their_lrs() -> None:
    warmed, params = two_groups(
        {"weight_decay": 0.1}, {"lr": 0.01}, criterion=in_the_middle
    )
    for one, other in run(warmed, params, range(1, 50)):
        assert one / 0.1 == pytest.approx(other / 0.01, rel=1e-15)
    assert {row["pool"] for row in warmed.trace} == {0}
    assert any(row["settled"] for row in warmed.trace)
    pace = [(g["warmup_fast"], g["warmup_settled"]) for g in warmed.param_groups]
    assert pace[0] == pace[1]


def test_groups_of_one_pool_have_their_own_start() -> None:
    warmed, params = two_groups({}, {"warmup_start": 0.5}, criterion=never)
    expected, expected_params = ADAM.params(), ADAM.params()
    fixed = Warmed(
        torch.optim.Adam(
            [
                {"params": expected[:1]},
                {"params": expected_params[1:], "warmup_start": 0.5},
            ],
            lr=0.1,
        ),
        steps=60,
    )
    used = run(warmed, params, range(1, 9))
    assert used == run(fixed, [expected[0], expected_params[1]], range(1, 9))


def test_per_group_decides_for_each_alone() -> None:
    warmed, params = two_groups(criterion=small, per_group=True)
    run(warmed, params, range(1, 12))
    fast = [group["warmup_fast"] for group in warmed.param_groups]
    assert fast == [7, 0]
    run(warmed, params, range(12, 61))
    assert warmed.done
    assert warmed.done_reason == "settled"


def test_a_late_group_decides_alone() -> None:
    warmed, params = wrapped(60, criterion=small, every=2, window=2, trace=Trace())
    run(warmed, params, range(1, 8))
    late = Parameter(torch.randn(4, 3))
    warmed.add_param_group({"params": [late]})
    both = [*params, late]
    run(warmed, both, range(8, 18))
    fast = [group["warmup_fast"] for group in warmed.param_groups]
    assert fast == [0, 6]  # read after its own 2nd, judged after its 4th, of 10
    assert [r["update"] for r in warmed.trace if r["pool"] == 1] == [2, 4, 6, 8]


def test_a_group_that_parts_loses_no_fast_update() -> None:
    """Frozen while both are fast: the other goes on as if it were alone."""
    warmed, params = two_groups(criterion=always)
    alone, alone_params = wrapped(60, criterion=always, every=2, window=2)
    run(alone, alone_params, range(1, 9))
    run(warmed, params, range(1, 9))
    params[1].requires_grad_(False)
    for update in range(9, 14):
        ADAM.step(alone, alone_params, update)
        ADAM.step(warmed, params, update)
        assert warmed.get_last_lr()[0] == alone.get_last_lr()[0]
        assert warmed.param_groups[1]["warmup_fast"] == 4
    params[1].requires_grad_(True)
    run(warmed, params, range(14, 60))
    assert warmed.done


class Mixed(Optimizer):
    """Groups with `plain` are SGD with momentum; the others have a second moment."""

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        super().__init__(params, {"lr": lr, "betas": (0.9, 0.99), "plain": False})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is None:
                    continue
                key = "momentum_buffer" if group["plain"] else "exp_avg_sq"
                state = self.state[param]
                average = state.setdefault(key, torch.zeros_like(param))
                average.lerp_(param.grad if group["plain"] else param.grad**2, 0.01)
                param.sub_(group["lr"] * average.sign())


@pytest.mark.parametrize("pooled", [True, False])
def test_groups_without_a_second_moment_follow_or_go_their_fixed_way(
    pooled: bool,
) -> None:
    params = ADAM.params()
    groups = [{"params": params[:1], "plain": True}, {"params": params[1:]}]
    mode = Adaptive(InverseRootVariance(9.0), every=2, window=2, per_group=not pooled)
    warmed = Warmed(Mixed(groups), steps=60, mode=mode)
    run(warmed, params, range(1, 13))
    factors = warmed.factors
    assert factors[1] > 13 / 60
    assert f"{15 / 27 if pooled else 1:.0%}" in repr(warmed)
    if pooled:
        assert factors[0] == factors[1]
    else:  # nothing is read of it, so it never settles
        assert [group["warmup_fast"] for group in warmed.param_groups] == [0, 6]


def test_muon_with_adamw_goes_on_with_what_it_can_watch() -> None:
    import pytorch_optimizer

    matrix, bias = Parameter(torch.randn(8, 8)), Parameter(torch.randn(8))
    optimizer = pytorch_optimizer.Muon(
        [
            {"params": [matrix], "use_muon": True},
            {"params": [bias], "use_muon": False},
        ],
        lr=1e-3,
    )
    mode = Adaptive(criterion=always, every=2, window=2)
    warmed = Warmed(optimizer, steps=60, mode=mode)
    run(warmed, [matrix, bias], range(1, 9), ROWS["pytorch_optimizer.Muon"].step)
    assert "watching 11% of the parameters" in repr(warmed)
    assert warmed.factors[0] == warmed.factors[1] > 9 / 60


@pytest.mark.parametrize("idle", ["unused", "empty"])
def test_a_group_without_state_yet_is_no_reason_to_refuse(idle: str) -> None:
    """Another length, so a pool of its own, of which nothing is to be read."""
    used, unused = ADAM.params()
    group = {"params": [unused] if idle == "unused" else [], "warmup_steps": 20}
    warmed = Warmed(
        torch.optim.Adam([{"params": [used]}, group]), steps=10, mode="adaptive"
    )
    for update in range(1, 12):
        ADAM.set_grads([used], update)
        warmed.step()
    assert warmed.factors[0] == 1.0


REFUSED = ["sgd-loop", "adagrad-loop", "adamax-loop", "muon", "lbfgs", "asgd-loop"]


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("how", ["adaptive", "watch", "trace"])
def test_an_optimizer_without_second_moment_is_refused_at_once(
    name: str, how: str
) -> None:
    row = ROWS[name]
    optimizer = row.build(row.params())
    arguments: dict[str, Any] = {
        "adaptive": {"mode": "adaptive"},
        "watch": {"watch": [always]},
        "trace": {"trace": Trace()},
    }[how]
    with pytest.raises(ValueError, match=r"keeps no second moment.*mode='linear'"):
        Warmed(optimizer, steps=10, **arguments)
    assert "warmup_updates" not in optimizer.param_groups[0]


def test_an_unknown_class_without_one_is_refused_after_its_first_step() -> None:
    params = ADAM.params()
    warmed = Warmed(
        Mixed([{"params": params, "plain": True}]), steps=10, mode="adaptive"
    )
    message = r"Mixed keeps no second moment.*momentum_buffer.*mode='linear'"
    with pytest.raises(ValueError, match=message):
        ADAM.step(warmed, params, 1)
    assert warmed.param_groups[0]["lr"] == 0.1


@pytest.mark.parametrize(
    "name", ["adam-loop", "rmsprop-loop", "pytorch_optimizer.Lamb"]
)
@pytest.mark.parametrize("power", [-20, 12])
def test_scaled_gradients_give_the_same_decisions(name: str, power: int) -> None:
    """Also of a class that counts its updates in a plain number."""
    row, lrs = ROWS[name], []
    for scale in (1.0, 2.0**power):
        params = row.params()
        options = {"eps": 0.0} if name != "pytorch_optimizer.Lamb" else {}
        trace = Trace()
        mode = Adaptive(InverseRootVariance(0.05), every=3, window=3)
        optimizer = row.make(params, lr=1e-3, **options)
        warmed = Warmed(optimizer, steps=90, mode=mode, trace=trace)
        for update in range(1, 60):
            row.set_grads(params, update)
            for param in params:
                param.grad.mul_(scale)
            warmed.step()
        verdicts = [
            (r["update"], r["settled"], r["inverse_root_variance"]) for r in trace
        ]
        lrs.append((str(verdicts), warmed.factors, warmed.done))
    assert lrs[0] == lrs[1]
    assert "True" in lrs[0][0]
