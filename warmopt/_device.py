"""What lives on the device: the warmup of a tensor LR, and scalars read late.

A tensor LR is what captured CUDA graphs and `torch.compile` need, so its warmup is
made of tensor operations alone: the count is a tensor on the device of the LR and is
moved in place, the factor is looked up in a table, and the host reads nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "HostCopy",
    "count_on_device",
    "factor_table",
    "is_capturing",
    "like_lr",
    "may_capture",
    "to_device",
]

MOST_ENTRIES = 1_000_000  # of a table: the longest warmup of a tensor LR


def factor_table(factor: Callable[[int], float], last: int, lr: Tensor) -> Tensor:
    """Factors of the updates 1 to `last`, then a 1; entry n is of the update after n.

    In the dtype of the LR, but at least float32, as in a product with a float.

    Raises:
        ValueError: It would be too long.
    """
    if last > MOST_ENTRIES:
        raise ValueError(
            f"steps must be at most {MOST_ENTRIES} updates where lr is a tensor, got a "
            f"warmup of {last}. Use a float lr."
        )
    factors = [factor(update) for update in range(1, last + 1)]
    dtype = torch.promote_types(lr.dtype, torch.float32)
    return torch.tensor([*factors, 1.0], dtype=dtype, device=lr.device)


def like_lr(value: Any, lr: Any) -> Any:
    """A number as the LR needs it: a plain one, or a tensor on its device."""
    if not isinstance(lr, Tensor):
        return value.item() if isinstance(value, Tensor) else value
    if isinstance(value, Tensor) and value.device == lr.device:
        return value  # its address may be part of a captured graph
    return torch.as_tensor(value, device=lr.device)


def count_on_device(
    updates: Tensor, last: int, lr: Any, found_inf: Tensor | None
) -> None:
    """Counts an update in place, but for one at LR 0 or skipped for an infinity."""
    moved = torch.as_tensor(lr != 0, device=updates.device).reshape(())
    if found_inf is not None:
        moved = moved & (found_inf.to(updates.device) == 0).reshape(())
    updates.add_(moved).clamp_(max=last)


class HostCopy:
    """A small tensor, not to be written to any more, on its way to the host.

    Asking for it later is no sync.
    """

    def __init__(self, values: Tensor) -> None:
        self._arrived: Any = None
        self._values = values.detach()
        if values.is_cuda:
            self._values = torch.empty_like(values, device="cpu", pin_memory=True)
            self._values.copy_(values.detach(), non_blocking=True)
            self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._arrived.record()

    def numbers(self) -> Any:
        """The value, or a list of them; waits for them, if they have not arrived."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._values.tolist()


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host, copied without a sync."""
    if device.type == "cuda":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)


def may_capture() -> bool:
    """Whether there is a device on which graphs are captured."""
    return torch.cuda.is_available()


def is_capturing() -> bool:
    """Whether a CUDA graph is being captured; only to be asked if one may be."""
    return torch.cuda.is_current_stream_capturing()
