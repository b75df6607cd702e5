"""A small grid from start to end: killed half-way, continued, written to a page.

`make study-quick`, or python -m benchmarks.study.quick.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from benchmarks.study import config, pages
from benchmarks.study.store import key_of, read

FILE = Path(__file__).with_suffix(".toml")


def killed_and_resumed(file: Path, out: Path, workers: int = 2) -> str:
    """Runs a study, kills it, continues it; fails if a run was lost or ran twice."""
    command = [sys.executable, "-m", "benchmarks.study", str(file), "--out", str(out)]
    command += ["--workers", str(workers)]
    half = len(config.read(file).plan) // 2
    process = subprocess.Popen(command, cwd=config.ROOT)
    while lines(out) <= half and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.wait()
    time.sleep(0.5)  # time for the workers to notice it
    before = out.read_bytes()
    subprocess.run(command, cwd=config.ROOT, check=True)
    *complete, _torn = before.split(b"\n")
    after = out.read_bytes().split(b"\n")
    if after[: len(complete)] != complete:
        raise RuntimeError("what was there before the kill is not there any more")
    _, rows = read(out)
    keys = [key_of(row) for row in rows]
    if len(set(keys)) < len(keys):
        raise RuntimeError("runs ran twice")
    if missing := {key_of(each.run) for each in config.read(file).plan} - set(keys):
        raise RuntimeError(f"{len(missing)} runs of the grid are missing")
    return (
        f"killed after {len(complete) - 1} runs, resumed to {len(rows)}: "
        "none lost, none twice"
    )


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


if __name__ == "__main__":
    study = config.read(FILE)
    [page] = study.pages
    page.parent.mkdir(parents=True, exist_ok=True)
    page.unlink(missing_ok=True)
    results = page.with_suffix(".jsonl")
    results.unlink(missing_ok=True)
    print(killed_and_resumed(FILE, results))
    pages.write(study, results)
    print(page.read_text(encoding="utf-8"))
