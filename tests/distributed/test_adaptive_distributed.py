"""Adaptive warmup in real process groups: all ranks read and decide the same.

Functions named `check_` run on all ranks; the tests compare what they return. When
every rank has the same data, a mean of 2 or 4 equal numbers is exact. So a sharded run
has the same numbers as a single process.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.optim import Optimizer

from tests.support.engines import LONG, Wrap, build, train, warmed_of
from tests.support.ranks import Ranks, alike
from tests.support.sharding import DTensor, Shard, distribute_tensor
from warmopt import Adaptive, Trace, Warmed
from warmopt._measure.window import Window
from warmopt.criteria import Drift, InverseRootVariance, NormRatio, Reading, UpdateRMS

pytestmark = pytest.mark.xdist_group("ranks")

CAP = LONG[0]
READS = {"every": 2, "window": 3}
CRITERIA = [InverseRootVariance(0.05), Drift(), NormRatio(), UpdateRMS()]

SHARDED = ["fsdp2", "hsdp", "by-columns"]
PLAIN_SHARDS = ["fsdp1", "zero-outside", "zero-inside"]


def adaptive(optimizer: Optimizer, trace: bool = True, **options: Any) -> Warmed:
    mode = Adaptive(**{"criterion": InverseRootVariance(0.05), **READS, **options})
    log = {"trace": Trace(), "watch": CRITERIA} if trace else {}
    return Warmed(optimizer, CAP, mode, **log)


def over_all_ranks(optimizer: Optimizer) -> Warmed:
    return adaptive(optimizer, process_group=distributed.group.WORLD)


def rows_of(trace: Any) -> list[list[Any]]:
    unread = ("lr", "alignment")
    return [[row[key] for key in row if key not in unread] for row in trace]


def check_run(
    engine: str, wrap: Wrap, kind: str = "adam-long", of_rank: bool = False
) -> dict[str, Any]:
    """What a warmup reports at each update. `of_rank`: each rank has other data."""
    training = build(engine, kind, wrap)
    (warmed,), said = warmed_of(training), []
    for update in range(1, CAP + 1):
        train(training, 1000 * update + (distributed.get_rank() if of_rank else 0))
        said.append((warmed.factors, warmed.done))
    return {
        "said": said,
        "end": [done for _, done in said].index(True) + 1,
        "reason": warmed.done_reason,
        "rows": rows_of(warmed.trace or ()),
    }


# --- the same data everywhere: as in a single process ---------------------------------


@pytest.mark.parametrize(
    ("engine", "kind"),
    [
        ("fsdp2", "rmsprop-long"),
        *((engine, "adam-long") for engine in (*SHARDED, "beside-plain", "ddp")),
    ],
)
@pytest.mark.parametrize("size", [2, 4])
def test_every_rank_has_the_trace_of_a_single_process(
    groups: dict[int, Ranks], size: int, engine: str, kind: str
) -> None:
    """Exactly, with the same factors and the same end."""
    alone = check_run("one-process", adaptive, kind)
    assert (len(alone["rows"]), alone["reason"]) == (6, "settled")
    found = alike(groups[size].run(check_run, engine, adaptive, kind))
    assert repr(found) == repr(alone)  # nan == nan


def test_so_it_has_with_tensor_parallelism(groups: dict[int, Ranks]) -> None:
    """To a few ulp: a row-wise layer adds up its products in two parts."""
    alone = check_run("one-process", adaptive)
    found = alike(groups[4].run(check_run, "tensor-parallel", adaptive))
    assert found["said"] == alone["said"]
    for row, expected in zip(found["rows"], alone["rows"], strict=True):
        assert row[:5] == expected[:5]
        for value, other in zip(row[5:], expected[5:], strict=True):
            assert value == pytest.approx(other, rel=2e-5, nan_ok=True)


@pytest.mark.parametrize("engine", ["zero-outside", "zero-inside"])
@pytest.mark.parametrize("size", [2, 4])
def test_the_parts_of_zero_add_up_to_a_single_process(
    groups: dict[int, Ranks], size: int, engine: str
) -> None:
    """Its tensors come rank by rank, so sums may be rounded in another order."""
    alone = check_run("one-process", adaptive)
    found = alike(groups[size].run(check_run, engine, over_all_ranks))
    assert found["said"] == alone["said"]
    for row, expected in zip(found["rows"], alone["rows"], strict=True):
        assert row[:-5] == expected[:-5]
        assert row[-5:-2] == pytest.approx(expected[-5:-2], rel=1e-6, nan_ok=True)
        drifts, others = ([d for d in r[-2] if d == d] for r in (row, expected))
        assert sorted(drifts) == sorted(others)


def counted_all_reduces() -> Any:
    return mock.patch.object(distributed, "all_reduce", wraps=distributed.all_reduce)


def check_collectives(engine: str) -> list[int]:
    """The number of all-reduces after each update."""
    training, counts = build(engine, "adam-long", adaptive), []
    with counted_all_reduces() as all_reduce:
        for update in range(1, CAP + 1):
            train(training, update)
            counts.append(all_reduce.call_count)
    return counts


def test_without_a_momentum_its_size_is_unknown() -> None:
    """Not 0, which would count as settled."""
    for row in check_run("one-process", adaptive, "rmsprop-long")["rows"]:
        assert math.isnan(row[-3])


@pytest.mark.parametrize(("engine", "each"), [("ddp", 0), ("fsdp2", 1)])
def test_a_reading_is_one_collective_and_none_without_shards(
    groups: dict[int, Ranks], engine: str, each: int
) -> None:
    counts = alike(groups[2].run(check_collectives, engine))
    assert counts == [each * (min(update, 14) // 2) for update in range(1, CAP + 1)]


# --- a process group of this process alone --------------------------------------------


@pytest.fixture
def only_rank(tmp_path: Path) -> Iterator[None]:
    """A debugger and the coverage tool can see what runs here."""
    meeting = f"file://{tmp_path / 'store'}"
    distributed.init_process_group("gloo", init_method=meeting, rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.usefixtures("only_rank")
@pytest.mark.parametrize(
    ("engine", "wrap"),
    [
        *((name, adaptive) for name in ("fsdp2", "by-columns", "beside-plain")),
        ("ddp", over_all_ranks),
    ],
)
def test_one_rank_has_the_trace_of_no_process_group(engine: str, wrap: Wrap) -> None:
    alone = check_run("one-process", adaptive)
    assert repr(check_run(engine, wrap)) == repr(alone)


# --- other data on every rank: all decide alike ---------------------------------------


def capricious(reading: Reading) -> bool:
    """Looks at the last bit of a measured value, so any difference shows."""
    value = reading.inverse_root_variance
    return value == value and math.frexp(value)[0] * 2**24 % 2 == 1


fickle = partial(adaptive, criterion=capricious)


def fickle_over_all_ranks(optimizer: Optimizer, **options: Any) -> Warmed:
    return fickle(optimizer, process_group=distributed.group.WORLD, **options)


def check_repeats(engine: str, times: int) -> list[int]:
    """The last update of each of `times` warmups, all with different data."""
    wrap = fickle_over_all_ranks if engine in PLAIN_SHARDS else fickle
    wrap, ends = partial(wrap, every=1, trace=False), []
    for seed in range(times):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(5, 3))
        training, update = build(engine, "adam-long", wrap, model), 0
        while not warmed_of(training)[0].done:
            update += 1
            data = 4000 * seed + 40 * update + distributed.get_rank()
            train(training, data, inputs=5)
        ends.append(update)
    return ends


@pytest.mark.parametrize("engine", [*SHARDED, *PLAIN_SHARDS])
@pytest.mark.parametrize("size", [2, 4])
def test_all_ranks_decide_alike(
    groups: dict[int, Ranks], size: int, engine: str
) -> None:
    """At every reading. Plain tensor shards need `process_group` for this."""
    wrap = fickle_over_all_ranks if engine in PLAIN_SHARDS else fickle
    found = alike(groups[size].run(check_run, engine, wrap, "adam-long", True))
    assert {False, True} <= {row[3] for row in found["rows"]}


@pytest.mark.parametrize("engine", PLAIN_SHARDS)
def test_where_shards_are_plain_tensors_ranks_must_be_told_of_each_other(
    groups: dict[int, Ranks], engine: str
) -> None:
    """Without it each rank decides alone: this is what `process_group` is for."""
    found = groups[4].run(check_run, engine, fickle, "adam-long", True)
    assert len({tuple(row[3] for row in rank["rows"]) for rank in found}) > 1


def check_a_rank_without(engine: str) -> tuple[int, list[Any]]:
    """How many second moments this rank holds, and what is decided."""
    wrap = partial(fickle_over_all_ranks, every=1)
    training = build(engine, "adam-long", wrap, nn.Sequential(nn.Linear(5, 1)))
    (warmed,), said = warmed_of(training), []
    for update in range(1, CAP + 1):
        train(training, 40 * update + distributed.get_rank(), inputs=5)
        said.append((warmed.factors, warmed.done))
    inner = getattr(warmed, "optim", warmed)
    states = [state["exp_avg_sq"] for state in inner.state.values() if state]
    held = sum(values.numel() for values in states)
    return held, [*said, *map(repr, warmed.trace)]


@pytest.mark.parametrize("engine", PLAIN_SHARDS)
def test_a_rank_that_holds_no_second_moment_decides_like_the_others(
    groups: dict[int, Ranks], engine: str
) -> None:
    held, said = zip(*groups[4].run(check_a_rank_without, engine), strict=True)
    assert min(held) == 0
    assert any(done for _, done in alike(said)[:CAP])


def check_trace_on_one_rank() -> list[Any]:
    wrap = partial(adaptive, trace=distributed.get_rank() == 0)
    return check_run("fsdp2", wrap, of_rank=True)["said"]


def test_one_rank_alone_may_keep_the_trace(groups: dict[int, Ranks]) -> None:
    alike(groups[2].run(check_trace_on_one_rank))


def agree_every_time(groups: Any, size: int, engine: str, times: int) -> None:
    ends = alike(groups[size].run(check_repeats, engine, times))
    assert len(ends) == times
    assert len(set(ends)) > 2


@pytest.mark.parametrize(("size", "times"), [(2, 100), (4, 10)])
def test_repeated_warmups_end_at_the_same_update_on_all_ranks(
    groups: dict[int, Ranks], size: int, times: int
) -> None:
    agree_every_time(groups, size, "fsdp2", times)


@pytest.mark.long
@pytest.mark.parametrize("engine", [*SHARDED, *PLAIN_SHARDS])
@pytest.mark.parametrize("size", [2, 4])
def test_a_hundred_warmups_of_every_engine_end_alike(size: int, engine: str) -> None:
    ranks = Ranks(size, timeout=150.0)
    try:
        agree_every_time({size: ranks}, size, engine, 100)
    finally:
        ranks.stop()


# --- the trap: a number of a DTensor is that of this rank's part ----------------------


def check_unreduced() -> tuple[float, float, dict[str, Any]]:
    training = model, (optimizer,) = build("fsdp2", "adam-long", adaptive)
    train(training, 1)
    values = optimizer.state[model[0].weight]["exp_avg_sq"]
    assert isinstance(values, DTensor)
    with mock.patch.object(Window, "_summed", lambda self, own: own):
        found = check_run("fsdp2", fickle)
    return values.sum().item(), values.full_tensor().sum().item(), found


def test_without_the_sum_over_ranks_they_part(groups: dict[int, Ranks]) -> None:
    """Even with the same data. `item()` of a reduced DTensor does not help."""
    partial_sums, sums, found = zip(*groups[4].run(check_unreduced), strict=True)
    assert len(set(sums)) == 1
    assert len(set(partial_sums)) == 4
    assert len({repr(rank["rows"][-1]) for rank in found}) == 4
    assert len({tuple(row[3] for row in rank["rows"]) for rank in found}) > 1


# --- steps that are skipped, and questions of one rank --------------------------------


def check_scaled(skipped: int, kind: str) -> list[str]:
    """The readings of 12 updates, and of one that is skipped: one rank has an inf."""
    model, (optimizer,) = build("fsdp2", kind, adaptive)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for seed in [*range(1, skipped), 99, *range(skipped, 12 + 1)]:
        factors, readings = optimizer.factors, len(optimizer.trace)
        data = torch.randn(4, 12, generator=torch.Generator().manual_seed(seed))
        scaler.scale(model(data).square().mean()).backward()
        if seed == 99 and distributed.get_rank() == 1:
            model[0].weight.grad.to_local().fill_(torch.inf)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        if seed == 99:
            assert (optimizer.factors, len(optimizer.trace)) == (factors, readings)
    assert optimizer.factors
    return list(map(repr, optimizer.trace))


@pytest.mark.parametrize("kind", ["adam-long", "adam-fused-long"])
def test_an_update_that_one_rank_spoils_is_no_reading(
    groups: dict[int, Ranks], kind: str
) -> None:
    """Before a due reading (8) and after one (9): the others stay the same."""
    first, second = (alike(groups[2].run(check_scaled, at, kind)) for at in (8, 9))
    assert first == second
    assert len(first) == 5


def check_questions(kind: str) -> int:
    """All-reduces that questions start, after an update with a reading."""
    model, (optimizer,) = build("fsdp2", kind, adaptive)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for _ in range(READS["every"]):
        scaler.scale(model(torch.ones(4, 12)).square().mean()).backward()
        scaler.step(optimizer)
        scaler.update()
    with counted_all_reduces() as all_reduce:
        for ask in (repr, Warmed.get_last_lr, Warmed.state_dict):
            assert ask(optimizer)
        assert not optimizer.done
        assert optimizer.factors
    return all_reduce.call_count


@pytest.mark.parametrize("kind", ["adam-long", "adam-fused-long"])
def test_a_question_is_no_collective(groups: dict[int, Ranks], kind: str) -> None:
    """So one rank can ask alone, for example for a log."""
    assert alike(groups[2].run(check_questions, kind)) == 0


def check_crossed_meshes() -> str:
    """Two parameters, each on its own dimension of a mesh of 2 x 2 ranks."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor"))
    params = [
        nn.Parameter(distribute_tensor(torch.zeros(4), mesh[name], [Shard(0)]))
        for name in ("data", "tensor")
    ]
    with pytest.raises(ValueError, match="params must lie on one mesh") as refused:
        adaptive(torch.optim.Adam(params))
    return type(refused.value).__name__


def test_meshes_that_cross_are_refused(groups: dict[int, Ranks]) -> None:
    """A sum over one of the two misses some ranks: they would not decide the same."""
    assert groups[4].run(check_crossed_meshes) == ["ValueError"] * 4
