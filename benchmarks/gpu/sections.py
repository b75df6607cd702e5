"""Parts of a record, where it is from, and what in it is not as it should be."""

from __future__ import annotations

from typing import Any

from benchmarks.gpu.record import Record
from benchmarks.gpu.words import Section, failures


def section(record: Record, stage: str) -> Section:
    """The section of a stage; an empty one if the stage was left out."""
    found: Section = record["stages"].get(
        stage, {"outcome": "skipped", "why": "it was left out", "rows": []}
    )
    return found


def facts(record: Record, what: str) -> dict[str, Any]:
    """What the first stage found about the machine; may be empty."""
    rows = section(record, "machine")["rows"]
    return next((row for row in rows if row["what"] == what), {})


def source(record: Record, name: str) -> str:
    """Where the record is from, in one line."""
    machine, gpu = facts(record, "machine"), facts(record, "GPU")
    parts = [
        machine.get("device", "a GPU"),
        f"Python {machine.get('python', 'unknown')}",
        f"torch {machine.get('torch', 'unknown')}",
        f"CUDA {gpu.get('cuda', 'unknown')}",
        f"commit {record['commit'][:9]}",
    ]
    return f"From [{name}](../benchmarks/results/{name}): {', '.join(parts)}.\n"


def wrong(record: Record, *stages: str) -> list[str]:
    """A list of what is not as it should be, or nothing."""
    lines = [
        f"- {stage}: {line}\n"
        for stage in stages
        for line in failures(section(record, stage))
    ]
    return ["### Not as it should be\n", "".join(lines)] if lines else []
