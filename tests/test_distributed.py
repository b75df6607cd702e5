"""Warmup in real process groups: every engine, checkpoints on disk, changes of ranks.

What begins with `check_` runs on all ranks; the tests below it compare what it returns.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.distributed import checkpoint
from torch.distributed.checkpoint import state_dict as dcp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import ExponentialLR

from tests.ranks import Ranks
from tests.reference import lrs, stepped_at
from warmopt import Warmed

pytestmark = pytest.mark.xdist_group("ranks")

STEPS, LAST = 4, 6  # updates of the warmup, and of the run

Wrap = Callable[[Optimizer], Optimizer]
Training = tuple[nn.Module, list[Optimizer]]

warm: Wrap = partial(Warmed, steps=STEPS)


def bare(optimizer: Optimizer) -> Optimizer:
    return optimizer


# --- what is trained: the same model and optimizers in every engine -------------------

KINDS: dict[str, tuple[Callable[..., Optimizer], float | Tensor]] = {
    "adam": (Adam, 0.1),
    "adam-tensor-lr": (Adam, torch.tensor(0.1)),
    "adamw-fused": (partial(AdamW, fused=True), 0.1),
    "sgd": (SGD, 0.1),
    "sgd-tensor-lr": (SGD, torch.tensor(0.1)),
    "momentum": (partial(SGD, momentum=0.9), 0.1),
}


def net() -> nn.Module:
    """With 3 rows and 1, so that shards are uneven, and some ranks have none."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 3), nn.Tanh(), nn.Linear(3, 1))


