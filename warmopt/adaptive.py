"""Adaptive warmup: a fixed shape that is walked faster once the second moment settles.

Pure: what the optimizer's state says comes in as a `Reading`, and out goes a position
in the ramp. So a run can be replayed from its trace.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal, get_args

from warmopt.criteria import Criterion, InverseRootVariance
from warmopt.shapes import MODES, FixedMode

__all__ = ["Adaptive", "OnSettled", "check_criterion"]

OnSettled = Literal["accelerate", "ramp", "end"]


@dataclass(frozen=True)
class Adaptive:
    r"""Warms up along a shape, and ends early once the second moment has settled.

    `steps` of `Warmed` is the cap: a warmup that never settles is the fixed one of that
    length, to the bit. Left out, it is :math:`2 / (1 - \beta_2)`, that of
    `untuned_linear`. Every `every` updates a sample of the second moment is taken; the
    criterion judges it at the next reading, so that nobody waits for the device.

    What it does: it stops a warmup that was set too long. What it cannot do: the second
    moment does not know the peak LR, so "settled" does not mean that the full LR is
    safe, and no rule like this has beaten a well-chosen fixed length.

    Args:
        criterion: Says from a `Reading` whether the second moment has settled. The
            default, `every` and `window` are one tested preset: the rule is partly a
            clock of every x window updates.
        shape: Name of a fixed mode, or a function, as `mode` of `Warmed`; once the
            fast pace has begun, it is asked between whole updates too.
        on_settled: "accelerate": while it is settled, every update advances the ramp
            by 1/fast in place of 1/steps; back to the slow pace where it is not.
            "ramp": from the first settled reading, to factor 1 over `fast` updates.
            "end": from the first settled reading, factor 1.
        fast: Length of the fast pace in updates; by default that of `fast_updates`.
        every: Updates between readings.
        window: Readings that a statistic looks back on, the newest included.
        per_group: Whether each param group decides alone. By default those that began
            together share one verdict, so that the ratio of their LRs is kept.
        second_moment: Where to find it, if warmopt cannot: a key of the optimizer's
            state, or a function (param, state, group) -> tensor or None; of a DTensor
            a DTensor.
        process_group: The ranks that hold the shards, where these are plain tensors
            (FSDP1, ZeroRedundancyOptimizer). DTensors (FSDP2) know it themselves. All
            of them must build, load and rewarm together. A resumed run then fills its
            window anew; its progress is exact.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: A value is not allowed.

    Example:
        >>> Adaptive(on_settled="ramp", fast=50).fast_updates(1000)
        50
    """

    criterion: Criterion = InverseRootVariance()  # noqa: RUF009 (it is frozen)
    shape: FixedMode | Callable[..., float] = "linear"
    on_settled: OnSettled = "accelerate"
    fast: int | None = None
    every: int = 5
    window: int = 5
    per_group: bool = False
    second_moment: str | Callable[..., Any] | None = None
    process_group: Any = None

    def __post_init__(self) -> None:
        check_criterion("criterion", self.criterion)
        if self.on_settled not in get_args(OnSettled):
            raise ValueError(
                f"on_settled must be one of {', '.join(get_args(OnSettled))}, got "
                f"{self.on_settled!r}."
            )
        for name, least in (("fast", 1), ("every", 1), ("window", 2)):
            value = getattr(self, name)
            if name == "fast" and value is None:
                continue
            if not isinstance(value, Integral) or isinstance(value, bool):
                raise TypeError(f"{name} must be an int, got {value!r}.")
            if value < least:
                raise ValueError(f"{name} must be >= {least}, got {value}.")
            object.__setattr__(self, name, int(value))  # numpy's are no plain numbers
        is_name = isinstance(self.shape, str)
        if not (self.shape in MODES if is_name else callable(self.shape)):
            raise (ValueError if is_name else TypeError)(
                f"shape must be a fixed mode, one of {', '.join(MODES)}, or a function "
                f"of (update, steps), got {self.shape!r}."
            )

    def fast_updates(self, steps: float) -> float:
        """Updates of the whole ramp at the fast pace: never more than `steps`.

        By default a third of the cap, at most 100.
        """
        fast = min(math.ceil(steps / 3), 100) if self.fast is None else self.fast
        return min(fast, steps)

    def next_fast(self, fast_done: int, settled: bool) -> int:
        """How many updates will have run at the fast pace after the next one."""
        latched = self.on_settled != "accelerate" and fast_done > 0
        return fast_done + (settled or latched)

    def position(self, update: int, fast_done: int, steps: float, last: float) -> float:
        """Where in the ramp an update is: the update of the fixed warmup like it.

        Args:
            update: Its number, counted from 1.
            fast_done: How many updates have run at the fast pace, this one included.
            steps: Length of the ramp in updates.
            last: Update after which the fixed warmup is over.
        """
        slow = update - fast_done
        if not fast_done:
            return update
        if self.on_settled == "end":
            return math.inf
        fast = self.fast_updates(steps)
        if self.on_settled == "ramp":
            # One that begins late must not outlast the cap.
            return max(slow + (last - slow) * min(fast_done / fast, 1.0), update)
        return slow + fast_done * steps / fast  # in this order, exact at the end


def check_criterion(name: str, criterion: object) -> None:
    """Raises a TypeError that names the argument, where it is none."""
    # Of a class, what it made of a reading would be true.
    if isinstance(criterion, type) or not callable(criterion):
        raise TypeError(
            f"{name} must be a function of a Reading, got {criterion!r}. Use one of "
            "warmopt.criteria, as Drift()."
        )
