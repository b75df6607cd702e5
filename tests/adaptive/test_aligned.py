"""The aligned pace: what it reads, what it does, and how it ends."""

from __future__ import annotations

import copy
import io
import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import Parameter

from benchmarks.overhead.devices import Cpu, count
from tests.support.aligned import Regression, ratios
from tests.support.optimizers import ROWS, Row, assert_same, snapshot
from tests.support.reference import lrs, stepped_at, watch
from warmopt import Aligned, Trace, Warmed
from warmopt._climb import Climb
from warmopt._keys import CLIMB

pytestmark = pytest.mark.filterwarnings("ignore:The warmup of param group")


def sgd(lr: float, **options: Any) -> Any:
    return lambda params: torch.optim.SGD(params, lr=lr, **options)


# --- what it reads -------------------------------------------------------------------


@pytest.mark.parametrize("lag", [0, 1])
def test_a_reading_is_the_ratio_of_the_slopes_and_moves_the_factor(lag: int) -> None:
    """Each is computed by hand. With lag 1 it moves the factor of the next update."""
    run = Regression(trace=Trace(), lag=lag)
    by_hand, climb = ratios(run.params), Climb.begun(0.01)
    expected, rows = [], run.warmed.trace.rows
    watched = watch(run.warmed.wrapped, lambda inner: (lrs(inner)[0], next(by_hand)))
    limits = run.warmed._ramps.pace.limits
    for update in range(1, 30):
        before = climb
        run.step(update)
        if update > 1:
            climb = climb.after(rows[-1]["alignment"], update - 1 + lag, limits)
        expected.append(0.1 * (climb if lag == 0 else before).factor)
    seen = [ratio for _, ratio in watched][1:]
    assert [row["alignment"] for row in rows] == pytest.approx(seen, rel=1e-4)
    assert [lr for lr, _ in watched] == expected
    assert climb == run.state()


@pytest.mark.parametrize("every", [2, 5])
def test_between_readings_it_stays_where_it_is(every: int) -> None:
    run = Regression(every=every, trace=Trace())
    factors = []
    for update in range(1, 21):
        run.step(update)
        factors += run.warmed.factors
    rows = run.warmed.trace.rows
    assert [row["judged_after"] for row in rows] == [*range(every, 21, every)]
    changes = [u for u in range(2, 21) if factors[u - 1] != factors[u - 2]]
    assert changes == [row["judged_after"] for row in rows]


def flat(tensors: Any) -> torch.Tensor:
    return torch.cat([each.detach().double().reshape(-1) for each in tensors])


def test_the_cosine_of_each_tensor() -> None:
    run, expected = Regression(trace=Trace(), signal="tensor"), []
    before: list[torch.Tensor] = []

    def by_hand(_: Any) -> None:
        if before:
            cosines = [
                torch.cosine_similarity(flat([p.grad]), flat([was - p]), 0) * p.numel()
                for was, p in zip(before, run.params, strict=True)
            ]
            expected.append(float(sum(cosines)) / sum(p.numel() for p in run.params))
        before[:] = [param.detach().clone() for param in run.params]

    watch(run.warmed.wrapped, by_hand)
    run.run(range(1, 15))
    told = [row["alignment"] for row in run.warmed.trace]
    assert told == pytest.approx(expected, rel=1e-3)


def test_the_cosine_in_adams_metric() -> None:
    run, expected = Regression(trace=Trace(), signal="adam"), []
    state = run.warmed.state

    def by_hand(_: Any) -> None:
        if state:
            g = flat(param.grad for param in run.params)
            m = flat(state[param]["exp_avg"] for param in run.params)
            metric = flat(state[param]["exp_avg_sq"] for param in run.params).rsqrt()
            norms = (g * g) @ metric * ((m * m) @ metric)
            expected.append(float((g * m) @ metric / norms.sqrt()))

    watch(run.warmed.wrapped, by_hand)
    run.run(range(1, 15))
    told = [row["alignment"] for row in run.warmed.trace]
    assert told == pytest.approx(expected, rel=1e-4)


