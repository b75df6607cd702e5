"""Readings follow the optimizer: its state, groups and betas, and what is frozen.

Each test trains twice: once with the change, and once in a way that needs no following.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch.nn import Parameter
from torch.optim import Adam

from tests.support.adaptive import never
from tests.support.reference import lrs, watch
from warmopt import Adaptive, Trace, Warmed
from warmopt._measure.window import Window
from warmopt.criteria import InverseRootVariance, Reading
from warmopt.trace import replay

Meanwhile = Callable[[Warmed, int], None]


def nothing(warmed: Warmed, done: int) -> None:
    """Nothing happens between the updates."""


def is_full(reading: Reading) -> bool:
    return reading.samples == reading.window


def fresh(size: int = 64) -> Parameter:
    return Parameter(torch.zeros(size))


def around(
    *groups: list[Parameter],
    steps: int = 300,
    trace: Trace | None = None,
    **adaptive: Any,
) -> Warmed:
    adam = Adam([{"params": group} for group in groups], lr=1e-3, betas=(0.9, 0.99))
    return Warmed(adam, steps=steps, mode=Adaptive(**adaptive), trace=trace)


def trained(
    warmed: Warmed, updates: range, meanwhile: Meanwhile = nothing, growth: float = 0.0
) -> list[list[float]]:
    """Steps on gradients that depend on the update alone; returns the effective LRs."""
    used = watch(warmed.wrapped, lrs)
    for done in updates:
        if all(group["warmup_done"] for group in warmed.param_groups):
            break  # to read `done` would be to look
        draw = torch.Generator().manual_seed(done)
        for group in warmed.param_groups:
            for param in group["params"]:
                if param.requires_grad:
                    gradient = torch.randn(param.shape, generator=draw)
                    param.grad = gradient * (1 + growth * done)
        meanwhile(warmed, done)
        warmed.step()
    return used


def variances(trace: Trace) -> list[float]:
    return [reading.inverse_root_variance for reading in trace.readings()]


# --- state ----------------------------------------------------------------------------


def clear(adam: Any) -> None:
    adam.state.clear()


def pop(adam: Any) -> None:
    adam.state.pop(adam.param_groups[0]["params"][0])


def replace(adam: Any) -> None:
    adam.state[adam.param_groups[0]["params"][0]] = {}


@pytest.mark.parametrize("reset", [clear, pop, replace])
def test_state_that_was_reset_is_found_again(reset: Callable[[Any], None]) -> None:
    def meanwhile(warmed: Warmed, done: int) -> None:
        if done == 22:
            reset(warmed.wrapped)

    warmed = around([fresh()], criterion=never, trace=(trace := Trace()))
    trained(warmed, range(80), meanwhile, growth=0.3)
    (param,) = warmed.param_groups[0]["params"]
    told, v = trace.rows[-1], warmed.state[param]["exp_avg_sq"]
    assert told["inverse_root_variance"] > 0.005  # what nobody changes stands still
    ring = warmed.param_groups[0]["warmup_ring"].view(5, 1, 64)
    newest = ring[(80 // 5 - 1) % 5, 0]
    age = float(warmed.state[param]["step"])
    assert age == 58
    torch.testing.assert_close(newest, v / (1 - 0.99**age))


def test_parameters_that_a_framework_puts_in_their_place_are_read() -> None:
    """Like accelerate when it shards with FSDP2: after the optimizer was wrapped,
    the group is the same, but its list is a new one.
    """
    warmed, other = around([fresh()]), around([fresh()])
    warmed.wrapped.param_groups[0]["params"] = [fresh()]
    assert trained(warmed, range(400)) == trained(other, range(400))
    assert warmed.done_reason == "settled"


@pytest.mark.parametrize("at", range(40, 46))
def test_parameters_may_be_exchanged_at_any_update(at: int) -> None:
    """The next reading is of the new parameter; the older ones stay."""

    def meanwhile(warmed: Warmed, done: int) -> None:
        if done == at:
            params = warmed.param_groups[0]["params"]
            new = fresh()
            new.grad = params[1].grad
            params[1] = new

    trace = Trace()
    warmed = around([fresh(), fresh()], criterion=never, trace=trace)
    trained(warmed, range(90), meanwhile)
    assert [row["update"] for row in trace] == list(range(5, 90, 5))
    assert [row["span"] for row in trace] == [0, 5, 10, 15] + [20] * 13
    told = {row["update"]: row["drifts"][1] for row in trace}
    soon = [told[update] for update in told if at < update <= at + 20]
    assert max(map(abs, soon)) > 3 * abs(told[40])


def test_frozen_parameters_have_not_settled() -> None:
    """Their second moment stands still because no gradient comes."""
    body, head = fresh(512), fresh()
    adam = Adam([body, head], lr=1e-3, betas=(0.9, 0.99))
    for _ in range(50):
        body.grad = torch.randn(512)
        adam.step()
    body.requires_grad_(False)
    ends, readings = [], []
    for groups in ([body, head], [head]):
        optimizer = Adam(groups, lr=1e-3, betas=(0.9, 0.99))
        if body is groups[0]:
            optimizer.state[body] = adam.state[body]
        trace = Trace()
        warmed = Warmed(optimizer, steps=300, mode="adaptive", trace=trace)
        ends.append(len(trained(warmed, range(300), growth=0.2)))
        readings.append(variances(trace)[4:])
        head.data.zero_()
    assert ends[0] == ends[1]
    assert readings[0] == readings[1]


def test_frozen_on_the_way_it_is_left_out_from_then_on() -> None:
    body, head = fresh(512), fresh()

    def meanwhile(warmed: Warmed, done: int) -> None:
        if done == 41:
            body.requires_grad_(False)
            body.grad = None

    trace = Trace()
    warmed = around([body, head], criterion=never, trace=trace)
    trained(warmed, range(80), meanwhile)
    known = [sum(drift == drift for drift in row["drifts"]) for row in trace]
    assert known == [0, *[2] * 7, *[1] * 7]
    assert "watching 11% of" in repr(warmed)


def test_parameters_that_go_without_gradients_look_settled() -> None:
    """Frozen parameters are left out. These look like parameters that have settled."""

    def starve(warmed: Warmed, done: int) -> None:
        if done > 20:
            body.grad = None

    body, trace = fresh(512), Trace()
    trained(around([body, fresh()], trace=trace), range(300), starve, growth=0.2)
    assert min(variances(trace)[4:]) < 1e-9


# --- options --------------------------------------------------------------------------


def resumed(warmed: Warmed, **adaptive: Any) -> Warmed:
    params = [copy.deepcopy(group["params"]) for group in warmed.param_groups]
    again = around(*params, **adaptive)
    again.load_state_dict(copy.deepcopy(warmed.state_dict()))
    return again


@pytest.mark.parametrize("at", range(28, 36))
def test_betas_that_a_scheduler_moves_are_those_of_the_update(at: int) -> None:
    """A resumed run reads the same: it must look up the betas again."""

    def meanwhile(warmed: Warmed, done: int) -> None:
        beta2 = 0.5 if done < 20 else 0.99
        warmed.param_groups[0]["betas"] = (0.95 - 0.002 * done, beta2)

    traces = [Trace(), Trace()]
    whole = around([fresh()], criterion=never, trace=traces[0])
    trained(whole, range(60), meanwhile)
    first = around([fresh()], criterion=never, trace=Trace())
    trained(first, range(at), meanwhile)
    second = resumed(first, criterion=never, trace=traces[1])
    trained(second, range(at, 60), meanwhile)
    rows, again = (trace.rows[-5:] for trace in traces)
    assert str(again) == str(rows)
    assert [row["beta2"] for row in rows] == [0.99] * 5
    assert [row["beta1"] for row in rows] == [
        0.95 - 0.002 * (row["judged_after"] - 1) for row in rows
    ]


def test_momentum_in_a_later_group_only_is_judged_by_its_own_decay() -> None:
    """As where pytorch_optimizer's Muon keeps betas in its groups for Adam alone."""
    params = fresh(), fresh()
    adam = Adam([{"params": [param]} for param in params], lr=1e-3, betas=(0.9, 0.99))
    for param in params:
        param.grad = torch.ones_like(param)
    adam.step()
    del adam.param_groups[0]["betas"]  # Adam itself would not step so
    window = Window(adam, adam.param_groups, every=1, window=2)
    window.after(1)
    assert window.after(2).beta1 == 0.9


