"""Adaptive mode around an optimizer: what it reads, and how it reacts."""

from __future__ import annotations

import gc
import math
import tracemalloc
from typing import Any

import pytest
import torch
from torch.nn import Parameter

from tests.support.adaptive import (
    ADAM,
    SHAPES,
    WAYS,
    always,
    never,
    run,
    walked,
    wrapped,
)
from tests.support.optimizers import ROWS, assert_same, snapshot
from warmopt import Warmed
from warmopt._groups.schedule import Schedule
from warmopt.adaptive import Adaptive
from warmopt.criteria import InverseRootVariance, Reading, Steady
from warmopt.shapes import MODES
from warmopt.trace import Trace


def test_the_default_is_the_preset_that_was_tested() -> None:
    assert Adaptive() == Adaptive(Steady(0.02, 0.2, 0.75), every=5, window=5)


@pytest.mark.parametrize(
    ("argument", "error"),
    [
        ({"criterion": 0.02}, TypeError),
        ({"criterion": InverseRootVariance}, TypeError),
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
        ({"shape": "lin"}, ValueError),
        ({"shape": Adaptive()}, TypeError),
    ],
)
def test_what_is_not_allowed_is_named(
    argument: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error, match=f"^{next(iter(argument))} must be"):
        Adaptive(**argument)


@pytest.mark.parametrize("shape", MODES)
def test_a_warmup_that_never_settles_is_the_fixed_one(shape: str) -> None:
    """Exactly: LRs, parameters, state, and the update after which it is done."""
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
    """Always settled: read after `every`, judged after the next, then fast."""
    warmed, params = wrapped(
        steps, criterion=always, on_settled=on_settled, every=every
    )
    schedule = Schedule(Adaptive(on_settled=on_settled), steps)
    expected, _ = walked(schedule, [u > 2 * every for u in range(1, steps + 1)])
    used = run(warmed, params, range(1, len(expected) + 1))
    assert used == [[0.1 * factor] for factor in expected]
    assert warmed.done
    assert warmed.done_reason == ("settled" if len(expected) < steps else "cap")
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
    """Base LR 0, an infinity under AMP, no gradients: as if there was no update."""
    trace, quiet = Trace(), Trace()
    warmed, params = wrapped(40, every=2, window=2, trace=trace)
    calm, calm_params = wrapped(40, every=2, window=2, trace=quiet)
    scaler = torch.amp.GradScaler("cpu", init_scale=1.0, growth_interval=10**6)
    scaler.scale(torch.zeros(()))  # the scaler starts at its first use
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
            param.grad = None  # else Adam would still average it
        warmed.step()
        warmed.param_groups[0]["lr"] = base
        if update % 8 == 1:  # groups are asked then: 8 updates done, or none
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
    scaler.scale(torch.zeros(()))  # the scaler starts at its first use
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


@pytest.mark.parametrize(
    "name", ["adam-loop", "rmsprop-loop", "pytorch_optimizer.Lamb"]
)
@pytest.mark.parametrize("power", [-20, 12])
def test_scaled_gradients_give_the_same_decisions(name: str, power: int) -> None:
    """Also for a class that counts its updates in a plain number."""
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


def test_after_the_end_nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    from warmopt._measure import window

    takes: list[int] = []
    take = window.Window._take
    monkeypatch.setattr(
        window.Window, "_take", lambda self, u: (takes.append(u), take(self, u))
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
    """Memory of our own code: no more after many readings than after a few."""
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
    assert 0 < held[1] < held[0] + 350  # one byte per reading would be seen
