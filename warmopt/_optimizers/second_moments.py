"""Finds the second moment that an optimizer keeps for each parameter.

The second moment is an exponential average of squared gradients (`exp_avg_sq`,
`square_avg`), and beta2 is its decay per update. This module only reads the state of
an optimizer, and never writes to it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeGuard

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

import warmopt._optimizers.known as known
from warmopt.joined import owner

__all__ = [
    "Moment",
    "Override",
    "beta2",
    "check_has_second_moment",
    "decay_key",
    "decay_of",
    "find_moment",
    "has_none",
    "inner",
    "is_without",
    "no_second_moment",
    "stalls",
    "warn_if_one_stalls",
]

Override = str | Callable[[Parameter, dict[str, Any], dict[str, Any]], Tensor | None]


class Moment(NamedTuple):
    """The second moment of one parameter, as the optimizer keeps it now.

    Attributes:
        values: The tensor in the optimizer's state itself, so do not write to it. It
            has the shape of the parameter, or that of its rows (factored), or it is one
            number for the whole parameter. It may be complex (the squares of both
            parts), of low precision, or a DTensor.
        beta2: Its decay per update; None if that is not a fixed number (Adafactor).
        debias: Whether `values` must be divided by 1 - beta2**age to get the square of
            what the optimizer divides by.
        age: Updates averaged so far, an int or a 0-dim tensor; None if nobody counts.
        momentum: The average of the gradients, with the shape of `values`; None if
            there is none.
        kind: The state key that it was found under, or the name of the user's function.
    """

    values: Tensor
    beta2: float | None
    debias: bool
    age: Any
    momentum: Tensor | None
    kind: str


def find_moment(
    optimizer: Optimizer,
    param: Parameter,
    group: dict[str, Any],
    override: Override | None = None,
) -> Moment | None:
    """Returns the second moment of a parameter; None if there is none, or none yet.

    Args:
        optimizer: The optimizer. If it is a wrapper (Lookahead, SAM, ZeRO), the
            optimizer inside is used.
        param: The parameter.
        group: Its param group.
        override: A state key, or a function (param, state, group) -> tensor or None.
            It is used instead of the tables in `known`.

    Raises:
        TypeError: The override gives something that is not a floating tensor.

    Example:
        >>> weight = torch.nn.Parameter(torch.zeros(1))
        >>> weight.grad = torch.ones(1)
        >>> adam = torch.optim.Adam([weight], betas=(0.9, 0.75))
        >>> adam.step()
        >>> find_moment(adam, weight, adam.param_groups[0]).values
        tensor([0.2500])
    """
    optimizer = inner(optimizer)
    state = optimizer.state.get(param)  # a defaultdict: [param] would add an entry
    if not isinstance(state, dict) or not state:
        return None
    kind, values = _look_up(optimizer, param, state, group, override)
    if values is None or not values.numel():
        return None
    # The momentum is compared with the second moment, coordinate by coordinate. So it
    # must have the same shape, and must be an average of gradients.
    momentum = state.get("exp_avg")
    if (
        not _is_readable(momentum)
        or momentum.shape != values.shape
        or known.is_one_of(optimizer, known.AVERAGES_UPDATES)
    ):
        momentum = None
    decay = decay_of(optimizer, group)
    # Without a known decay, the bias cannot be computed.
    as_stored = decay is None or known.is_one_of(optimizer, known.AS_STORED)
    # Some optimizers count their updates in the group.
    age = state.get("step", group.get("step"))
    late = known.of_class(optimizer, known.LATE, None)
    if late and age is not None:
        age = max(age - late(group), 0)
    return Moment(values, decay, not as_stored, age, momentum, kind)


def check_has_second_moment(
    optimizer: Optimizer, override: Override | None = None
) -> None:
    """Refuses an optimizer that certainly has no second moment.

    This is certain for a known class, and for an optimizer that has made a step. For
    any other optimizer, it shows only after its first step.

    Raises:
        ValueError: The optimizer keeps no second moment.
    """
    optimizer = inner(optimizer)
    if override is None and is_without(optimizer):
        raise no_second_moment(optimizer)
    stepped = False
    for group in optimizer.param_groups:
        for param in group["params"]:
            state = optimizer.state.get(param)
            if not isinstance(state, dict) or not state:
                continue
            if find_moment(optimizer, param, group, override) is not None:
                return
            stepped |= bool(state.get("step", group.get("step", 0)))
    if stepped:  # before a step, the state is only what it was built with
        raise no_second_moment(optimizer, override)


def is_without(optimizer: Optimizer) -> bool:
    """Whether its class is known to keep no second moment."""
    return bool(known.of_class(inner(optimizer), known.WITHOUT, ""))


def has_none(optimizer: Optimizer, override: Override | None = None) -> bool:
    """Whether the optimizer has state, but no second moment of any parameter."""
    optimizer = inner(optimizer)
    # Empty entries do not count. One that is no dict is state that we cannot read.
    entries = optimizer.state.values()
    if not any(not isinstance(entry, dict) or entry for entry in entries):
        return False
    return not any(
        find_moment(optimizer, param, group, override)
        for group in optimizer.param_groups
        for param in group["params"]
    )


def no_second_moment(
    optimizer: Optimizer, override: Override | None = None
) -> ValueError:
    """Returns the error for an optimizer that has no second moment of any parameter."""
    optimizer = inner(optimizer)
    name = type(optimizer).__name__
    states = [state for state in optimizer.state.values() if isinstance(state, dict)]
    keys = sorted({str(key) for state in states for key in state})
    seen = f"its state keys are {', '.join(keys)}" if keys else "its state is empty"
    if override is not None:
        problem = f"second_moment={override!r} gives none for any parameter of {name}"
        problem += f": {seen}."
        instead = "another state key or callable"
    else:
        kept = known.of_class(optimizer, known.WITHOUT, "")
        problem = f"{name} keeps no second moment that could settle: "
        problem += f"it keeps {kept}." if kept else f"{seen}."
        instead = "second_moment=<state key or callable> if you know of one"
    return ValueError(f"{problem} Use mode='linear' with steps=n, or pass {instead}.")


def stalls(moment: Moment) -> bool:
    """Whether rounding stops this average before it has settled.

    An update changes the average by a share of 1 - beta2. This change is lost if two
    neighbouring numbers of the dtype are further apart: in bfloat16 with beta2 = 0.999,
    the average stops at half its true value. So it says nothing that it stands still.
    """
    spacing = torch.finfo(moment.values.dtype).eps
    return moment.beta2 is not None and 1 - moment.beta2 < spacing / 2


def warn_if_one_stalls(optimizer: Optimizer, moments: Iterable[Moment]) -> None:
    """Gives one warning if rounding stops averages. Call it after the first step."""
    stalled = [moment for moment in moments if stalls(moment)]
    if stalled:
        name, (first, *_) = type(inner(optimizer)).__name__, stalled
        dtype = str(first.values.dtype).removeprefix("torch.")
        warnings.warn(
            f"{name} keeps {len(stalled)} second moments in {dtype}, which is too "
            f"coarse for beta2={first.beta2}: they stop moving before they have "
            "settled, so they are not counted as settled. Keep the parameters in "
            "float32 (with autocast), or lower beta2.",
            stacklevel=3,
        )


def beta2(optimizer: Optimizer, group: dict[str, Any]) -> float:
    """Returns the decay of the group's second moment, dimensionless, in [0, 1).

    Raises:
        ValueError: The group has no such option, or its value is not in [0, 1).

    Example:
        >>> adam = torch.optim.Adam([torch.zeros(1)], betas=(0.9, 0.98))
        >>> beta2(adam, adam.param_groups[0])
        0.98
    """
    optimizer = inner(owner(optimizer, group))
    decay = decay_of(optimizer, group)
    if decay is None:
        raise ValueError(
            f"{type(optimizer).__name__} has no beta2 (looked for betas[1], for alpha "
            "in RMSprop and rho in Adadelta), from which an untuned mode takes its "
            "length. Use mode='linear' with steps=n."
        )
    if not 0.0 <= decay < 1.0:
        raise ValueError(
            f"beta2 must be in [0, 1), got {decay} in {decay_key(optimizer)!r} of "
            f"{type(optimizer).__name__}. Use mode='linear' with steps=n."
        )
    return decay


def _look_up(
    optimizer: Optimizer,
    param: Parameter,
    state: dict[str, Any],
    group: dict[str, Any],
    override: Override | None,
) -> tuple[str, Tensor | None]:
    """The state key of the second moment, and the tensor under it.

    If a function was given, its name stands for the key.
    """
    if override is None:
        return _first_known(optimizer, state)
    if callable(override):
        kind = getattr(override, "__name__", repr(override))
        values = override(param, state, group)
    else:
        kind, values = override, state.get(override)
    if values is not None and not _is_readable(values):
        dtype = getattr(values, "dtype", None)
        raise TypeError(
            f"second_moment must give a plain floating tensor or None, got a "
            f"{type(values).__name__}{f' of {dtype}' if dtype else ''} from {kind!r}. "
            "Pass a callable that dequantizes it."
        )
    return kind, values


def _first_known(
    optimizer: Optimizer, state: dict[str, Any]
) -> tuple[str, Tensor | None]:
    """The first known state key with a readable tensor, and the tensor."""
    if not known.of_class(optimizer, known.WITHOUT, ""):
        for key in known.of_class(optimizer, known.KEYS_OF_CLASS, known.KEYS):
            values = state.get(key)
            if _is_readable(values):
                return key, values
    return "", None


def _is_readable(values: object) -> TypeGuard[Tensor]:
    """Whether this is a tensor of plain numbers.

    Quantized tensors are not: they hold integers, or are of a class of torchao.
    """
    return (
        isinstance(values, Tensor)
        and (values.is_floating_point() or values.is_complex())
        and not type(values).__module__.startswith("torchao")
    )


def decay_key(optimizer: Optimizer) -> str:
    """Key of the option in a param group that holds the decay, if there is one."""
    keys = known.of_class(optimizer, known.DECAY_OF_CLASS, known.DECAY) or known.DECAY
    return keys[0]


def decay_of(optimizer: Optimizer, group: dict[str, Any]) -> float | None:
    """The decay of the second moment, not checked; None if it is no fixed number."""
    keys = known.of_class(optimizer, known.DECAY_OF_CLASS, known.DECAY)
    if keys is None:
        return None
    key, index = keys
    value = group.get(key)
    if index is not None and isinstance(value, (tuple, list)) and len(value) > index:
        value = value[index]
    try:
        decay = float(value)  # type: ignore[arg-type]  # float or 0-dim tensor
    except (TypeError, ValueError):
        return None
    return decay**2 if known.is_one_of(optimizer, known.DECAYS_TWICE) else decay


def inner(optimizer: Optimizer) -> Optimizer:
    """The optimizer inside a wrapper such as Lookahead, SAM, ZeroRedundancyOptimizer.

    An optimizer that is not a wrapper is returned as it is.
    """
    # Wrappers keep it under one of these names.
    for name in ("optimizer", "base_optimizer", "optim"):
        wrapped = getattr(optimizer, name, None)
        if isinstance(wrapped, Optimizer) and wrapped is not optimizer:
            return inner(wrapped)
    return optimizer
