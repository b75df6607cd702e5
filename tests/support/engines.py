"""What is trained on several ranks, by every engine.

An engine says how the model is spread over the ranks, and how the optimizers are built.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from tests.support.sharding import Shard, fully_shard
from warmopt import Warmed

Groups = list[dict[str, Any]]
Wrap = Callable[[Optimizer], Optimizer]
Training = tuple[nn.Module, list[Optimizer]]

SHORT, LONG = (4, 2), (24, 24)  # updates of the warmup of each group

# The optimizer, the LR of the weights, the lengths.
KINDS: dict[str, tuple[Callable[..., Optimizer], float | Tensor, tuple[int, int]]] = {
    "adam": (Adam, 0.1, SHORT),
    "adam-tensor-lr": (Adam, torch.tensor(0.1), SHORT),
    "adamw-fused": (partial(AdamW, fused=True), 0.1, SHORT),
    "sgd": (SGD, 0.1, SHORT),
    "sgd-tensor-lr": (SGD, torch.tensor(0.1), SHORT),
    "momentum": (partial(SGD, momentum=0.9), 0.1, SHORT),
    "adam-long": (Adam, 0.01, LONG),
    "adam-fused-long": (partial(Adam, fused=True), 0.01, LONG),
    "rmsprop-long": (RMSprop, 0.01, LONG),
}


def bare(optimizer: Optimizer) -> Optimizer:
    return optimizer


def net() -> nn.Module:
    """30 rows, 3 and 1: uneven shards, and none on some ranks. Large and small."""
    torch.manual_seed(0)
    layers = nn.Linear(12, 30), nn.Tanh(), nn.Linear(30, 3), nn.Tanh(), nn.Linear(3, 1)
    return nn.Sequential(*layers)


def split(model: nn.Module, lr: Any, steps: tuple[int, int]) -> Groups:
    """One group for the weights, one for the biases at twice the LR."""
    params = list(model.parameters())
    return [
        {"params": params[::2], "lr": 1 * lr, "warmup_steps": steps[0]},
        {"params": params[1::2], "lr": 2 * lr, "warmup_steps": steps[1]},
    ]


# --- how the model is spread ----------------------------------------------------------


def whole(model: nn.Module) -> nn.Module:
    return model


def fsdp2(model: nn.Module, **options: Any) -> nn.Module:
    for module in (*model[:-1:2], model):
        fully_shard(module, **options)
    return model


def hsdp(model: nn.Module) -> nn.Module:
    """Two replicas; with 2 ranks, each rank holds one."""
    shape = (2, distributed.get_world_size() // 2)
    mesh = init_device_mesh("cpu", shape, mesh_dim_names=("replicas", "shards"))
    return fsdp2(model, mesh=mesh)


def beside_plain(model: nn.Module) -> nn.Module:
    """A large weight and a small bias are not sharded: every rank has them whole."""
    return fsdp2(model, ignored_params={model[0].weight, model[2].bias})


def by_columns(model: nn.Module) -> nn.Module:
    def placement(param: nn.Parameter) -> Shard:
        return Shard(1 if param.shape == (30, 12) else 0)

    return fsdp2(model, shard_placement_fn=placement)


def tensor_parallel(model: nn.Module) -> nn.Module:
    """Two layers on a mesh of 2 x 2 ranks, the last one only on a part of that mesh."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor"))
    plan = {"0": ColwiseParallel(), "2": RowwiseParallel()}
    parallelize_module(model, mesh["tensor"], plan)
    return fully_shard(model, mesh=mesh["data"])


def fsdp1(model: nn.Module) -> nn.Module:
    return FullyShardedDataParallel(
        model,
        use_orig_params=True,
        device_id=torch.device("cpu"),
        device_mesh=init_device_mesh("cpu", (distributed.get_world_size(),)),
    )


# --- how the optimizers are built -----------------------------------------------------
# torch.distributed.optim warns on import; the workers' server has imported it.


def one(wrap: Wrap, optimizer: Any, groups: Groups) -> list[Optimizer]:
    return [wrap(optimizer(groups))]


def zero_outside(wrap: Wrap, optimizer: Any, groups: Groups) -> list[Optimizer]:
    from torch.distributed.optim import ZeroRedundancyOptimizer

    return [wrap(ZeroRedundancyOptimizer(groups, optimizer))]


def zero_inside(wrap: Wrap, optimizer: Any, groups: Groups) -> list[Optimizer]:
    """Each rank's optimizer has all groups, but only that rank's parameters."""
    from torch.distributed.optim import ZeroRedundancyOptimizer

    def warmed(params: Any, **options: Any) -> Optimizer:
        return wrap(optimizer(params, **options))

    return [ZeroRedundancyOptimizer(groups, warmed)]


def in_backward(wrap: Wrap, optimizer: Any, groups: Groups) -> list[Optimizer]:
    """One optimizer per parameter. It steps as soon as the gradient is there."""

    def step(optimizer: Optimizer, _: Tensor) -> None:
        optimizer.step()
        optimizer.zero_grad()

    optimizers = []
    for group in groups:
        for param in group["params"]:
            optimizers.append(wrap(optimizer([{**group, "params": [param]}])))
            param.register_post_accumulate_grad_hook(partial(step, optimizers[-1]))
    return optimizers


ENGINES: dict[str, tuple[Callable[..., nn.Module], Callable[..., list[Optimizer]]]] = {
    "one-process": (whole, one),
    "ddp": (DistributedDataParallel, one),
    "fsdp2": (fsdp2, one),
    "hsdp": (hsdp, one),
    "beside-plain": (beside_plain, one),
    "by-columns": (by_columns, one),
    "tensor-parallel": (tensor_parallel, one),
    "fsdp1": (fsdp1, one),
    "zero-outside": (DistributedDataParallel, zero_outside),
    "zero-inside": (DistributedDataParallel, zero_inside),
    "in-backward": (fsdp2, in_backward),
}


# --- training -------------------------------------------------------------------------


def build(
    engine: str, kind: str, wrap: Wrap, model: nn.Module | None = None
) -> Training:
    spread, build_optimizers = ENGINES[engine]
    optimizer, lr, steps = KINDS[kind]
    model = spread(model or net())
    return model, build_optimizers(wrap, optimizer, split(model, lr, steps))


def train(
    training: Training, seed: int, micro_batches: int = 1, inputs: int = 12
) -> None:
    """Makes one update."""
    model, optimizers = training
    data = torch.Generator().manual_seed(seed)
    for left in reversed(range(micro_batches)):
        local_only = left and hasattr(model, "no_sync")
        with model.no_sync() if local_only else contextlib.nullcontext():
            model(torch.randn(4, inputs, generator=data)).square().mean().backward()
    if len(optimizers) == 1:  # else they step in the backward
        optimizers[0].step()
        optimizers[0].zero_grad()


def warmed_of(training: Training) -> list[Warmed]:
    inner = [
        o if isinstance(o, Warmed) else getattr(o, "optim", o) for o in training[1]
    ]
    return [optimizer for optimizer in inner if isinstance(optimizer, Warmed)]


def factors_of(training: Training) -> list[float]:
    return [factor for warmed in warmed_of(training) for factor in warmed.factors]
