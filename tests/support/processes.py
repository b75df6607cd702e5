"""Processes of their own: fresh ones, and forks of one that has torch already."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from pathlib import Path

FORKS = multiprocessing.get_context("forkserver")
# Imported once, in the server that all are forked from; there is one per test process.
# (torch.distributed.optim warns as it is imported.)
FORKS.set_forkserver_preload(
    [
        "torch._dynamo",
        "torch.distributed.checkpoint.state_dict",
        "torch.distributed.fsdp",
        "torch.distributed.optim",
    ]
)


def run_python(code: str, *options: str, cwd: Path | None = None) -> str:
    """What the code prints; raises where it ends in an error."""
    command = [sys.executable, *options, "-c", code]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=cwd)
    return done.stdout.strip()
