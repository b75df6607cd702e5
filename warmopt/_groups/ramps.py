"""Which ramp each param group follows, and how far it has come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from warmopt._device import factor_table
from warmopt._groups.schedule import Schedule
from warmopt._keys import DONE, LENGTH, UPDATES, Group
from warmopt._pace import Pace, Ramp
from warmopt.joined import parts_of

__all__ = ["Ramps"]


class Ramps:
    """Reads where param groups stand. It never writes to a group.

    Attributes:
        schedule: Mode, length and start, as `Warmed` was asked for them.
        pace: How the ramps are walked.
        options: Names of the options that the optimizer itself knows.
        steps_key: Key of a group's own length. It is `warmup_steps`, or
            `warmopt_steps` where the optimizer has an option of that name itself.
        start_key: Key of a group's own start factor, likewise.
    """

    def __init__(self, schedule: Schedule, optimizer: Optimizer) -> None:
        self.schedule = schedule
        self.pace: Pace = schedule.pace
        # Both are kept for good: groups with the same ramp are scaled together, and a
        # captured graph reads its table at a fixed address.
        self._ramps: dict[tuple[float, float], Ramp] = {}
        self._tables: dict[Any, Tensor] = {}
        self.options: set[str] = set()
        for part in parts_of(optimizer):
            self.options |= {*getattr(part, "defaults", {})}
        taken = self.options
        self.steps_key = "warmopt_steps" if "warmup_steps" in taken else "warmup_steps"
        self.start_key = "warmopt_start" if "warmup_start" in taken else "warmup_start"

    def ramp(self, group: Group, start: float | None = None) -> Ramp:
        """The ramp of a group in which a warmup has begun.

        Groups that follow the same ramp get the same object.

        Args:
            group: The param group.
            start: Factor at update 0; by default that of the group's LR.
        """
        steps = group[LENGTH] or group.get(self.steps_key, self.schedule.steps or 0)
        if start is None:
            start = float(group.get(self.start_key, self.schedule.start))
        if (key := (steps, start)) not in self._ramps:
            self._ramps[key] = self.schedule.ramp(steps, start)
        return self._ramps[key]

    def table(self, ramp: Ramp, lr: Tensor) -> Tensor:
        """The factors of a ramp on the device of the LR: see `factor_table`."""
        key = ramp, lr.device, lr.dtype
        if key not in self._tables:
            self._tables[key] = factor_table(ramp.formula(), ramp.last, lr)
        return self._tables[key]

    def is_warming(self, group: Group) -> bool:
        """Whether the next update of the group is still part of its warmup."""
        return not group.get(DONE, True)

    def is_done(self, group: Group) -> bool:
        """Whether the warmup is over; a group without a warmup counts as done."""
        return not self.is_warming(group) or self.is_over(group)

    def is_over(self, group: Group) -> bool:
        """Whether the group's count has reached the end, at its pace."""
        return self.pace.is_over(group, self.ramp(group))

    def factor(self, group: Group, start: float | None = None) -> float:
        """Factor of the group's next update.

        Args:
            group: A param group in which a warmup has begun, or that has none.
            start: Factor at update 0; by default that of the group's LR.
        """
        if self.is_warming(group):
            ramp = self.ramp(group, start)
            if not self.pace.is_over(group, ramp):
                return self.pace.follow(group, ramp)(int(group[UPDATES]) + 1)
        held = self.pace.held(group)
        return held if start is None else start + (1.0 - start) * held

    def done_reason(self, groups: Sequence[Group]) -> str:
        """Why the warmup is over: "cap" only if no group ended for another reason."""
        begun = [group for group in groups if UPDATES in group]
        reasons = [self.pace.done_reason(group, self.ramp(group)) for group in begun]
        return next((reason for reason in reasons if reason != "cap"), "cap")

    def describe(self, group: Group) -> str:
        """Where the group stands, in words."""
        if not self.is_warming(group):
            held = self.pace.held(group)
            return "done" if held == 1.0 else f"done, held at factor {held:.4g}"
        limit = "at most " if self.pace.is_cap else ""
        return (
            f"{int(group[UPDATES])} of {limit}{self.ramp(group).last} updates done, "
            f"next factor {self.factor(group):.4g}"
        )
