"""What is measured: a model's parameters, split into groups, and an optimizer.

A case has no model that computes anything, only parameters of the same shapes.
"""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import optim
from torch.nn import Parameter
from torch.optim import Optimizer

from benchmarks.overhead.contenders import Wrap
from benchmarks.overhead.devices import Device

Shapes = list[tuple[int, ...]]


def tiny() -> Shapes:
    """A perceptron of 10 thousand parameters: a short step, so our share is large."""
    return [(128, 64), (128,), (10, 128), (10,)]


def resnet50() -> Shapes:
    """161 tensors, 26 million parameters."""

    def norm(channels: int) -> Shapes:
        return [(channels,), (channels,)]

    shapes: Shapes = [(64, 3, 7, 7), *norm(64)]
    inputs = 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            shapes += [(width, inputs, 1, 1), *norm(width)]
            shapes += [(width, width, 3, 3), *norm(width)]
            shapes += [(4 * width, width, 1, 1), *norm(4 * width)]
            if block == 0:
                shapes += [(4 * width, inputs, 1, 1), *norm(4 * width)]
            inputs = 4 * width
    return [*shapes, (1000, 2048), (1000,)]


def gpt2(layers: int = 12, width: int = 768) -> Shapes:
    """148 tensors, 124 million parameters."""
    layer: Shapes = [(width,), (width,), (width, 3 * width), (3 * width,)]
    layer += [(width, width), (width,), (width,), (width,)]
    layer += [(width, 4 * width), (4 * width,), (4 * width, width), (width,)]
    return [(50257, width), (1024, width), *layer * layers, (width,), (width,)]


def llama_7b() -> Shapes:
    """291 tensors."""
    layer: Shapes = [(4096, 4096)] * 4 + [(11008, 4096)] * 2 + [(4096, 11008)]
    layer += [(4096,)] * 2
    return [(32000, 4096), *layer * 32, (4096,), (32000, 4096)]


