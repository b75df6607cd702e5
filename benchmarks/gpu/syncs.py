"""Steps of every mode while torch forbids that the host waits for the device.

During the warmup nothing may wait. A tensor LR may wait once, when the count on the
device may be at its end; how often it did is in the row.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any

import torch

from benchmarks.gpu.rows import CheckError, Here, Row, checked
from benchmarks.gpu.trainings import NAMES, Training, factors, is_fixed, warmed
from benchmarks.overhead.devices import no_syncs

STEPS = 40
WAITED = "called a synchronizing CUDA operation"  # what torch says then
AT_END = 3  # steps before the last update of the warmup from which waits are counted
# Name -> options of the optimizer, and whether its LR is a tensor on the device.
IMPLEMENTATIONS: dict[str, tuple[dict[str, Any], bool]] = {
    "foreach, float LR": ({"foreach": True}, False),
    "fused, float LR": ({"fused": True}, False),
    "SGD, float LR": ({"optimizer": "sgd", "foreach": True}, False),
    "foreach, tensor LR": ({"foreach": True, "capturable": True}, True),
    "fused, tensor LR": ({"fused": True}, True),
}


def rows(here: Here) -> Iterator[Row]:
    for name in IMPLEMENTATIONS:
        yield checked(f"bare, {name}", partial(bare, here, name))
    for mode, name in product(NAMES, IMPLEMENTATIONS):
        if is_fixed(mode) or not name.startswith("SGD"):  # it has no second moment
            check = partial(with_warmup, here, mode, name)
            yield checked(f"{mode}, {name}", check)


def training(here: Here, name: str) -> Training:
    options, tensor_lr = IMPLEMENTATIONS[name]
    return Training(here.device, options, tensor_lr)


def bare(here: Here, name: str) -> Row:
    """The optimizer without a warmup: if it waits by itself, that is not ours."""
    ours = training(here, name)
    forbidden(ours.optimizer.step, ours, range(1, 6))
    return {}


def with_warmup(here: Here, mode: str, name: str) -> Row:
    ours = training(here, name)
    if "SGD" in name and mode in ("untuned_linear", "untuned_exponential", "radam"):
        return {"ok": None, "why": "it takes its length from beta2"}
    optimizer = warmed(ours.optimizer, mode, STEPS)
    last = len(factors(mode, STEPS)) if is_fixed(mode) else STEPS
    forbidden(optimizer.step, ours, range(1, last - AT_END))
    waits = counted(optimizer.step, ours, range(last - AT_END, last + 6))
    if waits > (1 if "tensor" in name else 0):
        raise CheckError(f"around the end of the warmup {waits} steps waited")
    if not optimizer.done:
        raise CheckError(
            f"the warmup is not over after {last + 5} updates: {optimizer!r}"
        )
    return {"forbidden": last - AT_END - 2, "waits_at_end": waits}


def forbidden(step: Callable[[], Any], ours: Training, updates: range) -> None:
    """Steps; raises an error if one waits, but for the first, which makes the state."""
    for update in updates:
        ours.set_grads(update)
        if update == updates.start:
            step()
            continue
        with no_syncs():
            step()


def counted(step: Callable[[], Any], ours: Training, updates: range) -> int:
    """Steps; returns how many of them waited."""
    waits = 0
    for update in updates:
        ours.set_grads(update)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                step()
            finally:
                torch.cuda.set_sync_debug_mode("default")
        waits += any(WAITED in str(each.message) for each in told)
    return waits
