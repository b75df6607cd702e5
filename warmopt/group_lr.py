"""Put a factor on a value of a param group, and take it off again.

The value is an LR (float or tensor) or a momentum (a float, or the first of betas).
A tensor is replaced, never written to: optimizers and groups may share it.
"""

from __future__ import annotations

from typing import Any

__all__ = ["Group", "Scaled", "momentum_key", "restore", "scale_momentum"]

Group = dict[str, Any]
Scaled = list[tuple[Group, str, Any, Any, Any, Any]]
"""What is scaled now, for each: (group, key, base value, scaled value, factor, and
what an LR follows)."""


def scale_momentum(group: Group, factor: float, scaled: Scaled) -> None:
    """Multiplies the group's momentum, if it has one, and notes it in `scaled`."""
    if key := momentum_key(group):
        base = group[key]
        value = (base[0] * factor, *base[1:]) if key == "betas" else base * factor
        scaled.append((group, key, base, value, factor, None))
        group[key] = value


def restore(scaled: Scaled) -> None:
    """Puts the base values back.

    An LR that is neither the base nor the scaled value was written by the optimizer
    as it stepped, in effective units: the base becomes what it wrote / factor. (What
    it writes into a tensor in place is lost: to see that would cost a host sync.)
    """
    for group, key, base, value, factor, _ in scaled:
        now = group[key]
        if now is value:
            group[key] = base
        elif now is not base:
            same = isinstance(now, float) and now == value
            if same or (key == "lr" and not factor):
                group[key] = base
            elif key == "lr":
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
