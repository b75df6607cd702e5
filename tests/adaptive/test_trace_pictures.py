"""What the pictures of traces show, and that a trace keeps to one run."""

from __future__ import annotations

import copy
import math
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.adaptive import run as stepped
from tests.support.adaptive import wrapped
from tests.support.aligned import Regression
from warmopt import Adaptive, Aligned, Trace, Warmed, replay
from warmopt.criteria import (
    CRITERIA,
    Drift,
    InverseRootVariance,
    NormRatio,
    Reading,
    UpdateRMS,
)
from warmopt.trace import overlay

Made = tuple[Any, Any, Trace]


def traced(updates: int = 40, trace: Trace | None = None, **options: Any) -> Made:
    """A warmup of 40 updates, after so many of them."""
    trace = Trace() if trace is None else trace
    warmed, params = wrapped(40, every=2, window=2, trace=trace, **options)
    stepped(warmed, params, range(1, updates + 1))
    return warmed, params, trace


def panels(figure: Any) -> dict[str, list[tuple[list[float], list[float]]]]:
    """The lines that are drawn in each panel, by the label of its y axis."""
    return {
        axis.get_ylabel(): [
            (list(line.get_xdata()), list(line.get_ydata()))
            for line in axis.get_lines()
            if line.get_transform() == axis.transData
        ]
        for axis in figure.axes
    }


def legend(axis: Any) -> list[str]:
    found = axis.get_legend()
    return [] if found is None else [text.get_text() for text in found.get_texts()]


# --- pictures -------------------------------------------------------------------------


def test_a_plot_is_a_figure_that_shows_itself_and_can_be_saved(tmp_path: Path) -> None:
    """A notebook asks an object for `_repr_png_`; it is there without pyplot too."""
    from matplotlib.figure import Figure

    _, _, trace = traced()
    figure = trace.plot()
    assert isinstance(figure, Figure)
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert list(tmp_path.iterdir()) == []
    assert isinstance(trace.plot(tmp_path / "run.png"), Figure)
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")


def test_a_criterion_s_own_number_is_drawn_with_its_limit() -> None:
    _, _, trace = traced(criterion=lambda _: False)

    def samples(reading: Reading) -> int:
        return reading.samples

    rule = UpdateRMS(ratio=1.25)
    shown = panels(trace.plot(quantities=[rule, samples]))
    assert list(shown) == ["factor", "effective LR", "UpdateRMS", "samples", ""]
    when = [row["update"] for row in trace]
    expected = [rule.quantity(reading) for reading in trace.readings()]
    assert shown["UpdateRMS"] == [(when, expected)]
    assert shown["samples"] == [(when, [row["samples"] for row in trace])]
    texts = [text.get_text() for text in trace.plot(quantities=[rule]).axes[2].texts]
    assert texts == ["1.25"]
    two = panels(trace.plot(quantities=[Drift(tol=0.1), Drift(tol=0.2)]))
    assert "Drift\n(tol=0.1, quantile=0.75, by='numel')" in two
    with pytest.raises(TypeError, match="quantities must be criteria, or functions"):
        trace.plot(quantities=["drift"])  # type: ignore[list-item]


def test_a_loss_is_drawn_beside_it() -> None:
    """From the first update on, or where it was logged; tensors are numbers too."""
    _, _, trace = traced()
    losses = [3.0, 2.0, torch.tensor(1.0)]
    assert panels(trace.plot(losses=losses))["loss"] == [([1, 2, 3], [3.0, 2.0, 1.0])]
    some = panels(trace.plot(losses={10: 2.0, 20: 1.0}))["loss"]
    assert some == [([10, 20], [2.0, 1.0])]


def test_a_replay_is_drawn_beside_it() -> None:
    _, _, trace = traced(criterion=InverseRootVariance(1e-9))
    again = replay(trace, Drift(tol=99.0), on_settled="end")
    assert again.end is not None
    figure = trace.plot(replays={"Drift(tol=99.0)": again})
    names = [tick.get_text() for tick in figure.axes[-1].get_yticklabels()]
    assert names == ["InverseRootVariance (acts)", "Drift (replayed)"]
    assert [text.get_text() for text in figure.axes[0].texts] == ["Drift would end"]
    for axis in figure.axes:
        assert [again.end] * 2 in [list(line.get_xdata()) for line in axis.get_lines()]


