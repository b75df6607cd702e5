"""What a step launches on the device with a warmup, beside what it launches without.

Kernels, copies and fills are counted by the profiler of torch. On a CPU, the operators
are counted instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any

import torch

from benchmarks.gpu.rows import CheckError, Here, Row, checked
from benchmarks.gpu.trainings import NAMES, Training, is_fixed, warmed
from benchmarks.overhead.devices import Cuda, Dispatched

STEPS, SEEN = 200, 10
ADAPTIVE, EVERY = "adaptive", 5  # the mode that reads at every fifth update
GOAL_OF_READING = 8
# Name -> options of the optimizer, and whether its LR is a tensor on the device.
IMPLEMENTATIONS: dict[str, dict[str, tuple[dict[str, Any], bool]]] = {
    "cuda": {
        "foreach, float LR": ({"foreach": True}, False),
        "fused, float LR": ({"fused": True}, False),
        "fused, tensor LR": ({"fused": True}, True),
    },
    "cpu": {
        "foreach, float LR": ({"foreach": True}, False),
        "fused, tensor LR": ({"fused": True}, True),
    },
}
# To count takes longer than to step: these modes stand for the others, whose steps
# differ only in the number that the LR is multiplied by.
MODES = ["linear", "radam", *(mode for mode in NAMES if not is_fixed(mode))]


def rows(here: Here) -> Iterator[Row]:
    launched = counter(here)
    for mode, name in product(MODES, IMPLEMENTATIONS[here.device]):
        check = partial(added, here, mode, name, launched)
        yield checked(f"{mode}, {name}", check)


def counter(here: Here) -> Callable[[Callable[[], Any]], int]:
    if here.on_cuda:
        kernels = Cuda().kernels
        kernels(
            lambda: torch.zeros(1, device=here.device)
        )  # the first one may miss some
        return kernels

    def operators(step: Callable[[], Any]) -> int:
        with Dispatched(size=1) as counted:
            step()
        return counted.operators

    return operators


def added(
    here: Here, mode: str, name: str, launched: Callable[[Callable[[], Any]], int]
) -> Row:
    """What each of ten steps in a row adds, and one after the warmup."""
    options, tensor_lr = IMPLEMENTATIONS[here.device][name]
    ours, twin = (Training(here.device, options, tensor_lr) for _ in range(2))
    for _ in range(3):
        twin.optimizer.step()
    bare = launched(twin.optimizer.step)
    optimizer = warmed(ours.optimizer, mode, STEPS)
    for _ in range(2 * EVERY + 1):
        optimizer.step()
    seen = [launched(optimizer.step) - bare for _ in range(SEEN)]
    while not optimizer.done:
        optimizer.step()
    optimizer.step()  # the first after the end may look whether it is over
    after = launched(optimizer.step) - bare
    row: Row = {"bare": bare, "added": seen, "after": after}
    if after:
        raise CheckError(f"after the warmup a step launches {after} more: {row}")
    if not tensor_lr and min(seen) != 0 and (is_fixed(mode) or mode == ADAPTIVE):
        raise CheckError(f"a step at a float LR launches {min(seen)} more: {row}")
    if is_fixed(mode) and len(set(seen)) > 1:
        raise CheckError(f"some steps launch more than others: {row}")
    if mode == ADAPTIVE:
        reading = max(seen) - min(seen)
        row |= {"reading": reading, "goal": GOAL_OF_READING}
    return row
