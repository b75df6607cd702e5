"""Counts tensor operators: what a computation costs, without the noise of a clock."""

from __future__ import annotations

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


class Operators(TorchDispatchMode):
    """Records what is computed while it is active, except views.

    Attributes:
        names: Of each operator that makes a tensor.
        largest: Number of elements of the largest tensor.
        host_reads: How often a number was taken out of a tensor.
    """

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.largest = self.host_reads = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        out = function(*args, **(kwargs or {}))
        if isinstance(out, (bool, int, float)):
            self.host_reads += 1
        elif not function.is_view:
            self.names.append(str(function))
            self.largest = max(self.largest, out.numel())
        return out
