"""Starts, restarts and checks the state of a warmup in a param group."""

from __future__ import annotations

from numbers import Real
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from warmopt._climb import RAMPING
from warmopt._device import like_lr
from warmopt._groups.ramps import Ramps
from warmopt._groups.schedule import MOST_UPDATES
from warmopt._keys import (
    CLIMB,
    DONE,
    FACTOR,
    FAST,
    LENGTH,
    MODE,
    PHASE,
    SETTLED,
    STATE,
    UPDATES,
    WINDOW,
    Group,
)
from warmopt._optimizers.second_moments import beta2
from warmopt._tell import tell
from warmopt._words import did_you_mean

__all__ = ["States"]


class States:
    """Writes the state of the warmup into param groups; keeps nothing itself.

    Attributes:
        ramps: What reads that state.
    """

    def __init__(self, ramps: Ramps, optimizer: Optimizer) -> None:
        self.ramps = ramps
        self._schedule, self._pace = ramps.schedule, ramps.pace
        self._optimizer = optimizer  # for its beta2
        self._of_paces = (FAST, SETTLED, *CLIMB, *WINDOW, *self._pace.keys)

    @property
    def keys(self) -> tuple[str, ...]:
        """All that may stand in a group, whatever mode it was begun with."""
        return (*STATE, *self._of_paces)

    def may_warm(self, group: Group) -> bool:
        """Whether a warmup was asked for: for all groups, or by this one, or before."""
        own = group.get(self.ramps.steps_key)
        return bool(self._schedule.steps != 0 or UPDATES in group or own)

    # --- a warmup begins -------------------------------------------------------------

    def begin(self, group: Group) -> None:
        """Starts the warmup of a checked group; one that has started goes on.

        A group gets no keys if nothing at all was asked to warm.
        """
        schedule, own_key = self._schedule, self.ramps.steps_key
        own = group.get(own_key)
        if own is not None:  # a ratio becomes updates
            group[own_key] = own = schedule.checked_steps(own_key, own)
        length = 0.0 if LENGTH in group else self._from_beta2(group)
        steps: Any = length or (schedule.steps if own is None else own)
        if not (steps or schedule.steps != 0 or UPDATES in group):
            return
        group.setdefault(UPDATES, 0)
        group.setdefault(DONE, steps == 0)
        group.setdefault(MODE, schedule.mode)
        group.setdefault(LENGTH, length)
        self._pace.begin(group)
        # A pace that decides on the host needs its count there.
        lr = group["lr"] if self._pace.on_device else None
        group[UPDATES] = like_lr(group[UPDATES], lr)
        group[DONE] = like_lr(bool(group[DONE]) or self.ramps.is_over(group), lr)

    def begun(self, group: Group) -> Group:
        """The group as it is once its warmup has begun: itself, or else a copy."""
        if DONE in group:
            return group
        copied = dict(group)
        self.begin(copied)
        return copied

    def begin_all(self, groups: list[Group]) -> None:
        """Checks and starts the groups that are new, and gives each its own tensors."""
        seen: set[int] = set()
        for group in groups:
            if DONE not in group:
                self.check_new(group, "a new param group")
                self._tell_near_misses(group)
            self.begin(group)
            for key in (UPDATES, DONE, *self._pace.keys):
                own = group.get(key)
                # A copied group has the tensors of the other one. One that was loaded
                # under torch.inference_mode could not be changed outside of it.
                if isinstance(own, Tensor) and (id(own) in seen or own.is_inference()):
                    group[key] = own = own.clone()
                seen.add(id(own))

    def _tell_near_misses(self, group: Group) -> None:
        """Warns of keys that are almost ours: nothing would read them."""
        ours = [self.ramps.steps_key, self.ramps.start_key]
        known = {*self.keys, *ours, *self.ramps.options}
        for key in group:
            if key not in known and (hint := did_you_mean(str(key), ours)):
                tell(f"A param group has the key {key!r}, which nothing reads.{hint}")

    def _from_beta2(self, group: Group) -> float:
        """Length in updates if the mode takes it from beta2; else 0."""
        rule = self._schedule.steps_from_beta2
        if rule is None or group.get(self.ramps.steps_key) is not None:
            return 0.0
        return rule(beta2(self._optimizer, group))

    # --- and begins again ------------------------------------------------------------

    def restart(self, group: Group, steps: float | None) -> None:
        """Starts the warmup of a checked group again, with a length if one is given.

        The group has begun before that; `begin` is to be called after.
        """
        # One of 0 steps is no warmup: the length of the last one stays known.
        length = steps or group.get(LENGTH, 0) or self._from_beta2(group)
        own = group.get(self.ramps.steps_key, self._schedule.steps)
        if not (steps == 0 or length or own):
            return
        if isinstance(group.get(UPDATES), Tensor):
            group[UPDATES].zero_()  # in place: it may be part of a captured graph
        else:
            group[UPDATES] = 0
        group.update({DONE: steps == 0, MODE: self._schedule.mode, LENGTH: length})
        for key in self._of_paces:
            group.pop(key, None)

    def rehearse_restart(self, group: Group, steps: float | None, name: str) -> None:
        """Raises ValueError if a checked group cannot be started again."""
        copied = dict(group)
        if isinstance(copied.get(UPDATES), Tensor):
            copied[UPDATES] = copied[UPDATES].clone()
        self.restart(copied, steps)
        self.rehearse(copied, name)

    def rehearse(self, group: Group, name: str) -> None:
        """Raises ValueError if the warmup of a checked group could not begin."""
        lr = group.get("lr")
        if self.may_warm(group) and not isinstance(lr, (Real, Tensor)):
            raise ValueError(
                f"lr of {name} must be a number or a tensor, got {lr!r}. Warmup scales "
                "it: build the optimizer with an lr."
            )
        copied = dict(group)
        self.begin(copied)  # finds beta2 if it is needed
        if self.ramps.is_warming(copied):
            ramp = self.ramps.ramp(copied)
            ramp.factor(1)  # a function as mode may refuse
            if (
                self._pace.on_device
                and self._pace.has_table
                and isinstance(copied["lr"], Tensor)
            ):
                self.ramps.table(ramp, copied["lr"])  # so may a table

    # --- what may stand in a group ---------------------------------------------------

    def check_new(self, group: Group, name: str) -> None:
        """Raises ValueError or TypeError if a group cannot be warmed."""
        self.check(group, name)
        self.rehearse(group, name)

    def check(self, group: Group, name: str) -> None:
        """Raises TypeError or ValueError if one of our keys has a wrong value."""
        schedule, ramps = self._schedule, self.ramps
        if (key := ramps.steps_key) in group:
            schedule.checked_steps(f"{key} of {name}", group[key])
        if (key := ramps.start_key) in group:
            schedule.check_has_start(f"{key} of {name}", group[key])
            schedule.checked_start(f"{key} of {name}", group[key])
        if any(key in group for key in STATE):
            self._check_count(group, name)
            self._check_length(group, name)
            self._pace.check(group, name)
            self._check_mode(group, name)

    def _check_count(self, group: Group, name: str) -> None:
        updates: Any = group.get(UPDATES)
        if not (type(updates) is int or _is_scalar(updates, torch.int64)):
            raise TypeError(f"{UPDATES} of {name} must be an int, got {updates!r}.")
        _check_in_range(UPDATES, int(updates), name)

    def _check_length(self, group: Group, name: str) -> None:
        length = group.get(LENGTH, 0)
        if not isinstance(length, (int, float)) or isinstance(length, bool):
            raise TypeError(f"{LENGTH} of {name} must be a number, got {length!r}.")
        _check_in_range(LENGTH, length, name)
        if 0 < length < 1:
            raise ValueError(f"{LENGTH} of {name} must be 0 or >= 1, got {length}.")
        self._schedule.check_length(f"{LENGTH} of {name}", length)

    def _check_mode(self, group: Group, name: str) -> None:
        ours = self._schedule.mode
        done, mode = group.get(DONE, False), group.get(MODE, ours)
        if not (type(done) is bool or _is_scalar(done, torch.bool)):
            raise TypeError(f"{DONE} of {name} must be a bool, got {done!r}.")
        # What is held would be lost.
        is_held = group.get(FACTOR, 1.0) != 1.0 and group.get(PHASE) != RAMPING
        if (not done or is_held) and mode != ours:
            raise ValueError(
                f"mode must be the one that the warmup was begun with, {mode!r} "
                f"({MODE} of {name}), got {ours!r}. Build Warmed with it, or "
                f"set that entry to {ours!r} to go on with yours."
            )


def _check_in_range(key: str, value: float, name: str) -> None:
    if not 0 <= value <= MOST_UPDATES:
        raise ValueError(f"{key} of {name} must be in [0, 2**53], got {value}.")


def _is_scalar(value: Any, dtype: torch.dtype) -> bool:
    return isinstance(value, Tensor) and value.ndim == 0 and value.dtype == dtype
