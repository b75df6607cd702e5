"""The table of optimizers under test: every contract runs over every row.

A row says how to build an optimizer for given parameters, and what it needs. What a
class cannot do, wrapped or bare, is listed in broken_upstream.py.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import re
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, optim
from torch.nn import Parameter
from torch.optim import Optimizer

from tests.support.features import Adafactor, Muon
from warmopt import Warmed

MATRICES = ((4, 3), (3, 5))  # Muon takes nothing else


@dataclass(frozen=True)
class Row:
    """An optimizer class, how it is built, and how it must be stepped.

    Attributes:
        make: Called with the parameters and further options.
        lr: Base LR passed on; None leaves that of the class.
        sparse: Gradients are sparse.
        closure: `step` needs a closure.
        graph: Gradients need a graph (create_graph=True).
        tensor_lr: The LR is a 0-dim tensor.
        one_group: The class takes a single param group.
        writes_lr: `step` itself changes the LR.
        group_options: What every param group must hold.
        warns: Text of the warning that wrapping gives; empty for none.
    """

    name: str
    make: Callable[..., Optimizer]
    options: dict[str, Any] = field(default_factory=dict)
    lr: float | None = 0.1
    sparse: bool = False
    closure: bool = False
    graph: bool = False
    tensor_lr: bool = False
    one_group: bool = False
    writes_lr: bool = False
    group_options: dict[str, Any] = field(default_factory=dict)
    warns: str = ""

    def group(self, params: list[Any], **options: Any) -> dict[str, Any]:
        return {"params": params, **self.group_options, **options}

    def params(self) -> list[Parameter]:
        generator = torch.Generator().manual_seed(0)
        return [
            Parameter(torch.randn(shape, generator=generator)) for shape in MATRICES
        ]

    def build(self, params: list[Any]) -> Optimizer:
        seed(0)
        options = dict(self.options)
        if self.lr is not None:
            options["lr"] = torch.tensor(self.lr) if self.tensor_lr else self.lr
        if self.group_options and not isinstance(params[0], dict):
            params = [self.group(params)]
        with quiet():
            return self.make(params, **options)

    def wrap(self, params: list[Any], **arguments: Any) -> Warmed:
        optimizer = self.build(params)
        if not self.warns or arguments.get("steps") == 0:
            return Warmed(optimizer, **arguments)
        with pytest.warns(UserWarning, match=self.warns):
            return Warmed(optimizer, **arguments)

    def set_grads(self, params: list[Parameter], update: int) -> None:
        generator = torch.Generator().manual_seed(update)
        for param in params:
            grad = torch.randn(param.shape, generator=generator).to(param)
            if self.graph and param.requires_grad:
                with torch.enable_grad():
                    loss = (param * grad).square().sum()
                    with quiet():
                        loss.backward(create_graph=True)
            else:
                param.grad = grad.to_sparse(1) if self.sparse else grad

    def step(self, optimizer: Optimizer, params: list[Parameter], update: int) -> None:
        """One update; its number decides the gradients, the same for all."""

        def closure() -> float:
            optimizer.zero_grad()
            self.set_grads(params, update)
            return 1.0

        seed(update)
        with quiet():
            if self.closure:
                optimizer.step(closure)
            else:
                closure()
                optimizer.step()


def seed(number: int) -> None:
    torch.default_generator.manual_seed(number)
    np.random.seed(number)  # Kron draws from it


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hides warnings about calls of other libraries into torch."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This overload of")
        warnings.filterwarnings("ignore", message="Sparse invariant checks")
        warnings.filterwarnings("ignore", message="Using backward.. with create_graph")
        warnings.filterwarnings("ignore", module=r"pytorch_optimizer|torch_optimizer")
        yield


# Pattern of the class name -> text of the warning when it is wrapped.
WARNINGS = {
    r"RAdam|^Ranger": "rectifies the variance",
    r"^SWATS$": "switches for good",
    r"^Rprop$": "create its step sizes",
    r"^Lookahead$": "slow weights",
}


def warning_of(name: str) -> str:
    return next(
        (text for known, text in WARNINGS.items() if re.search(known, name)), ""
    )


def _torch_rows() -> Iterator[Row]:
    # Not every release of torch has all of them.
    for cls in filter(
        None,
        (
            optim.Adadelta,
            Adafactor,
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
        ),
    ):
        name = cls.__name__.lower()
        row = partial(
            Row,
            make=cls,
            warns=warning_of(cls.__name__),
        )
        yield row(f"{name}-loop", options={"foreach": False})
        yield row(f"{name}-foreach", options={"foreach": True})
        yield row(f"{name}-tensor_lr", options={"foreach": False}, tensor_lr=True)
        if "fused" in inspect.signature(cls).parameters:
            yield row(f"{name}-fused", options={"fused": True})
            yield row(
                f"{name}-fused-tensor_lr", options={"fused": True}, tensor_lr=True
            )
    yield Row("sgd-momentum", optim.SGD, {"momentum": 0.9, "nesterov": True})
    yield Row("sgd-maximize", optim.SGD, {"maximize": True, "weight_decay": 0.1})
    yield Row("adam-amsgrad", optim.Adam, {"amsgrad": True})
    yield Row("rmsprop-momentum", optim.RMSprop, {"momentum": 0.9, "centered": True})
    if Muon:
        yield Row("muon", Muon)
    yield Row("sparse_adam", optim.SparseAdam, sparse=True)
    lbfgs = partial(Row, make=optim.LBFGS, closure=True, one_group=True)
    yield lbfgs("lbfgs")
    yield lbfgs("lbfgs-strong_wolfe", options={"line_search_fn": "strong_wolfe"})
    yield lbfgs("lbfgs-tensor_lr", tensor_lr=True)


def _lookahead(cls: Any, params: list[Any]) -> Optimizer:
    return cls(optim.SGD(params, lr=0.1))


def _classes(module: Any) -> dict[str, type[Optimizer]]:
    return {
        name: cls
        for name, cls in sorted(vars(module).items())
        if inspect.isclass(cls) and issubclass(cls, Optimizer)
        if cls is not Optimizer and not inspect.isabstract(cls)
    }


# Warmed refuses these; test_couplings.py has the reasons.
REFUSED = r"^DAdapt|^Prodigy|^A2Grad|^ApolloDQN$|^AliG$"

# What cannot be built from parameters and defaults, and what it needs.
UNBUILDABLE = {
    "AdaLOMO": "a model; it has no step()",
    "AdamMini": "a model",
    "BSAM": "the number of samples",
    "DeMo": "the package einops",
    "DistributedMuon": "a process group",
    "FriendlySAM": "a base optimizer",
    "GSAM": "a base optimizer and a model",
    "LOMO": "a model; it has no step()",
    "LoRARite": "pairs of LoRA factors; others it cannot step",
    "LookSAM": "a base optimizer",
    "OrthoGrad": "a base optimizer",
    "PCGrad": "a base optimizer",
    "Ranger21": "the number of updates",
    "SAM": "a base optimizer",
    "SafeFP16Optimizer": "a base optimizer",
    "ScheduleFreeWrapper": "a base optimizer",
    "TRAC": "a base optimizer",
    "WSAM": "a base optimizer and a model",
}


def _row(library: str, name: str, cls: Any) -> Row:
    warns = warning_of(name)
    row = partial(Row, f"{library}.{name}", make=cls, lr=None, warns=warns)
    if re.search("^(Ada)?Muon|^AdaGO|^NorMuon", name):
        return row(group_options={"use_muon": True})
    if name in ("AdaHessian", "Adahessian", "SophiaH"):
        return row(graph=True)
    if name == "Lookahead":
        return row(make=partial(_lookahead, cls))
    if library == "pytorch_optimizer" and name == "ASGD":
        return row(writes_lr=True)
    if name == "LBFGS":
        return row(closure=True, one_group=True)
    if name in ("Adafactor", "AdaFactor"):  # by default it ignores the LR
        return row(options={"relative_step": False}, lr=1e-3)
    return row()


def _libraries() -> Iterator[Any]:
    """Both, but for a machine with a GPU that only runs the tests marked `cuda`."""
    for name in ("torch_optimizer", "pytorch_optimizer"):
        with contextlib.suppress(ModuleNotFoundError):
            yield importlib.import_module(name)


def _third_party_rows() -> Iterator[Row]:
    for module in _libraries():
        for name, cls in _classes(module).items():
            if name not in UNBUILDABLE and not re.search(REFUSED, name):
                yield _row(module.__name__, name, cls)


TORCH_ROWS = {row.name: row for row in _torch_rows()}
ROWS = {**TORCH_ROWS, **{row.name: row for row in _third_party_rows()}}


def sgd(*, lr: float = 1.0, **options: Any) -> tuple[Parameter, optim.SGD]:
    """One weight at 0 with gradient 1: an update moves it by the LR."""
    param = Parameter(torch.zeros(1))
    param.grad = torch.ones(1)
    return param, optim.SGD([param], lr=lr, **options)


def snapshot(optimizer: Optimizer, params: list[Parameter]) -> list[Any]:
    """Plain copies of parameters and state, which can be compared."""

    def copy(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.detach().to_dense().clone()
        if isinstance(value, dict):
            return {key: copy(entry) for key, entry in value.items()}
        if isinstance(value, (list, tuple, deque)):
            return [copy(entry) for entry in value]
        return copy(vars(value)) if hasattr(value, "__dict__") else value

    return [
        [copy(param), copy(dict(optimizer.state.get(param, {})))] for param in params
    ]


def assert_same(expected: Any, actual: Any) -> None:
    """Checks that two snapshots are bit-equal."""
    if isinstance(expected, Tensor):
        assert expected.dtype == actual.dtype
        assert torch.equal(expected.nan_to_num(7e7), actual.nan_to_num(7e7))
    elif isinstance(expected, dict):
        assert expected.keys() == actual.keys()
        for key in expected:
            assert_same(expected[key], actual[key])
    elif isinstance(expected, list):
        assert len(expected) == len(actual)
        for one, other in zip(expected, actual, strict=True):
            assert_same(one, other)
    else:
        assert expected == actual or (expected != expected and actual != actual)
