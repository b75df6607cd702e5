"""Results as JSON lines. Lines are only added, so a kill loses one line at most.

The first line describes the machine, each other line a run. The settings of a run are
its key.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.study.warmups import Settings

Row = dict[str, Any]
SETTINGS = (
    *("task", "optimizer", "beta2", "lr", "updates", "evaluations", "warmup", "seed"),
    "code",
)


def key_of(run: Settings) -> str:
    """The key of a run, from its settings or from the row of its results."""
    return json.dumps([run[name] for name in SETTINGS], sort_keys=True)


def name_of(run: Settings) -> str:
    """A short name for a file that belongs to a run."""
    return hashlib.sha256(key_of(run).encode()).hexdigest()[:16]


def read(path: Path) -> tuple[Row, list[Row]]:
    """Reads the machine, and the runs in the order in which they ended.

    A last line without a line break is dropped: the process was killed as it wrote it.
    """
    *lines, _ = path.read_text(encoding="utf-8").split("\n")
    try:
        machine, *rows = map(json.loads, lines)
    except ValueError as error:
        raise ValueError(f"{path.name} must be JSON lines: {error}.") from None
    return machine, rows


class Store:
    """Writes a file of results, line by line. The file is locked for all others."""

    def __init__(
        self, path: Path, retry: bool = False, reuse: Path | None = None
    ) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self._file = path, path.open("a+b")
        try:
            rows = self._begin()
        except BaseException:
            self._file.close()
            raise
        self.rows = {key_of(row): row for row in self._reused(reuse)} | {
            key_of(row): row for row in rows if not (retry and row.get("error"))
        }

    def _reused(self, path: Path | None) -> list[Row]:
        """The rows of another record, which must be of the same machine too."""
        if path is None:
            return []
        first, rows = read(path)
        return rows if first["machine"] == environment() else []

    def _begin(self) -> list[Row]:
        """Locks the file, drops a last line that is not whole, checks the machine."""
        name = self.path.name
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(f"{name} is being written by another run.") from None
        self._file.truncate(self.path.read_bytes().rfind(b"\n") + 1)
        now = environment()
        if not self.path.stat().st_size:
            self._append({"machine": now, "commit": commit()})
        first, rows = read(self.path)
        if first["machine"] != now:
            raise ValueError(
                f"{name} must be of this machine, {now}, got one of "
                f"{first['machine']}. Name another file with --out."
            )
        return rows

    def add(self, row: Row) -> None:
        self.rows[key_of(row)] = row
        self._append(row)

    def _append(self, line: Row) -> None:
        self._file.write(json.dumps(line, allow_nan=False).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()


def environment() -> dict[str, str]:
    """Everything of the machine that can change the last digit of a loss."""
    packages = ("torch", "torch-optimizer", "numpy")
    return {
        **{"cpu": cpu(), "system": platform.system()},
        **{"python": platform.python_version()},
        **{package: version(package) for package in packages},
    }


def cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    found = (line.split(":")[1].strip() for line in lines if "model name" in line)
    return next(found, platform.machine())


def commit() -> str:
    """The commit of warmopt when the first run began."""
    command = ["git", "rev-parse", "HEAD"]
    done = subprocess.run(
        command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"
