"""Checkpoints on disk that some ranks write and others read, as functions for ranks.

In these runs every rank has the same data. Then gradients are equal, and the mean of 2
or 4 equal numbers is exact. So a run is bit-equal for any number of ranks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed, nn
from torch.distributed import checkpoint
from torch.distributed.checkpoint import state_dict as dcp

from tests.support.engines import Training, Wrap, build, factors_of, train
from tests.support.ranks import Ranks, alike
from tests.support.sharding import DTensor

# Options of torch.distributed.checkpoint; "consolidated" is ZeRO's own form.
FORMS = {
    "plain": dcp.StateDictOptions(),
    "flattened": dcp.StateDictOptions(flatten_optimizer_state_dict=True),
    "gathered": dcp.StateDictOptions(full_state_dict=True, cpu_offload=True),
}
SHARDED = ("plain", "flattened")  # also in the files; rank 0 alone writes others

MOVES = pytest.mark.parametrize(("saved", "loaded"), [(2, 4), (4, 2), (2, 1)])
ONE_PROCESS = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")


def run(
    groups: dict[int, Ranks],
    size: int,
    check: Callable[..., Any],
    engine: str,
    *args: Any,
) -> Any:
    """What all ranks return; a single rank is this process, without a process group."""
    if size == 1:
        return check("one-process", *args)
    return alike(groups[size].run(check, engine, *args))


def is_first() -> bool:
    return not distributed.is_initialized() or distributed.get_rank() == 0


def states(training: Training, form: str) -> Any:
    if form == "consolidated":
        model, (optimizer,) = training
        optimizer.consolidate_state_dict(to=0)
        return [each.state_dict() for each in (model.module, optimizer) if is_first()]
    model, optimizer = dcp.get_state_dict(*training, options=FORMS[form])
    return {"model": model, "optimizer": optimizer}


def save(
    engine: str, kind: str, wrap: Wrap, form: str, folder: Path, last: int
) -> None:
    """Takes the state after every update, as users may do, and writes the last one."""
    training = build(engine, kind, wrap)
    for update in range(1, last + 1):
        train(training, update)
        factors = factors_of(training)
        state = states(training, form)
        assert factors_of(training) == factors
    if form in SHARDED:
        checkpoint.save(state, checkpoint_id=folder)
    elif is_first():
        torch.save(state, folder / "whole.pt")


def load(
    engine: str, kind: str, wrap: Wrap, form: str, folder: Path, planner: Any = None
) -> Training:
    training = model, (optimizer, *_) = build(engine, kind, wrap)
    if form == "consolidated":
        saved_model, saved_optimizer = torch.load(folder / "whole.pt")
        getattr(model, "module", model).load_state_dict(saved_model)
        optimizer.load_state_dict(saved_optimizer)
        return training
    options = FORMS[form]
    if form in SHARDED:
        state = states(training, form)
        checkpoint.load(state, checkpoint_id=folder, planner=planner)
    else:
        state = {"model": {}, "optimizer": {}}
        if is_first():
            state = torch.load(folder / "whole.pt")
        several = distributed.is_initialized()
        options = replace(options, cpu_offload=False, broadcast_from_rank0=several)
    # set_state_dict would set no model if there is none to send.
    dcp.set_model_state_dict(model, state["model"], options=options)
    dcp.set_optimizer_state_dict(*training, state["optimizer"], options=options)
    return training


def parameters(model: nn.Module) -> list[list[float]]:
    """The whole parameters, on every rank."""
    shards = dcp.get_model_state_dict(model).values()
    full = [s.full_tensor() if isinstance(s, DTensor) else s for s in shards]
    return [tensor.flatten().tolist() for tensor in full]
