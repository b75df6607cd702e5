"""warmopt and its peers, each around the same optimizer object.

For each there is one function that does what a training loop does once per batch. The
bare optimizer is called through such a function too, so that the cost of the call is
the same for all.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.optim import Optimizer, lr_scheduler

from benchmarks.overhead.timing import Step
from warmopt import Adaptive, Aligned, Warmed
from warmopt.criteria import Steady

LONG = 10**9  # updates: a warmup of this length never ends during a measurement
STEPS = {"warming": LONG, "done": 1}

Wrap = Callable[[Step], Step]
"""Takes the step of an optimizer; returns it as it is, compiled, or as a CUDA graph."""


class Seat:
    """Lets many contenders use the same optimizer, one after the other.

    While it is entered, the optimizer is as this contender left it: with the values
    that the contender wrote into the param groups, and with the `step` that it
    replaced, as schedulers do. On leaving, both are put away until the next time.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._groups = [dict(group) for group in optimizer.param_groups]
        for group in self._groups:
            if isinstance(group["lr"], Tensor):  # which some contenders change in place
                group["lr"] = group["lr"].clone()
        self._patch: dict[str, Any] = {}

    def _swap(self) -> None:
        for group, kept in zip(self._optimizer.param_groups, self._groups, strict=True):
            live = dict(group)
            group.clear()
            group.update(kept)
            kept.clear()
            kept.update(live)
        here = vars(self._optimizer)
        live = {"step": here.pop("step")} if "step" in here else {}
        here.update(self._patch)
        self._patch = live

    def __enter__(self) -> None:
        self._swap()

    def __exit__(self, *_: object) -> None:
        self._swap()


class Naive(Optimizer):
    """The simplest wrapper. torch runs hooks twice: for it and for the inner one."""

    def __init__(self, optimizer: Optimizer, steps: int) -> None:
        super().__init__(optimizer.param_groups, optimizer.defaults)
        self.optimizer, self.steps, self.updates = optimizer, steps, 0

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        self.updates += 1
        factor = min(1.0, self.updates / self.steps)
        bases = [group["lr"] for group in self.param_groups]
        for group in self.param_groups:
            group["lr"] *= factor
        try:
            return self.optimizer.step(closure)
        finally:
            for group, base in zip(self.param_groups, bases, strict=True):
                group["lr"] = base


def then(step: Step, after: Step) -> Step:
    """Returns a function that calls the step, then `after`."""

    def both() -> None:
        step()
        after()

    return both


def bare(optimizer: Optimizer, steps: int, wrap: Wrap) -> Step:
    """The optimizer alone."""
    stepped = wrap(optimizer.step)

    def step() -> None:
        stepped()

    return step


def warmopt(optimizer: Optimizer, steps: int, wrap: Wrap) -> Step:
    """Our fixed mode."""
    if isinstance(optimizer.param_groups[0]["lr"], Tensor):
        steps = min(steps, 10**6)  # the most that is allowed; no case runs so long
    return bare(Warmed(optimizer, steps=steps), steps, wrap)


def never() -> Steady:
    """The default criterion, with a share of elements that is never reached.

    Here all gradients are the same, so the real criterion would end the warmup at once.
    This cannot be a new class: for a class that it does not know, warmopt reads more.
    """
    criterion = Steady()
    object.__setattr__(criterion, "quantile", 2.0)  # the class itself would refuse it
    return criterion


def adaptive(every: int) -> Callable[[Optimizer, int, Wrap], Step]:
    """Our adaptive mode. It never settles, so it goes on taking readings."""
    mode = Adaptive(never(), every=every)

    def build(optimizer: Optimizer, steps: int, wrap: Wrap) -> Step:
        return bare(Warmed(optimizer, steps=steps, mode=mode), steps, wrap)

    return build


def aligned(optimizer: Optimizer, steps: int, wrap: Wrap) -> Step:
    """Our aligned mode. It hardly climbs and never stalls, so it goes on reading."""
    mode = Aligned(gain=1e-9, stall=LONG, threshold=-0.9)
    return bare(Warmed(optimizer, steps=steps, mode=mode), steps, wrap)


def naive(optimizer: Optimizer, steps: int, wrap: Wrap) -> Step:
    """The simplest wrapper, written by hand."""
    return bare(Naive(optimizer, steps), steps, wrap)


def pytorch_warmup(optimizer: Optimizer, steps: int, wrap: Wrap) -> Step:
    """LinearWarmup alone, used as in its README."""
    from pytorch_warmup import LinearWarmup

    warmup, stepped = LinearWarmup(optimizer, steps), wrap(optimizer.step)

    def step() -> None:
        stepped()
        with warmup.dampening():
            pass

    return step


def pytorch_warmup_cosine(optimizer: Optimizer, steps: int, wrap: Wrap) -> Step:
    """LinearWarmup around a scheduler, which is how it is used most."""
    from pytorch_warmup import LinearWarmup

    scheduler = lr_scheduler.CosineAnnealingLR(optimizer, LONG)
    warmup, stepped = LinearWarmup(optimizer, steps), wrap(optimizer.step)

    def step() -> None:
        stepped()
        with warmup.dampening():
            scheduler.step()

    return step


