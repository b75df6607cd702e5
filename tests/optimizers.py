"""The table of optimizers under test: every contract runs over every row.

A row says how to build an optimizer over given parameters, and what it needs.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

SHAPES = ((4, 3), (2, 5))  # matrices, since Muon takes nothing else


@dataclass(frozen=True)
class Row:
    name: str
    cls: type[Optimizer]
    options: dict[str, Any] = field(default_factory=dict)
    sparse: bool = False
    closure: bool = False
    tensor_lr: bool = False
    one_group: bool = False

    def params(self, device: str = "cpu") -> list[Parameter]:
        generator = torch.Generator().manual_seed(0)
        return [
            Parameter(torch.randn(shape, generator=generator).to(device))
            for shape in SHAPES
        ]

    def build(self, params: list[Any], **options: Any) -> Optimizer:
        lr = options.pop("lr", 0.1)
        if self.tensor_lr:
            lr = torch.tensor(lr)
        return self.cls(params, lr=lr, **self.options, **options)

    def set_grads(self, params: list[Parameter], update: int) -> None:
        generator = torch.Generator().manual_seed(update)
        for param in params:
            grad = torch.randn(param.shape, generator=generator).to(param.device)
            param.grad = grad.to_sparse(1) if self.sparse else grad

    def step(self, optimizer: Optimizer, params: list[Parameter], update: int) -> None:
        """One update with the gradients of its number, the same for every optimizer."""

        def closure() -> float:
            optimizer.zero_grad()
            self.set_grads(params, update)
            return 1.0

        if self.closure:
            optimizer.step(closure)
        else:
            closure()
            optimizer.step()


def _rows() -> list[Row]:
    optim = torch.optim
    rows = []
    for cls in (
        optim.Adadelta,
        optim.Adafactor,
        optim.Adagrad,
        optim.Adam,
        optim.AdamW,
        optim.Adamax,
        optim.ASGD,
        optim.NAdam,
        optim.RAdam,
        optim.RMSprop,
        optim.Rprop,
        optim.SGD,
    ):
        name = cls.__name__.lower()
        accepted = inspect.signature(cls).parameters
        rows.append(Row(f"{name}-loop", cls, {"foreach": False}))
        rows.append(Row(f"{name}-foreach", cls, {"foreach": True}))
        rows.append(Row(f"{name}-tensor_lr", cls, {"foreach": False}, tensor_lr=True))
        if "fused" in accepted:
            rows.append(Row(f"{name}-fused", cls, {"fused": True}))
            rows.append(
                Row(f"{name}-fused-tensor_lr", cls, {"fused": True}, tensor_lr=True)
            )
    rows += [
        Row("sgd-momentum", optim.SGD, {"momentum": 0.9, "nesterov": True}),
        Row("sgd-maximize", optim.SGD, {"maximize": True, "weight_decay": 0.1}),
        Row("adam-amsgrad", optim.Adam, {"amsgrad": True}),
        Row("rmsprop-momentum", optim.RMSprop, {"momentum": 0.9, "centered": True}),
        Row("muon", optim.Muon),
        Row("sparse_adam", optim.SparseAdam, sparse=True),
        Row("lbfgs", optim.LBFGS, closure=True, one_group=True),
        Row(
            "lbfgs-strong_wolfe",
            optim.LBFGS,
            {"line_search_fn": "strong_wolfe"},
            closure=True,
            one_group=True,
        ),
        Row(
            "lbfgs-tensor_lr", optim.LBFGS, closure=True, tensor_lr=True, one_group=True
        ),
    ]
    return rows


ROWS = {row.name: row for row in _rows()}


def snapshot(optimizer: Optimizer, params: list[Parameter]) -> list[Any]:
    """Parameters and state as plain copies, in an order that can be compared."""

    def copy(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.detach().to_dense().clone()
        if isinstance(value, dict):
            return {key: copy(entry) for key, entry in sorted(value.items())}
        if isinstance(value, (list, tuple)):
            return [copy(entry) for entry in value]
        return value

    return [
        [copy(param), copy(dict(optimizer.state.get(param, {})))] for param in params
    ]


def assert_same(expected: Any, actual: Any) -> None:
    """Bit-equality of two snapshots."""
    if isinstance(expected, Tensor):
        assert expected.dtype == actual.dtype
        assert torch.equal(expected, actual)
    elif isinstance(expected, dict):
        assert expected.keys() == actual.keys()
        for key in expected:
            assert_same(expected[key], actual[key])
    elif isinstance(expected, list):
        assert len(expected) == len(actual)
        for one, other in zip(expected, actual, strict=True):
            assert_same(one, other)
    else:
        assert expected == actual
