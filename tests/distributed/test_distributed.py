"""Warmup in real process groups: every engine, at every update.

Functions named `check_` run on all ranks.
"""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.optim.lr_scheduler import ExponentialLR

from tests.support.engines import (
    KINDS,
    SHORT,
    Wrap,
    bare,
    build,
    factors_of,
    train,
    warmed_of,
)
from tests.support.ranks import Ranks, on_all_ranks
from tests.support.reference import lrs, stepped_at
from tests.support.sharding import DTensor
from warmopt import Warmed

pytestmark = pytest.mark.xdist_group("ranks")

warm: Wrap = partial(Warmed, steps=4)


def shards(model: nn.Module) -> list[Tensor]:
    """What this rank holds of each parameter."""
    params = [param.detach() for param in model.parameters()]
    return [(p.to_local() if isinstance(p, DTensor) else p).clone() for p in params]


def check_twin(engine: str, kind: str) -> None:
    training, twin = build(engine, kind, warm), build(engine, kind, bare)
    users = [*training[1], *twin[1]]
    schedulers = [ExponentialLR(optimizer, 0.9) for optimizer in users]
    groups = [group for optimizer in twin[1] for group in optimizer.param_groups]
    micro_batches = 1 if engine == "in-backward" else 2
    before = shards(training[0])
    for update in range(1, 7):
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
    *(("fsdp2", kind) for kind, (*_, steps) in KINDS.items() if steps == SHORT),
    ("ddp", "adam"),
    ("fsdp1", "adam"),
    ("zero-outside", "adam"),
    ("zero-inside", "adam"),
    ("in-backward", "adam"),
    ("fsdp1", "momentum"),
    ("zero-outside", "momentum"),
]


@pytest.mark.parametrize(("engine", "kind"), TWINS)
@pytest.mark.parametrize("size", [2, 4])
def test_every_rank_is_bit_equal_to_its_hand_scaled_twin(
    groups: dict[int, Ranks], size: int, engine: str, kind: str
) -> None:
    """At every update it also knows the factors of all others, and the LRs are back."""
    groups[size].run(check_twin, engine, kind)


# --- an update that is skipped --------------------------------------------------------


def check_scaler(kind: str) -> None:
    training = model, (optimizer,) = build("fsdp2", kind, warm)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for update, factor in enumerate([1 / 4, 2 / 4, 2 / 4, 3 / 4], start=1):
        assert on_all_ranks(factors_of(training)[0]) == on_all_ranks(factor)
        before = shards(model)
        scaler.scale(model(torch.ones(4, 12)).square().mean()).backward()
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
    """GradScaler skips it on all ranks if one shard holds an inf."""
    groups[size].run(check_scaler, kind)