def divided(shapes: Shapes, by: int) -> Shapes:
    """Returns as many tensors, but so small that almost only host time is left."""
    return [tuple(max(1, size // by) for size in shape) for shape in shapes]


MODELS: dict[str, Shapes] = {
    "none": [(1,)] * 100,
    "tiny": tiny(),
    "resnet50": resnet50(),
    "resnet50/4": divided(resnet50(), 4),  # a million parameters
    "resnet50/16": divided(resnet50(), 16),
    "gpt2": gpt2(),
    "gpt2/16": divided(gpt2(), 16),
    "gpt2-xl": gpt2(48, 1600),
    "llama-7b": llama_7b(),
}


class Idle(optim.SGD):
    """Has param groups like any optimizer, but its step does nothing.

    torch does not call any hooks around this step either.
    """

    def step(self, closure: None = None) -> None:
        pass

    step.hooked = True


OPTIMIZERS: dict[str, type[Optimizer]] = {
    "sgd": optim.SGD,
    "adam": optim.Adam,
    "adamw": optim.AdamW,
    "rmsprop": optim.RMSprop,
}
MOMENTS = {"idle": 0, "sgd": 0, "adam": 2, "adamw": 2, "rmsprop": 1}

IMPLEMENTATIONS: dict[str, dict[str, bool]] = {
    "loop": {"foreach": False},
    "foreach": {"foreach": True},
    "fused": {"fused": True},
    "capturable": {"foreach": True, "capturable": True},
}


def eager(step: Any) -> Any:
    return step


def captured(step: Any) -> Any:
    """Captures the step in a CUDA graph; returns what replays it."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


WRAPS: dict[str, Wrap] = {"eager": eager, "compile": torch.compile, "graph": captured}


@dataclass(frozen=True)
class Case:
    """The optimizer that all contenders step, and how they run the step."""

    model: str
    optimizer: str
    implementation: str
    groups: int
    all_contenders: bool = False
    run: str = "eager"  # a key of WRAPS
    own_lrs: bool = False  # whether each group has another learning rate

    @property
    def name(self) -> str:
        """The name of the case in the command and in the records."""
        if self.optimizer == "idle":
            return f"machinery-{self.groups}" + "-lrs" * self.own_lrs
        parts = [self.model, self.optimizer, self.implementation, str(self.groups)]
        return "-".join(parts + [self.run] * (self.run != "eager"))

    @property
    def shapes(self) -> Shapes:
        return MODELS[self.model][: self.groups if self.model == "none" else None]

    @property
    def parameters(self) -> int:
        return sum(map(math.prod, self.shapes))

    @property
    def bytes(self) -> int:
        """Memory for parameters, gradients, moments and the temporaries of foreach."""
        temporary = 0 if self.implementation in ("loop", "fused") else 2
        return 4 * self.parameters * (2 + MOMENTS[self.optimizer] + temporary)

    def why_not(self, device: Device) -> str:
        """Returns why the case cannot run on this device; empty if it can."""
        if self.bytes * 1.05 > (free := device.free_bytes()):
            return f"needs {self.bytes / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"
        return ""

    def build(self, device: Device) -> Optimizer:
        """Returns the optimizer, without a warmup; its parameters have gradients."""
        where = torch.device(device.torch_device)
        params = [Parameter(torch.full(s, 0.1, device=where)) for s in self.shapes]
        for param in params:
            param.grad = torch.full_like(param, 0.01)
        groups: list[dict[str, Any]]
        groups = [{"params": params[i :: self.groups]} for i in range(self.groups)]
        lr = 1e-3 if self.run == "eager" else torch.tensor(1e-3, device=where)
        for number, group in enumerate(groups if self.own_lrs else (), 1):
            group["lr"] = lr * number
        make: Any = OPTIMIZERS.get(self.optimizer, Idle)
        return make(groups, lr=lr, **IMPLEMENTATIONS[self.implementation])


def _implementations(device: str) -> Iterator[tuple[str, str]]:
    for optimizer, implementation in itertools.product(OPTIMIZERS, IMPLEMENTATIONS):
        known = inspect.signature(OPTIMIZERS[optimizer]).parameters
        there = implementation != "capturable" or device == "cuda"
        if there and IMPLEMENTATIONS[implementation].keys() <= known.keys():
            yield optimizer, implementation


def _cpu_cases() -> Iterator[Case]:
    for own_lrs, groups in (
        (0, 1),
        (0, 2),
        (0, 10),
        (0, 100),
        (1, 2),
        (1, 10),
        (1, 100),
    ):
        yield Case("none", "idle", "loop", groups, True, own_lrs=bool(own_lrs))
    for how in _implementations("cpu"):
        yield Case("tiny", *how, groups=1, all_contenders=True)
    for how in _implementations("cpu"):
        for groups in (1, 10, 100):
            most = how == ("adamw", "fused")
            yield Case("resnet50/16", *how, groups, all_contenders=most)
            if how[0] == "adamw":
                yield Case("gpt2/16", *how, groups)
    for model in ("resnet50/4", "resnet50", "gpt2"):
        yield Case(model, "adamw", "fused", 1)
    yield Case("tiny", "adamw", "loop", 1, run="compile")


def _cuda_cases() -> Iterator[Case]:
    for how in _implementations("cuda"):
        yield Case("tiny", *how, groups=1, all_contenders=True)
    for how in _implementations("cuda"):
        for groups in (1, 10, 100) if how[0] == "adamw" else (1,):
            yield Case("resnet50", *how, groups)
            if how[0] == "adamw":
                yield Case("gpt2", *how, groups)
    for model in ("tiny", "gpt2"):
        for run in ("compile", "graph"):
            yield Case(model, "adamw", "capturable", 1, run=run)
    for model in ("gpt2-xl", "llama-7b"):
        yield Case(model, "adamw", "fused", 1)
    yield Case("gpt2-xl", "adamw", "foreach", 1)


CASES = {"cpu": list(_cpu_cases()), "cuda": list(_cuda_cases())}

QUICK = (
    "machinery-*",
    "tiny-sgd-fused-1",
    "tiny-adamw-fused-1",
    "resnet50/16-adamw-fused-*",
    "resnet50-adamw-fused-10",
)
