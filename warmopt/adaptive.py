"""Adaptive warmup: a fixed shape that is walked faster once the second moment settles.

Everything here is pure: a `Reading` of the optimizer's state comes in, and a position
in the ramp goes out. So a run can be replayed from its trace.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, ClassVar, Literal, get_args

from warmopt._keys import FAST, SETTLED, UPDATES, Group
from warmopt._pace import Pace, Ramp, Sampling
from warmopt.criteria import Criterion, InverseRootVariance, Reading, Steady, name_of
from warmopt.shapes import MODES, FixedMode

__all__ = ["Adaptive", "OnSettled", "check_criterion", "verdict"]

OnSettled = Literal["accelerate", "ramp", "end"]


@dataclass(frozen=True)
class Adaptive(Pace):
    r"""Warms up along a shape, and ends early once the second moment has settled.

    `steps` of `Warmed` is the cap: a warmup that never settles is the fixed warmup of
    that length, to the bit. If you leave it out, it is :math:`2 / (1 - \beta_2)`, as
    for `untuned_linear`. Every `every` updates a sample of the second moment is taken.
    The criterion judges it at the next reading, so the host never waits for the device.

    It stops a warmup that was set too long. It cannot find the right length: the second
    moment does not know the full LR. So "settled" does not mean that the full LR is
    safe, and no rule like this has beaten a well-chosen fixed length.

    Args:
        criterion: Says from a `Reading` whether the second moment has settled. The
            default, `every` and `window` are one tested preset: the rule is partly a
            clock of every x window updates. `InverseRootVariance` was the default
            before 0.2; it reads less and takes steady growth for "settled".
        shape: Name of a fixed mode, or a function, as `mode` of `Warmed`. Once the
            fast pace has begun, it is called between whole updates too.
        on_settled: "accelerate": while it is settled, every update advances the ramp
            by 1/fast instead of 1/steps. If a later reading is not settled, the slow
            pace returns.
            "ramp": from the first settled reading on, to factor 1 over `fast` updates.
            "end": from the first settled reading on, factor 1.
        fast: Length of the fast pace in updates; by default that of `fast_updates`.
        every: Updates between readings.
        window: Readings that a statistic looks back on, the newest included.
        per_group: Whether each param group decides alone. By default the groups that
            began together share one verdict, so the ratio of their LRs is kept.
        second_moment: Where to find it, if warmopt cannot: a key of the optimizer's
            state, or a function (param, state, group) -> tensor or None. For a DTensor
            it must give a DTensor.
        process_group: The ranks that hold the shards, if these are plain tensors
            (FSDP1, ZeroRedundancyOptimizer). DTensors (FSDP2) know it themselves. All
            ranks must build, load and rewarm together. A resumed run then fills its
            window again; its progress is exact.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: A value is not allowed.

    Example:
        >>> Adaptive(on_settled="ramp", fast=50).fast_updates(1000)
        50
    """

    criterion: Criterion = Steady()  # noqa: RUF009 (it is frozen)
    shape: FixedMode | Callable[..., float] = "linear"
    on_settled: OnSettled = "accelerate"
    fast: int | None = None
    every: int = 5
    window: int = 5
    per_group: bool = False
    second_moment: str | Callable[..., Any] | None = None
    process_group: Any = None

    keys: ClassVar[tuple[str, ...]] = (FAST, SETTLED)
    is_cap: ClassVar[bool] = True
    on_device: ClassVar[bool] = False  # it decides on the host

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
        """The number of fast updates, once the next update is done."""
        latched = self.on_settled != "accelerate" and fast_done > 0
        return fast_done + (settled or latched)

    def position(self, update: int, fast_done: int, steps: float, last: float) -> float:
        """The position of an update in the ramp.

        The fixed warmup has the same factor at the update of that number.

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
            # A ramp that begins late must not take longer than the cap.
            return max(slow + (last - slow) * min(fast_done / fast, 1.0), update)
        return slow + fast_done * steps / fast  # in this order, exact at the end

    # --- what `Pace` asks ------------------------------------------------------------

    @property
    def sampling(self) -> Sampling:
        """How the second moment is read."""
        return Sampling(
            self.every,
            self.window,
            self.per_group,
            self.second_moment,
            self.process_group,
            # A subclass of one of these two may look at more than it does.
            in_full=type(self.criterion) is not InverseRootVariance,
            with_momentum=type(self.criterion) not in (InverseRootVariance, Steady),
        )

    def mode(self, shape: str) -> str:
        """The name of the mode, which is saved: adaptive(shape)."""
        return f"adaptive({shape})"

    def begin(self, group: Group) -> None:
        """Starts at the slow pace."""
        group.setdefault(FAST, 0)
        group.setdefault(SETTLED, False)

    def check(self, group: Group, name: str) -> None:
        """Raises TypeError or ValueError if the count or the verdict is wrong."""
        updates = int(group[UPDATES])
        fast, settled = group.get(FAST, 0), group.get(SETTLED, False)
        if type(fast) is not int:
            raise TypeError(f"{FAST} of {name} must be an int, got {fast!r}.")
        if not 0 <= fast <= updates:
            raise ValueError(
                f"{FAST} of {name} must be in [0, {UPDATES}], got {fast} of {updates}."
            )
        if type(settled) is not bool:
            raise TypeError(f"{SETTLED} of {name} must be a bool, got {settled!r}.")

    def follow(self, group: Group, ramp: Ramp) -> Callable[[int], float]:
        """Returns the function from an update to the factor at its position."""
        steps, last, within = ramp.steps, ramp.last, ramp.formula()

        def factor(update: int) -> float:
            fast = self.next_fast(group[FAST], group[SETTLED])
            position = self.position(update, fast, steps, last)
            return within(position) if position <= last else 1.0

        return factor

    def is_over(self, group: Group, ramp: Ramp) -> bool:
        """Whether the position has reached the end of the ramp."""
        done, fast = int(group[UPDATES]), group.get(FAST, 0)
        return self.position(done, fast, ramp.steps, ramp.last) >= ramp.last

    def done_reason(self, group: Group, ramp: Ramp) -> str:
        """Returns "settled" if the warmup ended before its cap, else "cap"."""
        is_early = group.get(FAST) and int(group[UPDATES]) < ramp.last
        return "settled" if is_early else "cap"

    def needs_every_update(self, group: Group) -> bool:
        """Whether the pace is fast, now or before: then each update counts for it."""
        return bool(group[FAST] or group[SETTLED])

    def counted(self, group: Group) -> None:
        """Adds 1 to the fast updates, if the update ran at the fast pace."""
        group[FAST] = self.next_fast(group[FAST], group[SETTLED])

    def judge(self, groups: Sequence[Group], reading: Reading) -> bool:
        """Sets the pace of the next updates; returns whether it has settled."""
        settled = verdict(self.criterion, reading)
        for group in groups:
            group[SETTLED] = settled
        return settled

    def recorded(self) -> dict[str, Any]:
        """What a `Trace` notes of the pace."""
        name = name_of(self.criterion)
        return {"criterion": name, "on_settled": self.on_settled, "fast": self.fast}


def verdict(criterion: Criterion, reading: Reading) -> bool:
    """The answer of a criterion. Raises a TypeError if it is not yes or no."""
    said: Any = criterion(reading)
    if said is None or isinstance(said, str):
        raise TypeError(
            f"criterion {name_of(criterion)} must return a bool, got {said!r}."
            + (" Is a return missing?" if said is None else "")
        )
    return bool(said)


def check_criterion(name: str, criterion: object) -> None:
    """Raises a TypeError that names the argument, if it is not a criterion."""
    # A class is callable too, but the object that it makes would always be true.
    if isinstance(criterion, type) or not callable(criterion):
        raise TypeError(
            f"{name} must be a function of a Reading, got {criterion!r}. Use one of "
            "warmopt.criteria, as Drift()."
        )