def quadratic(product: float, noise: float = 1.0) -> float:
    """Mean of -2 a |g| / |m| of noisy descent with momentum .9, once it is stationary.

    In theory it is the product of LR and curvature.
    """
    generator = torch.Generator().manual_seed(0)
    weight, momentum = torch.zeros(40_000), torch.zeros(40_000)
    told = []
    for update in range(2000):
        grad = weight + noise * torch.randn(40_000, generator=generator)
        if update > 1000:
            cosine = torch.cosine_similarity(grad, momentum, 0)
            told.append(float(-2 * cosine * grad.norm() / momentum.norm()))
        momentum = 0.9 * momentum + 0.1 * grad
        weight = weight - product * momentum
    return sum(told) / len(told)


@pytest.mark.parametrize("product", [0.01, 0.1, 1.0, 10.0, 30.0])
def test_on_a_noisy_quadratic_it_measures_lr_times_curvature(product: float) -> None:
    """The theory: a = -(product |m|) / (2 |g|), over the whole range of stable LRs."""
    assert quadratic(product) == pytest.approx(product, rel=0.1, abs=0.003)


@pytest.mark.parametrize("product", [1.0, 10.0])
def test_the_pace_reads_the_same_on_a_noisy_quadratic(product: float) -> None:
    """Its own reading, with RMSprop-like v held at 1: Adam with beta2 = 1 - 1e-12."""
    weight = Parameter(torch.zeros(64))
    generator, told = torch.Generator().manual_seed(0), []
    trace = Trace()
    mode = Aligned(signal="tensor", start=0.999, gain=1e-9, stall=9999, threshold=-0.9)
    optimizer = Warmed(
        torch.optim.SGD([weight], product, momentum=0.9, dampening=0.9),
        *(3000, mode),
        trace=trace,
    )
    for _ in range(2500):
        weight.grad = weight.detach() + torch.randn(64, generator=generator)
        optimizer.step()
        momentum = optimizer.state[weight]["momentum_buffer"]
        told.append((float(weight.grad.norm()), float(momentum.norm())))
    rows = trace.rows[500:]
    alignment = sum(row["alignment"] for row in rows) / len(rows)
    grad, moment = (sum(each[i] for each in told[500:]) for i in (0, 1))
    expected = -0.999 * product * moment / (2 * grad)
    assert alignment == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize("signal", ["ratio", "tensor", "adam"])
@pytest.mark.parametrize("power", [-20, 3, 20])
def test_a_power_of_two_in_the_loss_changes_nothing(power: int, signal: str) -> None:
    """To the bit: Adam without eps makes the same steps, and each signal is a ratio."""

    def used(scale: float) -> list[list[float]]:
        run = Regression(
            lambda params: torch.optim.Adam(params, lr=0.1, eps=0.0), signal=signal
        )
        lrs_used = []
        for update in range(1, 40):
            run.warmed.zero_grad()
            (scale * run.loss(update)).backward()
            run.warmed.step()
            lrs_used.append(run.warmed.get_last_lr())
        return lrs_used

    assert used(2.0**power) == used(1.0)


# --- how it ends ---------------------------------------------------------------------


def test_at_a_safe_lr_it_is_full() -> None:
    run = Regression(sgd(0.01, momentum=0.9))
    run.run(range(1, 80))
    assert run.warmed.done
    assert run.warmed.done_reason == "full"
    assert run.warmed.factors == [1.0]
    assert run.warmed._planner.passes_on is not None


@pytest.mark.parametrize("lr", [3.0, 30.0])
def test_at_a_hopeless_lr_it_holds_and_says_where(lr: float) -> None:
    run = Regression(sgd(lr, momentum=0.9))
    with pytest.warns(UserWarning, match="param group 0 holds at factor") as caught:
        run.run(range(1, 150))
    assert len(caught) == 1
    assert caught[0].filename == __file__.replace("adaptive/test_", "support/")
    (factor,) = run.warmed.factors
    assert f"an LR of {lr * factor:.3g}" in str(caught[0].message)
    assert run.warmed.done_reason == "held"
    assert 0.01 < lr * factor < 0.1  # the ramp of torch fails at 0.3
    assert f"done, held at factor {factor:.4g}" in repr(run.warmed)
    assert run.warmed.get_last_lr() == [lr * factor]
    assert run.warmed.param_groups[0]["lr"] == lr
    assert run.loss(1).item() < 0.5  # it trains