def test_a_window_read_at_another_pace_begins_anew() -> None:
    trace = Trace()
    warmed = around([fresh()], criterion=never, every=5)
    trained(warmed, range(25), growth=0.2)
    other = resumed(warmed, criterion=never, every=7, trace=trace)
    trained(other, range(25, 60), growth=0.2)
    assert [row["update"] for row in trace] == [28, 35, 42, 49]
    assert [row["span"] for row in trace] == [0, 7, 14, 21]


def test_what_only_a_trace_computes_is_not_taken_from_an_old_window() -> None:
    traces = [Trace(), Trace(), Trace()]
    warmed = around([fresh()], trace=traces[0], criterion=InverseRootVariance(1e-9))
    trained(warmed, range(32), growth=0.2)
    warmed = resumed(warmed, criterion=InverseRootVariance(1e-9))
    trained(warmed, range(32, 62), growth=0.2)
    warmed = resumed(warmed, trace=traces[1], criterion=InverseRootVariance(1e-9))
    trained(warmed, range(62, 75), growth=0.2)
    first, second = traces[1].rows[:2]
    assert (first["update"], second["update"]) == (60, 65)
    assert first["inverse_root_variance"] > 0
    assert first["norm_ratio"] != first["norm_ratio"]  # not that of update 30
    assert second["norm_ratio"] == second["norm_ratio"]