def linear_lr(optimizer: Optimizer, steps: int, wrap: Wrap) -> Step:
    """torch's own warmup."""
    scheduler = lr_scheduler.LinearLR(optimizer, total_iters=steps)
    return then(wrap(optimizer.step), scheduler.step)


def lambda_lr(optimizer: Optimizer, steps: int, wrap: Wrap) -> Step:
    """The warmup that many people write by hand."""
    scheduler = lr_scheduler.LambdaLR(optimizer, lambda t: min(1.0, (t + 1) / steps))
    return then(wrap(optimizer.step), scheduler.step)


def sequential_lr(optimizer: Optimizer, steps: int, wrap: Wrap) -> Step:
    """torch's warmup and decay."""
    parts = [
        lr_scheduler.LinearLR(optimizer, total_iters=steps),
        lr_scheduler.CosineAnnealingLR(optimizer, LONG),
    ]
    scheduler = lr_scheduler.SequentialLR(optimizer, parts, milestones=[steps])
    return then(wrap(optimizer.step), scheduler.step)


def transformers_linear(optimizer: Optimizer, steps: int, wrap: Wrap) -> Step:
    """Hugging Face's default schedule: warmup and decay."""
    from transformers import get_linear_schedule_with_warmup

    scheduler = get_linear_schedule_with_warmup(optimizer, steps, 2 * LONG)
    return then(wrap(optimizer.step), scheduler.step)


def timm_cosine(optimizer: Optimizer, steps: int, wrap: Wrap) -> Step:
    """timm's schedule, called with the number of the update, as timm itself does."""
    # Loads only the schedulers of timm: all of timm would need torchvision.
    if "timm" not in sys.modules:
        spec = importlib.util.find_spec("timm")
        if spec is None:
            raise ModuleNotFoundError("No module named 'timm'")
        sys.modules["timm"] = importlib.util.module_from_spec(spec)
    from timm.scheduler import CosineLRScheduler

    scheduler = CosineLRScheduler(
        optimizer, 2 * LONG, warmup_t=steps, t_in_epochs=False, warmup_lr_init=1e-6
    )
    stepped, updates = wrap(optimizer.step), 0

    def step() -> None:
        nonlocal updates
        stepped()
        updates += 1
        scheduler.step_update(updates)

    return step


def accelerate_linear(optimizer: Optimizer, steps: int, wrap: Wrap) -> Step:
    """Hugging Face's schedule in accelerate's wrapper, around a plain optimizer."""
    from accelerate import Accelerator
    from accelerate.optimizer import AcceleratedOptimizer
    from accelerate.scheduler import AcceleratedScheduler
    from transformers import get_linear_schedule_with_warmup

    Accelerator(cpu=True)  # creates the state that both classes need
    scheduler = AcceleratedScheduler(
        get_linear_schedule_with_warmup(optimizer, steps, 2 * LONG),
        AcceleratedOptimizer(optimizer, device_placement=False),
    )
    return then(wrap(optimizer.step), scheduler.step)


@dataclass(frozen=True)
class Contender:
    """Something to measure, in both states of STEPS where that makes sense.

    Attributes:
        build: Called with the optimizer, the length of the warmup in updates, and a
            `Wrap` for the optimizer's step; returns the step of a training loop.
        few: True if it runs in every case, False if only in those with all contenders.
        period: Updates after which its work repeats.
        reads: Whether it needs Adam or the like. Such a contender is measured only
            while it warms; after that it does the same as the fixed mode.
    """

    name: str
    build: Callable[[Optimizer, int, Wrap], Step]
    few: bool = False
    period: int = 1
    reads: bool = False

    def runs(self, optimizer: str, state: str) -> bool:
        """Whether it can be measured with this optimizer in this state."""
        return not self.reads or (
            optimizer in ("adam", "adamw", "rmsprop") and state == "warming"
        )


CONTROL = "bare again (control)"
OURS = "warmopt"
PEER = "pytorch_warmup LinearWarmup"

CONTENDERS = [
    Contender(OURS, warmopt, few=True),
    *(
        Contender(f"{OURS}, adaptive k={k}", adaptive(k), k == 5, period=k, reads=True)
        for k in (5, 16, 64)
    ),
    Contender(f"{OURS}, aligned", aligned, few=True, reads=True),
    Contender(PEER, pytorch_warmup, few=True),
    Contender("pytorch_warmup + CosineAnnealingLR", pytorch_warmup_cosine),
    Contender("LinearLR", linear_lr),
    Contender("LambdaLR", lambda_lr),
    Contender("SequentialLR", sequential_lr),
    Contender("transformers linear schedule", transformers_linear),
    Contender("timm step_update", timm_cosine),
    Contender("accelerate AcceleratedScheduler", accelerate_linear),
    Contender("naive Optimizer subclass", naive),
]