def test_groups_that_hold_together_are_named_in_one_warning() -> None:
    run = Regression(sgd(3.0, momentum=0.9), groups=True)
    with pytest.warns(UserWarning, match="param groups 0, 1, 2 holds at") as caught:
        run.run(range(1, 150))
    assert len(caught) == 1


def test_at_the_cap_it_holds_where_it_is() -> None:
    run = Regression(steps=12)
    used = run.run(range(1, 20))
    assert run.warmed.done_reason == "held"
    assert used[12:] == [[0.1 * run.warmed.factors[0]]] * 7
    assert 0.01 < run.warmed.factors[0] < 0.1


def test_pure_noise_gets_the_plain_ramp() -> None:
    weight = Parameter(torch.zeros(2000))
    warmed = Warmed(torch.optim.SGD([weight], 1e-6), 60, "aligned")
    factors = []
    for update in range(60):
        weight.grad = torch.randn(2000, generator=torch.Generator().manual_seed(update))
        factors += warmed.factors
        warmed.step()
    begun = warmed.param_groups[0]["warmup_ramp_from"]
    assert begun == 17  # the first update has nothing to compare with
    ramp, low = factors[begun:], warmed.param_groups[0]["warmup_factor"]
    assert low < 0.0002
    left = 60 - begun
    assert ramp == [low + (1 - low) * (k / left) for k in range(1, left)] + [1.0]
    assert warmed.done_reason == "ramped"
    assert warmed.factors == [1.0]


def test_an_lr_at_which_even_the_start_overshoots_is_no_noise() -> None:
    """It begins again, a hundred times lower, and finds the signal there."""
    weight = Parameter(torch.ones(64))
    warmed = Warmed(torch.optim.SGD([weight], 1e4), 200, "aligned")
    for _ in range(120):
        weight.grad = weight.detach().clone()  # at 0.01 the product is 100
        warmed.step()
    assert warmed.done_reason == "held"
    assert 0.1 < 1e4 * warmed.factors[0] < 2.0  # stable below 2
    assert float(weight.detach().abs().max()) < 1e-3


# --- what fools it -------------------------------------------------------------------


def ends_at(batch: Any, lr: float = 3.0) -> float:
    """The effective LR at which it ends, if these are the batches of the updates."""
    run = Regression(sgd(lr))
    for update in range(150):
        if run.warmed.done:
            break
        run.warmed.zero_grad()
        run.loss(batch(update)).backward()
        run.warmed.step()
    return lr * run.warmed.factors[0]


