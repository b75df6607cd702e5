"""To record, watch and replay: what is written down is what was decided."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.features import needs_adafactor
from tests.support.optimizers import ROWS, assert_same, snapshot
from tests.support.reference import watch
from warmopt import Warmed
from warmopt.adaptive import Adaptive
from warmopt.criteria import Drift, InverseRootVariance, NormRatio, Reading, UpdateRMS
from warmopt.trace import Replay, Trace, replay

ADAM = ROWS["adam-loop"]
WATCHED = (Drift(), NormRatio(), UpdateRMS())
# In these runs it settles, and stops being settled where the gradients grow.
MODE = {"criterion": InverseRootVariance(0.01), "every": 3, "window": 3}


def train(warmed: Warmed, params: Any, updates: range, shock: int = 0) -> None:
    row = ADAM
    for update in updates:
        row.set_grads(params, update)
        if shock and update >= shock:
            for param in params:
                param.grad.mul_(30.0)
        warmed.step()


def traced(
    steps: int = 90, watch: Any = (), **options: Any
) -> tuple[Warmed, Any, Trace]:
    params, trace = ADAM.params(), Trace()
    mode = Adaptive(**(MODE | options))
    optimizer = torch.optim.Adam(params, lr=1e-3, betas=(0.9, 0.95))
    return (
        Warmed(optimizer, steps=steps, mode=mode, trace=trace, watch=watch),
        params,
        trace,
    )


def trained_to_its_end(warmed: Warmed, params: Any, begun: int, shock: int) -> int:
    """The number of the last update of the warmup, counted from 1."""
    for update in range(begun + 1, 200):
        train(warmed, params, range(update, update + 1), shock)
        if warmed.done:
            return update
    raise AssertionError("it never ended")


@pytest.mark.parametrize("shock", [0, 22])
@pytest.mark.parametrize(
    ("on_settled", "resumed_at"),
    [
        *(("accelerate", resumed_at) for resumed_at in (0, 1, 14, 15, 20, 25)),
        *(("ramp", resumed_at) for resumed_at in (0, 14, 15, 20, 25)),
        *(("end", resumed_at) for resumed_at in (0, 14, 15)),  # it ends at once
    ],
)
def test_replayed_under_its_own_criterion_it_decides_the_same(
    on_settled: str, shock: int, resumed_at: int
) -> None:
    """The same verdicts and the same end, also from the trace of a resumed run."""
    warmed, params, trace = traced(on_settled=on_settled, fast=20)
    train(warmed, params, range(1, resumed_at + 1), shock)
    if resumed_at:
        fresh, fresh_params, trace = traced(on_settled=on_settled, fast=20)
        fresh.load_state_dict(warmed.state_dict())
        for new, old in zip(fresh_params, params, strict=True):
            new.data.copy_(old.data)
        warmed, params = fresh, fresh_params
    end = trained_to_its_end(warmed, params, resumed_at, shock)
    again = replay(trace, MODE["criterion"])
    assert again.end == end
    assert again.reason == warmed.done_reason
    assert again.verdicts == [row["settled"] for row in trace]


@pytest.mark.parametrize("steps", [1, 3, 5, 6, 7])
def test_a_warmup_shorter_than_its_readings_is_replayed_too(steps: int) -> None:
    warmed, params, trace = traced(steps)
    end = trained_to_its_end(warmed, params, 0, 0)
    again = replay(trace, MODE["criterion"])
    assert (again.end, again.reason) == (end, "cap")


def test_replay_with_other_constants() -> None:
    warmed, params, trace = traced()
    end = trained_to_its_end(warmed, params, 0, 0)
    assert 30 < end < 90
    sooner = replay(trace, lambda _: True, fast=10)
    assert sooner.end == 6 + 10  # at 9 each: 6 slow updates are less than a fast one
    assert replay(trace, lambda _: True, on_settled="end").end == 7
    never = replay(trace, InverseRootVariance(1e-9))
    assert (never.end, never.reason) == (None, None)
    assert not any(never.verdicts)
    with pytest.raises(ValueError, match=r"pool must be one of the trace, \[0\]"):
        replay(trace, Drift(), pool=1)
    with pytest.raises(ValueError, match="on_settled"):
        replay(trace, Drift(), on_settled="stop")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="every"):  # the readings are already taken
        replay(trace, Drift(), every=3)  # type: ignore[call-arg]


def test_a_trace_that_is_cut_off_has_no_end() -> None:
    warmed, params, trace = traced(criterion=lambda _: False)
    train(warmed, params, range(1, 40))
    assert replay(trace, lambda _: False).end is None


def never(reading: Reading) -> bool:
    return False


def test_warmed_again_the_last_warmup_is_replayed() -> None:
    """With the readings of the warmup before it, the last one would seem to end."""
    warmed, params, trace = traced(criterion=never)
    assert trained_to_its_end(warmed, params, 0, 0) == 90
    warmed.rewarm()
    train(warmed, params, range(1, 20))
    readings = trace.readings()
    assert [reading.update for reading in readings] == [3, 6, 9, 12, 15]
    assert len(trace) > len(readings)
    assert replay(trace, never) == Replay(None, None, [False] * 5)


def test_criteria_are_named_alike_and_apart() -> None:
    """Criteria that act and criteria that watch; also where two have the same name."""

    def settled(reading: Reading) -> bool:
        return reading.update > 9

    loose, tight = (lambda r, most=most: r.update > most for most in (5, 99))
    watch = [loose, settled, Drift(), tight, Drift()]
    warmed, params, trace = traced(criterion=settled, watch=watch)
    train(warmed, params, range(1, 20))
    assert trace.pools[0].criterion == "settled"
    drift = repr(Drift())
    names = ["<lambda>", "settled", drift, "<lambda> (2)", f"{drift} (2)"]
    assert list(trace.rows[-1]["watched"]) == names
    verdicts = [criterion(trace.readings()[-1]) for criterion in watch]
    assert list(trace.rows[-1]["watched"].values()) == verdicts


MOMENTS = [
    "adam-loop",
    "adamw-foreach",
    "nadam-loop",
    "rmsprop-loop",
    "adadelta-loop",
    pytest.param("adafactor-loop", marks=needs_adafactor),
    "sparse_adam",
    "adam-tensor_lr",
    "adam-amsgrad",
    "torch_optimizer.Yogi",
    "pytorch_optimizer.AdaBelief",
    "pytorch_optimizer.Lamb",
]


@pytest.mark.parametrize("name", MOMENTS)
def test_watching_a_fixed_warmup_changes_nothing(name: str) -> None:
    row = ROWS[name]
    twins = row.params(), row.params()
    plain = row.wrap(twins[0], steps=20, mode="cosine")
    watched = row.wrap(twins[1], steps=20, mode="cosine", watch=WATCHED)
    used = [
        watch(each, lambda o: float(o.param_groups[0]["lr"]))
        for each in (plain.wrapped, watched.wrapped)
    ]
    for update in range(1, 25):
        row.step(plain, twins[0], update)
        row.step(watched, twins[1], update)
        assert_same(snapshot(plain, twins[0]), snapshot(watched, twins[1]))
    assert used[0] == used[1]
    rows = watched.trace.rows
    assert [each["update"] for each in rows] == [5, 10, 15]
    assert [each["settled"] for each in rows] == [None] * len(rows)
    assert list(rows[0]["watched"]) == [repr(each) for each in WATCHED]
    assert watched.done_reason == "cap"
    keys = set(plain.param_groups[0])
    assert set(watched.param_groups[0]) == keys  # nothing to save


def test_watching_does_not_act_on_an_adaptive_one() -> None:
    runs = []
    for criteria in ((), WATCHED):
        warmed, params, trace = traced(watch=criteria)
        end = trained_to_its_end(warmed, params, 0, 0)
        runs.append((end, snapshot(warmed, params), trace))
    assert runs[0][0] == runs[1][0]
    assert_same(runs[0][1], runs[1][1])
    for row, reading in zip(runs[1][2], runs[1][2].readings(), strict=True):
        assert row["watched"] == {repr(each): each(reading) for each in WATCHED}


def test_rows_say_what_was_used() -> None:
    """The rows are flat, have the same keys, and give the factor of the next update."""
    warmed, params, trace = traced(watch=WATCHED)
    warmed.param_groups[0]["lr"] = 1  # an int is a number too
    factors = []
    for update in range(1, 28):
        factors.append(warmed.factors[0])
        train(warmed, params, range(update, update + 1))
    factors.append(warmed.factors[0])
    assert len(trace) == len(list(trace)) == 8
    assert len({tuple(row) for row in trace}) == 1
    assert set(trace.rows[0]) == {
        "pool",
        "judged_after",
        "lr",
        "factor",
        "settled",
        "watched",
        *Reading._fields,
    }
    for row in trace:
        assert row["judged_after"] == row["update"] + 3
        assert row["factor"] == factors[row["judged_after"]]
        assert row["lr"] == 1.0
    assert [reading.samples for reading in trace.readings()] == [1, 2, *[3] * 6]


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    """Also nan, and what a replay says."""
    warmed, params, trace = traced(watch=WATCHED)
    trained_to_its_end(warmed, params, 0, 0)
    assert any(math.isnan(row["norm_ratio"]) for row in trace)
    trace.save(path := tmp_path / "trace.jsonl")
    loaded = Trace.load(path)
    assert str(loaded.rows) == str(trace.rows)  # nan is not equal to itself
    assert loaded.pools == trace.pools
    assert replay(loaded, Drift()) == replay(trace, Drift())
    empty = Trace()
    empty.save(str(path))
    assert Trace.load(str(path)).rows == []


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (lambda lines: [], 1),
        (lambda lines: ["", *lines], 1),
        (lambda lines: lines[1:], 1),
        (lambda lines: ["[]", *lines[1:]], 1),
        (lambda lines: ['{"pools": [1]}', *lines[1:]], 1),
        (lambda lines: ['{"pools": {"x": {}}}', *lines[1:]], 1),
        (lambda lines: ['{"pools": {"0": {}}}', *lines[1:]], 1),
        (lambda lines: [*lines[:3], lines[3][:40]], 4),
        (lambda lines: [*lines[:2], "{}"], 3),
        (lambda lines: [*lines[:2], "7"], 3),
        (lambda lines: [*lines[:2], lines[2].replace('"sizes"', '"size"')], 3),
        (lambda lines: [*lines[:2], lines[2].replace('"judged_after"', '"x"')], 3),
        (lambda lines: [*lines[:3], lines[3].replace('"pool"', '"x"')], 4),
    ],
)
def test_a_broken_file_is_refused(spoil: Any, line: int, tmp_path: Path) -> None:
    warmed, params, trace = traced()
    train(warmed, params, range(1, 20))
    trace.save(path := tmp_path / "trace.jsonl")
    path.write_text("\n".join(spoil(path.read_text().splitlines())))
    told = rf"trace\.jsonl must be a trace in JSON lines.* line {line} is not"
    with pytest.raises(ValueError, match=told):
        Trace.load(path)


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    (path := tmp_path / "trace.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="must be a trace"):
        Trace.load(path)
    with pytest.raises(FileNotFoundError):
        Trace.load(tmp_path / "none.jsonl")


def test_every_line_is_json(tmp_path: Path) -> None:
    warmed, params, trace = traced()
    train(warmed, params, range(1, 20))
    trace.save(path := tmp_path / "trace.jsonl")
    first, *rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert list(first) == ["pools"]
    assert len(rows) == len(trace)
