"""The plan of the next steps: which param groups are scaled, and what each follows.

A plan is made when something has changed, so that a step need not ask every group for
every option. That the groups are still the same objects is checked at every step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import is_
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from warmopt._device import HostCopy, count_on_device, may_capture
from warmopt._groups.ramps import Ramps
from warmopt._keys import DONE, UPDATES, Group
from warmopt._measure.climbs import DeviceClimb
from warmopt._measure.watchers import Watcher
from warmopt._optimizers.couplings import check_first_lrs
from warmopt._torch import step_hooks
from warmopt._update.parts import Parts
from warmopt._update.update import Scaled, scale_lr, scale_momentum

__all__ = ["ASKED_EVERY", "Lane", "Plan", "is_frozen"]

ASKED_EVERY = 8
"""A group is asked whether it is frozen where its count is a multiple of this.

To ask all groups takes longer than all the rest of a step. A group that was found
frozen is not counted any more, so it is asked at every step, and it warms from the very
step that finds it unfrozen. When a group is asked depends only on its saved count, so a
resumed run asks at the same updates.
"""


LOOKS_EVERY = 32
"""Updates between two looks of the host whether a climb on the device is over."""


@dataclass(slots=True)
class Lane:
    """Param groups that get the same factor as long as their counts are equal.

    Attributes:
        follow: The function from the number of an update to its factor.
        last: The last update of the ramp: after it the warmup is over.
        groups: The param groups.
        before_update: What is to be done before an update, given its number. If it
            returns a function, that one is followed this time.
    """

    follow: Callable[[int], float]
    last: int
    groups: list[Group]
    before_update: Callable[[int], Callable[[int], float] | None] | None


@dataclass(slots=True)
class OnDevice:
    """A param group with a tensor LR, whose count is a tensor on the same device.

    Attributes:
        group: The param group.
        factor: Returns the factor of the next update, as a tensor.
        last: The update after which its warmup is over.
        used: The factor of the update that is on.
        counts: Whether that update is to be counted.
    """

    group: Group
    factor: Callable[[], Tensor]
    last: int
    used: Any = None
    counts: bool = True


class Plan:
    """What is to be done with each param group.

    Attributes:
        groups: All of them.
        lanes: Those that warm, and are counted on the host.
        on_device: Those that warm, and are counted on the device.
        held: Those whose warmup is over below 1, with the factor that they keep.
        is_over: Whether no group warms any more.
        is_stale: Whether a new plan is needed after the step.
        due_in: Steps until `look` is to be called.
        hooks: All hooks that run around the wrapped step: live dicts, to which hooks
            may be added later.
        may_capture: Whether there is a device that captures graphs.
        is_fresh: Whether the run is new, and no step at an LR above 0 has come yet.
        is_compiled: Whether the wrapped step was compiled by hand, as the last `Update`
            has found it.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        ramps: Ramps,
        watchers: Sequence[Watcher],
        climbs: Sequence[DeviceClimb],
        parts: Parts,
        momentum_start: float | None,
        is_fresh: bool,
    ) -> None:
        self._ramps, self._watchers, self._climbs = ramps, watchers, climbs
        self._parts = parts
        self.momentum_start = momentum_start
        self.groups = list(optimizer.param_groups)
        # A count on the device would have to be waited for.
        counts = [group.get(UPDATES, 0) for group in self.groups]
        self.is_fresh = is_fresh and not any(c for c in counts if type(c) is int)
        self.lanes: list[Lane] = []
        self.on_device: list[OnDevice] = []
        self.held: list[tuple[Group, float]] = []
        self._sort_groups()
        self.is_over = not (self.lanes or self.on_device)
        self.is_stale = False
        # Groups that share a watcher. If one of them misses an update, it needs a
        # watcher of its own, so a new plan is made after that same step.
        self._shares_watcher = {
            id(g) for each in watchers if len(each.groups) > 1 for g in each.groups
        }
        # For each group on the device, the fewest updates that are still to come.
        self._left: list[float] = [
            each.last - int(each.group[UPDATES]) for each in self.on_device
        ]
        self._counts: list[HostCopy] = []
        self.due_in = self._looked_for = self._next_look()
        self.hooks = step_hooks(optimizer)
        self.may_capture = may_capture()
        self.is_compiled = False

    def _sort_groups(self) -> None:
        ramps, pace = self._ramps, self._ramps.pace
        watched = {id(g): each for each in self._watchers for g in each.groups}
        alike: dict[Any, Lane] = {}
        for group in self.groups:
            if not ramps.is_warming(group):
                if (held := pace.held(group)) != 1.0:
                    self.held.append((group, held))
                continue
            ramp, lr = ramps.ramp(group), group["lr"]
            if isinstance(lr, Tensor) and pace.on_device:
                self.on_device.append(
                    OnDevice(group, self._factor_of(group), ramp.last)
                )
                continue
            key = ramp, (watcher := watched.get(id(group)))
            if key not in alike:
                before = watcher.before_update if watcher and watcher.compares else None
                alike[key] = Lane(pace.follow(group, ramp), ramp.last, [], before)
                self.lanes.append(alike[key])
            alike[key].groups.append(group)

    def _factor_of(self, group: Group) -> Callable[[], Tensor]:
        """Returns what gives the factor of a group with a tensor LR, as a tensor."""
        lr = group["lr"]
        for climb in self._climbs:
            if any(group is each for each in climb.groups):
                return partial(_like, climb.factor, lr)
        table = self._ramps.table(self._ramps.ramp(group), lr)
        return partial(_looked_up, table, group)

    def is_of(self, live: list[Group]) -> bool:
        """Whether these are the groups that it was made for, one by one."""
        return len(live) == len(self.groups) and all(map(is_, live, self.groups))

    # --- before the wrapped step -----------------------------------------------------

    def scale(self, live: list[Group], scaled: list[Scaled]) -> bool:
        """Multiplies the LR of each warming group, and its momentum, by its factor.

        Each is noted in `scaled` before it is changed, so that nothing is lost if this
        is interrupted.

        Args:
            live: The param groups as the optimizer has them now.
            scaled: The list of what is scaled, which is empty.

        Returns:
            False if a new plan is needed: the groups have changed, or somebody has set
            the count of one past its end.
        """
        if not self.is_of(live):
            return False
        for lane in self.lanes:
            if not self._scale_lane(lane, scaled):
                return False
        for climb in self._climbs:
            climb.before_update()
        for each in self.on_device:
            self._scale_on_device(each, scaled)
        for group, factor in self.held:
            scale_lr(group, factor, 0, scaled)
        if self.momentum_start is not None:
            for group in [group for group, *_ in scaled]:
                factor = self._ramps.factor(group, self.momentum_start)
                scale_momentum(group, min(factor, 1.0), scaled)
        return True

    def _scale_lane(self, lane: Lane, scaled: list[Scaled]) -> bool:
        at, factor, follow = 0, 1.0, lane.follow
        for group in lane.groups:
            begins = self._parts.begins(group)
            update = group[UPDATES] + 1 if begins else group[UPDATES] or 1
            if update != at:  # groups with the same count share one factor
                self.is_stale = self.is_stale or update >= lane.last
                if update > lane.last:
                    return False
                if lane.before_update is not None:
                    follow = lane.before_update(update) or follow
                at, factor = update, follow(update)
                if update == 1 and self.is_fresh:
                    self._check_first_lrs()
            is_asked = not (update - 1) % ASKED_EVERY
            if not begins:
                update = 0  # it is scaled, but not counted
            elif not group["lr"] or (is_asked and is_frozen(group["params"])):
                update = 0
                self.is_stale = self.is_stale or id(group) in self._shares_watcher
            scale_lr(group, factor, update, scaled)
        return True

    def _check_first_lrs(self) -> None:
        # A step at LR 0 says nothing: torch.distributed.checkpoint makes such a step,
        # and many schedulers begin with one.
        firsts = [lane.groups[0] for lane in self.lanes]
        self.is_fresh = not any(group["lr"] for group in firsts)
        if not self.is_fresh:
            check_first_lrs(firsts)

    def _scale_on_device(self, each: OnDevice, scaled: list[Scaled]) -> None:
        factor: Any = each.used
        each.counts = self._parts.begins(each.group)
        if each.counts or factor is None:
            each.used = factor = each.factor()
        if not isinstance(each.group["lr"], Tensor):
            factor = factor.item()  # a scheduler has put a float there
        scale_lr(each.group, factor, 0, scaled)

    def check_capture(self, live: list[Group]) -> None:
        """Raises RuntimeError if each replay of a graph would repeat one update."""
        if self.is_over and self.is_of(live):
            return
        if not self._ramps.pace.on_device:
            raise RuntimeError(
                "mode must be a fixed one for its warmup to be captured in a CUDA "
                f"graph, got {self._ramps.schedule.mode!r}, which decides on the host. "
                "Use mode='linear', or capture when the warmup is done."
            )
        if frozen := self._what_a_graph_would_freeze(live):
            raise RuntimeError(
                "lr must be a tensor on the device for its warmup to be captured in a "
                f"CUDA graph, got {frozen}: each replay would repeat this update. "
                "Build the optimizer with lr=torch.tensor(..., device='cuda') and "
                "capturable=True, or capture when the warmup is done."
            )

    def _what_a_graph_would_freeze(self, live: list[Group]) -> str | None:
        for each in self.on_device:
            device = each.group[UPDATES].device
            if any(param.device != device for param in each.group["params"]):
                return f"lr={each.group['lr']!r}"
        for lane in self.lanes:
            return f"lr={lane.groups[0]['lr']!r}"
        if len(live) != len(self.groups):
            return "a param group that was never stepped"
        return None if self.momentum_start is None else "momentum_start"

    # --- after it --------------------------------------------------------------------

    def count_on_device(self, found_inf: Tensor | None) -> None:
        """Counts the update of every group whose count is a tensor."""
        if not self.on_device:
            return
        moved: dict[int, Tensor] = {}
        for each in self.on_device:
            group = each.group
            if each.counts and not is_frozen(group["params"]):
                moved[id(group)] = count_on_device(
                    group[UPDATES], each.last, group["lr"], found_inf
                )
        for climb in self._climbs:
            if (first := moved.get(id(climb.groups[0]))) is not None:
                climb.counted(first)

    def look(self) -> None:
        """Does what costs too much to be done after every step: see `due_in`."""
        for watcher in self._watchers:
            self.is_stale = watcher.after_update() or self.is_stale
        over = [g for each in self._climbs for g in each.groups[:1]]
        if any(map(self._ramps.is_over, over)):
            self.is_stale = True
        self._look_at_device(steps=self._looked_for - self.due_in)
        self.due_in = self._looked_for = self._next_look()
        self.is_stale = self.is_stale or self.due_in <= 0

    def _look_at_device(self, steps: float) -> None:
        """Finds out which warmups on the device are over.

        The host does not wait for the device: what it reads was copied at the look
        before. So it knows a step later. Until then the factor is 1 already.

        Args:
            steps: How many have been since the look before.
        """
        if not self._counts:
            self._copy_counts_if_due(steps)
            if self.momentum_start is None:
                return
            steps = 0  # each step waits for the count anyway, to scale the momentum
        if self._counts:
            counts = [copied.numbers() for copied in self._counts]
            asked, self.on_device, self._left, self._counts = self.on_device, [], [], []
            for each, count in zip(asked, counts, strict=True):
                if count < each.last:
                    self.on_device.append(each)
                    self._left.append(each.last - count)
                elif self._climbs:
                    self.is_stale = True  # it may hold below 1: a new plan knows
                else:
                    each.group[DONE].fill_(True)
            self.is_over = not (self.lanes or self.on_device)
            self._copy_counts_if_due(steps)

    def _copy_counts_if_due(self, steps: float) -> None:
        self._left = [left - steps for left in self._left]
        if min(self._left, default=1) <= 0:
            counts = [each.group[UPDATES].clone() for each in self.on_device]
            self._counts = list(map(HostCopy, counts))

    def _next_look(self) -> float:
        """Steps until a reading is due, or a count on the device may be at its end."""
        left = [1] if self._counts else self._left
        dues: list[float] = [watcher.due_in() for watcher in self._watchers]
        dues += [LOOKS_EVERY] * len(self._climbs)
        return min([*left, *dues], default=math.inf)


def is_frozen(params: list[Tensor]) -> bool:
    """Whether none of them requires grad. An empty list may be full on another rank."""
    return (
        bool(params)
        and not params[0].requires_grad
        and not any(param.requires_grad for param in params)
    )


def _looked_up(table: Tensor, group: Group) -> Tensor:
    return table.take(group[UPDATES])


def _like(factor: Callable[[], Tensor], lr: Tensor) -> Tensor:
    """A factor that makes the product with an LR exact enough, and no more."""
    return factor().to(torch.promote_types(lr.dtype, torch.float32))