def test_the_same_batch_again_fools_it() -> None:
    """The docstring says so: it sees no noise, so it climbs higher."""
    fresh = ends_at(lambda update: update)
    same = ends_at(lambda update: update // 10)
    assert same > 1.3 * fresh


def test_stale_gradients_fool_it() -> None:
    """Those of the last update again: as if the step had changed nothing."""
    weight = Parameter(torch.ones(64))
    optimizer = Warmed(torch.optim.SGD([weight], 1e3), 200, "aligned", trace=Trace())
    weight.grad = torch.ones(64)
    for _ in range(20):
        optimizer.step()
    for row in optimizer.trace:
        assert row["alignment"] == pytest.approx(1.0, rel=1e-6)


# --- everything that the other modes promise -----------------------------------------


# Sparse gradients are refused; see below.
DENSE = [row for row in ROWS.values() if not row.sparse]


@pytest.mark.parametrize("row", DENSE, ids=lambda row: row.name)
def test_any_optimizer_climbs(row: Row) -> None:
    """Bit by bit as the bare one whose LR is set by hand to what `factors` tells."""
    params, twins = row.params(), row.params()
    warmed, bare = row.wrap(params, steps=60, mode=Aligned(lag=1)), row.build(twins)
    for update in range(1, 13):
        factors = warmed.factors
        row.step(warmed, params, update)
        stepped_at(bare, factors, lambda u=update: row.step(bare, twins, u))
        assert_same(snapshot(bare, twins), snapshot(warmed, params))
    assert warmed.param_groups[0]["warmup_seen"] > 0


def test_nothing_to_compare_is_refused_by_name() -> None:
    row = ROWS["sparse_adam"]
    warmed = row.wrap(params := row.params(), steps=9, mode="aligned")
    with pytest.raises(ValueError, match=r"SparseAdam.*only sparse gradients.*linear"):
        row.step(warmed, params, 1)
    weight = Parameter(torch.ones(3))
    warmed = Warmed(torch.optim.SGD([weight], 1.0), 9, "aligned")
    with pytest.raises(ValueError, match=r"SGD.*no gradients.*linear"):
        warmed.step()


def test_adams_metric_without_adam_is_refused_by_name() -> None:
    weight = Parameter(torch.ones(3))
    weight.grad = torch.ones(3)
    optimizer = torch.optim.RMSprop([weight])
    warmed = Warmed(optimizer, 9, Aligned(signal="adam"))
    warmed.step()
    with pytest.raises(ValueError, match=r"signal must be 'ratio'.*RMSprop"):
        warmed.step()


def plain(run: Regression) -> dict[str, Any]:
    """What stands in the group, but tensors."""
    items = run.warmed.param_groups[0].items()
    return {k: v for k, v in items if k not in ("params", "warmup_before")}


def test_after_an_exception_nothing_has_moved() -> None:
    run, twin = Regression(), Regression()
    for update in range(1, 20):
        if update % 3 == 0:
            before = plain(run)

            def fail() -> None:
                run.loss(1000).backward()
                raise ZeroDivisionError

            with pytest.raises(ZeroDivisionError):
                run.warmed.step(fail)
            assert plain(run) == before
        run.step(update)
        twin.step(update)
    assert run.state() == twin.state()
    assert_same(snapshot(twin.warmed, twin.params), snapshot(run.warmed, run.params))


@pytest.mark.parametrize("lag", [0, 1])
def test_a_step_that_fails_after_it_was_scaled_moves_nothing(lag: int) -> None:
    run, twin = Regression(lag=lag), Regression(lag=lag)
    real = run.warmed.wrapped.step

    def broken(*_: Any) -> None:
        raise ZeroDivisionError

    for update in range(1, 20):
        run.warmed.zero_grad()
        run.loss(update).backward()
        run.warmed.wrapped.step = broken
        with pytest.raises(ZeroDivisionError):
            run.warmed.step()
        assert run.warmed.factors == twin.warmed.factors
        run.warmed.wrapped.step = real
        run.warmed.step()
        twin.step(update)
    assert run.state() == twin.state()


@pytest.mark.parametrize("lag", [0, 1])
def test_a_closure_is_the_same(lag: int) -> None:
    run, twin = Regression(lag=lag), Regression(lag=lag)
    for update in range(1, 30):

        def closure(update: int = update) -> torch.Tensor:
            assert lrs(run.warmed) == [0.1]
            run.warmed.zero_grad()
            loss = run.loss(update)
            loss.backward()
            return loss

        run.warmed.step(closure)
        twin.step(update)
        assert run.state() == twin.state()


def test_hooks_are_the_same() -> None:
    """One clips the gradients, which is what is compared then."""
    run, twin = Regression(), Regression()
    run.warmed.register_step_pre_hook(
        lambda *_: torch.nn.utils.clip_grad_norm_(run.params, 0.1) and None
    )
    seen: list[float] = []
    run.warmed.register_step_post_hook(lambda inner, *_: seen.extend(lrs(inner)))
    for update in range(1, 30):
        run.step(update)
        twin.warmed.zero_grad()
        twin.loss(update).backward()
        torch.nn.utils.clip_grad_norm_(twin.params, 0.1)
        twin.warmed.step()
    assert run.state() == twin.state()
    assert seen == [0.1] * 29


@pytest.mark.parametrize("fused", [False, True])
def test_a_scaler_changes_nothing_and_a_skipped_step_is_no_reading(fused: bool) -> None:
    """The scale grows and shrinks on the way; the twin has none."""

    def make(params: Any) -> torch.optim.Optimizer:
        return torch.optim.Adam(params, lr=0.1, fused=fused)

    run, twin = Regression(make), Regression(make)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=3)
    for update in range(1, 30):
        if update in (5, 6, 20):
            run.warmed.zero_grad()
            scaler.scale(run.loss(update)).backward()
            run.params[0].grad[0, 0] = math.inf
            before = run.state()
            scaler.step(run.warmed)
            scaler.update()
            assert run.state() == before
        run.warmed.zero_grad()
        scaler.scale(run.loss(update)).backward()
        scaler.step(run.warmed)
        scaler.update()
        twin.step(update)
        assert run.state() == twin.state()
    assert scaler.get_scale() != 4.0


