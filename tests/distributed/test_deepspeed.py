"""DeepSpeed's ZeRO 0 to 3, which steps groups one by one or in parts.

Functions named `check_` run on all ranks.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import AdamW, Optimizer

from tests.support.features import needs
from tests.support.ranks import Ranks
from tests.support.reference import lrs
from warmopt import Warmed

pytestmark = [
    # It is imported on the ranks alone, since it changes torch.
    needs(find_spec("deepspeed"), "DeepSpeed is not installed"),
    pytest.mark.xdist_group("deepspeed"),
]

LENGTHS = (4, 6)  # of the two groups
UPDATES = 8
SOME = 4  # elements of each part, of ZeRO 3
PARTS = [(0, None), (1, None), (2, None), (3, None), (3, SOME)]


@pytest.fixture(scope="module")
def ranks() -> Iterator[Ranks]:
    """Ranks that no other test uses."""
    ranks = Ranks(2, timeout=60.0)
    yield ranks
    ranks.stop()


def build(stage: int, part: int | None, is_warmed: bool) -> Any:
    """An engine of DeepSpeed, around a warmed or a bare AdamW with two groups."""
    import deepspeed

    # It compiles this with a C++ compiler, to be faster on one machine.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    params = list(model.parameters())
    groups: list[dict[str, Any]] = [
        {"params": params[::2], "warmup_steps": LENGTHS[0]},
        {"params": params[1::2], "warmup_steps": LENGTHS[1], "lr": 0.05},
    ]
    optimizer: Optimizer = AdamW(groups, lr=0.1)
    if is_warmed:
        optimizer = Warmed(optimizer, steps=4)
    zero: dict[str, Any] = {"stage": stage}
    if part:
        zero["sub_group_size"] = part
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=optimizer,
        config={
            "train_micro_batch_size_per_gpu": 2,
            "zero_optimization": zero,
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
        },
    )
    return engine


def inner_of(engine: Any) -> Any:
    return getattr(engine.optimizer, "optimizer", engine.optimizer)


def train(engine: Any, update: int) -> float:
    generator = torch.Generator().manual_seed(10 * update + engine.global_rank)
    inputs, targets = torch.randn(2, 2, 4, generator=generator)
    loss = (engine(inputs) - targets[:, :1]).square().mean()
    engine.backward(loss)
    engine.step()
    return float(loss)


def factors(update: int) -> list[float]:
    return [min(update / length, 1.0) for length in LENGTHS]


def scaled_by_hand(engine: Any, update: int) -> float:
    groups = inner_of(engine).param_groups
    bases = [group["lr"] for group in groups]
    for group, factor in zip(groups, factors(update), strict=True):
        group["lr"] *= factor
    loss = train(engine, update)
    for group, base in zip(groups, bases, strict=True):
        group["lr"] = base
    return loss


def check_warms(stage: int, part: int | None, folder: Path) -> int:
    """Returns in how many steps an update was made."""
    warnings.simplefilter("default")  # DeepSpeed gives many about itself
    os.environ |= {"DS_ACCELERATOR": "cpu", "LOCAL_RANK": "0"}
    warmed, twin = build(stage, part, True), build(stage, part, False)
    inner, steps = inner_of(warmed), []
    inner.wrapped.register_step_pre_hook(lambda *_: steps.append(1))
    losses = []
    for update in range(1, UPDATES + 1):
        losses.append(train(warmed, update))
        assert losses[-1] == scaled_by_hand(twin, update), update
        bases = lrs(inner)
        assert bases == [0.1, 0.05]
        used = [b * f for b, f in zip(bases, factors(update), strict=True)]
        assert inner.get_last_lr() == used, update
        assert inner.factors == factors(update + 1), update
        assert inner.done == (update >= max(LENGTHS))
        if update == 2:
            warmed.save_checkpoint(str(folder), tag="two")
    resumed = build(stage, part, True)
    resumed.load_checkpoint(str(folder), tag="two")
    assert inner_of(resumed).factors == factors(3)
    rest = [train(resumed, update) for update in range(3, UPDATES + 1)]
    assert rest == losses[2:]
    return len(steps) // UPDATES


@pytest.mark.parametrize(("stage", "part"), PARTS)
def test_zero_warms_by_updates_however_many_steps_it_makes_of_one(
    stage: int, part: int | None, ranks: Ranks, tmp_path: Path
) -> None:
    steps = ranks.run(check_warms, stage, part, tmp_path)
    assert steps == [1 if stage == 0 else 4 if part else 2] * 2
