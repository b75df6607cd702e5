"""Code as users write it, for the type checkers; nothing in here is run.

A line with `# type: ignore` is a mistake that a checker must find. If it does not, it
complains about a comment that ignores nothing.
"""
# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler

from warmopt import Adaptive, AfterWarmup, Aligned, Trace, Warmed, replay
from warmopt.criteria import Drift, NormRatio, Reading, UpdateRMS
from warmopt.shapes import polynomial
from warmopt.warmed import ModeName


@dataclass
class Config:
    """Of a training script; editors complete the modes here too."""

    mode: ModeName = "cosine"
    steps: int | float = 0.1


def fixed(adamw: torch.optim.AdamW, config: Config) -> LRScheduler:
    Warmed(adamw, 1000)
    Warmed(adamw, steps=1000, mode="staircase", start=0.1, offset=1)
    Warmed(adamw, steps=config.steps, mode=config.mode, total_steps=10_000)
    Warmed(adamw, mode="untuned_linear", momentum_start=0.9)
    Warmed(adamw, steps=9, mode=lambda t, n: t / n)
    Warmed(adamw, steps=9, mode=partial(polynomial, power=3))
    Warmed([adamw, adamw], steps=9)
    Warmed(adamw, steps=9, mode="liner")  # type: ignore[arg-type]
    Warmed(adamw, steps="9")  # type: ignore[arg-type]
    Warmed(adamw.param_groups, steps=9)  # type: ignore[arg-type]
    Warmed(adamw, steps=9, warmup="linear")  # type: ignore[call-arg]

    made = Warmed.of(torch.optim.AdamW, steps=9, mode="cosine")
    late: Warmed = made(adamw.param_groups, lr=1e-3)
    made(adamw.param_groups, lrs=1e-3)  # type: ignore[call-arg]
    Warmed.of(torch.optim.AdamW, steps="9")  # type: ignore[arg-type]
    assert late.wrapped

    optimizer: torch.optim.Optimizer = Warmed(adamw, steps=9)
    return AfterWarmup(CosineAnnealingLR(optimizer, T_max=100))


def every_update(optimizer: Warmed) -> tuple[list[float], bool, str | None]:
    optimizer.step()
    optimizer.step(lambda: 0.0)
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.add_param_group({"params": [torch.zeros(1)], "warmup_steps": 5})
    optimizer.rewarm(steps=10, groups=[-1])
    optimizer.rewarm(groups=0)  # type: ignore[arg-type]
    bare: torch.optim.Optimizer = optimizer.wrapped
    bare.zero_grad()
    logged = {f"lr/{i}": float(lr) for i, lr in enumerate(optimizer.get_last_lr())}
    assert logged
    return optimizer.factors, optimizer.done, optimizer.done_reason


def still(reading: Reading) -> bool:
    return reading.update > 50 and max(reading.drifts) < 0.1


def adaptive(adamw: torch.optim.AdamW) -> int | None:
    trace = Trace()
    norm, rms = NormRatio(orientation="two_sided"), UpdateRMS()
    both = Adaptive(criterion=lambda reading: norm(reading) and rms(reading))
    Warmed(adamw, steps=1000, mode=both, watch=[Drift(), still], trace=trace)
    Warmed(adamw, mode=Adaptive(still, shape="cosine", on_settled="ramp", fast=50))
    Adaptive(second_moment=lambda param, state, group: state.get("nu"))
    Adaptive(shape="adaptive")  # type: ignore[arg-type]
    Adaptive(on_settled="stop")  # type: ignore[arg-type]
    Adaptive(Drift)  # type: ignore[arg-type]
    Drift(by="size")  # type: ignore[arg-type]

    Warmed(adamw, 1000, "aligned")
    climb = Aligned(rule="E1", signal="adam", lag=0, threshold=0.05)
    Warmed(adamw, 1000, climb)
    Aligned(signal="loss")  # type: ignore[arg-type]
    factors: list[float] = replay(trace, climb).factors
    assert factors

    updates = [row["update"] for row in trace]
    assert len(updates) == len(trace.readings())
    return replay(trace, Drift(tol=0.1), on_settled="end").end
