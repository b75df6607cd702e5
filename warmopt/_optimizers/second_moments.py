"""Finds the second moment that an optimizer keeps of each parameter.

The second moment is an exponential average of squared gradients (`exp_avg_sq`,
`square_avg`); beta2 is its decay per update. Nothing here is ever written to.
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
    "no_second_moment",
    "stalls",
    "warn_if_one_stalls",
]

Override = str | Callable[[Parameter, dict[str, Any], dict[str, Any]], Tensor | None]


class Moment(NamedTuple):
    """The second moment of one parameter, as the optimizer keeps it now.

    Attributes:
        values: The tensor in the state itself, so never to be written: of the shape of
            the parameter, of its rows (factored) or of none (one number for it all).
            May be complex (the squares of the two parts), low-precision or a DTensor.
        beta2: Its decay per update; None where that is no fixed number (Adafactor).
        debias: `values` must be divided by 1 - beta2**age to be the square of what the
            optimizer divides by.
        age: Updates averaged so far, int or 0-dim tensor; None if nobody counts them.
        momentum: The average of the gradients, of the shape of `values`, if any.
        kind: The state key it was found under, for messages.
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
    """Returns the second moment of a parameter, None while or where there is none.

    Args:
        optimizer: The optimizer; wrappers around it (Lookahead, SAM, ZeRO) are seen
            through.
        param: The parameter.
        group: Its param group.
        override: A state key, or a function (param, state, group) -> tensor or None,
            in place of the tables.

    Raises:
        TypeError: The override gives something else than a tensor.

    Example:
        >>> weight = torch.nn.Parameter(torch.zeros(1))
        >>> weight.grad = torch.ones(1)
        >>> adam = torch.optim.Adam([weight], betas=(0.9, 0.75))
        >>> adam.step()
        >>> find_moment(adam, weight, adam.param_groups[0]).values
        tensor([0.2500])
    """
    optimizer = inner(optimizer)
    state = optimizer.state.get(param)  # indexing would create an entry
    if not state:
        return None
    kind, values = _look_up(optimizer, param, state, group, override)
    if values is None or not values.numel():
        return None
    momentum = state.get("exp_avg")
    if (
        not _is_readable(momentum)
        or momentum.shape != values.shape
        or known.is_one_of(optimizer, known.AVERAGES_UPDATES)
    ):
        momentum = None
    decay = decay_of(optimizer, group)
    as_stored = decay is None or known.is_one_of(optimizer, known.AS_STORED)
    age = state.get("step", group.get("step"))
    late = known.of_class(optimizer, known.LATE, None)
    if late and age is not None:
        age = max(age - late(group), 0)
    return Moment(values, decay, not as_stored, age, momentum, kind)


def check_has_second_moment(
    optimizer: Optimizer, override: Override | None = None
) -> None:
    """Raises a ValueError if it is already certain that nothing will be found.

    That is for a known class, or one that was stepped before; of others it shows after
    the first step.
    """
    optimizer = inner(optimizer)
    if override is None and known.of_class(optimizer, known.WITHOUT, ""):
        raise no_second_moment(optimizer)
    stepped = False
    for group in optimizer.param_groups:
        for param in group["params"]:
            state = optimizer.state.get(param)
            if not state:
                continue
            if find_moment(optimizer, param, group, override) is not None:
                return
            stepped |= bool(state.get("step", group.get("step", 0)))
    if stepped:  # else its state is what it was born with
        raise no_second_moment(optimizer, override)


def has_none(optimizer: Optimizer, override: Override | None = None) -> bool:
    """Whether it has state, but no second moment of any parameter."""
    optimizer = inner(optimizer)
    entries = optimizer.state.values()
    if not any(entry or not isinstance(entry, dict) for entry in entries):
        return False
    return not any(
        find_moment(optimizer, param, group, override)
        for group in optimizer.param_groups
        for param in group["params"]
    )


def no_second_moment(
    optimizer: Optimizer, override: Override | None = None
) -> ValueError:
    """Returns the error for an optimizer of which no parameter has a second moment."""
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

    An update changes it by the share 1 - beta2, which is lost where the numbers lie
    further apart: from bfloat16 on, .999 stops at half the true value. So stillness
    means nothing here.
    """
    spacing = torch.finfo(moment.values.dtype).eps
    return moment.beta2 is not None and 1 - moment.beta2 < spacing / 2


def warn_if_one_stalls(optimizer: Optimizer, moments: Iterable[Moment]) -> None:
    """Warns once of averages that rounding stops; to be called after the first step."""
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
        ValueError: The group has no such option, or one outside [0, 1).

    Example:
        >>> adam = torch.optim.Adam([torch.zeros(1)], betas=(0.9, 0.98))
        >>> beta2(adam, adam.param_groups[0])
        0.98
    """
    optimizer = inner(optimizer)
    decay = decay_of(optimizer, group)
    if decay is None:
        raise ValueError(
            f"{type(optimizer).__name__} has no beta2 (looked for betas[1], for alpha "
            "in RMSprop and rho in Adadelta), from which an untuned mode takes its "
            "length. Use mode='linear' with steps=n."
        )
    if not 0.0 <= decay < 1.0:
        entry = known.of_class(optimizer, known.DECAY_OF_CLASS, known.DECAY)
        key, _ = entry or known.DECAY
        raise ValueError(
            f"beta2 must be in [0, 1), got {decay} in {key!r} of "
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
    """The state key and what it holds."""
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
    if not known.of_class(optimizer, known.WITHOUT, ""):
        for key in known.of_class(optimizer, known.KEYS_OF_CLASS, known.KEYS):
            values = state.get(key)
            if _is_readable(values):
                return key, values
    return "", None


def _is_readable(values: object) -> TypeGuard[Tensor]:
    """A tensor that is not quantized, as integers or as one of torchao's classes."""
    return (
        isinstance(values, Tensor)
        and (values.is_floating_point() or values.is_complex())
        and not type(values).__module__.startswith("torchao")
    )


def decay_key(optimizer: Optimizer) -> str:
    """Key of the group's option that holds the decay, if one does."""
    keys = known.of_class(optimizer, known.DECAY_OF_CLASS, known.DECAY) or known.DECAY
    return keys[0]


def decay_of(optimizer: Optimizer, group: dict[str, Any]) -> float | None:
    """The decay, whatever its value; None if it is not a fixed number."""
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
    """The optimizer inside Lookahead, SAM, ZeroRedundancyOptimizer and their like."""
    for name in ("optimizer", "base_optimizer", "optim"):
        wrapped = getattr(optimizer, name, None)
        if isinstance(wrapped, Optimizer) and wrapped is not optimizer:
            return inner(wrapped)
    return optimizer
