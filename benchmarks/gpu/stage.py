"""The process of one stage, which `conductor` starts.

Each row goes into the file `rows` at once, so that it stays if the process is killed.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

from benchmarks.gpu.rows import Here, finite


def main(
    module: str,
    device: str,
    seconds: str,
    limit: str,
    rows: str,
    folder: str,
    name: str,
) -> None:
    here = Here(device, float(seconds), float(limit), Path(folder), name)
    with Path(rows).open("a", encoding="utf-8") as file:
        for row in importlib.import_module(module).rows(here):
            line = json.dumps(finite(row), allow_nan=False, default=str)
            file.write(line + "\n")
            file.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
