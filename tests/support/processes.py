"""New Python processes, and forks of one that has already imported torch."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from pathlib import Path

FORKS = multiprocessing.get_context("forkserver")
# The server imports these once, and all processes are forked from it. Each test process
# has one server. (torch.distributed.optim gives a warning when it is imported.)
FORKS.set_forkserver_preload(
    [
        "torch._dynamo",
        "torch.distributed.checkpoint.state_dict",
        "torch.distributed.fsdp",
        "torch.distributed.optim",
    ]
)


def run_python(code: str, *options: str, cwd: Path | None = None) -> str:
    """What the code prints; raises an error if the code fails."""
    command = [sys.executable, *options, "-c", code]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=cwd)
    return done.stdout.strip()
