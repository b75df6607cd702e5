"""CPU and CUDA: how time is taken on each, and what can be counted.

The rest of the program asks these two classes for everything about a device.
"""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.overhead.timing import Step, thread_clock

Counts = dict[str, int | None]
"""How often one step does something; None if this device cannot count it."""

HEAD_START_CYCLES = 2_000_000  # about 1 ms: twice what the host needs for a block


class Cpu:
    """The CPU, with one thread only: the clock does not see the work of others."""

    name = "cpu"
    torch_device = "cpu"
    clock = staticmethod(thread_clock)

    def __init__(self) -> None:
        torch.set_num_threads(1)

    def free_bytes(self) -> int:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

    def describe(self) -> dict[str, Any]:
        return {"device": processor()}

    def kernels(self, step: Step) -> None:
        """A CPU launches none."""

    def syncs(self, step: Step) -> None:
        """A CPU has nothing to wait for."""


class Cuda:
    """The current CUDA device, with a host time and a device time.

    Host time is how long the host needs to send a block of steps to the device. Device
    time is how long the device works on it, between two events. The device first gets
    something else to do, so that it does not have to wait for the host.
    """

    name = "cuda"
    torch_device = "cuda"

    def __init__(self) -> None:
        if not torch.cuda.is_available():
            raise ValueError("there is no CUDA device. Use --device cpu.")
        self._start = torch.cuda.Event(enable_timing=True)
        self._end = torch.cuda.Event(enable_timing=True)

    def clock(self, step: Step, count: int) -> dict[str, float]:
        torch.cuda.synchronize()
        torch.cuda._sleep(HEAD_START_CYCLES)
        self._start.record()
        start = time.perf_counter_ns()
        for _ in range(count):
            step()
        host = time.perf_counter_ns() - start
        self._end.record()
        self._end.synchronize()
        return {"host": host, "device": self._start.elapsed_time(self._end) * 1e6}

    def free_bytes(self) -> int:
        """Free memory of the device, with what torch holds but does not use."""
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info()[0]

    def describe(self) -> dict[str, Any]:
        fields = ("driver_version", "clocks.sm", "clocks.mem", "power.limit")
        query = [
            "nvidia-smi",
            f"--query-gpu={','.join(fields)}",
            "--format=csv,noheader",
        ]
        try:
            told = subprocess.run(query, check=True, capture_output=True, text=True)
            smi = dict(
                zip(fields, told.stdout.splitlines()[0].split(", "), strict=True)
            )
        except (OSError, subprocess.CalledProcessError):
            smi = dict.fromkeys(fields)
        return {
            "device": torch.cuda.get_device_name(),
            "cpu": processor(),
            "cuda": torch.version.cuda,
            **smi,
        }

    def kernels(self, step: Step) -> int:
        """Counts what a step starts on the device: kernels, copies, fills."""
        torch.cuda.synchronize()
        activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
        with profile(activities=activities, acc_events=True) as profiled:
            step()
            torch.cuda.synchronize()
        return sum(e.device_type == DeviceType.CUDA for e in profiled.events())

    def syncs(self, step: Step) -> int:
        """Returns 1 if the step makes the host wait for the device, else 0."""
        try:
            with no_syncs():
                step()
        except RuntimeError as error:
            if "synchronizing" not in str(error):
                raise
            return 1
        return 0


Device = Cpu | Cuda
DEVICES: dict[str, type[Device]] = {"cpu": Cpu, "cuda": Cuda}


@contextmanager
def no_syncs() -> Iterator[None]:
    """Raises an error if the host has to wait for the CUDA device."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


class Dispatched(TorchDispatchMode):
    """Counts what torch's dispatcher sees.

    Attributes:
        operators: All operators, without those of the profiler.
        allocations: New tensors of at least `size` elements.
        hook_passes: How often torch ran the hooks of a step. At the same place it tells
            the profiler the name of the step, and that is what is counted.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.operators = self.allocations = self.hook_passes = 0
        self._size = size

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.namespace == "profiler":
            self.hook_passes += str(args[0]).startswith("Optimizer.step#")
            return result
        self.operators += 1
        given = {leaf.untyped_storage()._cdata for leaf in _tensors((args, kwargs))}
        self.allocations += sum(
            leaf.numel() >= self._size and leaf.untyped_storage()._cdata not in given
            for leaf in _tensors(result)
        )
        return result


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def count(step: Step, device: Device, size: int, eager: bool = True) -> Counts:
    """Counts what one step does.

    Args:
        size: A new tensor counts as an allocation if it has this many elements or more.
        eager: Whether operators are dispatched one by one, so that they can be counted.
    """
    counts: Counts = dict.fromkeys(("operators", "allocations", "hook_passes"))
    step()
    if eager:
        with Dispatched(size) as counts_of:
            step()
        counts = {what: getattr(counts_of, what) for what in counts}
    return {**counts, "kernels": device.kernels(step), "syncs": device.syncs(step)}
