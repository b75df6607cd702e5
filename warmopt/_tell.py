"""Warns users of an easy mistake, at the line of their own code."""

from __future__ import annotations

import sys
import warnings

__all__ = ["tell"]


def tell(message: str) -> None:
    """Warns, as if the line that called warmopt, or torch, had warned.

    Python shows a warning once for each line, unless its filters say otherwise.
    """
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and _is_inside(frame.f_globals.get("__name__", "")):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, UserWarning, stacklevel=level)


def _is_inside(module: str) -> bool:
    return module.partition(".")[0] in ("warmopt", "torch")
