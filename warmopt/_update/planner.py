"""Keeps the plan of the next steps, and all else that is remembered between steps.

Nothing here has to be saved: it follows from the param groups.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import is_
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from warmopt._device import HostCopy, is_capturing, normal_tensors
from warmopt._groups.state import States
from warmopt._keys import UPDATES, Group
from warmopt._measure.climbs import DeviceClimb
from warmopt._measure.watchers import Watcher, climbs_of, watchers_of
from warmopt._tell import tell
from warmopt._torch import step_runs_hooks
from warmopt._update.compiling import eagerly, in_compiled_region, is_compiled
from warmopt._update.parts import Parts
from warmopt._update.plain import plain_step
from warmopt._update.plan import Plan
from warmopt._update.update import (
    Flight,
    Scaled,
    Update,
    as_scaled,
    at_rest,
    count,
    put_back,
    uncount,
)
from warmopt.criteria import Criterion
from warmopt.trace import Trace

__all__ = ["Planner"]

MOVED = ("lr", "momentum", "betas", UPDATES)  # the entries of a group that steps change


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
        in_flight: What is scaled now, in the middle of a step; else None.
        is_asked: Whether somebody asks for the LRs of the last step. Then they are
            noted after the warmup too.
        last_scaled: What the last `Update` had scaled.
        last_plain: If a step came after that without one, the same, as a tuple.
        guard: The hook that notices that the wrapped optimizer is stepped alone; None
            after the first step of the wrapper.
        loading: The state dict that was checked and is being loaded; None without one.
    """

    def __init__(
        self,
        states: States,
        momentum_start: float | None,
        watch: Sequence[Criterion],
        trace: Trace | None,
        is_fresh: bool,
    ) -> None:
        self._states, self._ramps = states, states.ramps
        self._momentum_start, self._watch, self._trace = momentum_start, watch, trace
        self._is_fresh = is_fresh  # nor was it loaded since, or asked to warm again
        self._parts = Parts()
        self.plan: Plan
        self.passes_on: list[Group] | None = None
        self.warming: list[Group] | None = None
        self.plain: Callable[..., Any] | None = None
        self.found_inf: Tensor | None = None
        self.watchers: list[Watcher] = []
        self.climbs: list[DeviceClimb] = []
        self.is_asked = False
        self.last_scaled: Sequence[Scaled] = ()
        self.last_plain: tuple[Any, ...] | None = None
        self._others: list[tuple[Group, Any]] = []  # see `last_lrs`
        self.in_flight: Flight | None = None
        self.guard: RemovableHandle | None = None
        self.loading: Any = None
        # The last step, if it is not yet known whether it was skipped: its `found_inf`,
        # which is being copied to the host, and what the step had scaled.
        self._late: tuple[HostCopy, list[Scaled]] | None = None
        self._looks_late = False  # a watcher waits for its numbers
        if trace is not None:
            trace.in_doubt = bool(trace.rows)

    @normal_tensors
    def renew(self, wrapped: Optimizer) -> None:
        """Starts the warmup of new groups, and makes a new plan."""
        groups = wrapped.param_groups
        if hasattr(self, "plan"):
            self._is_fresh = self._is_fresh and self.plan.is_fresh
        self._states.begin_all(groups)
        if self._trace is not None and self._trace.in_doubt and not self.watchers:
            # This is a new wrapper, or one that was loaded. It goes on with the run
            # that is recorded, unless its own has not begun.
            counts = [int(group.get(UPDATES, 0)) for group in groups]
            self._trace.in_doubt = not any(counts)
        self.watchers = watchers_of(
            wrapped, self._ramps, self._watch, self._trace, self.watchers
        )
        self.climbs = climbs_of(wrapped, self._ramps, self.climbs)
        self._parts.expect(groups)
        self.plan = Plan(
            wrapped,
            self._ramps,
            self.watchers,
            self.climbs,
            self._parts,
            self._momentum_start,
            self._is_fresh,
        )
        self.passes_on = None
        self.warming = self.plan.groups if self.plan.lanes else None
        self.plain = None

    def forget(self) -> None:
        """Drops what does not hold any more, as after a load; then call `renew`."""
        self.last_scaled, self.last_plain, self._others = (), None, []
        self.climbs = []
        self.watchers, self._late, self._looks_late = [], None, False
        self._is_fresh = False

    def run(
        self, wrapped: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Runs a step of the wrapped optimizer as one update."""
        if self.guard is not None:
            self.guard.remove()
            self.guard = None
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

    def last_lrs(self) -> list[tuple[Group, Any]]:
        """The groups that were stepped so far, and at which LR the last time.

        Frameworks step groups one by one, so not all of them were in the last step.
        """
        if self.last_plain is not None:
            groups, bases, factor, *_ = self.last_plain
            lrs = [base * factor for base in bases]
            return [*self._others, *zip(groups, lrs, strict=True)]
        lrs_alone = (each for each in self.last_scaled if each[1] == "lr")
        return [*self._others, *((group, lr) for group, _, _, lr, *_ in lrs_alone)]

    # --- what an update asks ---------------------------------------------------------

    def scale(self, wrapped: Optimizer) -> None:
        """Scales what is planned, by a new plan if the old one does not hold."""
        scaled: list[Scaled] = []
        self.in_flight = scaled
        if not self.plan.scale(wrapped.param_groups, scaled):
            put_back(scaled)
            scaled.clear()
            ids = set(map(id, wrapped.param_groups))
            self._others = [each for each in self.last_lrs() if id(each[0]) not in ids]
            self.renew(wrapped)
            self.plan.scale(wrapped.param_groups, scaled)
        if self.is_asked:
            known = {id(group) for group, *_ in scaled}
            others = [g for g in wrapped.param_groups if id(g) not in known]
            scaled += [(g, "lr", g["lr"], _copied(g["lr"]), 1.0, 0) for g in others]
        self.last_scaled, self.last_plain = scaled, None

    def note_lrs(self, groups: Sequence[Group]) -> None:
        """Notes the LRs of a step that is only passed on."""
        lrs = [_copied(group["lr"]) for group in groups]
        self.last_plain = (*groups,), lrs, 1.0

    def rest(self, counts: bool) -> None:
        """Puts back what is scaled; counts the update, or leaves the count as it was.

        If nothing is scaled, it does nothing.
        """
        if self.in_flight is None:
            return
        self.in_flight = scaled = as_scaled(self.in_flight)
        put_back(scaled)
        if counts:
            self._count(scaled)
        else:
            uncount(scaled)
        self.in_flight = None

    def _count(self, scaled: list[Scaled]) -> None:
        """Counts the update of each group, unless the step was skipped.

        A fused optimizer skips a step by itself if `found_inf` is not 0. On a GPU the
        host does not wait to know that: the update is counted before the next one.
        """
        found_inf = self.found_inf
        self.plan.count_on_device(found_inf)
        if found_inf is None:
            count(scaled)
        elif not any(update for *_, update in scaled):
            pass  # the host counts nothing, so it need not know
        elif found_inf.is_cuda:
            self._late = HostCopy(found_inf), scaled
        elif not found_inf.item():
            count(scaled)

    # --- what others see, at any instant ---------------------------------------------

    def at_rest(self, groups: Sequence[Group]) -> list[dict[str, Any]]:
        """What an update changes in each group, as it is between two steps.

        In the middle of a step, it is what it was before the step. Nothing is written.
        Another thread may ask this, and then a step may begin or end meanwhile.
        """
        while True:
            before = self.in_flight, self.last_plain, self.last_scaled
            seen = {
                id(group): {key: group[key] for key in MOVED if key in group}
                for group in groups
            }
            for group, key, base, value, factor, update in as_scaled(before[0]):
                if (own := seen.get(id(group))) is not None:
                    own[key] = at_rest(own[key], key, base, value, factor)
                    own[UPDATES] = update - 1 if update else own[UPDATES]
            after = self.in_flight, self.last_plain, self.last_scaled
            if all(map(is_, before, after)):
                return [seen[id(group)] for group in groups]

    # --- after the step --------------------------------------------------------------

    def _after(self, wrapped: Optimizer) -> None:
        self._looks_late = any(watcher.is_waiting for watcher in self.watchers)
        if self._late is not None or self._looks_late:
            self.warming = None  # this update may be the last one, or was skipped
            # If ranks read together, all of them must do it at the same time: now.
            if any(watcher.is_collective for watcher in self.watchers):
                self.catch_up(wrapped)
            return
        plan = self.plan
        had_nothing_to_scale = plan.is_over and not plan.held
        self._look(wrapped)
        if had_nothing_to_scale:
            self.passes_on = plan.groups
        elif self.plain is None and self.found_inf is None:
            is_whole = self._parts.are_whole(self.plan.groups)
            self.plain = plain_step(self.plan) if is_whole else None

    def catch_up(self, wrapped: Optimizer) -> None:
        """Does what had to wait for the device after the last update."""
        is_late = self._late is not None or self._looks_late
        if not is_late or self.in_flight is not None:
            return
        if self._late is not None:
            found_inf, scaled = self._late
            if not found_inf.numbers():
                count(scaled)
        self._late, self._looks_late = None, False
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
            tell(
                f"The warmup of param {some} {indices} holds at "
                f"factor {factor:.3g} from now on, an LR of {lrs}. Build the optimizer "
                "with that LR, or call rewarm() to climb again."
            )


def _copied(lr: Any) -> Any:
    """A copy of an LR, if it could change in place."""
    return lr.clone() if isinstance(lr, Tensor) else lr
