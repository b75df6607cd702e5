"""What is scaled in a param group: an LR (float or tensor), or a momentum.

A momentum is a float, or the first of betas. A tensor is replaced, never written to:
optimizers and groups may share it.
"""

from __future__ import annotations

from typing import Any

from warmopt._keys import Group

__all__ = ["Scaled", "momentum_key", "scale_momentum"]

Scaled = list[tuple[Group, str, Any, Any, Any, int]]
"""What is scaled now, for each: (group, key, base value, scaled value, factor, and
the update that is counted after the step, 0 if none)."""


def scale_momentum(group: Group, factor: float, scaled: Scaled) -> None:
    """Multiplies the group's momentum, if it has one, and notes it in `scaled`."""
    if key := momentum_key(group):
        base = group[key]
        value = (base[0] * factor, *base[1:]) if key == "betas" else base * factor
        scaled.append((group, key, base, value, factor, 0))
        group[key] = value


def momentum_key(group: Group) -> str | None:
    """Where the group keeps its momentum; None if it has none, or one that is 0."""
    for key, momentum in (
        ("momentum", group.get("momentum")),
        ("betas", (group.get("betas") or (None,))[0]),
    ):
        if isinstance(momentum, float) and momentum:
            return key
    return None
