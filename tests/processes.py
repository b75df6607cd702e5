"""Runs Python code in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def run_python(code: str, *options: str, cwd: Path | None = None) -> str:
    """What the code prints; raises where it ends in an error."""
    command = [sys.executable, *options, "-c", code]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=cwd)
    return done.stdout.strip()
