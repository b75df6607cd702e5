"""The plan of a step: which groups are scaled, what each follows, how it is counted.

A plan is a snapshot, so that a step need not ask every group for every option. It is
made anew whenever something may have changed; that the groups are still the same
objects is checked at every step.
"""

from __future__ import annotations

import math
from operator import is_

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import (
    _global_optimizer_post_hooks,
    _global_optimizer_pre_hooks,
)

from warmopt._device import count_on_device, may_capture
from warmopt._groups.clock import Clock, Ramp
from warmopt._keys import UPDATES, Group
from warmopt._measure.watchers import Watcher
from warmopt._optimizers.couplings import check_first_lr
from warmopt._update.compiling import is_compiled
from warmopt._update.momentum import Scaled, scale_momentum

__all__ = ["Plan", "count", "restore"]


class Plan:
    """What is to be done with each param group.

    Attributes:
        groups: All of them.
        floats: Those that warm with a float LR, or in adaptive mode; those that follow
            the same stand together.
        tensors: Those that warm with a tensor LR.
        groups_done: How many groups there are, if none of them warms; else -1.
        ends: Whether a warmup may be over after this step.
        looks_in: Steps until `look` is to be called.
        is_watched: Whether `looks_in` is to be counted down, and counts on a device up.
        hooks: All that run around the wrapped step: dicts, which may fill up.
        may_capture: Whether there is a device that captures graphs.
        is_compiled: Whether the wrapped step is, by hand.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        clock: Clock,
        pools: list[Watcher],
        momentum_start: float | None,
        is_fresh: bool,
    ) -> None:
        self._optimizer, self._clock, self._pools = optimizer, clock, pools
        self._momentum_start = momentum_start
        self.groups = list(optimizer.param_groups)
        # As long as no group has been stepped; a tensor would have to be waited for.
        counts = [group.get(UPDATES, 0) for group in self.groups]
        self._is_fresh = is_fresh and not any(c for c in counts if type(c) is int)
        self.floats: list[tuple[Ramp, list[Group]]] = []
        self.tensors: list[tuple[Group, Ramp]] = []
        shared: dict[int, Ramp | None] = {}  # one object for all that warm alike
        for pool in pools if clock.schedule.adaptive is not None else ():
            alike: dict[float, Ramp | None] = {}
            for group in pool.groups:
                *_, start = clock.read(group)
                shared[id(group)] = alike.setdefault(start, clock.ramp(group))
        for group in self.groups:
            ramp = shared.get(id(group)) or clock.ramp(group)
            if ramp is None:
                continue
            if ramp.table is not None:
                self.tensors.append((group, ramp))
            elif self.floats and self.floats[-1][0] is ramp:
                self.floats[-1][1].append(group)
            else:
                self.floats.append((ramp, [group]))
        self.groups_done = -1 if self.floats or self.tensors else len(self.groups)
        self.ends = False
        self._pooled = {
            id(group) for p in pools if len(p.groups) > 1 for group in p.groups
        }
        self.is_watched = bool(pools or self.tensors)
        self.looks_in = self._next_look()
        self.hooks = (
            getattr(optimizer, "_optimizer_step_pre_hooks", {}),
            getattr(optimizer, "_optimizer_step_post_hooks", {}),
            _global_optimizer_pre_hooks,
            _global_optimizer_post_hooks,
        )
        self.may_capture = may_capture()
        self.is_compiled = is_compiled(optimizer.step)

    def check_capture(self, live: list[Group]) -> None:
        """Raises where every replay of a captured graph would repeat one update."""
        if self._clock.schedule.adaptive is not None:
            raise RuntimeError(
                "mode must be a fixed one for its warmup to be captured in a CUDA "
                f"graph, got {self._clock.schedule.mode!r}, which decides on the host. "
                "Use mode='linear', or capture when the warmup is done."
            )
        frozen = None if self._momentum_start is None else "momentum_start"
        if len(live) != len(self.groups):
            frozen = "a param group that was never stepped"
        for _, groups in self.floats:
            frozen = f"lr={groups[0]['lr']!r}"
        for group, ramp in self.tensors:
            device = getattr(ramp.table, "device", None)
            if any(param.device != device for param in group["params"]):
                frozen = f"lr={group['lr']!r}"
        if frozen:
            raise RuntimeError(
                "lr must be a tensor on the device for its warmup to be captured in a "
                f"CUDA graph, got {frozen}: each replay would repeat this update. "
                "Build the optimizer with lr=torch.tensor(..., device='cuda') and "
                "capturable=True, or capture when the warmup is done."
            )

    def scale(self, live: list[Group], scaled: Scaled) -> bool:
        """Multiplies the LR of each warming group, and its momentum, by its factor.

        Notes the update that is to be counted: none (0) for a group at LR 0, or a
        frozen one, be there gradients or not.

        Says whether it could: not if these are other groups than it was made for, or
        someone has put a later count into one.
        """
        mine = self.groups
        if len(live) != len(mine) or not all(map(is_, live, mine)):
            return False
        for ramp, groups in self.floats:
            at, factor = 0, 1.0  # who began together shares one factor
            for group in groups:
                update = group[UPDATES] + 1
                if update != at:
                    if update >= ramp.last:
                        self.ends = True
                        if update > ramp.last:
                            return False
                    at, factor = update, ramp.formula(update, ramp.steps, ramp.start)
                    if update == 1 and self._is_fresh:
                        self._check_first_lrs()
                base, params = group["lr"], group["params"]
                if not base or (params and not params[0].requires_grad):
                    update = update if base and not _is_frozen(params) else 0
                    # Its pool parts in this very step, whoever looks at it when.
                    self.ends = self.ends or (not update and id(group) in self._pooled)
                value = base * factor
                scaled.append((group, "lr", base, value, factor, update))
                group["lr"] = value  # noted before, lest it be lost
        if self.tensors:
            self._scale_tensors(scaled)
        if self._momentum_start is not None:
            self._scale_momentum(self._momentum_start, scaled)
        return True

    def _check_first_lrs(self) -> None:
        firsts = [groups[0] for _, groups in self.floats]
        self._is_fresh = not any(group["lr"] for group in firsts)
        for group in firsts:
            check_first_lr(self._optimizer, group)

    def _scale_tensors(self, scaled: Scaled) -> None:
        for group, ramp in self.tensors:
            base, on_device = group["lr"], ramp.table.take(group[UPDATES])  # type: ignore[union-attr]
            # A scheduler may have put a float there.
            ratio = on_device if isinstance(base, Tensor) else on_device.item()
            scaled.append((group, "lr", base, base * ratio, ratio, 0))
            group["lr"] = scaled[-1][3]

    def _scale_momentum(self, start: float, scaled: Scaled) -> None:
        for group in [entry[0] for entry in scaled]:
            update, steps, _ = self._clock.read(group)
            factor = self._clock.schedule.factor(update, steps, start)
            scale_momentum(group, min(factor, 1.0), scaled)

    def count_tensors(self, found_inf: Tensor | None) -> None:
        """Counts the update on the device, for every tensor LR that it has moved."""
        for group, ramp in self.tensors:
            if not _is_frozen(group["params"]):
                count_on_device(group[UPDATES], ramp.last, group["lr"], found_inf)

    def look(self) -> None:
        """Reads what costs too much to be read after every step: see `looks_in`."""
        for pool in self._pools:
            self.ends = pool.after_update() or self.ends
        self.looks_in = self._next_look()
        self.ends = self.ends or self.looks_in <= 0

    def _next_look(self) -> float:
        """Steps until a reading is due, or a count on the device may be at its end."""
        left = [ramp.last - int(group[UPDATES]) for group, ramp in self.tensors]
        return min(left + [pool.looks_in() for pool in self._pools], default=math.inf)


def count(scaled: Scaled) -> None:
    """Counts the updates that were noted, where that could not be done at once."""
    for group, *_, update in scaled:
        if update:
            group[UPDATES] = update


def restore(scaled: Scaled, counts: bool = False) -> None:
    """Puts the base values back; `counts` the updates, if asked to.

    An LR that is neither the base nor the scaled value was written by the optimizer
    as it stepped, in effective units: the base becomes what it wrote / factor. (What
    it writes into a tensor in place is lost: to see that would cost a host sync.)
    """
    for group, key, base, value, factor, update in scaled:
        now = group[key]
        if now is value:
            group[key] = base
        elif now is not base:
            same = isinstance(now, float) and now == value
            if same or (key == "lr" and not factor):
                group[key] = base
            elif key == "lr":
                group[key] = now / factor
        if counts and update:
            group[UPDATES] = update


def _is_frozen(params: list[Tensor]) -> bool:
    """Of an empty group another rank may hold the parameters."""
    return bool(params) and not any(param.requires_grad for param in params)
