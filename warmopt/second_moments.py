"""Where optimizers keep what warmopt must know of their second moment.

The second moment is an exponential average of squared gradients (`exp_avg_sq`,
`square_avg`); beta2 is its decay per update. Nothing here is ever written to.
"""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer

__all__ = ["beta2"]

# Class name -> (key in the group, index in its tuple). Names, not types: a class of
# the same name in another library keeps the same key. Everyone else has betas[1].
_DECAY_OF_CLASS: dict[str, tuple[str, int | None]] = {
    "RMSprop": ("alpha", None),
    "Adadelta": ("rho", None),
    "Adan": ("betas", 2),
}


def beta2(optimizer: Optimizer, group: dict[str, Any]) -> float:
    """Returns the decay of the group's second moment, dimensionless, in [0, 1).

    Raises:
        ValueError: The group has no such option, or one outside [0, 1).

    Example:
        >>> adam = torch.optim.Adam([torch.zeros(1)], betas=(0.9, 0.98))
        >>> beta2(adam, adam.param_groups[0])
        0.98
    """
    keys: tuple[str, int | None] = ("betas", 1)
    for cls in type(optimizer).__mro__:
        if cls.__name__ in _DECAY_OF_CLASS:
            keys = _DECAY_OF_CLASS[cls.__name__]
            break
    key, index = keys
    value = group.get(key)
    if index is not None and isinstance(value, (tuple, list)) and len(value) > index:
        value = value[index]
    try:
        decay = float(value)  # type: ignore[arg-type]  # float or 0-dim tensor
    except (TypeError, ValueError):
        raise ValueError(
            f"{type(optimizer).__name__} has no beta2 (looked for betas[1], for alpha "
            "in RMSprop and rho in Adadelta), from which an untuned mode takes its "
            "length. Use mode='linear' with steps=n."
        ) from None
    if not 0.0 <= decay < 1.0:
        raise ValueError(
            f"beta2 must be in [0, 1), got {decay} in {key!r} of "
            f"{type(optimizer).__name__}. Use mode='linear' with steps=n."
        )
    return decay