def test_accumulated_gradients_are_one_update() -> None:
    run, twin = Regression(), Regression()
    for update in range(1, 20):
        run.warmed.zero_grad()
        for _ in range(4):
            (run.loss(update) / 4).backward()
        run.warmed.step()
        twin.step(update)
    assert run.state() == pytest.approx(twin.state(), rel=1e-3)


@pytest.mark.parametrize("per_group", [False, True])
def test_groups_share_one_factor_unless_each_climbs_alone(per_group: bool) -> None:
    run, whole = Regression(groups=True, per_group=per_group), Regression()
    run.run(range(1, 20))
    whole.run(range(1, 20))
    factors = run.warmed.factors
    assert (len(set(factors)) == 1) is not per_group
    if not per_group:
        # The same elements, summed in the same order.
        assert factors == whole.warmed.factors * 3


def test_a_late_group_climbs_on_its_own() -> None:
    run = Regression()
    run.run(range(1, 20))
    late = Parameter(torch.ones(4))
    run.warmed.add_param_group({"params": [late]})
    assert run.warmed.factors[1] == 0.01
    before = run.warmed.factors[0]
    for update in range(20, 40):
        run.warmed.zero_grad()
        (run.loss(update) + late.square().sum()).backward()
        run.warmed.step()
    assert run.warmed.factors[0] != before
    assert run.warmed.factors[1] == pytest.approx(0.01 * math.exp(0.1 * 19), rel=0.2)


def test_a_frozen_group_waits_and_climbs_once_it_is_unfrozen() -> None:
    run = Regression(groups=True)
    run.params[2].requires_grad_(False)
    run.run(range(1, 20))
    assert run.warmed.factors[2] == 0.01
    assert run.warmed.factors[0] > 0.02
    run.params[2].requires_grad_(True)
    run.run(range(20, 40))
    assert run.warmed.factors[2] > 0.02


def test_rewarm_begins_at_the_start() -> None:
    run = Regression(sgd(3.0, momentum=0.9))
    run.run(range(1, 120))
    assert run.warmed.done_reason == "held"
    held = run.warmed.factors[0]
    run.warmed.rewarm()
    assert run.warmed.factors == [0.01]
    assert not run.warmed.done
    assert run.run(range(120, 122)) == [[0.03], [0.03]]
    assert held < 0.1


def test_the_momentum_warms_along_and_stays_where_the_factor_holds() -> None:
    weight = Parameter(torch.ones(8))
    optimizer = torch.optim.SGD([weight], lr=100.0, momentum=0.8)
    warmed = Warmed(optimizer, 200, "aligned", momentum_start=0.5)
    seen = watch(optimizer, lambda o: o.param_groups[0]["momentum"])
    told = []
    for _ in range(200):
        weight.grad = weight.detach().clone()
        told.append(0.8 * (0.5 + 0.5 * warmed.factors[0]))
        warmed.step()
    assert seen == pytest.approx(told, rel=1e-15)
    assert warmed.done
    assert seen[-1] < 0.5


