"""The real accelerate around a warmed optimizer; also in two processes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.support import twins
from tests.support.features import needs_fsdp2
from tests.support.processes import run_python
from tests.support.twins import LR, decay, factor, used_lrs
from warmopt import Trace, Warmed

pytestmark = pytest.mark.xdist_group("transformers")  # it is imported there too

BATCHES = 8


def accelerator(**options: Any) -> Any:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(cpu=True, **options)


def prepare(accelerator: Any, by_hand: bool = False, **options: Any) -> list[Any]:
    """Model, optimizer and scheduler, and the LRs that the inner step sees."""
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    *pair, used = twins.build(model.parameters(), by_hand, **options)
    return [*accelerator.prepare(model, *pair), used]


def train(
    accelerator: Any, model: Any, optimizer: Any, scheduler: Any, data: Iterable[Tensor]
) -> None:
    for batch in data:
        with accelerator.accumulate(model):
            accelerator.backward(model(batch).square().mean())
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()


@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_prepared_run_warms_by_real_updates_as_a_schedule_by_hand(
    accumulation: int, precision: str
) -> None:
    states = []
    for by_hand in (False, True):
        runner = accelerator(
            mixed_precision=precision, gradient_accumulation_steps=accumulation
        )
        *run, used = prepare(runner, by_hand)
        train(runner, *run, twins.samples(BATCHES))
        assert used == used_lrs(BATCHES // accumulation)
        states.append(run[0].state_dict())
    torch.testing.assert_close(*states, rtol=0.0, atol=0.0)


def test_state_saved_in_mid_warmup_goes_on_bit_equal(tmp_path: Path) -> None:
    data = twins.samples(BATCHES)

    def begin() -> tuple[Any, ...]:
        runner = accelerator()
        *run, used = prepare(runner)
        return (runner, *run), used

    whole, _ = begin()
    train(*whole, data)
    first, _ = begin()
    train(*first, data[:3])
    first[0].save_state(tmp_path)
    second, used = begin()
    second[0].load_state(tmp_path)
    train(*second, data[3:])
    assert used == used_lrs(BATCHES)[3:]
    torch.testing.assert_close(
        second[1].state_dict(), whole[1].state_dict(), rtol=0.0, atol=0.0
    )


@pytest.mark.parametrize("fused", [False, True])
def test_update_that_the_scaler_skips_is_not_counted(fused: bool) -> None:
    """accelerate makes a scaler only for a GPU, but it accepts one.

    If a fused kernel skips, accelerate does not see it, and moves the schedule on.
    """
    runner = accelerator()
    runner.scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    *run, used = prepare(runner, fused=fused)
    data = twins.samples(BATCHES)
    data[1] = torch.inf
    train(runner, *run, data)
    if fused:
        assert used == [LR * decay(t) * factor(t - (t > 1)) for t in range(BATCHES)]
    else:
        assert used == used_lrs(BATCHES - 1)


def in_two_processes(report: Callable[[], None]) -> str:
    """The last line that a function of this module prints, if both processes run it.

    Some releases of torch print lines of their own before.
    """
    name = report.__name__
    printed = run_python(
        "import torch; torch.set_num_threads(1)\n"
        "from accelerate import debug_launcher\n"
        f"from tests.frameworks.test_accelerate import {name}\n"
        f"debug_launcher({name}, num_processes=2)"
    )
    return printed.splitlines()[-1]


def report() -> None:
    """What each process does: the first one prints the LRs of all."""
    from accelerate import Accelerator
    from accelerate.utils import gather_object

    runner = Accelerator()
    *run, used = prepare(runner)
    train(runner, *run, twins.samples(BATCHES))
    all_used = gather_object([used])
    if runner.is_main_process:
        print(json.dumps(all_used))


def test_two_processes_do_not_warm_twice_as_fast() -> None:
    """accelerate then moves the scheduler, and any warmup in it, twice per update."""
    printed = in_two_processes(report)
    expected = [LR * decay(2 * update) * factor(update) for update in range(BATCHES)]
    assert json.loads(printed) == [expected, expected]


def report_sharded() -> None:
    """The same with FSDP2 in adaptive mode; the first prints what all read and did."""
    from accelerate import Accelerator, FullyShardedDataParallelPlugin
    from accelerate.utils import DistributedType, gather_object

    plugin = FullyShardedDataParallelPlugin(fsdp_version=2, auto_wrap_policy="no_wrap")
    runner = Accelerator(cpu=True, fsdp_plugin=plugin)
    # By default it would only shard on a GPU.
    runner.state.distributed_type = DistributedType.FSDP
    runner.state.fsdp_plugin = plugin
    torch.manual_seed(0)
    model, trace = nn.Linear(3, 3), Trace()
    adam = torch.optim.Adam(model.parameters(), lr=1e-3)
    warmed = Warmed(adam, steps=60, mode="adaptive", trace=trace)
    model, optimizer = runner.prepare(model, warmed)
    is_sharded = hasattr(warmed.param_groups[0]["params"][0], "device_mesh")
    updates = 0
    while not warmed.done:
        optimizer.zero_grad()
        runner.backward(model(torch.randn(8, 3)).square().mean())
        optimizer.step()
        updates += 1
    told = [is_sharded, updates, warmed.done_reason, trace.rows[-1]["drifts"]]
    every = gather_object([told])
    if runner.is_main_process:
        print(json.dumps(every))


@needs_fsdp2
def test_what_it_shards_after_wrapping_is_read_as_shards() -> None:
    """It puts the shards into the groups of the wrapped optimizer."""
    printed = in_two_processes(report_sharded)
    first, second = json.loads(printed)
    assert first == second
    is_sharded, updates, reason, drifts = first
    assert (is_sharded, reason) == (True, "settled")
    assert updates < 60
    assert all(map(math.isfinite, drifts))