@pytest.mark.filterwarnings("ignore:The warmup of param group")
def test_a_replayed_climb_is_drawn_as_factors() -> None:
    run = Regression(trace=Trace())
    run.run(range(1, 200))
    again = replay(run.warmed.trace, Aligned(gain=0.05))
    figure = run.warmed.trace.plot(replays={"slow": again})
    first = panels(figure)["factor"]
    assert again.factors in [values for _, values in first]
    assert legend(figure.axes[0])[-1] == "slow (replayed)"
    assert [t.get_text() for t in figure.axes[-1].get_yticklabels()] == []


def test_runs_are_drawn_over_each_other(tmp_path: Path) -> None:
    runs = {"short": traced(20)[2], "whole": traced(40)[2]}
    path = tmp_path / "runs.svg"
    figure = overlay(runs, path, losses={"short": [1.0, 2.0]}, quantities=[Drift()])
    shown = panels(figure)
    assert legend(figure.axes[0]) == ["short", "whole"]
    for label in ("factor", "effective LR", "Drift"):
        assert [len(x) for x, _ in shown[label]] == [len(run) for run in runs.values()]
    assert [x for x, _ in shown["loss"]] == [[1, 2]]
    acting = [tick.get_text() for tick in figure.axes[-1].get_yticklabels()]
    assert acting == ["short", "whole"]
    assert "short" in path.read_text()


def test_what_cannot_be_overlaid_is_refused() -> None:
    _, _, trace = traced(9)
    with pytest.raises(ValueError, match="runs must have a trace at least"):
        overlay({})
    with pytest.raises(TypeError, match=r"runs must be traces by name, .* for 'a'"):
        overlay({"a": trace.rows})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="losses must be of runs, a, got one of 'b'"):
        overlay({"a": trace}, losses={"b": [1.0]})
    with pytest.raises(ValueError, match=r"pool must be one of the trace, \[0\]"):
        overlay({"a": trace}, pool=1)


def test_without_matplotlib_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, _, trace = traced(9)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.delitem(sys.modules, "warmopt._tools.traces", raising=False)
    monkeypatch.delattr("warmopt._tools.traces", raising=False)
    with pytest.raises(ImportError, match=r"needs matplotlib, which pip install 'warm"):
        trace.plot()


# --- the number of a criterion --------------------------------------------------------


def settles(rule: Any, quantity: float) -> bool:
    """The verdict, from the number and the limit alone."""
    if isinstance(rule, Drift):
        return quantity < rule.limit
    if isinstance(rule, NormRatio):
        return math.isfinite(quantity) and quantity >= rule.limit
    above = rule.__class__.__name__ == "EffectiveSampleSize"
    return quantity > rule.limit if above else quantity <= rule.limit


@pytest.mark.parametrize(
    "rule",
    [
        *(make() for make in CRITERIA.values()),
        *(Drift(tol=1.0, by="tensor"), NormRatio(orientation="new_over_old")),
        *(NormRatio(orientation="two_sided"), NormRatio(bias_correction=False)),
        UpdateRMS(ratio=2.0),
    ],
    ids=str,
)
def test_the_number_and_its_limit_say_what_the_verdict_says(rule: Any) -> None:
    draw = torch.Generator().manual_seed(0)

    def rand(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=draw))

    seen = set()
    for _ in range(400):
        reading = Reading(
            *(int(rand(1, 200)), 20, int(rand(3, 6)), 5, 0.9, rand(0.7, 0.999)),
            *(rand(0.0, 0.06), rand(0.7, 1.4), rand(0.0, 0.8)),
            drifts=(rand(-0.3, 0.3), rand(-0.3, 0.3), math.nan),
            sizes=(10, 30, 50),
        )
        verdict = rule(reading)
        assert settles(rule, rule.quantity(reading)) is verdict
        seen.add(verdict)
    assert seen == {True, False}
    nan = math.nan
    unknown = Reading(9, 0, 1, 5, None, None, nan, nan, nan, (nan,), (9,))
    assert math.isnan(rule.quantity(unknown))
    assert rule(unknown) is False


