"""Every mode in a CUDA graph: one step is captured, then replayed through the end.

The gradients change between the replays, and once a schedule writes into the LR. On a
CPU the step runs by itself: that tests all but the capture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any

import torch

from benchmarks.gpu.rows import CheckError, Here, Row, checked
from benchmarks.gpu.trainings import (
    LR,
    NAMES,
    Training,
    check_same,
    factors,
    is_fixed,
    warmed,
)
from warmopt import Warmed

BEFORE, AFTER = 2, 4  # eager updates before the capture; replays after the end
IMPLEMENTATIONS: dict[str, dict[str, dict[str, Any]]] = {
    "cuda": {
        "foreach": {"foreach": True, "capturable": True},
        "fused": {"fused": True, "capturable": True},
    },
    "cpu": {"loop": {"foreach": False}, "fused": {"fused": True}},
}


def rows(here: Here) -> Iterator[Row]:
    for mode, (name, options) in product(NAMES, IMPLEMENTATIONS[here.device].items()):
        check = partial(replayed, here, mode, options)
        yield checked(f"{mode}, {name}", check)
    yield checked("rewarm", partial(warmed_again, here))
    if here.on_cuda:
        for what, check in {"float LR": float_lr, "momentum": momentum}.items():
            yield checked(f"{what} is refused", partial(refused, here, check))


def captured(step: Callable[[], Any]) -> Callable[[], Any]:
    """Captures a step, which then does not run; returns what replays it."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def beside(step: Callable[[], Any]) -> None:
    """Runs on a stream of its own, as torch asks of the steps before a capture."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)


def replayed(here: Here, mode: str, options: dict[str, Any]) -> Row:
    ours, twin = (Training(here.device, options, tensor_lr=True) for _ in range(2))
    optimizer = warmed(ours.optimizer, mode)
    known = factors(mode) if is_fixed(mode) else ()
    step: Callable[[], Any] = optimizer.step
    last = len(known) + AFTER if known else 60
    for update in range(1, last + 1):
        ours.set_grads(update)
        if update == BEFORE + 1 and here.on_cuda:
            try:
                step = captured(step)
            except RuntimeError as error:
                if is_fixed(mode) or "captured in a CUDA graph" not in str(error):
                    raise
                return {"told": f"refused: {error}"}
        if update == BEFORE + 3:  # a schedule writes into the tensor
            for each in (ours, twin):
                each.optimizer.param_groups[0]["lr"].fill_(LR / 2)
        if update <= BEFORE and here.on_cuda:
            beside(step)
        else:
            step()
        if known:
            twin.set_grads(update)
            twin.step_at(known[update - 1] if update <= len(known) else 1.0)
            check_same(ours, twin, update)
    if known:
        check_end(optimizer, len(known))
    elif not all(param.isfinite().all() for param in ours.params):
        raise CheckError("the parameters are not finite")
    return {"told": "replayed" if here.on_cuda else "stepped", "updates": last}


def check_end(optimizer: Warmed, last: int) -> None:
    """Raises an error unless the warmup is over, at the right count."""
    count = int(optimizer.state_dict()["param_groups"][0]["warmup_updates"])
    if count != last or not optimizer.done or optimizer.factors != [1.0]:
        raise CheckError(f"it counted {count} of {last} updates, {optimizer!r}")


def warmed_again(here: Here) -> Row:
    """The same graph warms again after `rewarm`."""
    [options, *_] = IMPLEMENTATIONS[here.device].values()
    ours = Training(here.device, options, tensor_lr=True)
    optimizer = warmed(ours.optimizer, "linear", steps=4)
    step: Callable[[], Any] = optimizer.step
    ours.set_grads(1)
    step()
    if here.on_cuda:
        step = captured(step)
    for _ in range(6):
        step()
    done = optimizer.done
    optimizer.rewarm()
    before = optimizer.factors
    step()
    if (done, before, optimizer.factors) != (True, [0.25], [0.5]):
        raise CheckError(f"done {done}, then factors {before} and {optimizer.factors}")
    return {}


def refused(here: Here, build: Callable[[Training], Warmed]) -> Row:
    """What a graph would freeze must be refused, and nothing changed."""
    [options, *_] = IMPLEMENTATIONS[here.device].values()
    optimizer = build(Training(here.device, options, tensor_lr=build is momentum))
    optimizer.step()
    before = optimizer.factors
    try:
        captured(optimizer.step)
    except RuntimeError as error:
        if "captured in a CUDA graph" in str(error) and optimizer.factors == before:
            return {"told": f"refused: {error}"}
        raise
    raise CheckError("it was captured")


def float_lr(training: Training) -> Warmed:
    return warmed(training.optimizer, "linear")


def momentum(training: Training) -> Warmed:
    return Warmed(training.optimizer, steps=6, momentum_start=0.5)
