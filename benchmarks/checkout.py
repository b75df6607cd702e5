"""The checkout that is measured: its folder, and what git says of it."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def commit() -> str:
    """The commit of the checkout, or "unknown"."""
    return _git("rev-parse", "HEAD") or "unknown"


def is_dirty() -> bool:
    """Whether files differ from those of the commit."""
    return bool(_git("status", "--porcelain", "--untracked-files=no"))


def _git(*arguments: str) -> str:
    """What git prints; empty if there is no git, or nothing that it knows."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
        )
    except OSError:
        return ""
    return done.stdout.strip()
