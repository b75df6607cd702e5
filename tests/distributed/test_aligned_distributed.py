"""Aligned warmup in real process groups: all ranks compare and climb alike."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import distributed
from torch.optim import Optimizer

from tests.distributed.test_adaptive_distributed import counted_all_reduces
from tests.support.engines import Wrap, build, train, warmed_of
from tests.support.ranks import Ranks, alike
from warmopt import Aligned, Trace, Warmed

pytestmark = [
    pytest.mark.xdist_group("ranks"),
    pytest.mark.filterwarnings("ignore:The warmup of param group"),
]
UPDATES = 22  # the cap of its groups is 24


def aligned(optimizer: Optimizer, **options: Any) -> Warmed:
    return Warmed(optimizer, 100, Aligned(**options), trace=Trace())


def without_trace(optimizer: Optimizer) -> Warmed:
    return Warmed(optimizer, 100, "aligned")


def over_all_ranks(optimizer: Optimizer, **options: Any) -> Warmed:
    return aligned(optimizer, process_group=distributed.group.WORLD, **options)


def check_run(engine: str, wrap: Wrap, of_rank: bool = False) -> list[list[float]]:
    """The factors at each update, and the readings."""
    training = build(engine, "adam-long", wrap)
    (warmed,), factors = warmed_of(training), []
    for update in range(1, UPDATES + 1):
        train(training, 1000 * update + (distributed.get_rank() if of_rank else 0))
        factors += warmed.factors
    return [factors, [row["alignment"] for row in warmed.trace or ()]]


SHARDED = ["ddp", "fsdp2", "hsdp", "by-columns", "beside-plain", "tensor-parallel"]
PLAIN_SHARDS = ["fsdp1", "zero-outside", "zero-inside"]


@pytest.mark.parametrize("signal", ["ratio", "tensor", "adam"])
@pytest.mark.parametrize("engine", [*SHARDED, *PLAIN_SHARDS])
def test_all_ranks_climb_as_a_single_process_does(
    groups: dict[int, Ranks], engine: str, signal: str
) -> None:
    """With the same data everywhere. But for the last bits: sums have another order."""
    wrap = over_all_ranks if engine in PLAIN_SHARDS else aligned
    alone = check_run("one-process", partial(aligned, signal=signal))
    size = 4 if engine in ("hsdp", "tensor-parallel") else 2
    found = alike(groups[size].run(check_run, engine, partial(wrap, signal=signal)))
    assert len(found[1]) == len(alone[1]) >= UPDATES - 2
    if signal == "tensor" and engine != "ddp":
        return  # a shard counts as a tensor of its own
    for one, other in zip(found, alone, strict=True):
        assert one == pytest.approx(other, rel=1e-2, abs=1e-3)


@pytest.mark.parametrize("engine", [*SHARDED, *PLAIN_SHARDS])
def test_all_ranks_climb_alike_on_data_of_their_own(
    groups: dict[int, Ranks], engine: str
) -> None:
    wrap = over_all_ranks if engine in PLAIN_SHARDS else aligned
    size = 4 if engine in ("hsdp", "tensor-parallel") else 2
    factors, readings = alike(groups[size].run(check_run, engine, wrap, True))
    assert len(set(factors)) > UPDATES / 2
    assert len(readings) >= UPDATES - 2


def check_collectives(engine: str) -> list[int]:
    """The number of all-reduces, and of the numbers in them, after each update."""
    training, counts = build(engine, "adam-long", without_trace), []
    with counted_all_reduces() as all_reduce:
        for update in range(1, 5):
            train(training, update)
            counts.append(all_reduce.call_count)
        sizes = {call.args[0].numel() for call in all_reduce.call_args_list}
    assert sizes <= {2}
    return counts


@pytest.mark.parametrize(("engine", "each"), [("ddp", 0), ("fsdp2", 1)])
def test_a_reading_is_one_small_all_reduce_and_none_without_shards(
    groups: dict[int, Ranks], engine: str, each: int
) -> None:
    counts = alike(groups[2].run(check_collectives, engine))
    assert counts == [each * update for update in range(1, 5)]


def check_resume(engine: str, wrap: Wrap) -> list[Any]:
    """Factors after a resume, and where it stood before."""
    training = build(engine, "adam-long", wrap)
    (warmed,) = warmed_of(training)
    for update in range(1, 10):
        train(training, 1000 * update)
    before = warmed.factors
    group = warmed.param_groups[0]
    assert "warmup_before" not in group
    warmed._planner.forget()  # as after a load
    warmed._planner.renew(warmed.wrapped)
    factors = []
    for update in range(10, 14):
        train(training, 1000 * update)
        factors += warmed.factors
    return [before, factors]


def test_the_first_reading_after_a_resume_is_skipped_with_shards(
    groups: dict[int, Ranks],
) -> None:
    """Every rank has a sample of its own, which is not saved."""
    before, factors = alike(groups[2].run(check_resume, "fsdp2", aligned))
    assert factors[0] == before[0]
    assert len(set(factors)) == 4
    assert torch.is_tensor(torch.tensor(factors))
