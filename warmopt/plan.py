"""The plan of a step: which groups are scaled, what each follows, how it is counted.

A plan is a snapshot, so that a step need not ask every group for every option. It is
made anew whenever something may have changed; that the groups are still the same
objects is checked at every step.
"""

from __future__ import annotations

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import (
    _global_optimizer_post_hooks,
    _global_optimizer_pre_hooks,
)

from warmopt.clock import UPDATES, Clock, Ramp
from warmopt.compiling import is_compiled
from warmopt.couplings import check_first_lr
from warmopt.group_lr import Group, Scaled, scale_momentum
from warmopt.on_device import count_on_device, may_capture
from warmopt.pool import Pool

__all__ = ["Plan"]


class Plan:
    """What is to be done with each param group.

    Attributes:
        groups: All of them.
        floats: Those that warm with a float LR, or in adaptive mode.
        tensors: Those that warm with a tensor LR.
        groups_done: How many groups there are, if none of them warms; else -1.
        ends: Whether a warmup may be over after this step.
        looks_in: Steps until a count on the device may be at its end.
        is_watched: Whether it takes more than to count: see the two below, and pools.
        hooks: All that run around the wrapped step: dicts, which may fill up.
        may_capture: Whether there is a device that captures graphs.
        is_compiled: Whether the wrapped step is, by hand.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        clock: Clock,
        pools: list[Pool],
        momentum_start: float | None,
    ) -> None:
        self._optimizer, self._clock = optimizer, clock
        self._momentum_start = momentum_start
        self.groups = list(optimizer.param_groups)
        self._ids = list(map(id, self.groups))
        self.floats: list[tuple[Group, Ramp]] = []
        self.tensors: list[tuple[Group, Ramp]] = []
        shared: dict[int, Ramp | None] = {}  # one object for all that warm alike
        for pool in pools if clock.schedule.adaptive is not None else ():
            alike: dict[float, Ramp | None] = {}
            for group in pool.groups:
                *_, start = clock.read(group)
                shared[id(group)] = alike.setdefault(start, clock.ramp(group))
        for group in self.groups:
            ramp = shared.get(id(group)) or clock.ramp(group)
            if ramp is not None:
                kind = self.floats if ramp.table is None else self.tensors
                kind.append((group, ramp))
        self.groups_done = -1 if self.floats or self.tensors else len(self.groups)
        self.ends = False
        left = [ramp.last - int(group[UPDATES]) for group, ramp in self.tensors]
        self.looks_in = min(left, default=0)
        self.is_watched = bool(pools or self.tensors)
        self.hooks = (
            getattr(optimizer, "_optimizer_step_pre_hooks", {}),
            getattr(optimizer, "_optimizer_step_post_hooks", {}),
            _global_optimizer_pre_hooks,
            _global_optimizer_post_hooks,
        )
        self.may_capture = may_capture()
        self.is_compiled = is_compiled(optimizer.step)

    def fits(self, groups: list[Group]) -> bool:
        """Whether these are the groups that it was made for."""
        return list(map(id, groups)) == self._ids

    def scale(self, scaled: Scaled) -> bool:
        """Multiplies the LR of each warming group, and its momentum, by its factor.

        Says whether it could: not where someone has put a later count into a group.
        """
        at, follows, factor = 0, None, 1.0  # who began together shares one factor
        for group, ramp in self.floats:
            update = group[UPDATES] + 1
            if update != at or ramp is not follows:
                if update >= ramp.last:
                    self.ends = True
                    if update > ramp.last:
                        return False
                at, follows, factor = update, ramp, ramp.factor(update)
                if update == 1:
                    check_first_lr(self._optimizer, group)
            base = group["lr"]
            value = base * factor
            scaled.append((group, "lr", base, value, factor, update))  # lest it be lost
            group["lr"] = value
        for group, ramp in self.tensors:
            base, on_device = group["lr"], ramp.table.take(group[UPDATES])  # type: ignore[union-attr]
            # A scheduler may have put a float there.
            ratio = on_device if isinstance(base, Tensor) else on_device.item()
            scaled.append((group, "lr", base, base * ratio, ratio, 0))
            group["lr"] = scaled[-1][3]
        if self._momentum_start is not None:
            for group, _ in (*self.floats, *self.tensors):
                update, steps, _ = self._clock.read(group)
                factor = self._clock.schedule.factor(
                    update, steps, self._momentum_start
                )
                scale_momentum(group, min(factor, 1.0), scaled)
        return True

    def count(self, scaled: Scaled, found_inf: Tensor | None) -> list[Group]:
        """Counts the update for every group that it has moved.

        Not moved is a group at LR 0, or a frozen one, be there gradients or not. Of an
        empty one another rank may hold the parameters.

        Returns those that count only if `found_inf`, on its way to the host, is 0.
        """
        waiting = []
        for group, _, base, _, _, update in scaled:
            if update and base:
                params = group["params"]
                if params and not params[0].requires_grad and _is_frozen(params):
                    continue
                if found_inf is None:
                    group[UPDATES] = update
                else:
                    waiting.append(group)
        for group, ramp in self.tensors:
            if not _is_frozen(group["params"]):
                count_on_device(group[UPDATES], ramp.last, group["lr"], found_inf)
        return waiting


def _is_frozen(params: list[Tensor]) -> bool:
    return bool(params) and not any(param.requires_grad for param in params)
