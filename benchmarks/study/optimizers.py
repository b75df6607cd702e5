"""The optimizers of the study, by name, with the options that a name stands for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytorch_optimizer
import torch
import torch_optimizer
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer


class Clipped(torch.optim.Adam):
    """Adam, whose gradients are clipped to a global norm of 1."""

    def step(self, closure: Any = None) -> Any:
        clip_grad_norm_([p for g in self.param_groups for p in g["params"]], 1.0)
        return super().step(closure)


class AdamHD(torch.optim.Adam):
    """Adam with hypergradient descent (Baydin et al., 2018), 1e-8 as they have it.

    What it adds to the LR is beside `lr`, which the schedule sets.
    """

    HYPER = 1e-8

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.added = 0.0
        self.last: list[Any] = []

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        params = [p for g in self.param_groups for p in g["params"]]
        if len(self.last) == len(params):
            self.added += self.HYPER * sum(
                float((p.grad * u).sum())
                for p, u in zip(params, self.last, strict=True)
                if p.grad is not None
            )
        bases = [group["lr"] for group in self.param_groups]
        before = [p.clone() for p in params]
        used = [max(base + self.added, 0.0) for base in bases]
        for group, lr in zip(self.param_groups, used, strict=True):
            group["lr"] = lr
        result = super().step(closure)
        for group, base in zip(self.param_groups, bases, strict=True):
            group["lr"] = base
        by = max(used[0], 1e-12)
        self.last = [(b - p) / by for b, p in zip(before, params, strict=True)]
        return result


def muon(groups: list[dict[str, Any]], lr: float) -> Optimizer:
    """Muon for matrices; all else has AdamW at a tenth of the LR."""
    params = [p for group in groups for p in group["params"]]
    split = [
        {"params": [p for p in params if (p.ndim == 2) is yes], "use_muon": yes}
        for yes in (True, False)
    ]
    found: Optimizer = pytorch_optimizer.Muon(split, lr=lr, adamw_lr=lr / 10)
    return found


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "Adam": torch.optim.Adam,
    "AdamW": torch.optim.AdamW,
    "RMSprop": torch.optim.RMSprop,
    "NAdam": torch.optim.NAdam,
    "RAdam": torch.optim.RAdam,
    "Yogi": torch_optimizer.Yogi,
    "AdaBelief": torch_optimizer.AdaBelief,
    "LAMB": torch_optimizer.Lamb,
    "AdamW, decay 0.1": partial(torch.optim.AdamW, weight_decay=0.1),
    "Adam, beta1 0": partial(torch.optim.Adam, betas=(0.0, 0.99)),
    "Adam, beta1 0.98": partial(torch.optim.Adam, betas=(0.98, 0.99)),
    "Adam, clipped at 1": Clipped,
    "StableAdamW": partial(pytorch_optimizer.StableAdamW, weight_decay=0.0),
    "AdamHD": AdamHD,
    "Prodigy": pytorch_optimizer.Prodigy,
    "Lion": pytorch_optimizer.Lion,
    "Muon": muon,
    "SGD": partial(torch.optim.SGD, momentum=0.9),
}
