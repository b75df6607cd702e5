"""Private names of torch that are used, and what is done where one is missing.

What differs between releases of torch is here and nowhere else.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer, optimizer

eval_frame: Any = getattr(getattr(torch._C, "_dynamo", None), "eval_frame", None)

__all__ = [
    "copy_all",
    "dtensor_class",
    "in_compiled_region",
    "owned_part",
    "skip_in_dynamo",
    "step_hooks",
    "step_runs_hooks",
]

# --- the compiler --------------------------------------------------------------------


def _callback_getter() -> Callable[[], Any]:
    get: Any = getattr(eval_frame, "get_eval_frame_callback", None)
    take: Any = getattr(eval_frame, "set_eval_frame", None)

    def take_out_and_put_back() -> Any:
        """Returns what compiles the frames that are called now."""
        callback = take(None)
        if callback is not None:
            take(callback)
        return callback

    # Before 2.8, torch's function returns a reference that it does not own. So each
    # call brings the callback, or None, nearer to being freed while it is in use.
    if get is not None and torch.__version__ >= "2.8":
        return get  # type: ignore[no-any-return]
    return (lambda: None) if take is None else take_out_and_put_back


in_compiled_region = _callback_getter()
"""Returns what compiles the frames that are called now: None outside torch.compile."""


def skip_in_dynamo(package: str) -> None:
    """Makes dynamo trace no frame of a package."""
    # Not imported with the package: it takes a second. Any optimizer imports it.
    from torch._dynamo import trace_rules

    if (add := getattr(trace_rules, "add", None)) is None:
        warnings.warn(
            f"torch {torch.__version__} has no way to leave {package} out of "
            "torch.compile. Do not compile a function that calls step().",
            stacklevel=2,
        )
    else:
        add(package)


# --- hooks around a step -------------------------------------------------------------


def step_hooks(wrapped: Optimizer) -> tuple[dict[int, Any], ...]:
    """All hooks that run around a step: live dicts, to which some may be added."""
    return (
        # Not every class calls Optimizer.__init__, which makes these two.
        getattr(wrapped, "_optimizer_step_pre_hooks", {}),
        getattr(wrapped, "_optimizer_step_post_hooks", {}),
        getattr(optimizer, "_global_optimizer_pre_hooks", {}),
        getattr(optimizer, "_global_optimizer_post_hooks", {}),
    )


def step_runs_hooks(wrapped: Optimizer) -> bool:
    """Whether `step` is torch's wrapper, which runs the hooks, and nobody replaced it.

    Before 2.5, a scheduler replaces it by a function that calls it, but does not say
    that it does.
    """
    step: Any = wrapped.step
    # A mock has every attribute, but none of them is True.
    if getattr(step, "_wrapped_by_lr_sched", None) is True:
        step = step if hasattr(step, "__wrapped__") else type(wrapped).step
    return getattr(step, "hooked", None) is True


# --- tensors -------------------------------------------------------------------------


def copy_all(to: list[Tensor], from_: list[Tensor]) -> None:
    """Copies tensors into others, all at once."""
    if (copy := getattr(torch, "_foreach_copy_", None)) is not None:
        copy(to, from_)
    else:
        for each, new in zip(to, from_, strict=True):
            each.copy_(new)


def dtensor_class() -> Any:
    """The class DTensor; None if nobody has imported it, so that there are none."""
    # The import is slow, so we do not do it ourselves. In 2.4 the module is private.
    for name in ("torch.distributed.tensor", "torch.distributed._tensor"):
        if cls := getattr(sys.modules.get(name), "DTensor", None):
            return cls
    return None


def owned_part(values: Any) -> tuple[Sequence[int], Sequence[int]]:
    """The shape of this rank's part of a DTensor, and the place where it begins."""
    try:
        from torch.distributed.tensor._utils import (
            compute_local_shape_and_global_offset,
        )
    except ImportError:  # before 2.5
        from torch.distributed._tensor._utils import (  # type: ignore
            compute_local_shape_and_global_offset,
        )
    return compute_local_shape_and_global_offset(
        values.shape, values.device_mesh, values.placements
    )
