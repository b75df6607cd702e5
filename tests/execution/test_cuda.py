"""What only a GPU can show; on other machines these tests are skipped."""

from __future__ import annotations

import inspect
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

from benchmarks.overhead.cases import CASES, Case
from benchmarks.overhead.contenders import OURS
from benchmarks.overhead.devices import Cuda, no_syncs
from benchmarks.overhead.measuring import measured
from tests.support.features import Adafactor, needs_adafactor
from tests.support.optimizers import TORCH_ROWS, Row, assert_same, snapshot
from tests.support.reference import stepped_at
from warmopt import Warmed
from warmopt.adaptive import Adaptive

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    # Here a capturable optimizer steps eagerly too, and a capture may be refused.
    pytest.mark.filterwarnings("ignore:This instance was constructed with capturable"),
    pytest.mark.filterwarnings("ignore:The CUDA Graph is empty"),
    # torch says this when it is asked to forbid waiting.
    pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype"),
]

CAPTURABLE = [
    Row(f"{name}-capturable", row.make, {"capturable": True}, warns=row.warns)
    for name, row in TORCH_ROWS.items()
    if name.endswith("-loop") and "capturable" in inspect.signature(row.make).parameters
]


@pytest.mark.parametrize(
    "row", [*TORCH_ROWS.values(), *CAPTURABLE], ids=lambda row: row.name
)
def test_every_update_on_cuda_is_that_of_a_hand_scaled_loop(row: Row) -> None:
    twins = [row.params(), row.params()]
    for params in twins:
        for param in params:
            param.data = param.data.cuda()
    warmed, bare = row.wrap(twins[0], steps=4), row.build(twins[1])
    for update in range(1, 7):
        row.step(warmed, twins[0], update)
        stepped_at(
            bare, [min(update / 4, 1.0)], partial(row.step, bare, twins[1], update)
        )
        assert_same(snapshot(bare, twins[1]), snapshot(warmed, twins[0]))
    assert warmed.done


def _trained(lr: torch.Tensor, updates: int, graph: bool) -> tuple[Warmed, list]:
    """AdamW on a fixed gradient; with `graph`, captured at the third update."""
    torch.manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(64, 64, device="cuda")) for _ in range(2)]
    optimizer = torch.optim.AdamW(params, lr=lr, capturable=True)
    warmed = Warmed(optimizer, steps=6)
    for param in params:
        param.grad = torch.randn_like(param)
    eager = 2 if graph else updates
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(eager):
            warmed.step()
    torch.cuda.current_stream().wait_stream(stream)
    if graph:
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.graph(captured):
            warmed.step()  # recorded, not run
        for _ in range(updates - eager):
            captured.replay()
    return warmed, params


@pytest.mark.parametrize("updates", [4, 10])
def test_a_captured_graph_is_replayed_through_the_warmup(updates: int) -> None:
    graph, seen = _trained(torch.tensor(0.1, device="cuda"), updates, graph=True)
    _, expected = _trained(torch.tensor(0.1, device="cuda"), updates, graph=False)
    assert_same(expected, seen)
    assert int(graph.param_groups[0]["warmup_updates"]) == min(updates, 6)


def test_capturing_a_float_lr_that_ramps_is_refused() -> None:
    param = torch.nn.Parameter(torch.zeros(4, device="cuda"))
    param.grad = torch.ones_like(param)
    warmed = Warmed(torch.optim.AdamW([param], lr=0.1, capturable=True), steps=6)
    warmed.step()
    with (
        pytest.raises(RuntimeError, match="captured in a CUDA graph"),
        torch.cuda.graph(torch.cuda.CUDAGraph()),
    ):
        warmed.step()


@pytest.mark.parametrize("fused", [False, True])
def test_a_float_lr_costs_no_sync_and_no_kernel(fused: bool) -> None:
    def kernels(optimizer: torch.optim.Optimizer) -> int:
        with torch.profiler.profile(
            activities=[torch.profiler.ProfilerActivity.CUDA]
        ) as profile:
            optimizer.step()
            torch.cuda.synchronize()
        return sum(event.count for event in profile.key_averages())

    param = torch.nn.Parameter(torch.zeros(4, device="cuda"))
    param.grad = torch.ones_like(param)
    optimizer = torch.optim.AdamW([param], lr=0.1, fused=fused)
    warmed = Warmed(optimizer, steps=100)
    warmed.step()
    with no_syncs():
        for _ in range(5):
            warmed.step()
    assert kernels(warmed) == kernels(optimizer)


