"""A small model with fixed gradients, its twin without a warmup, and every mode.

The twin is torch alone: the same optimizer with its learning rate set by hand. What
`Warmed` does must equal it to the bit.
"""

from __future__ import annotations

from functools import cache
from typing import Any, get_args

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import SGD, AdamW

from benchmarks.gpu.rows import CheckError
from warmopt import Warmed
from warmopt.shapes import MODES
from warmopt.warmed import ModeName

NAMES: tuple[str, ...] = get_args(ModeName)
BETAS = (0.9, 0.7)  # so small that the lengths that follow from beta2 are short
STEPS, LR, SHAPES = 6, 1e-2, ((64, 32), (64,), (3, 64))


def is_fixed(mode: str) -> bool:
    """Whether the factors follow from the number of the update alone."""
    return mode in MODES


def warmed(optimizer: torch.optim.Optimizer, mode: str, steps: int = STEPS) -> Warmed:
    own = mode in MODES and MODES[mode].steps_from_beta2 is not None
    return Warmed(optimizer, None if own else steps, mode)  # type: ignore[arg-type]


@cache
def factors(mode: str, steps: int = STEPS) -> tuple[float, ...]:
    """The factors of a fixed mode, from the first update to the last of the warmup."""
    weight = Parameter(torch.zeros(1))
    weight.grad = torch.ones(1)
    counted, found = warmed(AdamW([weight], betas=BETAS), mode, steps), []
    while not counted.done:
        found += counted.factors
        counted.step()
    return tuple(found)


class Training:
    """Parameters with a gradient for each update, and an optimizer.

    Args:
        options: Those of AdamW; `optimizer="sgd"` makes it SGD with momentum.
        tensor_lr: Whether the LR is a tensor on the device.
    """

    def __init__(self, device: str, options: dict[str, Any], tensor_lr: bool) -> None:
        draw = torch.Generator().manual_seed(0)
        self.params = [
            Parameter(torch.randn(shape, generator=draw).to(device)) for shape in SHAPES
        ]
        self.grads = [torch.randn(param.shape, generator=draw) for param in self.params]
        self.grads = [grad.to(device) for grad in self.grads]
        for param in self.params:
            param.grad = torch.zeros_like(param)
        lr: Any = torch.tensor(LR, device=device) if tensor_lr else LR
        options = dict(options)
        kind = options.pop("optimizer", "adamw")
        self.optimizer: Any = (
            SGD(self.params, lr, momentum=0.9, **options)
            if kind == "sgd"
            else AdamW(self.params, lr, betas=BETAS, **options)
        )

    def set_grads(self, update: int) -> None:
        """Writes in place, so that a captured graph sees it; waits for nothing."""
        for param, grad in zip(self.params, self.grads, strict=True):
            assert param.grad is not None
            torch.mul(grad, 1.0 + update % 5, out=param.grad)

    def step_at(self, factor: float) -> None:
        """A step of the bare optimizer at its LR times the factor."""
        [group] = self.optimizer.param_groups
        base = group["lr"]
        group["lr"] = base * factor
        self.optimizer.step()
        group["lr"] = base

    def values(self) -> list[Tensor]:
        """The parameters and the states, copied."""
        state = self.optimizer.state
        of_params = [[p, *state[p].values()] for p in self.params]
        flat = [each for own in of_params for each in own]
        return [each.detach().clone() for each in flat if isinstance(each, Tensor)]


def check_same(ours: Training, twin: Training, update: int) -> None:
    """Raises an error unless both are equal to the bit."""
    for one, other in zip(ours.values(), twin.values(), strict=True):
        if not torch.equal(one, other):
            apart = (one - other).abs().max().item()
            raise CheckError(
                f"after update {update} it differs from its twin by {apart:g}"
            )
