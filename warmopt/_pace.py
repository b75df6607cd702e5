"""The ramp that a param group follows, and the pace at which it does.

A `Ramp` knows the factor at every position. A `Pace` knows which position an update
has. What it must remember between two updates stands in the group, under keys of its
own, so that it is saved and loaded with the group.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from warmopt._keys import UPDATES, Group
from warmopt.criteria import Reading
from warmopt.shapes import Shape

__all__ = ["Pace", "Ramp", "Sampling"]


@dataclass(frozen=True, slots=True, eq=False)
class Ramp:
    """A shape with its length: the factor of the learning rate at every position.

    Attributes:
        shape: The formula, (update, steps, start) -> factor, as in `warmopt.shapes`.
        steps: Length in updates.
        start: Factor at position 0, dimensionless.
        offset: Number of updates at the beginning that run at `start`.
        last: Position at which the ramp ends, in updates.
    """

    shape: Shape
    steps: float
    start: float
    offset: int
    last: int

    def formula(self) -> Callable[[float], float]:
        """Returns the function from a position, up to `last`, to the factor.

        The factor of update 1 is at position 1. A step calls this function, so it looks
        nothing up.
        """
        shape, steps, start, offset = self.shape, self.steps, self.start, self.offset

        def factor(position: float) -> float:
            return shape(position, steps, start)

        def factor_with_offset(position: float) -> float:
            ramped = position - offset
            return shape(ramped, steps, start) if ramped > 0 else start

        return factor_with_offset if offset else factor

    def factor(self, position: float) -> float:
        """The factor at any position; after the end it is 1."""
        return self.formula()(position) if position <= self.last else 1.0


@dataclass(frozen=True, slots=True)
class Sampling:
    """What a pace reads, and how.

    Attributes:
        every: Updates between two readings.
        window: Readings that a statistic looks back on.
        per_group: Whether each param group is read and judged alone.
        second_moment: Where it is, if warmopt cannot find it: see `Adaptive`.
        process_group: The ranks that hold the shards: see `Adaptive`.
        in_full: Whether more of a `Reading` is needed than `inverse_root_variance`.
        with_momentum: Whether `update_rms` is needed, if it is read in full.
        signal: How the new gradient is compared with the last step, see `Aligned`. If
            None, the second moment is read.
        lag: Updates until a comparison is used: 0 or 1.
    """

    every: int = 5
    window: int = 5
    per_group: bool = False
    second_moment: str | Callable[..., Any] | None = None
    process_group: Any = None
    in_full: bool = True
    with_momentum: bool = True
    signal: Any = None
    lag: int = 1


class Pace:
    """How a param group walks its ramp.

    This is the fixed pace, which advances one position per update.

    Other paces are subclasses, which replace what differs. The rest of the package only
    calls these methods and never asks which pace it is. A pace may walk the ramp
    faster, or give the factor itself without a ramp, and it may end below 1.

    Attributes:
        shape: The shape that is walked: a name or a function, as `mode` of `Warmed`.
        keys: The entries of a param group that the pace keeps.
        is_cap: Whether `steps` is only the most that the warmup may take.
        on_device: Whether the warmup of a tensor LR needs nothing from the host. Then
            all its numbers are tensors, and a CUDA graph can replay it.
        has_table: Whether the factor follows from the count alone.
        has_start: Whether `start` and `offset` of `Warmed` mean something.
    """

    shape: Any = "linear"
    keys: ClassVar[tuple[str, ...]] = ()
    is_cap: ClassVar[bool] = False
    on_device: ClassVar[bool] = True
    has_start: ClassVar[bool] = True
    has_table: ClassVar[bool] = True

    @property
    def sampling(self) -> Sampling | None:
        """What is read; None where the pace needs nothing."""
        return None

    def mode(self, shape: str) -> str:
        """The name of the mode, which is saved; `shape` is the name of the shape."""
        return shape

    def begin(self, group: Group) -> None:
        """Sets those of its keys that the group does not have yet."""

    def check(self, group: Group, name: str) -> None:
        """Raises TypeError or ValueError if one of its keys has a wrong value.

        Args:
            group: A param group in which a warmup has begun.
            name: What the group is called in the error.
        """

    def follow(self, group: Group, ramp: Ramp) -> Callable[[int], float]:
        """Returns the function from an update's number (the first is 1) to its factor.

        It is kept for many updates, so it reads the group's own keys when it is called.
        """
        return ramp.formula()

    def is_over(self, group: Group, ramp: Ramp) -> bool:
        """Whether the warmup is over after the updates that the group has done."""
        return int(group[UPDATES]) >= ramp.last

    def held(self, group: Group) -> float:
        """The factor after the warmup. If it is not 1, later steps are scaled by it."""
        return 1.0

    def done_reason(self, group: Group, ramp: Ramp) -> str:
        """Why a warmup that is over has ended."""
        return "cap"

    def needs_every_update(self, group: Group) -> bool:
        """Whether `counted` must be called after every update, not just at readings."""
        return False

    def counted(self, group: Group) -> None:
        """Takes note of an update that has just been counted in the group."""

    def reads(self, group: Group) -> bool:
        """Whether readings are still of use to a group that warms."""
        return True

    def judge(self, groups: Sequence[Group], reading: Reading) -> bool | None:
        """Takes note of a reading of some groups; returns its verdict, if any."""
        return None

    def recorded(self) -> dict[str, Any]:
        """What a `Trace` notes: the name of what acts, `on_settled` and `fast`."""
        return {"criterion": None, "on_settled": "accelerate", "fast": None}
