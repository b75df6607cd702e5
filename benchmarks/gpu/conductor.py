"""Runs each stage in a process of its own, so that none can stop the next.

A crash, a hang, or a CUDA error that no later call in the same process recovers from,
ends only that stage. What it has yielded before stays.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.checkout import ROOT
from benchmarks.gpu.stages import Stage

GRACE = 30.0  # seconds beside the share: to start torch, and to end the last row
OVERTIME = 90.0  # seconds after which even the last stage is stopped
# On a CPU all tensors are tiny, and others may need the cores.
ENVIRONMENT = {"cpu": {"OMP_NUM_THREADS": "1"}, "cuda": {}}
TAIL = 6000  # characters that are kept of what a stage printed, if it failed

Section = dict[str, Any]


def conduct(
    stages: Sequence[Stage],
    device: str,
    minutes: float,
    folder: Path,
    name: str,
    tell: Callable[[str, Section], None],
) -> None:
    """Runs the stages; calls `tell` with the name and the result of each."""
    end = time.monotonic() + 60 * minutes
    for index, stage in enumerate(stages):
        left = end - time.monotonic()
        shares = sum(later.share for later in stages[index:])
        seconds = max(left, 0.0) * stage.share / shares
        limit = min(seconds + GRACE, left + OVERTIME)
        if device == "cpu" and stage.needs_cuda:
            why = f"needs CUDA: {stage.needs_cuda}"
            tell(stage.name, {"outcome": "skipped", "why": why, "rows": []})
        elif limit <= 0:
            tell(stage.name, {"outcome": "skipped", "why": "no time", "rows": []})
        else:
            tell(stage.name, run(stage, device, seconds, limit, folder, name))


def run(
    stage: Stage, device: str, seconds: float, limit: float, folder: Path, name: str
) -> Section:
    """Runs one stage; returns its rows, and how it ended."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as own:
        rows, printed = Path(own) / "rows", Path(own) / "printed"
        command = [sys.executable, "-m", "benchmarks.gpu.stage", stage.module, device]
        command += [str(seconds), str(limit), str(rows), str(folder.resolve()), name]
        with printed.open("w") as out:
            # A session of its own, to end with it all that it has started itself.
            process = subprocess.Popen(
                command,
                env={**os.environ, **ENVIRONMENT[device]},
                cwd=ROOT,  # where Python finds this checkout first
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                code: int | None = process.wait(limit)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                _end(process)
        section: Section = {
            "outcome": _outcome(code, limit),
            "seconds": round(time.monotonic() - began, 1),
            "share": round(seconds, 1),
            "rows": _read(rows),
        }
        if code != 0:
            section["printed"] = printed.read_text(errors="replace")[-TAIL:]
    return section


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the whole session of the process, such as pytest or a compiler."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _outcome(code: int | None, limit: float) -> str:
    if code is None:
        return f"stopped after {limit:.0f} s"
    if code < 0:
        return f"ended by signal {-code}"
    return "done" if code == 0 else "failed"


def _read(rows: Path) -> list[dict[str, Any]]:
    """The rows; the last line is left out if it is not whole."""
    if not rows.exists():
        return []
    *lines, _ = rows.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines]
