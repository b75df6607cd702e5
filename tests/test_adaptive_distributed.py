"""Adaptive warmup in real process groups: all ranks read and decide alike.

What begins with `check_` runs on all ranks; the tests compare what it returns. With the
same data on every rank a mean of 2 or 4 equal numbers is exact, so that a sharded run
has the numbers of a single process.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor import DTensor, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Adam, Optimizer, RMSprop

from tests import test_distributed as twins
from tests.ranks import Ranks
from warmopt import Adaptive, Trace, Warmed
from warmopt.criteria import Drift, InverseRootVariance, NormRatio, Reading, UpdateRMS
from warmopt.probe import Probe

pytestmark = pytest.mark.xdist_group("ranks")

CAP = 24
READS = {"every": 2, "window": 3}
CRITERIA = [InverseRootVariance(0.05), Drift(), NormRatio(), UpdateRMS()]

Wrap = Callable[[Optimizer], Warmed]
Training = tuple[nn.Module, Optimizer]


def adaptive(optimizer: Optimizer, trace: bool = True, **options: Any) -> Warmed:
    mode = Adaptive(**{"criterion": InverseRootVariance(0.05), **READS, **options})
    log = {"trace": Trace(), "watch": CRITERIA} if trace else {}
    return Warmed(optimizer, CAP, mode, **log)


def over_all_ranks(optimizer: Optimizer) -> Warmed:
    return adaptive(optimizer, process_group=distributed.group.WORLD)


# --- what is trained ------------------------------------------------------------------


def net(inputs: int = 12, hidden: int = 30) -> nn.Module:
    """30 rows, 3 and 1: uneven shards, and none on some ranks. Large and small."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(inputs, hidden),
        nn.Tanh(),
        nn.Linear(hidden, 3),
        nn.Tanh(),
        nn.Linear(3, 1),
    )


def split(model: nn.Module) -> list[dict[str, Any]]:
    params = list(model.parameters())
    return [{"params": params[::2]}, {"params": params[1::2], "lr": 0.02}]


def one_process(model: nn.Module, wrap: Wrap, kind: Any) -> Training:
    return model, wrap(kind(split(model), lr=0.01))


def fsdp2(model: nn.Module, wrap: Wrap, kind: Any, **options: Any) -> Training:
    for module in (*model[:-1:2], model):
        fully_shard(module, **options)
    return one_process(model, wrap, kind)