def by_file(run: Regression, fresh: Regression) -> None:
    file = io.BytesIO()
    torch.save(run.warmed.state_dict(), file)
    file.seek(0)
    fresh.warmed.load_state_dict(torch.load(file, weights_only=True))


def by_inner(run: Regression, fresh: Regression) -> None:
    fresh.warmed.wrapped.load_state_dict(copy.deepcopy(run.warmed.state_dict()))


@pytest.mark.parametrize("at", [*range(12), 40, 90, 120])
@pytest.mark.parametrize("how", [by_file, by_inner])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"groups": True},
        {"groups": True, "per_group": True},
        {"every": 3},
        {"signal": "tensor", "lag": 0},
        {"signal": "adam"},
    ],
    ids=str,
)
def test_it_is_resumed_to_the_bit(at: int, how: Any, options: dict[str, Any]) -> None:
    """While it looks for a signal, climbs and holds."""

    def make(params: Any) -> torch.optim.Optimizer:
        return torch.optim.Adam(params, lr=10.0)

    whole, resumed = Regression(make, **options), Regression(make, **options)
    whole.run(range(1, at + 1))
    for mine, theirs in zip(resumed.params, whole.params, strict=True):
        mine.data.copy_(theirs)
    how(whole, resumed)
    after = range(at + 1, at + 60)
    assert resumed.run(after) == whole.run(after)
    assert [resumed.state(i) for i in range(len(resumed.warmed.param_groups))] == [
        whole.state(i) for i in range(len(whole.warmed.param_groups))
    ]
    one, other = (each.warmed.state_dict() for each in (whole, resumed))
    assert_same(one, other)


