"""What a trace records of an aligned warmup, and what other constants would do."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.aligned import Regression
from warmopt import Aligned, Trace, replay
from warmopt.criteria import Drift, EffectiveSampleSize, InverseRootVariance

pytestmark = pytest.mark.filterwarnings("ignore:The warmup of param group")


def sgd(params: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(params, lr=3.0, momentum=0.9)


def adam(params: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(params, lr=0.1, betas=(0.9, 0.95))


def traced(**options: Any) -> Regression:
    run = Regression(trace=Trace(), **options)
    for update in range(1, 150):
        if run.warmed.done:
            break
        run.step(update)
    return run


@pytest.mark.parametrize("make", [sgd, adam])
def test_each_reading_is_a_row_with_the_factor_that_follows(make: Any) -> None:
    run = Regression(make, trace=Trace())
    factors = []
    for update in range(1, 40):
        run.step(update)
        factors += run.warmed.factors
    rows = run.warmed.trace.rows
    assert [row["judged_after"] for row in rows] == [*range(2, 40)]
    assert [row["factor"] for row in rows] == factors[1:]
    assert all(-1.0 <= row["alignment"] <= 1.0 for row in rows)
    assert {row["settled"] for row in rows} == {None}
    assert {row["lr"] for row in rows} == {run.warmed.param_groups[0]["lr"]}


def test_criteria_are_judged_beside_it_in_the_same_run() -> None:
    """As they are in a fixed mode, at every fifth update; between, the last verdict."""
    watched = [InverseRootVariance(1.0), EffectiveSampleSize(), Drift()]
    run = traced(make=adam, watch=watched)
    rows = run.warmed.trace.rows
    assert all(math.isnan(row["inverse_root_variance"]) for row in rows[:28])
    late = rows[30:]
    assert late
    for row in late:
        assert row["inverse_root_variance"] >= 0.0
        assert row["watched"]["EffectiveSampleSize(threshold=4.0)"]
        assert row["update"] <= row["judged_after"] - 5
        assert row["alignment"] == row["alignment"]
    assert {row["update"] % 5 for row in late} == {0}


def test_the_second_moment_is_read_only_where_there_is_one() -> None:
    run = traced(make=sgd)
    for row in run.warmed.trace:
        assert math.isnan(row["inverse_root_variance"])
        assert row["update"] == row["judged_after"]


@pytest.mark.parametrize("make", [sgd, adam])
@pytest.mark.parametrize("rule", ["E1", "align"])
def test_a_replay_of_its_own_constants_is_the_run(make: Any, rule: str) -> None:
    run = traced(make=make, rule=rule)
    assert run.warmed.done
    again = replay(run.warmed.trace, Aligned(rule=rule))
    assert again.factors == [row["factor"] for row in run.warmed.trace]
    assert again.end == run.warmed.param_groups[0]["warmup_updates"]
    assert again.reason == run.warmed.done_reason
    other = replay(run.warmed.trace, Aligned(rule=rule, gain=0.05))
    assert other.factors != again.factors


def test_a_replay_of_a_ramp_ends_at_the_cap() -> None:
    weight = torch.nn.Parameter(torch.zeros(2000))
    from warmopt import Warmed

    warmed = Warmed(torch.optim.SGD([weight], 1e-6), 40, "aligned", trace=Trace())
    for update in range(40):
        weight.grad = torch.randn(2000, generator=torch.Generator().manual_seed(update))
        warmed.step()
    assert warmed.done_reason == "ramped"
    again = replay(warmed.trace, Aligned())
    assert again[:2] == (40, "ramped")
    assert len(again.factors) == 16  # a ramp needs no readings


def test_a_criterion_can_be_replayed_on_it_too() -> None:
    run = traced(make=adam)
    end, reason, verdicts, factors = replay(run.warmed.trace, EffectiveSampleSize())
    assert reason == "settled"
    assert end is not None
    assert len(verdicts) == len(run.warmed.trace)
    assert factors == []


def test_another_trace_cannot_be_replayed_as_a_climb() -> None:
    from tests.support.adaptive import run as stepped
    from tests.support.adaptive import wrapped

    warmed, params = wrapped(trace=Trace())
    stepped(warmed, params, range(20))
    with pytest.raises(ValueError, match="trace must be of an aligned warmup"):
        replay(warmed.trace, Aligned())


def test_it_is_saved_loaded_and_drawn(tmp_path: Path) -> None:
    run = traced(make=adam, watch=[Drift()])
    trace = run.warmed.trace
    trace.save(tmp_path / "run.jsonl")
    loaded = Trace.load(tmp_path / "run.jsonl")
    assert str(loaded.rows) == str(trace.rows)
    assert replay(loaded, Aligned()) == replay(trace, Aligned())
    loaded.plot(tmp_path / "run.svg")
    assert "alignment" in (tmp_path / "run.svg").read_text()


def test_a_trace_without_the_entry_is_still_read(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    traced(make=adam).warmed.trace.save(path)
    old = path.read_text().replace('"alignment"', '"other"')
    path.write_text(old)
    assert all(math.isnan(row["alignment"]) for row in Trace.load(path))


def test_the_constants_are_those_of_the_dataclass() -> None:
    names = {field.name for field in dataclasses.fields(Aligned)}
    assert {*Aligned().limits._fields} <= names
