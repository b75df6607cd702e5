"""A climb whose factor lives on the device: for tensor LRs, and in CUDA graphs.

A reading is used at once, in the update before which it was taken. The host looks only
now and then whether it is over.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from warmopt._climb import RAMPING, Climb, after_on_device
from warmopt._groups.ramps import Ramps
from warmopt._keys import BEFORE, CLIMB, UPDATES, Group
from warmopt._measure.comparison import Comparison

__all__ = ["DeviceClimb"]


class DeviceClimb:
    """Compares and climbs for some param groups that share a factor.

    Args:
        optimizer: The wrapped optimizer.
        groups: Groups with a tensor LR, in which a climb has begun.
        ramps: Where they stand.

    Attributes:
        groups: The groups.
    """

    def __init__(self, optimizer: Optimizer, groups: list[Group], ramps: Ramps) -> None:
        pace: Any = ramps.pace
        self.groups, self._limits = groups, pace.limits
        self._last, sampling = ramps.ramp(groups[0]).last, pace.sampling
        process_group = sampling.process_group
        self._comparison = Comparison(
            optimizer, groups, sampling.signal, 1, process_group
        )
        if not self._comparison.is_shared:
            self._comparison.restore([group.get(BEFORE) for group in groups])
            for group, before in zip(groups, self._comparison.before, strict=True):
                group[BEFORE] = before
        self._next: Any = self._state()

    def _state(self) -> Any:
        return Climb(*map(self.groups[0].__getitem__, CLIMB))

    def before_update(self) -> None:
        """Compares, before a step that may be done or not."""
        alignment = self._comparison.take_on_device()
        now, done = self._state(), self.groups[0][UPDATES]
        after = after_on_device(now, alignment, done, self._limits)
        is_on = done < self._last
        pairs = zip(after, now, strict=True)
        kept: Any = (torch.where(is_on, new, old) for new, old in pairs)
        self._next = Climb(*kept)

    def factor(self) -> Tensor:
        """The factor of the update that comes."""
        climb, update = self._next, self.groups[0][UPDATES] + 1
        left = (self._last - climb.ramp_from).clamp(min=1)
        share = ((update - climb.ramp_from) / left).clamp(max=1.0)
        ramped = climb.factor + (1.0 - climb.factor) * share
        return torch.where(climb.phase == RAMPING, ramped, climb.factor)

    def counted(self, moved: Tensor) -> None:
        """Goes on from where the update has led, if it was done."""
        for group in self.groups:
            for key, new in zip(CLIMB, self._next, strict=True):
                group[key].copy_(torch.where(moved, new, group[key]))
        self._comparison.keep_on_device(moved)