def test_a_subclass_of_the_default_sees_all_that_it_asks_for() -> None:
    """With a trace and without."""

    @dataclass(frozen=True)
    class Guarded(InverseRootVariance):
        def __call__(self, reading: Reading) -> bool:
            return super().__call__(reading) and reading.update_rms < 2.0

    plain, told = (
        around([fresh()], criterion=Guarded(), trace=trace) for trace in (None, Trace())
    )
    assert trained(plain, range(300)) == trained(told, range(300))
    assert plain.done_reason == told.done_reason == "settled"


@pytest.mark.parametrize(
    "strided",
    [
        lambda v: v[:, 0],
        lambda v: v.mean(1, keepdim=True).expand_as(v),
        lambda v: v[::2],
        lambda v: v.t(),
    ],
    ids=["column", "expanded", "rows", "transposed"],
)
def test_a_view_of_the_state_is_read_where_it_lies(strided: Any) -> None:
    trace = Trace()
    mode = Adaptive(
        never, second_moment=lambda param, state, group: strided(state["exp_avg_sq"])
    )
    param = Parameter(torch.zeros(8, 4))
    adam = Adam([param], lr=1e-3, betas=(0.9, 0.9))
    warmed = Warmed(adam, steps=60, mode=mode, trace=trace)
    for _ in range(30):
        param.grad = torch.randn(8, 4)
        warmed.step()
    v = strided(adam.state[param]["exp_avg_sq"])
    ring = adam.param_groups[0]["warmup_ring"].view(5, 64)
    assert torch.equal(
        ring[(30 // 5 - 1) % 5][: v.numel()].sort().values,
        (v / (1 - 0.9**30)).flatten().sort().values,
    )


# --- pools ----------------------------------------------------------------------------


@pytest.mark.parametrize("at", range(8, 14))
def test_a_run_is_the_same_whether_or_not_it_is_looked_at(at: int) -> None:
    """Also if a group misses an update, and so leaves the others."""

    def misses(warmed: Warmed, done: int) -> None:
        late = warmed.param_groups[1]["params"][0]
        late.requires_grad_(done != at)
        late.grad = late.grad if late.requires_grad else None

    def looks(warmed: Warmed, done: int) -> None:
        misses(warmed, done)
        warmed.state_dict()

    runs = []
    for meanwhile in (misses, looks):
        warmed = around([fresh()], [fresh()], criterion=is_full)
        runs.append(trained(warmed, range(140), meanwhile))
        assert warmed.done_reason == "settled"
        assert "warmup_ring" in warmed.param_groups[1]  # they have parted
    assert runs[0] == runs[1]


def test_windows_of_groups_that_were_judged_apart_are_not_joined() -> None:
    alone = around([fresh()], [fresh()], criterion=never, per_group=True)
    trained(alone, range(50), growth=0.2)
    together = resumed(alone, criterion=never, trace=(trace := Trace()))
    trained(together, range(50, 65), growth=0.2)
    assert [row["samples"] for row in trace] == [1, 2]


def test_groups_that_part_keep_their_windows() -> None:
    """Their keys keep their shapes too, so that others can load them."""

    def misses(warmed: Warmed, done: int) -> None:
        for param in warmed.param_groups[0]["params"]:
            param.requires_grad_(done != 48)
            param.grad = param.grad if param.requires_grad else None

    def shapes(warmed: Warmed) -> list[Any]:
        keys = ("warmup_ring", "warmup_latest", "warmup_every")
        return [
            [torch.as_tensor(g[k]).shape for k in keys] for g in warmed.param_groups
        ]

    groups = [fresh(), fresh()], [fresh()]
    warmed = around(*groups, criterion=never, trace=(trace := Trace()))
    begun = shapes(warmed)
    trained(warmed, range(60), misses)
    assert shapes(warmed) == begun
    alone = trace.rows[8:]
    assert [len(row["drifts"]) for row in trace.rows[:8]] == [3] * 8
    assert {row["pool"] for row in alone} == {0, 1}
    assert all(len(row["drifts"]) == 2 - row["pool"] for row in alone)
    assert {row["samples"] for row in trace.rows[4:]} == {5}


@pytest.mark.parametrize("at", [19, 20, 21])
@pytest.mark.parametrize("look", [False, True])
def test_a_fused_optimizer_with_a_scaler_is_read_at_once(at: int, look: bool) -> None:
    """What happens before the next step must not change the reading."""
    runs = []
    for scaler in (None, torch.amp.GradScaler("cpu", init_scale=1.0)):
        param, trace = fresh(), Trace()
        adam = Adam([param], lr=1e-3, betas=(0.9, 0.99), fused=True)
        warmed = Warmed(adam, steps=60, mode=Adaptive(never), trace=trace)
        for done in range(40):
            if done == at:
                adam.state.clear()
            draw = torch.Generator().manual_seed(done)
            param.grad = torch.randn(64, generator=draw)
            if scaler is None:
                warmed.step()
            else:
                scaler.scale(torch.zeros(1))
                scaler.step(warmed)
                scaler.update()
            if look:
                assert not warmed.done
        runs.append(str(trace.rows))
    assert runs[0] == runs[1]


@pytest.mark.parametrize("key", ["exp_avg", "exp_avg_sq"])
def test_each_tensor_of_the_state_may_be_replaced(key: str) -> None:
    def change(warmed: Warmed, done: int) -> None:
        if done == 42:
            entry = warmed.state[warmed.param_groups[0]["params"][0]]
            if warmed is warmeds[0]:
                entry[key] = torch.zeros(64)
            else:
                entry[key].zero_()

    traces = [Trace(), Trace()]
    warmeds = [around([fresh()], criterion=never, trace=trace) for trace in traces]
    for warmed in warmeds:
        trained(warmed, range(80), change)
    assert str(traces[0].rows) == str(traces[1].rows)


def test_betas_may_be_changed_in_their_list() -> None:
    rows = []
    for in_place in (True, False):
        param, trace = fresh(), Trace()
        adam = Adam([{"params": [param], "betas": [0.9, 0.99]}], lr=1e-3)
        warmed = Warmed(adam, steps=60, mode=Adaptive(never), trace=trace)

        def change(warmed: Warmed, done: int, in_place: bool = in_place) -> None:
            if done == 12 and in_place:
                warmed.param_groups[0]["betas"][1] = 0.5
            elif done == 12:
                warmed.param_groups[0]["betas"] = [0.9, 0.5]

        trained(warmed, range(40), change)
        rows.append(str(trace.rows))
    assert rows[0] == rows[1]
    assert trace.rows[-1]["beta2"] == 0.5


# --- replay ---------------------------------------------------------------------------


def test_replayed_after_its_groups_parted_it_ends_as_it_did() -> None:
    def meanwhile(warmed: Warmed, done: int) -> None:
        late = warmed.param_groups[1]["params"][0]
        late.requires_grad_(done != 48)
        late.grad = late.grad if late.requires_grad else None

    rule, trace = InverseRootVariance(1e-9), Trace()
    warmed = around([fresh()], [fresh()], steps=60, criterion=rule, trace=trace)
    trained(warmed, range(70), meanwhile)
    assert warmed.param_groups[0]["warmup_updates"] == 60
    assert replay(trace, rule, pool=0)[:2] == (60, "cap")
    assert replay(trace, rule, pool=1)[:2] == (60, "cap")


def test_warmed_again_and_not_read_yet_there_is_nothing_to_replay() -> None:
    trace = Trace()
    warmed = around([fresh()], trace=trace)
    trained(warmed, range(200))
    assert replay(trace, InverseRootVariance()).reason == "settled"
    warmed.rewarm()
    trained(warmed, range(8))
    assert trace.readings() == []
    assert replay(trace, InverseRootVariance()) == (None, None, [], [])


@pytest.mark.parametrize("on_settled", ["accelerate", "ramp"])
@pytest.mark.parametrize("fast", [60, 1000])
def test_settled_is_the_reason_only_if_it_ended_early(
    on_settled: Any, fast: int
) -> None:
    trace = Trace()
    late = {"criterion": lambda reading: reading.update >= 40, "fast": fast}
    warmed = around([fresh()], steps=60, trace=trace, on_settled=on_settled, **late)
    used = trained(warmed, range(70))
    assert len(used) == 60
    assert warmed.done_reason == "cap"
    assert replay(trace, late["criterion"])[:2] == (60, "cap")


@pytest.mark.parametrize("what", ["loaded", "parted", "other"])
def test_a_record_without_a_gap_is_replayed_as_a_whole(what: str) -> None:
    """Also with another rule, and after the pools were formed again."""

    def early(reading: Reading) -> bool:
        return reading.update >= 10

    def meanwhile(warmed: Warmed, done: int) -> None:
        if done == 60 and what == "loaded":
            warmed.load_state_dict(warmed.state_dict())
        if done == 60 and what == "other":
            warmed.rewarm(groups=[1])
        if what == "parted":
            late = warmed.param_groups[1]["params"][0]
            late.requires_grad_(done != 48)
            late.grad = late.grad if late.requires_grad else None

    ends = []
    for happens in (nothing, meanwhile):
        trace = Trace()
        warmed = around([fresh()], [fresh()], steps=100, criterion=never, trace=trace)
        trained(warmed, range(100), happens)
        ends.append(replay(trace, early, pool=0)[:2])
    assert ends == [(44, "settled")] * 2
