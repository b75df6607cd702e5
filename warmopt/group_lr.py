"""Put a factor on a value of a param group, and take it off again.

The value is an LR (float or tensor) or a momentum (a float, or the first of betas).
A tensor is replaced, never written to: optimizers and groups may share it.
"""

from __future__ import annotations

from typing import Any

__all__ = ["Group", "Scaled", "momentum_key", "restore", "scale"]

Group = dict[str, Any]
Scaled = list[tuple[Group, str, Any, Any, float]]
"""What is scaled now: (group, key, base value, scaled value, factor) of each."""


def scale(group: Group, key: str, factor: float, scaled: Scaled) -> None:
    """Multiplies `group[key]` by `factor` and notes it in `scaled`."""
    base = group[key]
    value = (base[0] * factor, *base[1:]) if key == "betas" else base * factor
    scaled.append((group, key, base, value, factor))  # first, lest it be lost
    group[key] = value


def restore(scaled: Scaled) -> None:
    """Puts the base values back.

    An LR that is neither the base nor the scaled value was written by the optimizer
    as it stepped, in effective units: the base becomes what it wrote / factor. (What
    it writes into a tensor in place is lost: to see that would cost a host sync.)
    """
    for group, key, base, value, factor in scaled:
        now = group[key]
        same = now is value or (isinstance(now, float) and now == value)
        if same or (key == "lr" and now is not base and not factor):
            group[key] = base
        elif key == "lr" and now is not base:
            group[key] = now / factor


def momentum_key(group: Group) -> str | None:
    """Where the group keeps its momentum; None if it has none, or one that is 0."""
    for key, momentum in (
        ("momentum", group.get("momentum")),
        ("betas", (group.get("betas") or (None,))[0]),
    ):
        if isinstance(momentum, float) and momentum:
            return key
    return None
