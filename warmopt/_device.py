"""Works on the device: the warmup of a tensor LR, and numbers that the host reads late.

Captured CUDA graphs and `torch.compile` need a tensor LR. Its warmup uses only tensor
operations: the count is a tensor on the device of the LR and changes in place, the
factor is looked up in a table, and the host reads nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

__all__ = [
    "HostCopy",
    "count_on_device",
    "factor_table",
    "is_capturing",
    "like_lr",
    "may_capture",
    "normal_tensors",
    "to_device",
]

P = ParamSpec("P")
T = TypeVar("T")

MOST_ENTRIES = 1_000_000  # in a table, so a tensor LR cannot warm up for longer


def normal_tensors(function: Callable[P, T]) -> Callable[P, T]:
    """Lets a function make normal tensors under `torch.inference_mode` too.

    Tensors of that mode could not be changed, nor have a gradient, outside of it.
    """

    @functools.wraps(function)
    def making(*args: P.args, **kwargs: P.kwargs) -> T:
        if not torch.is_inference_mode_enabled():
            return function(*args, **kwargs)
        with torch.inference_mode(False), torch.no_grad():
            return function(*args, **kwargs)

    return making


@normal_tensors
def factor_table(factor: Callable[[int], float], last: int, lr: Tensor) -> Tensor:
    """The factors of the updates 1 to `last`, and then a 1, as one tensor.

    Entry n is the factor of the next update when n updates are done. The dtype is that
    of the LR, but at least float32: then the product with a low-precision LR is as
    exact as with a Python float.

    Raises:
        ValueError: The warmup is too long for a table.
    """
    if last > MOST_ENTRIES:
        raise ValueError(
            f"steps must be at most {MOST_ENTRIES} updates where lr is a tensor, got a "
            f"warmup of {last}. Use a float lr."
        )
    factors = [factor(update) for update in range(1, last + 1)]
    dtype = torch.promote_types(lr.dtype, torch.float32)
    return torch.tensor([*factors, 1.0], dtype=dtype, device=lr.device)


@normal_tensors
def like_lr(value: Any, lr: Any) -> Any:
    """A number in the form that fits the LR.

    That is a plain number for a float LR, and a tensor on the same device for a tensor.
    """
    if not isinstance(lr, Tensor):
        return value.item() if isinstance(value, Tensor) else value
    if isinstance(value, Tensor) and value.device == lr.device:
        return value  # not a copy: a captured graph may use the address of this tensor
    return torch.as_tensor(value, device=lr.device)


def count_on_device(
    updates: Tensor, last: int, lr: Any, found_inf: Tensor | None
) -> Tensor:
    """Counts an update in place, without reading anything to the host.

    An update at LR 0 does not count. One that was skipped because of an infinite or nan
    gradient does not count either.

    Args:
        updates: The count, which is changed.
        last: The count stops at this value.
        lr: The LR of the update.
        found_inf: What a GradScaler has set: not 0 if the update is skipped. None
            without a GradScaler.

    Returns:
        Whether the update counts.
    """
    moved = torch.as_tensor(lr != 0, device=updates.device).reshape(())
    if found_inf is not None:
        moved = moved & (found_inf.to(updates.device) == 0).reshape(())
    updates.add_(moved).clamp_(max=last)
    return moved


class HostCopy:
    """A small tensor on its way to the host.

    If its numbers are read some time later, they have arrived, and the host need not
    wait. Do not write to the tensor before that: one that is on the CPU is not copied.
    """

    def __init__(self, values: Tensor) -> None:
        self._arrived: Any = None
        self._values = values.detach()
        if values.is_cuda:
            # Only a copy into pinned memory runs in the background.
            self._values = torch.empty_like(values, device="cpu", pin_memory=True)
            self._values.copy_(values.detach(), non_blocking=True)
            self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._arrived.record()

    def numbers(self) -> Any:
        """The value, or a list of the values. Waits if they have not arrived yet."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._values.tolist()


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Copies a tensor from the host to a device without a host sync."""
    if device.type == "cuda":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)


def may_capture() -> bool:
    """Whether there is a device that can capture CUDA graphs."""
    return torch.cuda.is_available()


def is_capturing() -> bool:
    """Whether a CUDA graph is being captured now. Ask this only if `may_capture()`."""
    return torch.cuda.is_current_stream_capturing()
