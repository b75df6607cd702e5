"""Fused steps in half precision with a real GradScaler, which must skip infinities.

A small network is trained under autocast, in float16 on a GPU and bfloat16 on a CPU.
Some gradients are made infinite. Its twin is the bare optimizer under a GradScaler of
its own, at the LR that only counts the steps that were not skipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from itertools import product

import torch
from torch import nn
from torch.optim import AdamW

from benchmarks.gpu.rows import CheckError, Here, Row, checked
from benchmarks.gpu.trainings import BETAS, LR, NAMES, factors, is_fixed, warmed
from benchmarks.overhead.devices import no_syncs

UPDATES = 14
INFINITE = (1, 4, 5, 9)  # the first one too: then there is no state yet


def rows(here: Here) -> Iterator[Row]:
    for mode, tensor in product(NAMES, (False, True)):
        what = f"{mode}, {'tensor' if tensor else 'float'} LR"
        yield checked(what, partial(skips, here, mode, tensor))


class Net:
    """A network with its fused optimizer and its GradScaler."""

    def __init__(self, here: Here, tensor_lr: bool) -> None:
        torch.manual_seed(0)
        self.here = here
        layers = nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 1)
        self.model = nn.Sequential(*layers).to(here.device)
        lr = torch.tensor(LR, device=here.device) if tensor_lr else LR
        self.optimizer: torch.optim.Optimizer = AdamW(
            self.model.parameters(), lr, betas=BETAS, fused=True
        )
        self.scaler = torch.amp.GradScaler(here.device, init_scale=2.0**10)

    def set_grads(self, update: int) -> None:
        draw = torch.Generator().manual_seed(update)
        x = torch.randn(8, 16, generator=draw).to(self.here.device)
        dtype = torch.float16 if self.here.on_cuda else torch.bfloat16
        self.optimizer.zero_grad()
        with torch.autocast(self.here.device, dtype):
            loss = self.model(x).float().square().mean()
        self.scaler.scale(loss).backward()
        if update in INFINITE:
            grad = next(self.model.parameters()).grad
            assert grad is not None
            grad[0, 0] = torch.inf

    def step(self, sync_free: bool = False) -> None:
        with no_syncs() if sync_free else nullcontext():
            self.scaler.step(self.optimizer)
        self.scaler.update()


def skips(here: Here, mode: str, tensor: bool) -> Row:
    ours, twin = Net(here, tensor), Net(here, tensor)
    optimizer = ours.optimizer = warmed(ours.optimizer, mode)
    known = (*factors(mode), *[1.0] * UPDATES) if is_fixed(mode) else ()
    counted = 0
    for update in range(1, UPDATES + 1):
        ours.set_grads(update)
        # A tensor LR may wait once, when its warmup may be over.
        ours.step(sync_free=here.on_cuda and not tensor and update > 1)
        if known:
            check_twin(ours, twin, update, known[counted])
        counted += update not in INFINITE
        if update % 3 == 0:  # not always: to ask counts a late update
            check_count(optimizer, counted, len(factors(mode)) if known else 6)
    return {"updates": counted, "skipped": len(INFINITE)}


def check_twin(ours: Net, twin: Net, update: int, factor: float) -> None:
    """Steps the twin; raises an error unless both are equal to the bit."""
    twin.set_grads(update)
    [group] = twin.optimizer.param_groups
    base, group["lr"] = group["lr"], group["lr"] * factor
    twin.step()
    group["lr"] = base
    for one, other in zip(
        ours.model.parameters(), twin.model.parameters(), strict=True
    ):
        if not torch.equal(one, other):
            raise CheckError(f"after update {update} it differs from its twin")
    if ours.scaler.get_scale() != twin.scaler.get_scale():
        raise CheckError(f"after update {update} the scale is another one")


def check_count(optimizer: torch.optim.Optimizer, counted: int, last: int) -> None:
    [group] = optimizer.state_dict()["param_groups"]
    count = int(group["warmup_updates"])
    if count != min(counted, last):
        raise CheckError(f"it counts {count} updates; {counted} were not skipped")
