"""Knows the optimizers for which it does harm to scale the learning rate.

The step of most optimizers is proportional to the LR. If it is not, and a warmup would
do harm, `Warmed` refuses the optimizer or warns. Classes are recognized by their names,
as in `known`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from torch.optim import Optimizer

from warmopt._optimizers.known import is_one_of, names
from warmopt._tell import tell

__all__ = ["check_coupling", "check_first_lrs", "has_stepped"]

_RECTIFIES = (
    "rectifies the variance of its first updates, which is a warmup, and both factors "
    "multiply"
)

_COPIES_GROUPS = "ZeroRedundancyOptimizer"  # to the optimizer that it holds

# (pattern of the class name, what goes wrong, what to do instead)
_REFUSED = (
    (
        r"^(DAdapt|Prodigy)",
        "estimates its step size from steps that the LR is part of, so a warmup "
        "changes the estimate",
        "Use it unwrapped, with lr=1 and its own safeguards (growth_rate, "
        "safeguard_warmup)",
    ),
    (r"^A2Grad", "never reads lr", "Use it unwrapped"),
    (
        r"^ApolloDQN$",
        "sets its step from init_lr while it warms up by itself, whatever the LR",
        "Use its own warmup",
    ),
    (
        r"^AcceleratedOptimizer$",
        "takes calls of step() that only accumulate gradients, which would be counted",
        "Wrap before accelerate does: accelerator.prepare(Warmed(optimizer, ...))",
    ),
)
# (option, what goes wrong where it is set, what to do instead)
_REFUSED_OPTIONS = (
    (
        "warmup",
        "with warmup > 0: until then it sets its step by itself, whatever the LR",
        "Build it with warmup=0",
    ),
    (
        "relative_step",
        "with relative_step=True: it sets its step by itself, whatever the LR",
        "Build it with relative_step=False and an lr",
    ),
)
_WARNED = (
    (
        r"^SWATS$",
        "takes a low LR for a sign that it should switch to SGD, and then switches for "
        "good at that LR",
        "Begin high (start=0.1 or more), or wrap Adam",
    ),
    (
        r"^Lookahead$",
        "moves to its slow weights every few steps, whatever the LR",
        "Wrap the inner optimizer: Lookahead(Warmed(inner, ...))",
    ),
    (r"RAdam|^Ranger", _RECTIFIES, "Use it unwrapped, or wrap Adam with mode='radam'"),
    (
        r"^Rprop$",
        "reads lr only to create its step sizes, so that the first factor scales them "
        "for good",
        "Use it unwrapped",
    ),
    (
        r"^(LightningOptimizer|_FabricOptimizer)$",
        "hides which updates mixed precision skips, so that they are counted",
        "Wrap before Lightning does: in configure_optimizers, or before fabric.setup",
    ),
)


def check_coupling(optimizer: Optimizer) -> None:
    """Refuses an optimizer that a warmup would break, and warns if it may do harm.

    Raises:
        ValueError: A warmup would break it. The message says why, and what to do.

    Warns:
        UserWarning: A warmup may do harm. The message says why, and what to do.
    """
    name = type(optimizer).__name__
    for harm, remedy in _harms_of_class(optimizer, _REFUSED):
        raise ValueError(f"{name} must not be wrapped: it {harm}. {remedy}.")
    options = getattr(optimizer, "defaults", {})  # some wrappers have none
    for option, harm, remedy in _REFUSED_OPTIONS:
        if option in options and any(g.get(option) for g in optimizer.param_groups):
            raise ValueError(f"{name} must not be wrapped {harm}. {remedy}.")
    _check_held(optimizer)
    harms = _harms_of_class(optimizer, _WARNED)
    harms += _harms_of_options(optimizer, options)
    for harm, remedy in harms:
        tell(f"{name} {harm}. {remedy}.")


def _check_held(optimizer: Optimizer) -> None:
    """Refuses an optimizer whose step drives others, which a warmup would not reach.

    Most optimizers that hold another one share their param groups with it, or copy
    them to it at each step.

    Raises:
        ValueError: It holds optimizers with groups of their own, or one that warms up,
            or shares its groups with one that a warmup would break.
    """
    name = type(optimizer).__name__
    own = set(map(id, optimizer.param_groups))
    params = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for attribute, held in _held(optimizer):
        if "warmopt:Warmed" in names(held):
            raise ValueError(
                f"{name} must not be wrapped: it holds one that is Warmed already "
                f"({attribute}), and both factors multiply. Use {name} as it is."
            )
        if not own.isdisjoint(map(id, held.param_groups)):
            check_coupling(held)
        elif not is_one_of(optimizer, _COPIES_GROUPS) and any(
            id(p) in params for group in held.param_groups for p in group["params"]
        ):
            raise ValueError(
                f"{name} must not be wrapped: it steps other optimizers "
                f"({attribute}), whose LRs are not in its own param groups, so the "
                "warmup would have no effect. Wrap each of those."
            )


def _held(optimizer: Optimizer) -> Iterator[tuple[str, Optimizer]]:
    """The optimizers that another one holds, with the name of its attribute."""
    for attribute, value in vars(optimizer).items():
        values = value.values() if isinstance(value, dict) else value
        for each in values if isinstance(values, Collection) else [value]:
            if isinstance(each, Optimizer) and each is not optimizer:
                yield attribute, each


def _harms_of_class(
    optimizer: Optimizer, table: tuple[tuple[str, str, str], ...]
) -> list[tuple[str, str]]:
    """What goes wrong with every optimizer of its class, and what to do instead."""
    # One name per line: with re.MULTILINE, ^ and $ match at each name.
    known = "\n".join(names(optimizer))
    return [
        (harm, remedy)
        for pattern, harm, remedy in table
        if re.search(pattern, known, re.MULTILINE)
    ]


def _harms_of_options(
    optimizer: Optimizer, options: dict[str, Any]
) -> Iterator[tuple[str, str]]:
    """What goes wrong only with some options, and how to build the optimizer instead.

    Args:
        optimizer: The optimizer.
        options: The defaults of its param groups.
    """
    # Here the rectification of RAdam is an option, as in AdaBelief.
    if getattr(optimizer, "_rectify", options.get("rectify", False)):
        yield _RECTIFIES, "Build it with rectify=False"
    groups = optimizer.param_groups
    is_schedule_free = any("ScheduleFree" in name for name in names(optimizer))
    if is_schedule_free and any(group.get("warmup_steps", 0) for group in groups):
        harm = "was built with warmup_steps > 0, and both factors multiply"
        yield harm, "Build it with warmup_steps=0: ours does the same"
    # AdaBound remembers the LRs that it was built with.
    built_at = getattr(optimizer, "base_lrs", [])
    lrs = [group.get("lr") for group in groups]
    if any(base != lr for base, lr in zip(built_at, lrs, strict=False)):
        harm = f"bounds its steps by the LR that it was built with, {built_at}, which "
        yield f"{harm}is no longer the LR, {lrs}", "Build it at the full LR"


def has_stepped(optimizer: Optimizer) -> bool:
    """Whether its state shows that it was stepped. Plain SGD has no state."""
    return any(
        not isinstance(state, dict) or (state and bool(state.get("step", 1)))
        for state in optimizer.state.values()
    )


def check_first_lrs(groups: Sequence[dict[str, Any]]) -> None:
    """Warns if a new run begins below the LR that its scheduler starts or peaks at.

    That is a sign that the scheduler warms up as well. There is no warning if the LR is
    less than a tenth below, since a decay may begin like that. CyclicLR leaves a trace
    in the groups only where it cycles the momentum too.

    Args:
        groups: One of each kind. A tensor LR is not looked at.

    Warns:
        UserWarning: The LR is too low. The message has both LRs, and says what to do.
    """
    for group in groups:
        lr = group["lr"]
        if isinstance(lr, float) and (sign := _sign_of_a_second_warmup(lr, group)):
            tell(
                f"The first update runs at LR {lr:g}, {sign}, and the warmup lowers it "
                "further. If the scheduler warms up too, let only one of them do it."
            )
            return


def _sign_of_a_second_warmup(lr: float, group: dict[str, Any]) -> str | None:
    # The schedulers of timm set the LR times the `lr_scale` of the group.
    for key, scale in (("max_lr", 1.0), ("initial_lr", group.get("lr_scale", 1.0))):
        peak = group.get(key)
        if isinstance(peak, float) and 0.0 < lr < 0.9 * peak * scale:
            return f"below the {key} {peak:g} that a scheduler has set"
    if "base_momentum" in group and "max_lr" not in group:
        return "from where a CyclicLR raises it"
    return None
