"""The machine and the versions: what a reader of the record has to know."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
from collections.abc import Iterator

import torch

from benchmarks.gpu.rows import Here, Row, checked
from benchmarks.overhead.devices import DEVICES
from benchmarks.overhead.record import environment

LIBRARIES = (
    *("accelerate", "hypothesis", "lightning", "matplotlib", "numpy", "pytest"),
    *("pytest-xdist", "pytorch-optimizer", "pytorch-warmup", "timm", "torch-optimizer"),
    *("transformers", "triton"),
)
COMPILERS = ("cc", "gcc", "g++", "clang", "nvcc")


def rows(here: Here) -> Iterator[Row]:
    yield checked("machine", lambda: environment(DEVICES[here.device](), []))
    yield checked("software", software)
    if here.on_cuda:
        yield checked("GPU", gpu)


def software() -> Row:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "missing"
    return {
        "system": platform.platform(),
        "versions": found,
        "compilers": [name for name in COMPILERS if shutil.which(name)],
    }


def gpu() -> Row:
    told = torch.cuda.get_device_properties(0)
    return {
        "capability": f"{told.major}.{told.minor}",
        "memory": told.total_memory,
        "multiprocessors": told.multi_processor_count,
        "devices": torch.cuda.device_count(),
        "cudnn": torch.backends.cudnn.version(),
        "nccl": ".".join(map(str, torch.cuda.nccl.version())),
        "cuda": torch.version.cuda,
    }
