"""warmopt and its peers, each around the same optimizer object.

Each is what a training loop calls once per batch, in one function, the bare optimizer
too: what a call costs is in all of them.
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
from warmopt import Adaptive, Warmed
from warmopt.criteria import InverseRootVariance

LONG = 10**9  # updates; no warmup of that length ends here
STEPS = {"warming": LONG, "done": 1}

Wrap = Callable[[Step], Step]
"""Makes a graph or a compiled function of the step of an optimizer, or leaves it."""


class Seat:
    """The shared optimizer as one contender has it, while entered.

    That is what the contender wrote into the groups, and the `step` that it patched,
    as schedulers do.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._groups = [dict(group) for group in optimizer.param_groups]
        for group in self._groups:
            if isinstance(group["lr"], Tensor):  # which some write in place
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
    """The wrapper that one writes first. torch hooks and profiles it, and the inner."""

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
    """One step, then the scheduler's."""

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
    """Ours."""
    if isinstance(optimizer.param_groups[0]["lr"], Tensor):
        steps = min(steps, 10**6)  # the most; no case makes so many
    return bare(Warmed(optimizer, steps=steps), steps, wrap)


def never() -> InverseRootVariance:
    """The default, but no variance is below its threshold.

    The same gradient again settles at once. A class of its own would be read in full.
    """
    criterion = InverseRootVariance()
    object.__setattr__(criterion, "threshold", -1.0)  # which it would refuse
    return criterion


def adaptive(every: int) -> Callable[[Optimizer, int, Wrap], Step]:
    """Ours in adaptive mode, which never settles, so that it goes on reading."""
    mode = Adaptive(never(), every=every)

    def build(optimizer: Optimizer, steps: int, wrap: Wrap) -> Step:
        return bare(Warmed(optimizer, steps=steps, mode=mode), steps, wrap)

    return build


def naive(optimizer: Optimizer, steps: int, wrap: Wrap) -> Step:
    """The wrapper that one writes first."""
    return bare(Naive(optimizer, steps), steps, wrap)


def pytorch_warmup(optimizer: Optimizer, steps: int, wrap: Wrap) -> Step:
    """LinearWarmup alone, as its README has it."""
    from pytorch_warmup import LinearWarmup

    warmup, stepped = LinearWarmup(optimizer, steps), wrap(optimizer.step)

    def step() -> None:
        stepped()
        with warmup.dampening():
            pass

    return step


def pytorch_warmup_cosine(optimizer: Optimizer, steps: int, wrap: Wrap) -> Step:
    """LinearWarmup around a scheduler, its usual use."""
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
    """The warmup that many write by hand."""
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
    """timm's, called with the number of the update as its training script does."""
    if "timm" not in sys.modules:  # its schedulers, without timm and so torchvision
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
    """Hugging Face's schedule in accelerate's wrapper; the optimizer is not wrapped."""
    from accelerate import Accelerator
    from accelerate.optimizer import AcceleratedOptimizer
    from accelerate.scheduler import AcceleratedScheduler
    from transformers import get_linear_schedule_with_warmup

    Accelerator(cpu=True)  # makes the state that they share
    scheduler = AcceleratedScheduler(
        get_linear_schedule_with_warmup(optimizer, steps, 2 * LONG),
        AcceleratedOptimizer(optimizer, device_placement=False),
    )
    return then(wrap(optimizer.step), scheduler.step)


@dataclass(frozen=True)
class Contender:
    """A contender, and where it is measured: in both states of STEPS.

    Attributes:
        build: Called with the optimizer, the length of the warmup in updates and what
            to make of the optimizer's step; returns the step of a training loop.
        few: Whether it runs in every case, or only where all do.
        period: Updates after which its work repeats.
        reads: Whether it needs a second moment; and it ends as the fixed mode does.
    """

    name: str
    build: Callable[[Optimizer, int, Wrap], Step]
    few: bool = False
    period: int = 1
    reads: bool = False

    def runs(self, optimizer: str, state: str) -> bool:
        """Whether there is something to measure."""
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
