"""The stages, in order of worth: if time runs out, the last ones miss it."""

from __future__ import annotations

from typing import NamedTuple


class Stage(NamedTuple):
    """A part of the command.

    Attributes:
        module: It has a function `rows`, which takes a `Here` and yields rows.
        share: Seconds of about eight minutes. What a stage leaves goes to the later.
        needs_cuda: Why there is no version of it for a CPU; empty if there is one.
    """

    name: str
    module: str
    share: float
    needs_cuda: str = ""


STAGES = [
    Stage("machine", "benchmarks.gpu.machine", 10),
    Stage("tests", "benchmarks.gpu.cuda_tests", 75),
    Stage("capture", "benchmarks.gpu.capture", 20),
    Stage("amp", "benchmarks.gpu.amp", 15),
    Stage(
        "syncs",
        "benchmarks.gpu.syncs",
        15,
        needs_cuda="a CPU has no device to wait for",
    ),
    Stage("kernels", "benchmarks.gpu.kernels", 30),
    Stage("overhead", "benchmarks.gpu.overhead", 90),
    Stage("compile", "benchmarks.gpu.compiling", 45),
    Stage("ranks", "benchmarks.gpu.ranks", 20),
    Stage("study", "benchmarks.gpu.study", 180),
]
