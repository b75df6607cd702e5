"""Warmup in real process groups: every engine, checkpoints on disk, changes of ranks.

What begins with `check_` runs on all ranks; the tests compare what it returns.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
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


def zero_inside(wrap: Wrap, optimizer: Any, lr: Any) -> Training:
    """Each rank's optimizer has all groups, with that rank's parameters in them."""
    from torch.distributed.optim import ZeroRedundancyOptimizer

    def warmed(params: Any, **options: Any) -> Optimizer:
        return wrap(optimizer(params, **options))

    model = DistributedDataParallel(net())
    return model, [ZeroRedundancyOptimizer(split(model, lr), warmed, lr=lr)]


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
    "in-backward": in_backward,
}


def build(engine: str, kind: str, wrap: Wrap) -> Training:
    return ENGINES[engine](wrap, *KINDS[kind])


def train(training: Training, seed: int, micro_batches: int = 1) -> None:
    """One update."""
    model, optimizers = training
    data = torch.Generator().manual_seed(seed)
    for left in reversed(range(micro_batches)):
        local_only = left and hasattr(model, "no_sync")
        with model.no_sync() if local_only else contextlib.nullcontext():
            model(torch.randn(4, 5, generator=data)).square().mean().backward()
    if len(optimizers) == 1:  # else each has stepped in the backward
        optimizers[0].step()
        optimizers[0].zero_grad()


def warmed_of(training: Training) -> list[Warmed]:
    inner = [
        o if isinstance(o, Warmed) else getattr(o, "optim", o) for o in training[1]
    ]
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
    micro_batches = 1 if engine == "in-backward" else 2
    before = shards(training[0])
    for update in range(1, LAST + 1):
        factors = [min(update / group["warmup_steps"], 1.0) for group in groups]
        assert on_all_ranks(factors_of(training)) == on_all_ranks(factors), update
        bases = list(map(lrs, users))
        seed = 10 * update + distributed.get_rank()
        train(training, seed, micro_batches)
        step = partial(train, twin, seed, micro_batches)
        stepped_at(SimpleNamespace(param_groups=groups), factors, step)
        assert list(map(lrs, users)) == bases
        assert list(map(lrs, warmed_of(training))) == bases[: len(training[1])]
        for one, other in zip(shards(training[0]), shards(twin[0]), strict=True):
            assert torch.equal(one, other), update
        for scheduler in schedulers:
            scheduler.step()
    assert all(warmed.done for warmed in warmed_of(training))
    for old, new in zip(before, shards(training[0]), strict=True):
        assert not (old == new).any()  # it was really trained


TWINS = [
    *(("fsdp2", kind) for kind in KINDS),
    *((engine, "adam") for engine in ENGINES if engine not in ("one-process", "fsdp2")),
    ("fsdp1", "momentum"),
    ("zero-outside", "momentum"),
]


@pytest.mark.parametrize(("engine", "kind"), TWINS)
@pytest.mark.parametrize("size", [2, 4])
def test_every_rank_is_bit_equal_to_its_hand_scaled_twin(
    groups: dict[int, Ranks], size: int, engine: str, kind: str
) -> None:
    """And has the factors of all others, and its LRs back at base, at every update."""
    groups[size].run(check_twin, engine, kind)


# --- checkpoints on disk, loaded by another number of ranks ---------------------------
# Here every rank has the same data: gradients are then equal, and the mean of 2 or 4
# equal numbers is exact. So a run is bit-equal whatever the number of ranks.

FORMS = {
    "plain": dcp.StateDictOptions(),
    "flattened": dcp.StateDictOptions(flatten_optimizer_state_dict=True),
    "gathered": dcp.StateDictOptions(full_state_dict=True, cpu_offload=True),
}
MOVES = pytest.mark.parametrize(("saved", "loaded"), [(2, 4), (4, 2), (2, 1)])
ONE_PROCESS = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")


def is_first() -> bool:
    return not distributed.is_initialized() or distributed.get_rank() == 0


def states(training: Training, form: str) -> dict[str, Any]:
    model, optimizer = dcp.get_state_dict(*training, options=FORMS[form])
    return {"model": model, "optimizer": optimizer}


def check_save(
    engine: str, kind: str, wrap: Wrap, form: str, folder: Path, last: int
) -> None:
    """Takes the state after every update, as one may, and writes the last."""
    training = build(engine, kind, wrap)
    for update in range(1, last + 1):
        train(training, update)
        factors = factors_of(training)
        state = states(training, form)
        assert factors_of(training) == factors
    if form != "gathered":
        checkpoint.save(state, checkpoint_id=folder)
    elif is_first():
        torch.save(state, folder / "gathered.pt")


def loaded_training(
    engine: str, kind: str, wrap: Wrap, form: str, folder: Path, planner: Any = None
) -> Training:
    training = build(engine, kind, wrap)
    options = FORMS[form]
    if form == "gathered":
        state = {"model": {}, "optimizer": {}}
        if is_first():
            state = torch.load(folder / "gathered.pt")
        several = distributed.is_initialized()
        options = replace(options, cpu_offload=False, broadcast_from_rank0=several)
    else:
        state = states(training, form)
        checkpoint.load(state, checkpoint_id=folder, planner=planner)
    # set_state_dict would set no model where there is none to send.
    dcp.set_model_state_dict(training[0], state["model"], options=options)
    dcp.set_optimizer_state_dict(*training, state["optimizer"], options=options)
    return training


def whole(model: nn.Module) -> list[list[float]]:
    """The full parameters."""
    shards = dcp.get_model_state_dict(model).values()
    full = [s.full_tensor() if isinstance(s, DTensor) else s for s in shards]
    return [tensor.flatten().tolist() for tensor in full]


def trained_from(training: Training, last: int) -> list[Any]:
    """The parameters after each update that follows."""
    seen = []
    for update in range(last + 1, LAST + 1):
        train(training, update)
        seen.append(whole(training[0]))
    return seen


def check_resume(*args: Any, last: int = 2, **options: Any) -> list[Any]:
    return trained_from(loaded_training(*args, **options), last)


def by_hand(kind: str, updates: list[int]) -> list[Any]:
    """A run on one process of a bare optimizer, its LR set by hand.

    `updates` says for each which one of the warmup it is; one past it has factor 1.
    """
    model, (optimizer,) = build("one-process", kind, bare)
    seen = []
    for number, update in enumerate(updates, start=1):
        lengths = [group["warmup_steps"] for group in optimizer.param_groups]
        factors = [min(update / length, 1.0) for length in lengths]
        stepped_at(optimizer, factors, partial(train, (model, [optimizer]), number))
        seen.append(whole(model))
    return seen


def run(groups: dict[int, Ranks], size: int, check: Callable[..., Any], *args: Any):
    """What rank 0 returns; a single rank is this process, without a process group."""
    return check(*args) if size == 1 else groups[size].run(check, *args)[0]


CHECKPOINTS = [
    (engine, kind, form)
    for engine, kind, forms in [
        ("fsdp2", "adam", FORMS),
        ("fsdp2", "adam-tensor-lr", FORMS),
        ("fsdp2", "sgd", ["plain", "flattened"]),  # torch can gather no stateless one,
        ("ddp", "adam", FORMS),
        ("fsdp1", "adam", ["plain", "flattened"]),  # nor FSDP1 on a CPU: it crashes,
        ("fsdp1", "momentum", ["plain", "flattened"]),
        ("in-backward", "adam", ["flattened"]),  # nor several optimizers
    ]
    for form in forms
]


@ONE_PROCESS
@pytest.mark.parametrize(("engine", "kind", "form"), CHECKPOINTS)
@MOVES
def test_a_checkpoint_resumes_on_another_number_of_ranks(
    groups: dict[int, Ranks],
    tmp_path: Path,
    saved: int,
    loaded: int,
    engine: str,
    kind: str,
    form: str,
) -> None:
    """Bit-equal to the uninterrupted run, from the middle of the warmup."""
    run(groups, saved, check_save, engine, kind, warm, form, tmp_path, 2)
    target = engine if loaded > 1 else "one-process"
    seen = run(groups, loaded, check_resume, target, kind, warm, form, tmp_path)
    assert seen == by_hand(kind, [1, 2, 3, 4, 5, 6])[2:]


def check_save_zero(engine: str, folder: Path, last: int) -> None:
    training = model, (optimizer,) = build(engine, "adam", warm)
    for update in range(1, last + 1):
        train(training, update)
    optimizer.consolidate_state_dict(to=0)
    if is_first():
        state = [model.module.state_dict(), optimizer.state_dict()]
        torch.save(state, folder / "zero.pt")


def check_resume_zero(engine: str, folder: Path, last: int) -> list[Any]:
    training = model, (optimizer,) = build(engine, "adam", warm)
    saved_model, saved_optimizer = torch.load(folder / "zero.pt")
    getattr(model, "module", model).load_state_dict(saved_model)
    optimizer.load_state_dict(saved_optimizer)
    return trained_from(training, last)


@pytest.mark.parametrize("engine", ["zero-outside", "zero-inside"])
@MOVES
def test_the_consolidated_state_of_zero_resumes_on_another_number_of_ranks(
    groups: dict[int, Ranks], tmp_path: Path, saved: int, loaded: int, engine: str
) -> None:
    run(groups, saved, check_save_zero, engine, tmp_path, 2)
    target = engine if loaded > 1 else "one-process"
    seen = run(groups, loaded, check_resume_zero, target, tmp_path, 2)
    assert seen == by_hand("adam", [1, 2, 3, 4, 5, 6])[2:]


# --- checkpoints of a warmed optimizer for a bare one, and the other way round --------


@ONE_PROCESS
@pytest.mark.parametrize("form", ["plain", "flattened"])
@MOVES
def test_a_bare_optimizer_loads_a_warmed_checkpoint(
    groups: dict[int, Ranks], tmp_path: Path, saved: int, loaded: int, form: str
) -> None:
    """And goes on at the full LR."""
    run(groups, saved, check_save, "fsdp2", "adam", warm, form, tmp_path, 2)
    target = "fsdp2" if loaded > 1 else "one-process"
    seen = run(groups, loaded, check_resume, target, "adam", bare, form, tmp_path)
    assert seen == by_hand("adam", [1, 2, STEPS, STEPS, STEPS, STEPS])[2:]


def check_resume_partly(*args: Any) -> list[Any]:
    planner = checkpoint.DefaultLoadPlanner(allow_partial_load=True)
    return check_resume(*args, planner=planner)


@ONE_PROCESS
@pytest.mark.parametrize("form", FORMS)
@MOVES
def test_a_bare_checkpoint_loads_and_the_warmup_begins(
    groups: dict[int, Ranks], tmp_path: Path, saved: int, loaded: int, form: str
) -> None:
    """Where torch is asked to leave alone what the files lack."""
    run(groups, saved, check_save, "fsdp2", "adam", bare, form, tmp_path, 2)
    target = "fsdp2" if loaded > 1 else "one-process"
    args = (check_resume_partly, target, "adam", warm, form, tmp_path)
    assert run(groups, loaded, *args) == by_hand("adam", [STEPS, STEPS, 1, 2, 3, 4])[2:]


def scheduled(optimizer: Optimizer) -> Optimizer:
    ExponentialLR(optimizer, 0.9)  # it writes `initial_lr` into the groups
    return optimizer


# Torch's own rule for keys of a group: those of a scheduler meet the same.
KEYS = pytest.mark.parametrize(
    ("wrap", "key"),
    [(scheduled, "initial_lr"), (warm, "warmup_updates")],
    ids=["scheduler", "warmup"],
)


def check_refusal(wrap: Wrap, form: str, folder: Path, key: str) -> None:
    missing = rf"Missing key in checkpoint state_dict: optimizer\.param_groups.*{key}"
    with pytest.raises(checkpoint.CheckpointException, match=missing):
        loaded_training("fsdp2", "adam", wrap, form, folder)


@KEYS
@pytest.mark.parametrize("form", ["plain", "flattened"])
def test_torch_refuses_files_that_lack_a_key_unless_asked_not_to(
    groups: dict[int, Ranks], tmp_path: Path, form: str, wrap: Wrap, key: str
) -> None:
    groups[2].run(check_save, "fsdp2", "adam", bare, form, tmp_path, 2)
    groups[2].run(check_refusal, wrap, form, tmp_path, key)


@KEYS
def test_torch_refuses_a_gathered_state_with_a_key_more_on_one_process(
    groups: dict[int, Ranks], tmp_path: Path, wrap: Wrap, key: str
) -> None:
    groups[2].run(check_save, "fsdp2", "adam", wrap, "gathered", tmp_path, 2)
    with pytest.raises(KeyError, match=rf"param_groups\.0\.{key}"):
        loaded_training("one-process", "adam", bare, "gathered", tmp_path)


def check_in_memory(form: str) -> list[float]:
    source, target = build("fsdp2", "adam", bare), build("fsdp2", "adam", warm)
    train(source, 1)
    state = dcp.get_optimizer_state_dict(*source, options=FORMS[form])
    dcp.set_optimizer_state_dict(*target, state, options=FORMS[form])
    return factors_of(target)


def check_in_memory_refused(form: str) -> None:
    with pytest.raises(KeyError, match=r"param_groups\..*\.warmup_updates"):
        check_in_memory(form)


def check_in_memory_warned(form: str) -> None:
    with pytest.warns(UserWarning, match="of an optimizer without warmup"):
        assert check_in_memory(form) == [1 / 4, 1 / 2]


@pytest.mark.parametrize(
    ("form", "check"),
    [("plain", check_in_memory_warned), ("flattened", check_in_memory_refused)],
)
def test_a_bare_state_that_goes_through_no_file(
    groups: dict[int, Ranks], form: str, check: Callable[[str], None]
) -> None:
    groups[2].run(check, form)


# --- an update that is skipped --------------------------------------------------------


def check_scaler(kind: str) -> None:
    training = model, (optimizer,) = build("fsdp2", kind, warm)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for update, factor in enumerate([1 / 4, 2 / 4, 2 / 4, 3 / 4], start=1):
        assert on_all_ranks(factors_of(training)[0]) == on_all_ranks(factor)
        before = shards(model)
        scaler.scale(model(torch.ones(4, 5)).square().mean()).backward()
        if update == 2 and distributed.get_rank() == 1:
            model[0].weight.grad.to_local().fill_(torch.inf)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        moved = [
            not torch.equal(*pair) for pair in zip(before, shards(model), strict=True)
        ]
        assert moved == [update != 2 and len(shard) > 0 for shard in before]


@pytest.mark.parametrize("kind", ["adam", "adam-tensor-lr", "adamw-fused", "sgd"])
@pytest.mark.parametrize("size", [2, 4])
def test_an_update_that_one_rank_spoils_is_counted_by_none(
    groups: dict[int, Ranks], size: int, kind: str
) -> None:
    """GradScaler skips it on all ranks for an inf in the shard of one."""
    groups[size].run(check_scaler, kind)


# --- the workers themselves -----------------------------------------------------------


def check_fails_on(rank: int) -> None:
    if distributed.get_rank() == rank:
        raise ValueError("of this rank alone")
    distributed.barrier()


def check_waits_for(rank: int) -> None:
    if distributed.get_rank() != rank:
        distributed.barrier()


def test_a_failure_of_one_rank_is_told_and_the_next_check_runs() -> None:
    ranks = Ranks(2, timeout=3.0)
    with pytest.raises(AssertionError, match=r"(?s)rank 1 of 2.*of this rank alone"):
        ranks.run(check_fails_on, 1)
    with pytest.raises(AssertionError, match=r"(?s)rank 0 of 2.*barrier.*Timed out"):
        ranks.run(check_waits_for, 1)
    assert ranks.run(on_all_ranks, 1) == [[1, 1], [1, 1]]
    ranks.stop()
