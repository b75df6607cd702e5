"""The tables of docs/adaptive.md, made from the records of `adaptive_runs`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

FIXED = (0, 20, 100, 300, 3000)
CAPS = (300, 3000)

Row = dict[str, Any]


class Cell(NamedTuple):
    """What one run is of; `steps` is the cap where the mode is adaptive."""

    task: str
    optimizer: str
    lr: float
    seed: int
    mode: str
    steps: int


def read(path: Path) -> tuple[dict[str, Any], dict[Cell, Row]]:
    """The machine, and the runs by cell."""
    machine, *rows = map(json.loads, path.read_text().splitlines())
    return machine, {Cell(*(row[name] for name in Cell._fields)): row for row in rows}
