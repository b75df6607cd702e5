"""Keeps the plan of the next steps, and all else that is remembered between steps.

Nothing here has to be saved: it follows from the param groups.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from warmopt._device import HostCopy, is_capturing
from warmopt._groups.state import States
from warmopt._keys import Group
from warmopt._measure.climbs import DeviceClimb
from warmopt._measure.watchers import Watcher, climbs_of, watchers_of
from warmopt._torch import step_runs_hooks
from warmopt._update.compiling import eagerly, in_compiled_region, is_compiled
from warmopt._update.plain import plain_step
from warmopt._update.plan import Plan
from warmopt._update.update import Scaled, Update, count, put_back
from warmopt.criteria import Criterion
from warmopt.trace import Trace

__all__ = ["Planner"]


class Planner:
    """Makes a plan when something has changed, and runs steps by it.

    Attributes:
        plan: The plan of the next steps.
        passes_on: The param groups, once a step had nothing to scale: from then on
            steps are only passed on. Else None.
        warming: The param groups if it is certain that some of them warm; else None.
        plain: Runs a plain step (see `plain`); None if the steps are not plain.
        found_inf: What a GradScaler has set for the next step; None without one.
        climbs: Those whose factor lives on the device.
        watchers: Those that read the second moment of some groups.
        last_scaled: What the last `Update` had scaled.
        last_plain: If a plain step came after that, its groups, their base LRs, and the
            factor of all of them; else None.
        loading: The state dict that was checked and is being loaded; None without one.
    """

    def __init__(
        self,
        states: States,
        momentum_start: float | None,
        watch: Sequence[Criterion],
        trace: Trace | None,
    ) -> None:
        self._states, self._ramps = states, states.ramps
        self._momentum_start, self._watch, self._trace = momentum_start, watch, trace
        self._is_fresh = True  # it was never loaded, nor asked to warm again
        self.plan: Plan
        self.passes_on: list[Group] | None = None
        self.warming: list[Group] | None = None
        self.plain: Callable[..., Any] | None = None
        self.found_inf: Tensor | None = None
        self.watchers: list[Watcher] = []
        self.climbs: list[DeviceClimb] = []
        self.last_scaled: Sequence[Scaled] = ()
        self.last_plain: tuple[Sequence[Group], Sequence[Any], float] | None = None
        self.loading: Any = None
        # The last step, if it is not yet known whether it was skipped: its `found_inf`,
        # which is being copied to the host, and what the step had scaled.
        self._late: tuple[HostCopy, list[Scaled]] | None = None
        self._looks_late = False  # a watcher waits for its numbers

    def renew(self, wrapped: Optimizer) -> None:
        """Starts the warmup of new groups, and makes a new plan."""
        groups = wrapped.param_groups
        self._states.begin_all(groups)
        self.watchers = watchers_of(
            wrapped, self._ramps, self._watch, self._trace, self.watchers
        )
        start, is_fresh = self._momentum_start, self._is_fresh
        self.climbs = climbs_of(wrapped, self._ramps, self.climbs)
        self.plan = Plan(
            wrapped, self._ramps, self.watchers, self.climbs, start, is_fresh
        )
        self.passes_on = None
        self.warming = self.plan.groups if self.plan.lanes else None
        self.plain = None

    def forget(self) -> None:
        """Drops what does not hold any more, as after a load; then call `renew`."""
        self.last_scaled, self.last_plain = (), None
        self.climbs = []
        self.watchers, self._late, self._looks_late = [], None, False
        self._is_fresh = False

    def run(
        self, wrapped: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Runs a step of the wrapped optimizer as one update."""
        self.catch_up(wrapped)
        plan, step = self.plan, wrapped.step
        plan.is_compiled = is_compiled(step)
        if plan.may_capture and is_capturing():
            plan.check_capture(wrapped.param_groups)
        if plan.lanes and (plan.is_compiled or in_compiled_region()):
            step = eagerly(step)
        is_hooked = any(plan.hooks) and step_runs_hooks(wrapped)
        result = Update(wrapped, self).run(step, args, kwargs, is_hooked)
        self._after(wrapped)
        return result

    def last_lrs(self) -> dict[int, Any]:
        """The LR that each group was stepped at in the last step, by its `id`."""
        if self.last_plain is not None:
            groups, bases, factor = self.last_plain
            if len(groups) < len(bases):
                return {}  # groups were taken away since
            lrs = [base * factor for base in bases]
            return dict(zip(map(id, groups), lrs, strict=False))  # new ones are last
        lrs_alone = (each for each in self.last_scaled if each[1] == "lr")
        return {id(group): lr for group, _, _, lr, *_ in lrs_alone}

    # --- what an update asks ---------------------------------------------------------

    def scale(self, wrapped: Optimizer, scaled: list[Scaled]) -> None:
        """Scales what is planned, by a new plan if the old one does not hold."""
        if not self.plan.scale(wrapped.param_groups, scaled):
            put_back(scaled)
            scaled.clear()
            self.renew(wrapped)
            self.plan.scale(wrapped.param_groups, scaled)
        self.last_scaled, self.last_plain = scaled, None

    def count(self, scaled: list[Scaled]) -> None:
        """Counts the update of each group, unless the step was skipped.

        A fused optimizer skips a step by itself if `found_inf` is not 0. On a GPU the
        host does not wait to know that: the update is counted before the next one.
        """
        found_inf = self.found_inf
        self.plan.count_on_device(found_inf)
        if found_inf is not None and found_inf.is_cuda:
            self._late = HostCopy(found_inf), scaled
        elif found_inf is None or not found_inf.item():
            count(scaled)

    # --- after the step --------------------------------------------------------------

    def _after(self, wrapped: Optimizer) -> None:
        self._looks_late = any(watcher.is_waiting for watcher in self.watchers)
        if self._late is not None or self._looks_late:
            self.warming = None  # this update may be the last one, or was skipped
            # If ranks read together, all of them must do it at the same time: now.
            if any(watcher.is_collective for watcher in self.watchers):
                self.catch_up(wrapped)
            return
        self._look(wrapped)
        plan = self.plan
        if plan.is_over and not plan.held:
            self.passes_on = plan.groups
        elif self.plain is None and self.found_inf is None:
            self.plain = plain_step(plan)

    def catch_up(self, wrapped: Optimizer) -> None:
        """Does what had to wait for the device after the last update."""
        if self._late is None and not self._looks_late:
            return
        late, self._late, self._looks_late = self._late, None, False
        if late is not None and not late[0].numbers():
            count(late[1])
        self.warming = self.plan.groups if self.plan.lanes else None
        self._look(wrapped)

    def _look(self, wrapped: Optimizer) -> None:
        """Reads what is due, and makes a new plan if a warmup has ended."""
        plan = self.plan
        plan.due_in -= 1
        if plan.due_in <= 0 and not (plan.may_capture and is_capturing()):
            plan.look()
            self.plain = None
        if plan.is_stale:
            warmed = [group for lane in plan.lanes for group in lane.groups]
            warmed += [each.group for each in plan.on_device]
            self.renew(wrapped)
            self._warn_if_held(warmed)

    def _warn_if_held(self, warmed: list[Group]) -> None:
        """Says once of groups that have warmed if they are held below 1 from now on."""
        held: dict[float, list[Group]] = {}
        for group, factor in self.plan.held:
            if any(group is each for each in warmed):
                held.setdefault(factor, []).append(group)
        for factor, groups in held.items():
            ids, some = set(map(id, groups)), "groups" if len(groups) > 1 else "group"
            every = enumerate(self.plan.groups)
            indices = ", ".join(str(index) for index, g in every if id(g) in ids)
            lrs = ", ".join(f"{factor * float(group['lr']):.3g}" for group in groups)
            warnings.warn(
                f"The warmup of param {some} {indices} holds at "
                f"factor {factor:.3g} from now on, an LR of {lrs}. Build the optimizer "
                "with that LR, or call rewarm() to climb again.",
                stacklevel=6,
            )
