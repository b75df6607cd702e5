"""DDP and FSDP2 in a process group of one rank: NCCL on a GPU, gloo on a CPU.

One rank shows that nothing breaks: hooks, DTensors, collectives on the device, and a
checkpoint in the middle of the warmup. That several ranks decide alike is tested with
gloo, in tests/distributed.
"""

from __future__ import annotations

import datetime
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed import checkpoint
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Adam

from benchmarks.gpu.rows import CheckError, Here, Row, checked
from benchmarks.gpu.trainings import BETAS, LR, factors
from warmopt import Adaptive, Warmed
from warmopt.criteria import InverseRootVariance

STEPS, UPDATES, SAVED_AT = 8, 12, 4
THRESHOLD = 0.5
WAIT = datetime.timedelta(seconds=15)


def rows(here: Here) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        if here.on_cuda:
            torch.cuda.set_device(0)
        distributed.init_process_group(
            "nccl" if here.on_cuda else "gloo",
            init_method=f"file://{folder}/store",
            rank=0,
            world_size=1,
            timeout=WAIT,
        )
        for engine, lr in product(ENGINES, ("float", "tensor")):
            check = partial(trained, here, engine, lr == "tensor")
            yield checked(f"{engine}, linear, {lr} LR", check)
        for engine in ENGINES:
            yield checked(f"{engine}, adaptive", partial(adaptive, here, engine))
        for mode in ("linear", "adaptive"):
            check = partial(resumed, here, mode, Path(folder) / mode)
            yield checked(f"FSDP2, {mode}, saved and loaded", check)
        distributed.destroy_process_group()


def ddp(model: nn.Module) -> nn.Module:
    return DistributedDataParallel(model)


def fsdp2(model: Any) -> nn.Module:
    for module in (model[0], model):
        fully_shard(module)
    return model  # type: ignore[no-any-return]


ENGINES: dict[str, Callable[[nn.Module], nn.Module]] = {"DDP": ddp, "FSDP2": fsdp2}


class Training:
    """A small network; spread by an engine, or whole if there is none."""

    def __init__(self, here: Here, engine: str | None, tensor_lr: bool = False) -> None:
        torch.manual_seed(0)
        layers = nn.Linear(12, 30), nn.Tanh(), nn.Linear(30, 1)
        model: nn.Module = nn.Sequential(*layers).to(here.device)
        self.model = ENGINES[engine](model) if engine else model
        self.here = here
        lr = torch.tensor(LR, device=here.device) if tensor_lr else LR
        # A tensor LR on a GPU asks for capturable, or fused; the loop takes any.
        self.optimizer: torch.optim.Optimizer = Adam(
            self.model.parameters(), lr, betas=BETAS, foreach=False
        )

    def train(self, update: int) -> None:
        draw = torch.Generator().manual_seed(update)
        x = torch.randn(16, 12, generator=draw).to(self.here.device)
        self.optimizer.zero_grad()
        self.model(x).square().mean().backward()
        self.optimizer.step()

    def values(self) -> list[Tensor]:
        whole = (each.detach() for each in self.model.parameters())
        return [e.full_tensor() if isinstance(e, DTensor) else e for e in whole]


def check_same(ours: Training, twin: Training, update: int) -> None:
    for one, other in zip(ours.values(), twin.values(), strict=True):
        if not torch.equal(one, other):
            apart = (one - other).abs().max().item()
            raise CheckError(f"after update {update} it differs by {apart:g}")


def trained(here: Here, engine: str, tensor_lr: bool) -> Row:
    """To the bit that of the same engine with the LR set by hand."""
    ours, twin = (Training(here, engine, tensor_lr) for _ in range(2))
    optimizer = ours.optimizer = Warmed(ours.optimizer, steps=STEPS)
    known = [*factors("linear", STEPS), *[1.0] * UPDATES]
    for update in range(1, UPDATES + 1):
        ours.train(update)
        [group] = twin.optimizer.param_groups
        base, group["lr"] = group["lr"], group["lr"] * known[update - 1]
        twin.train(update)
        group["lr"] = base
        check_same(ours, twin, update)
    if not optimizer.done:
        raise CheckError(f"it is not over: {optimizer!r}")
    return {"updates": UPDATES}


def watched(training: Training) -> Warmed:
    """With a threshold so high that even this short average settles."""
    mode = Adaptive(InverseRootVariance(threshold=THRESHOLD))
    optimizer = Warmed(training.optimizer, steps=100, mode=mode)
    training.optimizer = optimizer
    return optimizer


def adaptive(here: Here, engine: str) -> Row:
    """It decides as in one process, where the same readings are taken."""
    ours, alone = Training(here, engine), Training(here, None)
    optimizer, other = watched(ours), watched(alone)
    for update in range(1, 101):
        ours.train(update)
        alone.train(update)
        if optimizer.factors != other.factors:
            raise CheckError(
                f"after {update}: {optimizer.factors}, alone {other.factors}"
            )
    if not optimizer.done:
        raise CheckError(f"it is not over: {optimizer!r}")
    return {"done_reason": optimizer.done_reason}


def resumed(here: Here, mode: str, folder: Path) -> Row:
    """Saved in files in the middle of the warmup, loaded into another, and equal."""

    def begun() -> Training:
        training = Training(here, "FSDP2")
        training.optimizer = Warmed(training.optimizer, steps=STEPS, mode=mode)
        return training

    def state(training: Training) -> dict[str, Any]:
        parts = get_state_dict(training.model, training.optimizer)
        return dict(zip(("model", "optimizer"), parts, strict=True))

    ours, other = begun(), begun()
    for update in range(1, SAVED_AT + 1):
        ours.train(update)
    checkpoint.save(state(ours), checkpoint_id=folder)
    loaded = state(other)
    checkpoint.load(loaded, checkpoint_id=folder)
    set_state_dict(
        other.model,
        other.optimizer,
        model_state_dict=loaded["model"],
        optim_state_dict=loaded["optimizer"],
    )
    for update in range(SAVED_AT + 1, UPDATES + 1):
        ours.train(update)
        other.train(update)
        check_same(ours, other, update)
    return {"updates": UPDATES}