def test_fused_amp_skips_are_not_counted_and_cost_no_sync_in_the_step() -> None:
    param = torch.nn.Parameter(torch.zeros(4, device="cuda"))
    warmed = Warmed(torch.optim.AdamW([param], lr=0.1, fused=True), steps=4)
    scaler = torch.amp.GradScaler("cuda", init_scale=2.0)
    factors = []
    for value in (1.0, torch.inf, 1.0, 1.0):
        scaler.scale(torch.ones((), device="cuda"))
        param.grad = torch.full_like(param, value)
        with no_syncs():
            scaler.step(warmed)
        scaler.update()
        factors.append(warmed.factors[0])
    assert factors == [0.5, 0.5, 0.75, 1.0]


READ = {
    "adam": (torch.optim.Adam, {}),
    "adamw-fused": (torch.optim.AdamW, {"fused": True}),
    "adam-capturable": (torch.optim.Adam, {"capturable": True}),
    "rmsprop": (torch.optim.RMSprop, {}),
    "adafactor": (Adafactor, {}),
}


def _adaptive(name: str, **options: Any) -> tuple[Warmed, list[torch.nn.Parameter]]:
    cls, arguments = READ[name]
    params = [torch.nn.Parameter(torch.randn(30, 40, device="cuda")) for _ in range(9)]
    for param in params:
        param.grad = torch.randn_like(param)
    mode = Adaptive(every=2, window=2, **options)
    return Warmed(cls(params, lr=1e-3, **arguments), steps=60, mode=mode), params


@pytest.mark.parametrize("name", [name for name in READ if name != "adafactor"])
def test_an_adaptive_step_never_waits_for_the_device(name: str) -> None:
    """Not where it reads and not where it judges. Adafactor itself does wait."""
    warmed, _ = _adaptive(name)
    warmed.step()  # makes the state
    with no_syncs():
        for _ in range(12):
            warmed.step()
    assert warmed.param_groups[0]["warmup_updates"] == 13


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=needs_adafactor if name == "adafactor" else ())
        for name in READ
    ],
)
def test_an_adaptive_warmup_on_cuda_ends_early(name: str) -> None:
    warmed, params = _adaptive(name, criterion=lambda _: True)
    for _ in range(4 + 19):  # 4 slow ones of 60, then at 3 each
        warmed.step()
    assert warmed.done_reason == "settled"
    assert warmed.param_groups[0]["warmup_ring"].device == params[0].device


def test_a_reading_launches_few_kernels() -> None:
    """The kernels that a reading adds: 9 tensors need as many as 1, thanks to `cat`."""

    def kernels(warmed: Warmed) -> int:
        activities = [torch.profiler.ProfilerActivity.CUDA]
        with torch.profiler.profile(activities=activities) as profile:
            warmed.step()
            torch.cuda.synchronize()
        kinds = [event.device_type for event in profile.events()]
        return kinds.count(torch.autograd.DeviceType.CUDA)

    warmed, _ = _adaptive("adamw-fused")
    for _ in range(8):
        warmed.step()
    without, reading = kernels(warmed), kernels(warmed)
    print(f"{reading - without} kernels and copies of a reading")
    assert 0 < reading - without <= 40


def test_capturing_an_adaptive_warmup_is_refused() -> None:
    warmed, _ = _adaptive("adam-capturable")
    for _ in range(3):
        warmed.step()
    with (
        pytest.raises(RuntimeError, match=r"mode must be a fixed one.*mode='linear'"),
        torch.cuda.graph(torch.cuda.CUDAGraph()),
    ):
        warmed.step()


TINY = [
    replace(case, all_contenders=False)  # to count all of them takes a minute
    for case in CASES["cuda"]
    if case.name.startswith(("tiny-adamw-", "tiny-sgd-")) and case.run == "eager"
]


@pytest.mark.parametrize("case", TINY, ids=lambda case: case.name)
def test_the_benchmark_finds_that_nothing_is_launched_and_nothing_waits(
    case: Case,
) -> None:
    skipped: list[str] = []

    def skip(what: str, why: str) -> None:
        skipped.append(f"{what}: {why}")

    rows = measured(case, Cuda(), 0.1, 2, lambda share: None, skip)
    ours = [row for row in rows if row["contender"] == OURS]
    assert [row["state"] for row in ours] == ["warming"] * 2 + ["done"] * 2
    assert [(row["kernels"], row["syncs"]) for row in ours] == [(0, 0)] * 4
    assert not [what for what in skipped if OURS in what]
