"""Keeps warmopt out of `torch.compile`, and a changing float LR too.

Dynamo can lose attributes and entries of param groups that are written in a frame that
it traces. So it traces no frame of warmopt; it still traces the wrapped optimizer's
step. But a float LR is a constant for the compiler. While the LR changes, the foreach
path would be compiled for every value, up to dynamo's limit, and then stay uncompiled
for good. So with a float LR the wrapped step runs eagerly during the warmup.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from warmopt._torch import in_compiled_region, skip_in_dynamo

__all__ = ["eagerly", "in_compiled_region", "is_compiled", "stay_untraced"]


@functools.cache
def stay_untraced() -> None:
    """Tells dynamo to trace no frame of this package."""
    skip_in_dynamo("warmopt")


def is_compiled(step: Callable[..., Any]) -> bool:
    """Whether somebody has put a compiled step in place of the optimizer's own."""
    # A method is none, though torch itself keeps some classes uncompiled in this way.
    # Not by hasattr: a mock has every attribute.
    mark = "_torchdynamo_orig_callable"
    return not hasattr(step, "__self__") and mark in getattr(step, "__dict__", {})


def eagerly(step: Callable[..., Any]) -> Callable[..., Any]:
    """The step without compilation, whether it or its caller was compiled."""
    if is_compiled(step):
        step = step._torchdynamo_orig_callable  # type: ignore[attr-defined]
    return functools.partial(_disabled(), step)


@functools.cache
def _disabled() -> Callable[..., Any]:
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def run(step: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return step(*args, **kwargs)

    return run  # type: ignore[no-any-return]
