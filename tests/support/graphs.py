"""CUDA graphs without CUDA: a stand-in records a step's operators and repeats them.

Like a captured graph, it works on the memory of the capture and runs no Python. It
fails if the step reads a value on the host.
"""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

HOST_READS = ("aten::_local_scalar_dense", "aten::equal", "aten::is_nonzero")


class StandInGraph(TorchDispatchMode):
    """Records operators together with the tensors that they were given."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, list[Tensor]]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        assert func.name() not in HOST_READS, "read on the host during the capture"
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            tensors = [each for each in tree_iter(out) if isinstance(each, Tensor)]
            self.calls.append((func, args, kwargs or {}, tensors))
        return out

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, outputs in self.calls:
            again = [
                each
                for each in tree_iter(func(*args, **kwargs))
                if isinstance(each, Tensor)
            ]
            for kept, new in zip(outputs, again, strict=True):
                if kept is not new:
                    kept.copy_(new)


def pretend_to_capture(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """Whether a capture is running, as `Warmed` sees it. Adam then accepts a CPU."""
    now = {"capturing": False}
    monkeypatch.setattr("warmopt._update.plan.may_capture", lambda: True)
    for name in ("planner", "plain"):
        asked = f"warmopt._update.{name}.is_capturing"
        monkeypatch.setattr(asked, lambda: now["capturing"])
    for name in ("adam", "adamw", "rmsprop", "nadam", "adamax"):
        module = sys.modules[f"torch.optim.{name}"]
        supported = "_get_capturable_supported_devices"
        if hasattr(module, supported):
            monkeypatch.setattr(module, supported, lambda *_, **__: ["cpu"])
    return now
