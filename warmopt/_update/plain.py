"""The plain step: a fast path for the usual case, without what only rare cases need.

It does what `Update` does if there are no arguments and no hooks, and if all groups
have float learning rates, the same count and one factor. If anything is unusual, it
changes nothing and returns `UNUSUAL`; then `Update` runs. The contract tests run with
it and without it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from warmopt._device import is_capturing
from warmopt._keys import UPDATES, Group
from warmopt._update.compiling import in_compiled_region
from warmopt._update.plan import ASKED_EVERY, Plan, is_frozen
from warmopt._update.update import as_scaled, put_back

__all__ = ["UNUSUAL", "plain_step"]

UNUSUAL = object()
is_used = True  # only tests set it to False

PlainStep = Callable[[Any, Optimizer], Any]
"""Takes the planner and the wrapped optimizer. It does not store the planner, since the
planner holds this function: such a cycle would keep the parameters in memory after the
wrapper is gone."""


def plain_step(plan: Plan) -> PlainStep | None:
    """Returns the plain step of a plan; None if its steps are not plain."""
    is_one_lane = len(plan.lanes) == 1 and plan.lanes[0].groups == plan.groups
    if not (is_used and is_one_lane) or plan.is_compiled:
        return None
    if plan.momentum_start is not None:
        return None
    count = plan.groups[0][UPDATES]
    # At `limit` a reading is due, or the warmup may be over. At update 1 a plan looks
    # at the LRs of schedulers.
    limit = min(plan.lanes[0].last, count + plan.due_in)
    has_tensors = any(isinstance(group["lr"], Tensor) for group in plan.groups)
    if not count or limit <= count + 1 or has_tensors:
        return None
    if plan.due_in < math.inf:
        plan.due_in = 0  # the next step that is not plain looks, and counts from there
    return (_one if len(plan.groups) == 1 else _many)(plan, limit)


def _is_interfered(may_capture: bool) -> Callable[[], Any]:
    """Whether a compiler or a CUDA graph takes part in the step."""
    if not may_capture:
        return in_compiled_region
    return lambda: in_compiled_region() or is_capturing()


def _one(plan: Plan, limit: float) -> PlainStep:
    hooks, follow, groups = plan.hooks, plan.lanes[0].follow, plan.groups
    group = groups[0]
    is_interfered = _is_interfered(plan.may_capture)

    def step(planner: Any, wrapped: Optimizer) -> Any:
        live, count, base = wrapped.param_groups, group[UPDATES], group["lr"]
        if (
            count + 1 >= limit
            or not base
            or any(hooks)
            or len(live) != 1
            or live[0] is not group
            or is_interfered()
            or (not count % ASKED_EVERY and is_frozen(group["params"]))
        ):
            return UNUSUAL
        factor = follow(count + 1)
        value = base * factor
        try:
            planner.in_flight = flight = groups, (base,), factor, count
            group["lr"] = value
            result = wrapped.step()
            if group["lr"] is value:
                group["lr"] = base
            else:
                _put_back(planner)
            group[UPDATES] = count + 1
            planner.last_plain = flight
            planner.in_flight = None
        except BaseException:
            planner.rest(counts=False)
            raise
        return result

    return step


def _many(plan: Plan, limit: float) -> PlainStep:
    hooks, follow, groups = plan.hooks, plan.lanes[0].follow, plan.groups
    first, number, key = groups[0], len(groups), UPDATES
    is_interfered = _is_interfered(plan.may_capture)

    def step(planner: Any, wrapped: Optimizer) -> Any:
        live, count, base = wrapped.param_groups, first[key], first["lr"]
        try:  # as `are_same` does, without a call
            is_same = live == groups
        except (RuntimeError, ValueError):
            is_same = False
        if (
            not is_same
            or count + 1 >= limit
            or any(hooks)
            or is_interfered()
            or (not count % ASKED_EVERY and _is_any_frozen(live))
        ):
            return UNUSUAL
        factor = follow(count + 1)
        if not base or live[-1]["lr"] is not base:
            return _at_own_lrs(planner, wrapped, count, factor)
        value = base * factor
        try:
            flight = (*live,), (base,) * number, factor, count
            planner.in_flight = *flight, value
            for group in live:
                if group["lr"] is not base or group[key] != count:
                    break
                group["lr"] = value
            else:
                planner.in_flight = flight
                result = wrapped.step()
                for group in live:
                    if group["lr"] is value:
                        group["lr"] = base
                    else:
                        _put_back(planner)
                    group[key] = count + 1
                planner.last_plain = flight
                planner.in_flight = None
                return result
            # Another count, or another LR between the first and the last group.
            planner.rest(counts=False)
        except BaseException:
            planner.rest(counts=False)
            raise
        return _at_own_lrs(planner, wrapped, count, factor)

    return step


def _at_own_lrs(planner: Any, wrapped: Optimizer, count: int, factor: float) -> Any:
    """The same for groups that do not share one object as their LR."""
    live, key = wrapped.param_groups, UPDATES
    bases: list[Any] = []
    try:
        planner.in_flight = flight = (*live,), bases, factor, count
        for group in live:
            base = group["lr"]
            if not base or group[key] != count:
                planner.rest(counts=False)
                return UNUSUAL
            bases.append(base)
            group["lr"] = base * factor
        result = wrapped.step()
        for group, base in zip(live, bases):  # noqa: B905 (strict is slower)
            if group["lr"] == base * factor:
                group["lr"] = base
            else:
                _put_back(planner)
            group[key] = count + 1
        planner.last_plain = flight
        planner.in_flight = None
    except BaseException:
        planner.rest(counts=False)
        raise
    return result


def _put_back(planner: Any) -> None:
    """Puts back all LRs where the optimizer has written one of them."""
    planner.in_flight = scaled = as_scaled(planner.in_flight)
    put_back(scaled)


# This is a function, since a generator or a comprehension in a step would make its
# variables slower.


def _is_any_frozen(groups: list[Group]) -> bool:
    """Whether a group may be frozen, by its first parameter: `Update` looks at all."""
    for group in groups:
        if group["params"] and not group["params"][0].requires_grad:
            return True
    return False