def split(model: nn.Module, lr: Any) -> list[dict[str, Any]]:
    """Weights, and biases at twice the LR with half the warmup."""
    params = list(model.parameters())
    return [
        {"params": params[::2], "lr": 1 * lr, "warmup_steps": STEPS},
        {"params": params[1::2], "lr": 2 * lr, "warmup_steps": STEPS // 2},
    ]


def one_process(wrap: Wrap, optimizer: Any, lr: Any) -> Training:
    model = net()
    return model, [wrap(optimizer(split(model, lr)))]


def ddp(wrap: Wrap, optimizer: Any, lr: Any) -> Training:
    model = DistributedDataParallel(net())
    return model, [wrap(optimizer(split(model, lr)))]


def fsdp2(wrap: Wrap, optimizer: Any, lr: Any) -> Training:
    model = net()
    for module in (model[0], model[2], model):
        fully_shard(module)
    return model, [wrap(optimizer(split(model, lr)))]


def fsdp1(wrap: Wrap, optimizer: Any, lr: Any) -> Training:
    model = FullyShardedDataParallel(
        net(),
        use_orig_params=True,
        device_id=torch.device("cpu"),
        device_mesh=init_device_mesh("cpu", (distributed.get_world_size(),)),
    )
    return model, [wrap(optimizer(split(model, lr)))]


# torch.distributed.optim warns as it is imported; the workers' server has done it.


def zero_outside(wrap: Wrap, optimizer: Any, lr: Any) -> Training:
    from torch.distributed.optim import ZeroRedundancyOptimizer

    model = DistributedDataParallel(net())
    return model, [wrap(ZeroRedundancyOptimizer(split(model, lr), optimizer, lr=lr))]


def zero_inside(wrap: Wrap, optimizer: Any, lr: Any, groups: int = 1) -> Training:
    """Each rank's optimizer has all groups, with the parameters of that rank in them."""
    from torch.distributed.optim import ZeroRedundancyOptimizer

    def warmed(params: Any, **options: Any) -> Optimizer:
        return wrap(optimizer(params, **options))

    model = DistributedDataParallel(net())
    chosen = split(model, lr) if groups == 2 else list(model.parameters())
    return model, [ZeroRedundancyOptimizer(chosen, warmed, lr=lr)]


def in_backward(wrap: Wrap, optimizer: Any, lr: Any) -> Training:
    """One optimizer per parameter, which steps as soon as the gradient is there."""

    def step(optimizer: Optimizer, _: Tensor) -> None:
        optimizer.step()
        optimizer.zero_grad()

    model, _ = fsdp2(bare, optimizer, lr)
    optimizers = []
    for group in split(model, lr):
        for param in group["params"]:
            optimizers.append(wrap(optimizer([{**group, "params": [param]}])))
            param.register_post_accumulate_grad_hook(partial(step, optimizers[-1]))
    return model, optimizers


ENGINES: dict[str, Callable[..., Training]] = {
    "one-process": one_process,
    "ddp": ddp,
    "fsdp2": fsdp2,
    "fsdp1": fsdp1,
    "zero-outside": zero_outside,
    "zero-inside": zero_inside,
    "zero-inside-2-groups": partial(zero_inside, groups=2),
    "in-backward": in_backward,
}


def build(engine: str, kind: str, wrap: Wrap) -> Training:
    return ENGINES[engine](wrap, *KINDS[kind])


def train(training: Training, update: int, shared_data: bool = False) -> None:
    """One update, from two micro-batches unless the step is in the backward."""
    model, optimizers = training
    accumulate = len(optimizers) == 1
    seed = 10 * update + (0 if shared_data else distributed.get_rank())
    data = torch.Generator().manual_seed(seed)
    for first in (True, False) if accumulate else (False,):
        local_only = first and hasattr(model, "no_sync")
        with model.no_sync() if local_only else contextlib.nullcontext():
            model(torch.randn(4, 5, generator=data)).square().mean().backward()
    if accumulate:
        optimizers[0].step()
        optimizers[0].zero_grad()


def warmed_of(training: Training) -> list[Warmed]:
    inner = [o if isinstance(o, Warmed) else getattr(o, "optim", o) for o in training[1]]
    return [optimizer for optimizer in inner if isinstance(optimizer, Warmed)]


def factors_of(training: Training) -> list[float]:
    return [factor for warmed in warmed_of(training) for factor in warmed.factors]


# --- every engine ---------------------------------------------------------------------


def shards(model: nn.Module) -> list[Tensor]:
    """What this rank holds of each parameter."""
    params = [param.detach() for param in model.parameters()]
    return [(p.to_local() if isinstance(p, DTensor) else p).clone() for p in params]


def on_all_ranks(value: Any) -> list[Any]:
    values = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values


def check_twin(engine: str, kind: str) -> None:
    training, twin = build(engine, kind, warm), build(engine, kind, bare)
    users = [*training[1], *twin[1]]
    schedulers = [ExponentialLR(optimizer, 0.9) for optimizer in users]
    groups = [group for optimizer in twin[1] for group in optimizer.param_groups]
    before = shards(training[0])
    for update in range(1, LAST + 1):
        factors = [min(update / g.get("warmup_steps", STEPS), 1.0) for g in groups]
        assert on_all_ranks(factors_of(training)) == on_all_ranks(factors), update
        bases = list(map(lrs, users))
        train(training, update)
        by_hand = SimpleNamespace(param_groups=groups)
        stepped_at(by_hand, factors, partial(train, twin, update))
        assert list(map(lrs, users)) == bases
        assert list(map(lrs, warmed_of(training))) == bases[: len(training[1])]
        for one, other in zip(shards(training[0]), shards(twin[0]), strict=True):
            assert torch.equal(one, other), update
        for scheduler in schedulers:
            scheduler.step()
    assert all(warmed.done for warmed in warmed_of(training))
    for old, new in zip(before, shards(training[0]), strict=True):
        assert not (old == new).any()  # it was really trained


@pytest.fixture(scope="module")
def groups() -> Iterator[dict[int, Ranks]]:
    """The process groups of 2 and of 4 ranks, which all tests share."""
    groups = {size: Ranks(size) for size in (2, 4)}
    yield groups
    for ranks in groups.values():
        ranks.stop()


TWINS = [
    *(("fsdp2", kind) for kind in KINDS),
    *((engine, "adam") for engine in ENGINES if engine not in ("one-process", "fsdp2")),
    ("fsdp1", "momentum"),
    ("zero-outside", "momentum"),
]
FAULTS = {
    "zero-inside-2-groups": "a rank with no parameter of a group does not count for it"
}


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize(("engine", "kind"), TWINS)
def test_every_rank_is_bit_equal_to_its_hand_scaled_twin(
    groups: dict[int, Ranks],
    request: pytest.FixtureRequest,
    size: int,
    engine: str,
    kind: str,
) -> None:
    """And has the factors of all others, and its LRs back at base, at every update."""
    if engine in FAULTS:
        request.applymarker(pytest.mark.xfail(reason=FAULTS[engine]))
    groups[size].run(check_twin, engine, kind)


# --- checkpoints on disk, loaded by another number of ranks ---------------------------
# Here every rank has the same data: gradients are then equal, and the mean of 2 or 4
# equal numbers is exact. So a run is bit-equal whatever the number of ranks.


def whole(model: nn.Module) -> list[list[float]]:
    """The full parameters."""
    shards = dcp.get_model_state_dict(model).values()
    full = [s.full_tensor() if isinstance(s, DTensor) else s for s in shards]
    return [tensor.flatten().tolist() for tensor in full]


def by_hand(kind: str, updates: list[int]) -> list[Any]:
    """A run on one process of a bare optimizer, its LR set by hand.

    `updates` says for each which one of the warmup it is; one past it has factor 1.
    """
    model, optimizers = build("one-process", kind, bare)
    seen = []
    for number, update in enumerate(updates, start=1):
        factors = [min(update / STEPS, 1.0), min(2 * update / STEPS, 1.0)]
        step = partial(train, (model, optimizers), number, shared_data=True)
        stepped_at(optimizers[0], factors, step)
        seen.append(whole(model))
    return seen


def states(training: Training, flat: bool) -> dict[str, Any]:
    options = dcp.StateDictOptions(flatten_optimizer_state_dict=flat)
    model, optimizer = dcp.get_state_dict(*training, options=options)
    return {"model": model, "optimizer": optimizer}


def check_save(
    engine: str, kind: str, wrap: Wrap, flat: bool, folder: Path, last: int
) -> None:
    """Takes the state after every update, as one may, and writes the last."""
    training = build(engine, kind, wrap)
    for update in range(1, last + 1):
        train(training, update, shared_data=True)
        factors = factors_of(training)
        state = states(training, flat)
        assert factors_of(training) == factors
    checkpoint.save(state, checkpoint_id=folder)


def check_resume(
    engine: str, kind: str, wrap: Wrap, flat: bool, folder: Path, last: int
) -> list[Any]:
    """Loads into a new model; returns the parameters after each update that follows."""
    training = build(engine, kind, wrap)
    state = states(training, flat)
    checkpoint.load(state, checkpoint_id=folder)
    dcp.set_state_dict(
        *training,
        model_state_dict=state["model"],
        optim_state_dict=state["optimizer"],
        options=dcp.StateDictOptions(flatten_optimizer_state_dict=flat),
    )
    seen = []
    for update in range(last + 1, LAST + 1):
        train(training, update, shared_data=True)
        seen.append(whole(training[0]))
    return seen


def run(groups: dict[int, Ranks], size: int, check: Callable[..., Any], *args: Any):
    """What rank 0 returns; a single rank is this process, without a process group."""
    return check(*args) if size == 1 else groups[size].run(check, *args)[0]


ONE_PROCESS = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
FORMS = pytest.mark.parametrize("flat", [False, True], ids=["plain", "flattened"])


@ONE_PROCESS
@FORMS
@pytest.mark.parametrize(("saved", "loaded"), [(2, 4), (4, 2), (2, 1)])
@pytest.mark.parametrize(
    ("engine", "kind"),
    [
        ("fsdp2", "adam"),
        ("fsdp2", "adam-tensor-lr"),
        ("fsdp2", "sgd"),
        ("ddp", "adam"),
        ("fsdp1", "adam"),
        ("fsdp1", "momentum"),
    ],
)
def test_a_checkpoint_resumes_on_another_number_of_ranks(
    groups: dict[int, Ranks],
    tmp_path: Path,
    engine: str,
    kind: str,
    saved: int,
    loaded: int,
    flat: bool,
) -> None:
    """Bit-equal to the uninterrupted run, from the middle of the warmup."""
    run(groups, saved, check_save, engine, kind, warm, flat, tmp_path, 2)
    target = engine if loaded > 1 else "one-process"
    seen = run(groups, loaded, check_resume, target, kind, warm, flat, tmp_path, 2)
    assert seen == by_hand(kind, [1, 2, 3, 4, 5, 6])[2:]