@pytest.mark.parametrize(
    "way", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
@pytest.mark.parametrize("at", [0, 1, 2, 15, 100])
def test_a_copy_goes_on_alone(at: int, way: Any) -> None:
    run, twin = Regression(sgd(30.0)), Regression(sgd(30.0))
    run.run(range(1, at + 1))
    copied = way(run)
    twin.run(range(1, at + 1))
    after = range(at + 1, at + 80)
    assert copied.run(after) == run.run(after) == twin.run(after)


def test_a_bare_state_leaves_it_where_it_is() -> None:
    run = Regression()
    run.run(range(1, 15))
    before = run.state()
    bare = torch.optim.Adam(run.params, lr=0.1).state_dict()
    with pytest.warns(UserWarning, match="goes on from where it was"):
        run.warmed.load_state_dict(bare)
    assert run.state() == before


def test_a_bare_optimizer_loads_it() -> None:
    run = Regression(sgd(30.0))
    run.run(range(1, 120))
    bare = torch.optim.SGD(run.params, lr=1.0)
    bare.load_state_dict(run.warmed.state_dict())
    assert bare.param_groups[0]["lr"] == 30.0  # what was held is the warmup's
    assert bare.param_groups[0]["warmup_factor"] == run.warmed.factors[0]
    again = Warmed(bare, 200, "aligned")
    assert again.factors == run.warmed.factors


def test_what_is_held_is_not_lost_in_another_mode() -> None:
    run = Regression(sgd(30.0))
    run.run(range(1, 120))
    other = Warmed(torch.optim.SGD(run.params, lr=30.0), 100)
    with pytest.raises(ValueError, match=r"begun with, 'aligned'"):
        other.load_state_dict(run.warmed.state_dict())


@pytest.mark.parametrize(
    ("key", "value", "error", "says"),
    [
        ("warmup_factor", 2.0, ValueError, r"warmup_factor of param group 0"),
        ("warmup_factor", 0.0, ValueError, r"in \(0, 1\]"),
        ("warmup_factor", "high", TypeError, r"warmup_factor .* of type float"),
        ("warmup_phase", 7, ValueError, r"warmup_phase of param group 0"),
        ("warmup_phase", 0.5, TypeError, r"of type int"),
        ("warmup_best", math.nan, ValueError, r"finite"),
        ("warmup_since", -1, ValueError, r"warmup_since .* >= 0"),
        ("warmup_seen", True, TypeError, r"warmup_seen"),
    ],
)
def test_its_keys_are_checked_before_anything_is_loaded(
    key: str, value: Any, error: type[Exception], says: str
) -> None:
    run = Regression()
    run.run(range(1, 5))
    state, before = copy.deepcopy(run.warmed.state_dict()), run.state()
    state["param_groups"][0][key] = value
    with pytest.raises(error, match=says):
        run.warmed.load_state_dict(state)
    assert run.state() == before


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"rule": "E2"}, ValueError, "rule must be one of E1, align, got 'E2'"),
        ({"signal": "loss"}, ValueError, "signal must be one of ratio, tensor, adam"),
        ({"start": 0.0}, ValueError, r"start must be in \(0, 1\), got 0.0"),
        ({"start": 1}, ValueError, r"start must be in \(0, 1\), got 1"),
        ({"gain": -1.0}, ValueError, r"gain must be in \(0, 1\), got -1.0"),
        ({"most": "fast"}, TypeError, "most must be a number, got 'fast'"),
        ({"threshold": True}, TypeError, "threshold must be a number, got True"),
        ({"every": 0}, ValueError, "every must be >= 1, got 0"),
        ({"stall": 2.5}, TypeError, "stall must be an int, got 2.5"),
        ({"lag": 2}, ValueError, "lag must be 0, 1 or None, got 2"),
    ],
)
def test_wrong_arguments(options: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        Aligned(**options)


def test_numbers_of_numpy_become_plain() -> None:
    mode = Aligned(start=np.float32(0.5), stall=np.int64(9))
    assert (type(mode.start), type(mode.stall)) == (float, int)


@pytest.mark.parametrize("options", [{"start": 0.1}, {"offset": 3}])
def test_a_start_of_the_ramp_has_no_use(options: Any) -> None:
    weight = Parameter(torch.ones(1))
    with pytest.raises(TypeError, match=r"must be left out.*Aligned\(start=\.\.\.\)"):
        Warmed(torch.optim.SGD([weight], lr=1.0), 9, "aligned", **options)
    group = {"params": [weight], "warmup_start": 0.1}
    with pytest.raises(TypeError, match="warmup_start of param group 0 must be left"):
        Warmed(torch.optim.SGD([group], lr=1.0), 9, "aligned")


def test_a_group_of_no_length_has_the_full_lr() -> None:
    body, head = Parameter(torch.ones(4)), Parameter(torch.ones(4))
    groups = [{"params": [body]}, {"params": [head], "warmup_steps": 0}]
    warmed = Warmed(torch.optim.SGD(groups, lr=0.1), 50, "aligned")
    assert warmed.factors == [0.01, 1.0]
    for param in (body, head):
        param.grad = torch.ones(4)
    warmed.step()
    assert warmed.get_last_lr() == [0.1 * 0.01, 0.1]


def test_its_state_is_plain() -> None:
    run = Regression()
    run.run(range(1, 5))
    group = run.warmed.state_dict()["param_groups"][0]
    assert {type(group[key]) for key in CLIMB} == {int, float}
    assert isinstance(group["warmup_before"], torch.Tensor)


def test_after_the_end_only_the_product_is_left() -> None:
    """No sample is taken, and at factor 1 the step is only passed on."""
    run = Regression(sgd(30.0))
    run.run(range(1, 201))
    assert run.warmed.done_reason == "held"
    assert run.warmed._planner.watchers == []
    run.warmed.zero_grad()
    run.loss(1).backward()
    factors, twins = run.warmed.factors, copy.deepcopy(run.params)
    bare = torch.optim.SGD(twins, lr=30.0)
    for param, twin in zip(run.params, twins, strict=True):
        twin.grad = param.grad.clone()
    operators = count(run.warmed.step, Cpu(), 1)["operators"]
    assert (
        operators
        == count(lambda: stepped_at(bare, factors, bare.step), Cpu(), 1)["operators"]
    )
    for param, twin in zip(run.params, twins, strict=True):
        assert torch.equal(param, twin)
