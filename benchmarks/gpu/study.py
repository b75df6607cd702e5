"""A study: does a warmup that is right for small models help one of 11 million?

A GPT-2 of 10.7 million parameters learns Python's help topics, at a learning rate that
suits it, and at four and sixteen times that. The same seed is the same first model and
the same batches for every warmup. Seeds are the outermost loop: if time runs out, what
is there can be compared.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from benchmarks.gpu.charlm import Decoder, Size, Text
from benchmarks.gpu.rows import Here, Row, checked
from warmopt import Warmed

# A warmup -> its arguments for `Warmed`, where the length is a share of the run.
WARMUPS: dict[str, dict[str, Any]] = {
    "none": {"steps": 0},
    "fixed 3 %": {"steps": 0.03},
    "fixed 30 %": {"steps": 0.3},
    "adaptive 30 %": {"steps": 0.3, "mode": "adaptive"},
    "aligned 30 %": {"steps": 0.3, "mode": "aligned"},
}
BASE_LR, TIMES = 1e-3, (1, 4, 16)
BETAS = (0.9, 0.99)


class Plan(NamedTuple):
    """How large all is.

    Attributes:
        updates: Of a run.
        seeds: How many; fewer if time runs out.
        validation: Batches of held-out text.
    """

    size: Size
    updates: int
    seeds: int
    validation: int


PLANS = {
    "cuda": Plan(Size(6, 384, heads=6, context=256, batch=32), 600, 8, 8),
    "cpu": Plan(Size(1, 16, heads=2, context=16, batch=4), 20, 1, 1),  # only a try
}


def rows(here: Here) -> Iterator[Row]:
    plan, end = PLANS[here.device], time.monotonic() + here.seconds
    text = Text(here.device, plan.size)
    train(here, plan, text, "none", BASE_LR, seed=0, updates=10)  # starts all up
    longest = 0.0
    for seed, times, name in product(range(plan.seeds), TIMES, WARMUPS):
        began = time.monotonic()
        if here.on_cuda and began + longest > end:
            yield {"what": "no time for more", "ok": None, "seed": seed}
            return
        what = f"{name}, LR x{times}, seed {seed}"
        lr = BASE_LR * times
        row = checked(what, partial(train, here, plan, text, name, lr, seed))
        longest = max(longest, time.monotonic() - began)
        yield {"warmup": name, "times": times, "seed": seed, **row}


def train(
    here: Here,
    plan: Plan,
    text: Text,
    warmup: str,
    lr: float,
    seed: int,
    updates: int | None = None,
) -> Row:
    """Trains; the LR falls linearly to 0 over the last 30 % of the run."""
    updates = updates or plan.updates
    torch.manual_seed(seed)
    model = Decoder(text.characters, plan.size).to(here.device)
    draw = torch.Generator(here.device).manual_seed(seed)
    adamw = AdamW(model.parameters(), lr, betas=BETAS, weight_decay=0.1, fused=True)
    optimizer = Warmed(adamw, **WARMUPS[warmup], total_steps=updates)
    scheduler = LambdaLR(
        optimizer, lambda done: min(1.0, (updates - done) / (0.3 * updates))
    )
    losses: list[Tensor] = []
    gap = max(1, updates // 30)  # between two losses that are kept
    began, length = time.perf_counter(), None
    with warnings.catch_warnings():  # where aligned holds is in the record
        warnings.filterwarnings("ignore", "The warmup of param group")
        for update in range(1, updates + 1):
            loss = loss_of(here, model, text.batch(draw))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            if length is None and optimizer.done:
                length = optimizer.param_groups[0].get("warmup_updates", 0)
            if update % gap == 0:
                losses.append(loss.detach())  # read after the run: nothing waits
    with torch.no_grad():
        held_out = [
            loss_of(here, model, batch) for batch in text.validation(plan.validation)
        ]
    final = torch.stack(held_out).mean().item()
    return {
        "loss": round(final, 5),
        "length": length,
        "done_reason": optimizer.done_reason,
        "factor": optimizer.factors[0],
        "training_losses": [round(each, 4) for each in torch.stack(losses).tolist()],
        "parameters": sum(param.numel() for param in model.parameters()),
        "updates": updates,
        "seconds": round(time.perf_counter() - began, 2),
    }


def loss_of(here: Here, model: Decoder, tokens: Tensor) -> Tensor:
    with torch.autocast(here.device, torch.bfloat16, enabled=here.on_cuda):
        loss: Tensor = model(tokens)
    return loss
