"""The record: one JSON file with a section for each stage."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

Record = dict[str, Any]


def write(record: Record, path: Path) -> None:
    """Writes it whole or not at all: a reader never finds half a file."""
    sections = ",\n".join(
        f"{json.dumps(name)}: {_lines(section)}"
        for name, section in record["stages"].items()
    )
    head = {key: value for key, value in record.items() if key != "stages"}
    text = f'{json.dumps(head)[:-1]}, "stages": {{\n{sections}\n}}}}\n'
    new = path.with_suffix(".new")
    new.write_text(text, encoding="utf-8")
    os.replace(new, path)


def _lines(section: dict[str, Any]) -> str:
    """A section with one row on each line, so that a difference can be read."""
    head = {key: value for key, value in section.items() if key != "rows"}
    rows = ",\n".join(json.dumps(row) for row in section["rows"])
    return f'{json.dumps(head)[:-1]}, "rows": [\n{rows}\n]}}'


def newest(folder: Path) -> tuple[Record, str] | None:
    """The newest record of a GPU in the folder, and the name of its file, or None."""
    found = [
        (json.loads(path.read_text(encoding="utf-8")), path.name)
        for path in folder.glob("gpu-*.json")
    ]
    of_gpu = [each for each in found if each[0]["device"] == "cuda"]
    return max(of_gpu, key=lambda each: each[0]["utc"], default=None)