# --- one run, one trace ---------------------------------------------------------------

REFUSED = r"trace must be new for a new run, got Trace\(\d+ readings.*trace=Trace\(\)"


@pytest.mark.parametrize("updates", [12, 40], ids=["cut off", "finished"])
@pytest.mark.parametrize("loaded", [False, True])
def test_a_second_run_is_refused(updates: int, loaded: bool, tmp_path: Path) -> None:
    """At its first reading; what is recorded stays as it is, and so do the LRs."""
    _, _, trace = traced(updates)
    trace.save(path := tmp_path / "run.jsonl")
    if loaded:
        trace = Trace.load(path)
    before = str(trace.rows), copy.deepcopy(trace.pools)
    second, params, _ = traced(3, trace)  # the first reading is judged after 4
    base = second.param_groups[0]["lr"]
    with pytest.raises(ValueError, match=REFUSED):
        stepped(second, params, range(4, 5))
    assert second.param_groups[0]["lr"] == base
    assert (str(trace.rows), trace.pools) == before
    assert len(trace.readings()) == len(trace)


def test_an_aligned_run_is_refused_too() -> None:
    trace = Trace()
    Regression(trace=trace).run(range(1, 30))
    with pytest.raises(ValueError, match=REFUSED):
        Regression(trace=trace).run(range(1, 30))


@pytest.mark.parametrize("way", ["in memory", "from a file"])
def test_a_resumed_run_goes_on_in_its_trace(way: str, tmp_path: Path) -> None:
    """The record is that of the run that never stopped."""
    _, _, whole = traced()
    first, params, trace = traced(15)
    state = copy.deepcopy(first.state_dict())
    if way == "from a file":
        trace.save(tmp_path / "run.jsonl")
        trace = Trace.load(tmp_path / "run.jsonl")
    second, fresh = wrapped(40, every=2, window=2, trace=trace)
    for new, old in zip(fresh, params, strict=True):
        new.data.copy_(old.data)
    second.load_state_dict(state)
    stepped(second, fresh, range(16, 41))
    assert str(trace.rows) == str(whole.rows)
    assert trace.pools == whole.pools
    assert replay(trace, Drift()) == replay(whole, Drift())


def test_the_same_optimizer_wrapped_again_goes_on_in_its_trace() -> None:
    first, params, trace = traced(15)
    mode = Adaptive(every=2, window=2)
    with pytest.warns(UserWarning, match="was wrapped before"):
        again = Warmed(first.wrapped, 40, mode, trace=trace)
    stepped(again, params, range(16, 30))
    assert [row["update"] for row in trace] == list(range(2, len(trace) * 2 + 2, 2))


def test_a_finished_run_that_is_resumed_may_warm_again() -> None:
    first, _, trace = traced(40)
    count, state = len(trace), copy.deepcopy(first.state_dict())
    second, fresh = wrapped(40, every=2, window=2, trace=trace)
    second.load_state_dict(state)
    stepped(second, fresh, range(41, 45))
    assert len(trace) == count
    second.rewarm()
    stepped(second, fresh, range(45, 55))
    assert len(trace) > count
    assert [reading.update for reading in trace.readings()][:2] == [2, 4]


def test_a_wrapper_that_makes_no_update_does_not_spoil_the_trace() -> None:
    """As when a framework builds one only to load a state, or steps at LR 0."""
    _, _, trace = traced()
    before = str(trace.rows)
    idle, params = wrapped(40, every=2, window=2, trace=trace)
    idle.param_groups[0]["lr"] = 0.0
    stepped(idle, params, range(1, 9))
    assert str(trace.rows) == before


def test_a_trace_survives_pickle() -> None:
    _, _, trace = traced(12)
    assert str(pickle.loads(pickle.dumps(trace)).rows) == str(trace.rows)
