"""An adaptive warmup that is saved, loaded, copied or started again."""

from __future__ import annotations

import copy
import io
import math
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch.nn import Parameter

from tests.support.adaptive import ADAM, always, in_the_middle, run, wrapped
from tests.support.optimizers import assert_same, snapshot
from warmopt import Adaptive, Warmed
from warmopt.criteria import InverseRootVariance
from warmopt.trace import Trace


def _saved(warmed: Warmed, params: list[Parameter]) -> Any:
    file = io.BytesIO()
    torch.save([warmed.state_dict(), [param.data for param in params]], file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def _put(data: list[torch.Tensor], params: list[Parameter]) -> None:
    for param, values in zip(params, data, strict=True):
        param.data.copy_(values)


def by_file(
    warmed: Warmed,
    params: list[Parameter],
    make: Any,
    trace: Trace,
    into_wrapped: bool = False,
) -> Any:
    state, data = _saved(warmed, params)
    fresh, fresh_params = make(trace=trace)
    _put(data, fresh_params)
    (fresh.wrapped if into_wrapped else fresh).load_state_dict(state)
    return fresh, fresh_params


def by_inner(*args: Any) -> Any:
    """Loaded by the wrapped optimizer."""
    return by_file(*args, into_wrapped=True)


def before_wrapping(
    warmed: Warmed, params: list[Parameter], make: Any, trace: Trace
) -> Any:
    state, data = _saved(warmed, params)
    fresh_params = ADAM.params()
    _put(data, fresh_params)
    optimizer = ADAM.build(fresh_params)
    optimizer.load_state_dict(state)
    return Warmed(optimizer, 60, Adaptive(**make.keywords), trace=trace), fresh_params


def by_copy(warmed: Warmed, params: list[Parameter], make: Any, trace: Trace) -> Any:
    copied, copied_params = copy.deepcopy((warmed, params))
    copied.trace.rows.clear()
    return copied, copied_params


def by_pickle(warmed: Warmed, params: list[Parameter], make: Any, trace: Trace) -> Any:
    loaded, loaded_params = pickle.loads(pickle.dumps((warmed, params)))
    loaded.trace.rows.clear()
    return loaded, loaded_params


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
    """LRs, parameters, state and readings, at each update of each phase."""

    make = partial(
        wrapped, criterion=criterion, on_settled=on_settled, every=3, window=3, fast=20
    )
    whole = Trace()
    warmed, params = make(trace=whole)
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
    """Count and pace stay. The window starts again if its size has changed."""
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
    assert "warmup_ring" in warmed.param_groups[0]  # a new one: it is saved at once
    assert run(warmed, params, range(1, 20)) == used
    warmed.rewarm(0)
    assert warmed.done


HOSTILE = {
    "warmup_fast": [-1, 10**9, 1.5, "1", None, True, math.nan, torch.tensor(1)],
    "warmup_settled": [1, 0, "no", None, math.nan, torch.tensor(True)],
}


WINDOWS = ["text", 3, None, [], {}, torch.zeros(3), torch.zeros(0), math.nan]


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


@pytest.mark.parametrize("key", ["warmup_ring", "warmup_latest", "warmup_every"])
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