def hsdp(model: nn.Module, wrap: Wrap, kind: Any) -> Training:
    """Two replicas; of 2 ranks, each holds one."""
    shape = (2, distributed.get_world_size() // 2)
    mesh = init_device_mesh("cpu", shape, mesh_dim_names=("replicas", "shards"))
    return fsdp2(model, wrap, kind, mesh=mesh)


def beside_plain(model: nn.Module, wrap: Wrap, kind: Any) -> Training:
    """A large weight and a small bias are on every rank as a whole."""
    return fsdp2(model, wrap, kind, ignored_params={model[0].weight, model[2].bias})


def by_columns(model: nn.Module, wrap: Wrap, kind: Any) -> Training:
    def placement(param: nn.Parameter) -> Shard:
        return Shard(1 if param.shape == (30, 12) else 0)

    return fsdp2(model, wrap, kind, shard_placement_fn=placement)


def tensor_parallel(model: nn.Module, wrap: Wrap, kind: Any) -> Training:
    """Two layers on a mesh of 2 x 2 ranks, the last only on a part of that mesh."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor"))
    plan = {"0": ColwiseParallel(), "2": RowwiseParallel()}
    parallelize_module(model, mesh["tensor"], plan)
    fully_shard(model, mesh=mesh["data"])
    return one_process(model, wrap, kind)


def ddp(model: nn.Module, wrap: Wrap, kind: Any) -> Training:
    return one_process(DistributedDataParallel(model), wrap, kind)


def fsdp1(model: nn.Module, wrap: Wrap, kind: Any) -> Training:
    cpu = torch.device("cpu")
    model = FullyShardedDataParallel(model, use_orig_params=True, device_id=cpu)
    return one_process(model, wrap, kind)


def zero_outside(model: nn.Module, wrap: Wrap, kind: Any) -> Training:
    from torch.distributed.optim import ZeroRedundancyOptimizer

    model = DistributedDataParallel(model)
    return model, wrap(ZeroRedundancyOptimizer(split(model), kind, lr=0.01))


def zero_inside(model: nn.Module, wrap: Wrap, kind: Any) -> Training:
    from torch.distributed.optim import ZeroRedundancyOptimizer

    def warmed(params: Any, **options: Any) -> Warmed:
        return wrap(kind(params, **options))

    model = DistributedDataParallel(model)
    return model, ZeroRedundancyOptimizer(split(model), warmed, lr=0.01)


ENGINES = {
    engine.__name__: engine
    for engine in (
        *(one_process, fsdp2, hsdp, beside_plain, by_columns, tensor_parallel),
        *(ddp, fsdp1, zero_outside, zero_inside),
    )
}


SHARDED = ["fsdp2", "hsdp", "by_columns"]
PLAIN_SHARDS = ["fsdp1", "zero_outside", "zero_inside"]


def warmed_of(optimizer: Optimizer) -> Warmed:
    return optimizer if isinstance(optimizer, Warmed) else optimizer.optim


def train(training: Training, seed: int, inputs: int = 12) -> None:
    """One update."""
    model, optimizer = training
    data = torch.Generator().manual_seed(seed)
    model(torch.randn(4, inputs, generator=data)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def rows_of(trace: Any) -> list[list[Any]]:
    return [[row[key] for key in row if key != "lr"] for row in trace]


def check_run(
    engine: str, wrap: Wrap, kind: Any = Adam, of_rank: int = 0, sizes: Any = (12, 30)
) -> dict[str, Any]:
    """Everything that a warmup says, update by update; the data may differ by rank."""
    training = ENGINES[engine](net(*sizes), wrap, kind)
    rank = distributed.get_rank() if of_rank else 0
    warmed, said = warmed_of(training[1]), []
    for update in range(1, CAP + 1):
        train(training, 1000 * update + of_rank * rank, sizes[0])
        said.append((warmed.factors, warmed.done))
    return {
        "said": said,
        "end": [done for _, done in said].index(True) + 1,
        "reason": warmed.done_reason,
        "rows": rows_of(warmed.trace or ()),
    }


def alike(of_ranks: list[Any]) -> Any:
    """What all ranks have said, if they have said the same."""
    assert len(set(map(repr, of_ranks))) == 1
    return of_ranks[0]


# --- the same data everywhere: as in a single process ---------------------------------


@pytest.mark.parametrize(
    ("engine", "kind"),
    [
        ("fsdp2", RMSprop),
        *((name, Adam) for name in (*SHARDED, "beside_plain", "ddp")),
    ],
)
@pytest.mark.parametrize("size", [2, 4])
def test_every_rank_has_the_trace_of_a_single_process(
    groups: dict[int, Ranks], size: int, engine: str, kind: Any
) -> None:
    """To the bit, and its factors and its end."""
    alone = check_run("one_process", adaptive, kind)
    assert (len(alone["rows"]), alone["reason"]) == (6, "settled")
    found = alike(groups[size].run(check_run, engine, adaptive, kind))
    assert repr(found) == repr(alone)  # nan == nan


def test_so_it_has_with_tensor_parallelism(groups: dict[int, Ranks]) -> None:
    """To a few ulp: a row-wise layer adds up its products in two parts."""
    alone = check_run("one_process", adaptive)
    found = alike(groups[4].run(check_run, "tensor_parallel", adaptive))
    assert found["said"] == alone["said"]
    for row, expected in zip(found["rows"], alone["rows"], strict=True):
        assert row[:5] == expected[:5]
        for value, other in zip(row[5:], expected[5:], strict=True):
            assert value == pytest.approx(other, rel=2e-5, nan_ok=True)


@pytest.mark.parametrize("engine", ["zero_outside", "zero_inside"])
@pytest.mark.parametrize("size", [2, 4])
def test_the_parts_of_zero_add_up_to_a_single_process(
    groups: dict[int, Ranks], size: int, engine: str
) -> None:
    """Its tensors come rank by rank, so sums may round in another order."""
    alone = check_run("one_process", adaptive)
    found = alike(groups[size].run(check_run, engine, over_all_ranks))
    assert found["said"] == alone["said"]
    for row, expected in zip(found["rows"], alone["rows"], strict=True):
        assert row[:-5] == expected[:-5]
        assert row[-5:-2] == pytest.approx(expected[-5:-2], rel=1e-6, nan_ok=True)
        drifts, others = ([d for d in r[-2] if d == d] for r in (row, expected))
        assert sorted(drifts) == sorted(others)


def check_collectives(engine: str) -> list[int]:
    """How many all-reduces there are after each update."""
    training = ENGINES[engine](net(), adaptive, Adam)
    counts = []
    with mock.patch.object(
        distributed, "all_reduce", wraps=distributed.all_reduce
    ) as all_reduce:
        for update in range(1, CAP + 1):
            train(training, update)
            counts.append(all_reduce.call_count)
    return counts


def test_without_a_momentum_its_size_is_unknown() -> None:
    """Not 0, which would count as settled."""
    for row in check_run("one_process", adaptive, RMSprop)["rows"]:
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
    """What runs under it is seen by a debugger, and by the measure of coverage."""
    meeting = f"file://{tmp_path / 'store'}"
    distributed.init_process_group("gloo", init_method=meeting, rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.usefixtures("only_rank")
@pytest.mark.parametrize(
    ("engine", "wrap"),
    [
        *((name, adaptive) for name in ("fsdp2", "by_columns", "beside_plain")),
        ("ddp", over_all_ranks),
    ],
)
def test_one_rank_has_the_trace_of_no_process_group(engine: str, wrap: Wrap) -> None:
    alone = check_run("one_process", adaptive)
    assert repr(check_run(engine, wrap)) == repr(alone)


# --- other data on every rank: all decide alike ---------------------------------------


def capricious(reading: Reading) -> bool:
    """By the last bit of what was measured, so that the least difference shows."""
    value = reading.inverse_root_variance
    return value == value and math.frexp(value)[0] * 2**24 % 2 == 1


fickle = partial(adaptive, criterion=capricious)


def fickle_over_all_ranks(optimizer: Optimizer, **options: Any) -> Warmed:
    return fickle(optimizer, process_group=distributed.group.WORLD, **options)


def check_repeats(engine: str, times: int) -> list[int]:
    """The last update of each of so many warmups, all of other data."""
    wrap = fickle_over_all_ranks if engine in PLAIN_SHARDS else fickle
    wrap, ends = partial(wrap, every=1, trace=False), []
    for seed in range(times):
        torch.manual_seed(seed)
        training = ENGINES[engine](nn.Sequential(nn.Linear(5, 3)), wrap, Adam)
        update = 0
        while not warmed_of(training[1]).done:
            update += 1
            train(training, 4000 * seed + 40 * update + distributed.get_rank(), 5)
        ends.append(update)
    return ends


@pytest.mark.parametrize("engine", [*SHARDED, *PLAIN_SHARDS])
@pytest.mark.parametrize("size", [2, 4])
def test_all_ranks_decide_alike(
    groups: dict[int, Ranks], size: int, engine: str
) -> None:
    """At every reading; where shards are plain tensors, if told of the other ranks."""
    wrap = fickle_over_all_ranks if engine in PLAIN_SHARDS else fickle
    found = alike(groups[size].run(check_run, engine, wrap, Adam, 1))
    assert {False, True} <= {row[3] for row in found["rows"]}


@pytest.mark.parametrize("engine", PLAIN_SHARDS)
def test_where_shards_are_plain_tensors_ranks_must_be_told_of_each_other(
    groups: dict[int, Ranks], engine: str
) -> None:
    """Else each decides for itself: this is what `process_group` is for."""
    found = groups[4].run(check_run, engine, fickle, Adam, 1)
    assert len({tuple(row[3] for row in rank["rows"]) for rank in found}) > 1


def check_a_rank_without(engine: str) -> tuple[int, list[Any]]:
    """How many second moments this rank holds, and what is decided."""
    wrap = partial(fickle_over_all_ranks, every=1)
    training = ENGINES[engine](nn.Sequential(nn.Linear(5, 1)), wrap, Adam)
    warmed, said = warmed_of(training[1]), []
    for update in range(1, CAP + 1):
        train(training, 40 * update + distributed.get_rank(), 5)
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
    return check_run("fsdp2", wrap, Adam, 1)["said"]


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
    training = fsdp2(net(), adaptive, Adam)
    train(training, 1)
    values = training[1].state[training[0][0].weight]["exp_avg_sq"]
    assert isinstance(values, DTensor)
    with mock.patch.object(Probe, "_summed", lambda self, own: own):
        found = check_run("fsdp2", fickle)
    return values.sum().item(), values.full_tensor().sum().item(), found


def test_without_the_sum_over_ranks_they_part(groups: dict[int, Ranks]) -> None:
    """Even on the same data. What `item()` of a reduced DTensor gives is no better."""
    partial_sums, sums, found = zip(*groups[4].run(check_unreduced), strict=True)
    assert len(set(sums)) == 1
    assert len(set(partial_sums)) == 4
    assert len({repr(rank["rows"][-1]) for rank in found}) == 4
    assert len({tuple(row[3] for row in rank["rows"]) for rank in found}) > 1


# --- steps that are skipped, and questions of one rank --------------------------------


def check_scaled(skipped: int, kind: Any) -> list[str]:
    """The readings of 12 updates, one of which an inf on the last rank prevents."""
    training = model, optimizer = fsdp2(net(), adaptive, kind)
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
    assert training[1].factors
    return list(map(repr, optimizer.trace))


@pytest.mark.parametrize("kind", [Adam, partial(Adam, fused=True)])
def test_an_update_that_one_rank_spoils_is_no_reading(
    groups: dict[int, Ranks], kind: Any
) -> None:
    """Before one that is due (8), after one (9): the others are as if it were not."""
    first, second = (alike(groups[2].run(check_scaled, at, kind)) for at in (8, 9))
    assert first == second
    assert len(first) == 5


def check_questions(kind: Any) -> int:
    """All-reduces that questions start, after an update that is read."""
    _, optimizer = fsdp2(model := net(), adaptive, kind)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for _ in range(READS["every"]):
        scaler.scale(model(torch.ones(4, 12)).square().mean()).backward()
        scaler.step(optimizer)
        scaler.update()
    with mock.patch.object(
        distributed, "all_reduce", wraps=distributed.all_reduce
    ) as all_reduce:
        for ask in (repr, Warmed.get_last_lr, Warmed.state_dict):
            assert ask(optimizer)
        assert not optimizer.done
        assert optimizer.factors
    return all_reduce.call_count


@pytest.mark.parametrize("kind", [Adam, partial(Adam, fused=True)])
def test_a_question_is_no_collective(groups: dict[int, Ranks], kind: Any) -> None:
    """So that one rank may ask alone, as for a log."""
    assert alike(groups[2].run(check_questions, kind)) == 0


# --- checkpoints on disk --------------------------------------------------------------

SAMPLES = 7  # of a row
SAVED = 11  # updates: in the middle of the window, and of the fast pace


def resumable(optimizer: Optimizer, **options: Any) -> Warmed:
    for group in optimizer.param_groups:
        group["warmup_steps"] = CAP
    return adaptive(optimizer, **options)


def progress(training: twins.Training) -> list[Any]:
    """What decides, as it stands in the groups, and what has been decided."""
    (warmed,) = training[1]
    keys = ("warmup_updates", "warmup_fast", "warmup_settled", "warmup_done")
    groups = [[group[key] for key in keys] for group in warmed.param_groups]
    return [groups, warmed.factors]


def resumable_over_all_ranks(optimizer: Optimizer) -> Warmed:
    return resumable(optimizer, process_group=distributed.group.WORLD)


def check_rest(*loading: Any) -> tuple[list[Any], list[Any]]:
    """The progress from loading on (or all of it), and the readings."""
    training = (
        twins.loaded_training(*loading)
        if loading
        else twins.build("one-process", "adam", resumable)
    )
    first = SAVED if loading else 0
    said = [progress(training)]
    for update in range(first + 1, CAP + 1):
        twins.train(training, update)
        said.append([*progress(training), twins.whole(training[0])])
    return said, rows_of(training[1][0].trace)


@twins.ONE_PROCESS
@pytest.mark.parametrize("form", twins.FORMS)
@pytest.mark.parametrize(("saved", "loaded"), [(2, 4), (4, 2), (2, 1)])
def test_a_checkpoint_resumes_exactly_on_another_number_of_ranks(
    groups: dict[int, Ranks], tmp_path: Path, saved: int, loaded: int, form: str
) -> None:
    """Progress, pace, window and readings: as if it had not stopped."""
    args = ("adam", resumable, form, tmp_path)
    groups[saved].run(twins.check_save, "fsdp2", *args, SAVED)
    if loaded == 1:
        said, rows = check_rest("one-process", *args)
    else:
        said, rows = alike(groups[loaded].run(check_rest, "fsdp2", *args))
    expected, readings = check_rest()
    assert 0 < said[0][0][0][1] < SAVED
    assert said[0] == expected[SAVED][:2]
    assert said[1:] == expected[SAVED + 1 :]
    rest = [row for row in readings if row[1] > SAVED]
    assert repr(rows) == repr(rest)


def check_progress(*args: Any) -> list[Any]:
    training = twins.build(*args)
    for update in range(1, SAVED + 1):
        twins.train(training, update)
    return progress(training)


@pytest.mark.parametrize("form", ["plain", "flattened"])
@pytest.mark.parametrize(("saved", "loaded"), [(2, 4), (4, 2)])
def test_with_a_process_group_the_progress_resumes_and_the_window_fills_anew(
    groups: dict[int, Ranks], tmp_path: Path, saved: int, loaded: int, form: str
) -> None:
    args = ("adam", resumable_over_all_ranks, form, tmp_path)
    groups[saved].run(twins.check_save, "fsdp1", *args, SAVED)
    uninterrupted = alike(groups[saved].run(check_progress, "fsdp1", *args[:2]))
    said, rows = alike(groups[loaded].run(check_rest, "fsdp1", *args))
    assert said[0] == uninterrupted
    assert 0 < said[0][0][0][1] < SAVED
    assert [row[SAMPLES] for row in rows][:3] == [1, 2, 3][: len(rows)]
    assert said[-1][0][0][3]  # done


def check_zero(engine: str, file: Path, loads: bool) -> list[Any]:
    """The keys of the groups, and the factors from then on."""
    training = model, optimizer = ENGINES[engine](net(), over_all_ranks, Adam)
    if loads:
        saved_model, saved_optimizer = torch.load(file)
        model.load_state_dict(saved_model)
        optimizer.load_state_dict(saved_optimizer)
    warmed = warmed_of(optimizer)
    said = [progress((model, [warmed]))]
    for update in range(SAVED + 1, CAP + 1) if loads else range(1, SAVED + 1):
        train(training, update)
        said.append(progress((model, [warmed])))
    if not loads:
        optimizer.consolidate_state_dict(to=0)
        if distributed.get_rank() == 0:
            torch.save([model.state_dict(), optimizer.state_dict()], file)
    return said


@pytest.mark.parametrize("engine", ["zero_outside", "zero_inside"])
@pytest.mark.parametrize(("saved", "loaded"), [(2, 4), (4, 2)])
def test_so_they_do_for_the_consolidated_state_of_zero(
    groups: dict[int, Ranks], tmp_path: Path, saved: int, loaded: int, engine: str
) -> None:
    file = tmp_path / "zero.pt"
    before = alike(groups[saved].run(check_zero, engine, file, False))
    after = alike(groups[loaded].run(check_zero, engine, file, True))
    assert after[0] == before[-1]
    assert 0 < after[0][0][0][1] < SAVED
    assert after[-1][0][0][3]  # done
