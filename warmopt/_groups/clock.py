"""The clock of each param group: the state of its warmup, kept in the group itself.

Plain values under documented keys, so that every way of saving an optimizer saves
them, a bare optimizer ignores them, and there is no second file to forget.
"""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from warmopt._device import factor_table, like_lr
from warmopt._groups.schedule import MOST_UPDATES, Schedule
from warmopt._keys import (
    DONE,
    FAST,
    LENGTH,
    MODE,
    PACE_STATE,
    SETTLED,
    STATE,
    UPDATES,
    Group,
)
from warmopt._optimizers.second_moments import beta2
from warmopt.adaptive import Adaptive

__all__ = ["Clock", "Ramp"]


class Ramp(NamedTuple):
    """What groups that warm alike follow.

    Attributes:
        formula: Gives the factor, from an update (the first is 1) and the next two.
        steps: Length of the ramp in updates.
        start: Factor at update 0.
        last: Update after which the warmup is over.
        table: For a tensor LR, the factors on its device: see `factor_table`.
    """

    formula: Callable[[int, float, float], float]
    steps: float
    start: float
    last: int
    table: Tensor | None = None

    def factor(self, update: int) -> float:
        """Factor of an update; the first is 1."""
        return self.formula(update, self.steps, self.start)


class Clock:
    """Reads and moves the warmup of param groups; keeps nothing of its own.

    Attributes:
        schedule: The factor of each update.
        steps_key: Key of a group's own length. It is `warmup_steps`, or
            `warmopt_steps` where the optimizer has an option of that name itself.
        start_key: Key of a group's own start factor, likewise.
    """

    def __init__(self, schedule: Schedule, optimizer: Optimizer) -> None:
        self.schedule = schedule
        self._optimizer = optimizer
        self._ramps: dict[Any, Ramp] = {}  # kept: a captured graph reads its table
        taken = getattr(optimizer, "defaults", {})
        self.steps_key = "warmopt_steps" if "warmup_steps" in taken else "warmup_steps"
        self.start_key = "warmopt_start" if "warmup_start" in taken else "warmup_start"

    def is_warming(self, group: Group) -> bool:
        """Whether an enrolled group's next update is still part of its warmup."""
        return not group.get(DONE, True)

    def enrol(self, group: Group) -> None:
        """Starts the warmup of a checked group; leaves a clock that runs alone.

        Where nothing at all was asked to warm, the group gets no keys.
        """
        schedule, own = self.schedule, group.get(self.steps_key)
        if own is not None:  # a ratio becomes updates
            group[self.steps_key] = own = schedule.checked_steps(self.steps_key, own)
        length = 0.0 if LENGTH in group else self._from_beta2(group)
        steps: Any = length or (schedule.steps if own is None else own)
        if steps or schedule.steps != 0 or UPDATES in group:
            group.setdefault(UPDATES, 0)
            group.setdefault(DONE, steps == 0)
            group.setdefault(MODE, schedule.mode)
            group.setdefault(LENGTH, length)
            if schedule.adaptive is not None:  # count and decision are the host's
                group.setdefault(FAST, 0)
                group.setdefault(SETTLED, False)
            lr = group["lr"] if schedule.adaptive is None else None
            group[UPDATES] = like_lr(group[UPDATES], lr)
            group[DONE] = like_lr(bool(group[DONE]) or self.is_over(group), lr)

    def _from_beta2(self, group: Group) -> float:
        """Length in updates, where the mode takes it from beta2; else 0."""
        rule = self.schedule.steps_from_beta2
        if rule is None or group.get(self.steps_key) is not None:
            return 0.0
        return rule(beta2(self._optimizer, group))

    def restart(self, group: Group, steps: float | None) -> None:
        """Begins the warmup of a checked group anew, with a length if one is given.

        It is enrolled before that, and is to be enrolled after.
        """
        length = steps
        if length is None:
            length = group.get(LENGTH, 0) or self._from_beta2(group)
        again = length or group.get(self.steps_key, self.schedule.steps)
        if steps == 0 or again:
            if isinstance(group.get(UPDATES), Tensor):
                group[UPDATES].zero_()  # in place: it may be part of a captured graph
            else:
                group[UPDATES] = 0
            new = {DONE: steps == 0, MODE: self.schedule.mode, LENGTH: length}
            group.update(new)
            for key in PACE_STATE:
                group.pop(key, None)

    def rehearse_restart(self, group: Group, steps: float | None) -> None:
        """Raises ValueError where a checked group cannot be begun anew."""
        rehearsal = dict(group)
        if isinstance(rehearsal.get(UPDATES), Tensor):
            rehearsal[UPDATES] = rehearsal[UPDATES].clone()
        self.restart(rehearsal, steps)
        self._rehearse(rehearsal)

    def _rehearse(self, copied: Group) -> None:
        self.enrol(copied)  # finds beta2, where it is needed
        if ramp := self.ramp(copied):
            ramp.factor(1)  # a function as mode may refuse

    def read(self, group: Group) -> tuple[float, float, float]:
        """Returns what the factor of a warming group's next update follows from.

        That is its number, counted from 1 (in adaptive mode that of the update of the
        fixed warmup which is as far), the length of the ramp and its start.
        """
        update, fast = int(group[UPDATES]) + 1, 0
        if self.schedule.adaptive is not None:
            fast = self.schedule.adaptive.next_fast(group[FAST], group[SETTLED])
        start = float(group.get(self.start_key, self.schedule.start))
        return self._position(group, update, fast), self._steps(group), start

    def length(self, group: Group) -> tuple[float, int]:
        """Length of the group's ramp in updates, and the update after which it ends."""
        steps = self._steps(group)
        return steps, self.schedule.last_update(steps)

    def _steps(self, group: Group) -> Any:
        return group[LENGTH] or group.get(self.steps_key, self.schedule.steps or 0)

    def _position(self, group: Group, update: int, fast: int) -> float:
        if not fast or self.schedule.adaptive is None:
            return update
        return self.schedule.adaptive.position(update, fast, *self.length(group))

    def is_over(self, group: Group) -> bool:
        """Whether the count, at its pace, has reached the end of the ramp."""
        done = self._position(group, int(group[UPDATES]), group.get(FAST, 0))
        return done >= self.length(group)[1]

    def ramp(self, group: Group) -> Ramp | None:
        """What an enrolled group follows; None if its warmup is over.

        Groups that warm alike get the same object.
        """
        if group.get(DONE, True):
            return None
        schedule, (_, steps, start) = self.schedule, self.read(group)
        if schedule.adaptive is not None:  # its progress is in the group
            return self._adaptive_ramp(schedule.adaptive, group, steps, start)
        lr = group["lr"]
        kind = (lr.device, lr.dtype) if isinstance(lr, Tensor) else None
        if (key := (steps, start, kind)) not in self._ramps:
            formula = schedule.factor if schedule.offset else schedule.shape
            ramp = Ramp(formula, steps, start, schedule.last_update(steps))
            if kind:
                ramp = ramp._replace(table=factor_table(ramp.factor, ramp.last, lr))
            self._ramps[key] = ramp
        return self._ramps[key]

    def _adaptive_ramp(
        self, adaptive: Adaptive, group: Group, steps: float, start: float
    ) -> Ramp:
        """One whose pace is in the group."""
        last = self.schedule.last_update(steps)

        def formula(update: int, steps: float, start: float) -> float:
            fast = adaptive.next_fast(group[FAST], group[SETTLED])
            at = adaptive.position(update, fast, steps, last)
            return self.schedule.factor(at, steps, start)

        return Ramp(formula, steps, start, last)

    def factor(self, group: Group) -> float:
        """Factor of the group's next update; 1 when its warmup is over."""
        return (
            self.schedule.factor(*self.read(group)) if self.is_warming(group) else 1.0
        )

    def describe(self, group: Group) -> str:
        """Where the group stands, in words."""
        if not self.is_warming(group):
            return "done"
        _, last = self.length(group)
        limit = "" if self.schedule.adaptive is None else "at most "
        return (
            f"{int(group[UPDATES])} of {limit}{last} updates done, next factor "
            f"{self.factor(group):.4g}"
        )

    def check_new(self, group: Group, name: str) -> None:
        """Raises ValueError or TypeError where a group cannot be warmed."""
        lr = group.get("lr")
        if not isinstance(lr, (Real, Tensor)):
            raise ValueError(
                f"lr of {name} must be a number or a tensor, got {lr!r}. Warmup scales "
                "it: build the optimizer with an lr."
            )
        self.check(group, name)
        self._rehearse(dict(group))

    def check(self, group: Group, name: str) -> None:
        """Raises TypeError or ValueError where a key of ours holds what it may not."""
        schedule = self.schedule
        if self.steps_key in group:
            schedule.checked_steps(f"{self.steps_key} of {name}", group[self.steps_key])
        if self.start_key in group:
            schedule.checked_start(f"{self.start_key} of {name}", group[self.start_key])
        if not any(key in group for key in STATE):
            return
        updates: Any = group.get(UPDATES)
        length = group.get(LENGTH, 0)
        if not (type(updates) is int or _is_tensor(updates, torch.int64)):
            raise TypeError(f"{UPDATES} of {name} must be an int, got {updates!r}.")
        if not isinstance(length, (int, float)) or isinstance(length, bool):
            raise TypeError(f"{LENGTH} of {name} must be a number, got {length!r}.")
        for key, value in ((UPDATES, int(updates)), (LENGTH, length)):
            if not 0 <= value <= MOST_UPDATES:
                raise ValueError(f"{key} of {name} must be in [0, 2**53], got {value}.")
        if 0 < length < 1:
            raise ValueError(f"{LENGTH} of {name} must be 0 or >= 1, got {length}.")
        try:
            schedule.last_update(length)  # the shape may refuse it
        except ValueError as error:
            raise ValueError(f"{LENGTH} of {name}: {error}") from None
        fast, settled = group.get(FAST, 0), group.get(SETTLED, False)
        if type(fast) is not int:
            raise TypeError(f"{FAST} of {name} must be an int, got {fast!r}.")
        if not 0 <= fast <= int(updates):
            raise ValueError(
                f"{FAST} of {name} must be in [0, {UPDATES}], got {fast} of "
                f"{int(updates)}."
            )
        if type(settled) is not bool:
            raise TypeError(f"{SETTLED} of {name} must be a bool, got {settled!r}.")
        done, mode = group.get(DONE, False), group.get(MODE, schedule.mode)
        if not (type(done) is bool or _is_tensor(done, torch.bool)):
            raise TypeError(f"{DONE} of {name} must be a bool, got {done!r}.")
        if not done and mode != schedule.mode:
            raise ValueError(
                f"mode must be the one that the warmup was begun with, {mode!r} "
                f"({MODE} of {name}), got {schedule.mode!r}. Build Warmed with it, or "
                f"set that entry to {schedule.mode!r} to go on with yours."
            )


def _is_tensor(value: Any, dtype: torch.dtype) -> bool:
    return isinstance(value, Tensor) and value.ndim == 0 and value.dtype == dtype
