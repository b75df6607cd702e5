"""`torch.compile`: how often a warmup makes it compile again.

On a GPU by inductor. Where there is no compiler for it, and on a CPU, the backend
`eager` takes its place: it compiles nothing, but is called as often. The budget:
nothing is compiled while a float LR ramps, and at most two graphs after that; at a
tensor LR nothing after the first steps, which compile what they do without a warmup.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import torch
from torch._dynamo.backends.registry import lookup_backend

from benchmarks.gpu.rows import CheckError, Here, Row, checked
from benchmarks.gpu.trainings import Training, factors, is_fixed, warmed

STEPS, UPDATES = 12, 24  # more than the eight times that dynamo compiles a function
AFTER_FLOAT = 2
OF_INDUCTOR = ("BackendCompilerFailed", "InductorError")
CASES = (  # the mode, whether the LR is a tensor, what is compiled
    ("linear", False, "step"),
    ("linear", True, "step"),
    ("linear", False, "wrapped step"),
    ("adaptive", False, "wrapped step"),
    ("cosine", True, "wrapped step"),
)


def rows(here: Here) -> Iterator[Row]:
    backend, why = chosen(here)
    yield {"what": "backend", "ok": None, "told": backend, "why": why}
    for mode, tensor_lr, part in CASES if here.on_cuda else CASES[1:3]:
        what = f"{mode}, {'tensor' if tensor_lr else 'float'} LR, {part}"
        check = partial(counted, here, backend, mode, tensor_lr, part)
        row = checked(what, check)
        if row.get("why", "").startswith(OF_INDUCTOR):
            # What inductor itself cannot do; the counts do not need it.
            yield {**row, "what": f"{what}, inductor", "ok": None}
            check = partial(counted, here, "eager", mode, tensor_lr, part)
            row = checked(what, check)
        yield row


def chosen(here: Here) -> tuple[str, str]:
    """The backend, and why it is not inductor; empty if it is."""
    if not here.on_cuda:
        return "eager", "on a CPU only the counting is tried"
    if not any(map(shutil.which, (os.environ.get("CC", ""), "cc", "gcc", "clang"))):
        return "eager", "there is no C compiler, which triton needs"
    try:
        import triton  # noqa: F401
    except ImportError as error:
        return "eager", f"there is no triton: {error}"
    return "inductor", ""


class Compiler:
    """A backend that counts the graphs that it compiles."""

    def __init__(self, name: str) -> None:
        self._backend, self.graphs = lookup_backend(name), 0

    def __call__(self, graph: Any, inputs: Any) -> Any:
        self.graphs += 1
        return self._backend(graph, inputs)


def options_of(here: Here, tensor_lr: bool) -> dict[str, Any]:
    if here.on_cuda:
        return {"foreach": True, "capturable": tensor_lr}
    return {"foreach": not tensor_lr}  # Adam on a CPU: no foreach with a tensor LR


def counted(here: Here, backend: str, mode: str, tensor_lr: bool, part: str) -> Row:
    torch._dynamo.reset()
    options = options_of(here, tensor_lr)
    ours, twin = (Training(here.device, options, tensor_lr) for _ in range(2))
    compiler = Compiler(backend)
    if part == "wrapped step":
        inner = ours.optimizer
        inner.step = torch.compile(inner.step, backend=compiler)
    optimizer = warmed(ours.optimizer, mode, STEPS)
    step: Callable[[], Any] = optimizer.step
    if part == "step":
        step = torch.compile(step, backend=compiler)
    known = [*factors(mode, STEPS), *[1.0] * UPDATES] if is_fixed(mode) else []
    graphs = []
    for update in range(1, UPDATES + 1):
        ours.set_grads(update)
        step()
        graphs.append(compiler.graphs)
        if known:
            twin.set_grads(update)
            twin.step_at(known[update - 1])
            for one, other in zip(ours.params, twin.params, strict=True):
                # Compiled kernels round in another order.
                torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    row: Row = {"backend": backend, "graphs": graphs}
    ramp, after = graphs[STEPS - 1], graphs[-1] - graphs[STEPS - 1]
    if not optimizer.done:
        raise CheckError(f"the warmup is not over: {optimizer!r}")
    if tensor_lr:
        bare = bare_graphs(here, backend)
        row |= {"bare": bare}
        if graphs[-1] != graphs[1] or graphs[-1] - graphs[0] > bare[-1] - bare[0]:
            raise CheckError(f"it compiles again after the first steps: {row}")
        return row
    if ramp or after > AFTER_FLOAT or not after:
        raise CheckError(
            f"graphs compiled: {ramp} in the ramp, {after} after it: {row}"
        )
    return row


@cache
def bare_graphs(here: Here, backend: str) -> list[int]:
    """The same count for the optimizer without a warmup, at a tensor LR."""
    torch._dynamo.reset()
    ours = Training(here.device, options_of(here, tensor_lr=True), tensor_lr=True)
    compiler, graphs = Compiler(backend), []
    step = torch.compile(ours.optimizer.step, backend=compiler)
    for update in range(1, 4):
        ours.set_grads(update)
        step()
        graphs.append(compiler.graphs)
    return graphs
