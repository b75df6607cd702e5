"""The plain step, without the price of all that could happen but does not.

It is what `Update` does where there is only one lane, float learning rates, no
arguments and no hooks; the tests run under both, and both give the same bits. Whatever
is unusual it hands over untouched, by returning `UNUSUAL`, and then `Update` runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from warmopt._device import is_capturing
from warmopt._keys import UPDATES, Group
from warmopt._update.compiling import in_compiled_region
from warmopt._update.plan import ASKED_EVERY, Plan, is_frozen
from warmopt._update.update import Scaled

__all__ = ["UNUSUAL", "plain_step"]

UNUSUAL = object()
"""What a plain step returns where it has done nothing."""

is_used = True
"""Only tests set this to False, to see that nothing depends on it."""


def plain_step(plan: Plan) -> Callable[..., Any] | None:
    """Returns the step for a plan; None if its steps are not plain.

    The step takes the planner, the live param groups and the wrapped step. It keeps no
    reference to the planner, since that keeps the step: a cycle would keep the
    parameters in memory after the last reference to the wrapper is gone.
    """
    is_plain = len(plan.lanes) == 1 and plan.lanes[0].groups == plan.groups
    if not (is_used and is_plain) or plan.is_compiled or plan.due_in <= 1:
        return None
    lane, groups = plan.lanes[0], plan.groups
    first, number, follow = groups[0], len(groups), lane.follow
    # The first update is not plain either: a plan then looks at the LR of schedulers.
    if plan.momentum_start is not None or not first[UPDATES]:
        return None
    before, after, before_all, after_all = plan.hooks
    may_capture = plan.may_capture
    # A reading is due at this update, or the warmup may be over: that is not plain.
    limit = min(lane.last, first[UPDATES] + plan.due_in)
    if plan.due_in < math.inf:
        plan.due_in = 0  # the next step that is not plain looks, and counts from there

    def step(planner: Any, live: list[Group], run: Callable[[], Any]) -> Any:
        update = first[UPDATES] + 1
        try:
            is_same = bool(live) and live[0] is first and live == groups
        except RuntimeError:  # it compared tensors, so other groups have come
            return UNUSUAL
        if (
            update >= limit
            or not is_same
            or before
            or after
            or before_all
            or after_all
            or in_compiled_region()
            or (may_capture and is_capturing())
        ):
            return UNUSUAL
        bases = [group["lr"] for group in live]
        counts = [group[UPDATES] for group in live]
        if counts.count(update - 1) != number or not all(bases):
            return UNUSUAL
        if not (update - 1) % ASKED_EVERY:
            for group in live:
                if is_frozen(group["params"]):
                    return UNUSUAL
        factor = follow(update)
        values = [base * factor for base in bases]
        planner.last = live, values
        try:
            for group, value in zip(live, values):  # noqa: B905
                group["lr"] = value
            result = run()
            for group, base, value in zip(live, bases, values):  # noqa: B905
                if group["lr"] is value:
                    group["lr"] = base
                else:
                    Scaled(group, "lr", base, value, factor).put_back()
                group[UPDATES] = update
        except BaseException:
            for group, base, value in zip(live, bases, values, strict=True):
                Scaled(group, "lr", base, value, factor).put_back()
            raise
        return result

    return step
