"""The table of the README: warmopt beside what people use today.

Each way is the code that a user writes around an optimizer with a cosine schedule. It
is run as it stands here, so the table is made of what really happens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytorch_warmup
import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import SGD
from torch.optim.lr_scheduler import LinearLR, SequentialLR
from transformers import get_cosine_schedule_with_warmup

from tests.support.peers import timm_scheduler
from warmopt import Warmed

N, TOTAL = 4, 1000  # updates of the warmup, and of the run
STEP = "step()\nscheduler.step()"


@dataclass
class Way:
    """A way to warm up.

    Attributes:
        name: As in the table.
        setup: The code before the loop. `optimizer`, `n` and `total` are there, and so
            is `schedule`, which makes a schedule for an optimizer.
        update: The code of an update; `step` steps the optimizer.
    """

    name: str
    setup: str
    update: str = STEP

    @property
    def lines(self) -> int:
        """How many lines it is longer than the same loop without a warmup."""
        return len(f"{self.setup}\n{self.update}".splitlines()) - 3


WAYS = [
    Way(
        "**warmopt**",
        "optimizer = Warmed(optimizer, steps=n)\nscheduler = schedule(optimizer)",
    ),
    Way(
        "pytorch_warmup",
        "scheduler = schedule(optimizer)\n"
        "warmup = pytorch_warmup.LinearWarmup(optimizer, n)",
        "step()\nwith warmup.dampening():\n    scheduler.step()",
    ),
    Way(
        "torch's `SequentialLR`",
        "warmup = LinearLR(optimizer, 1 / n, total_iters=n - 1)\n"
        "scheduler = schedule(optimizer)\n"
        "scheduler = SequentialLR(optimizer, [warmup, scheduler], [n])",
    ),
    Way(
        "transformers",
        "scheduler = get_cosine_schedule_with_warmup(optimizer, n, total)",
    ),
    Way(
        "timm",
        "scheduler = CosineLRScheduler(\n"
        "    optimizer, total, warmup_t=n, t_in_epochs=False)",
        "step()\nupdate += 1\nscheduler.step_update(update)",
    ),
]


def names() -> dict[str, Any]:
    """What the code of a way may use."""
    return {
        "CosineLRScheduler": timm_scheduler().CosineLRScheduler,
        "LinearLR": LinearLR,
        "SequentialLR": SequentialLR,
        "Warmed": Warmed,
        "get_cosine_schedule_with_warmup": get_cosine_schedule_with_warmup,
        "pytorch_warmup": pytorch_warmup,
    }


class Watched(SGD):
    """SGD that notes the learning rate of each of its steps, in `used`."""

    def step(self, closure: Any = None) -> Any:
        vars(self).setdefault("used", []).append(self.param_groups[0]["lr"])
        return super().step(closure)


class Loop:
    """A loop with a way in it.

    Args:
        way: The way.
        schedule: Makes the schedule, if the way takes one.

    Attributes:
        used: The learning rate of each update that was really made.
    """

    def __init__(self, way: Way, schedule: Callable[..., Any]) -> None:
        weight = Parameter(torch.zeros(2))
        self.weight, self._code = weight, compile(way.update, way.name, "exec")
        sgd = Watched([weight], lr=1.0)
        self.used: list[float] = vars(sgd).setdefault("used", [])
        self._names = names() | {"optimizer": sgd, "schedule": schedule}
        self._names |= {"n": N, "total": TOTAL, "update": 0}
        exec(way.setup, self._names)
        self.optimizer: Any = self._names["optimizer"]

    def update(
        self, grad: Tensor | None = None, step: Callable[[], Any] | None = None
    ) -> None:
        """Runs the code of an update, with this in place of `optimizer.step`."""
        self.weight.grad = torch.ones(2) if grad is None else grad
        exec(self._code, {**self._names, "step": step or self.optimizer.step})
        self._names["update"] += 1
