"""What a record says, in plain words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.gpu.record import Record

Section = dict[str, Any]
MOST = 8  # failures of a stage that are told one by one


def judged(section: Section) -> tuple[int, int]:
    """How many rows are as they should be, and how many were judged."""
    told = [row["ok"] for row in section["rows"] if row["ok"] is not None]
    return sum(told), len(told)


def words_of(stage: str, section: Section) -> str:
    """A line that says how a stage went."""
    if section["outcome"] == "skipped":
        return f"{stage}: skipped, {section['why']}"
    good, all_ = judged(section)
    ending = "" if section["outcome"] == "done" else f"; it {section['outcome']}"
    seconds = f"{section['seconds']:.0f} s"
    return f"{stage}: {good} of {all_} as they should be, {seconds}{ending}"


def failures(section: Section) -> Iterator[str]:
    """A line for each thing that is not as it should be, with its reason."""
    for row in section["rows"]:
        if row["ok"] is False:
            yield f"{row['what']}: {row.get('why', 'no reason was given')}"
    if section["outcome"] not in ("done", "skipped"):
        last = section.get("printed", "").strip().splitlines()[-1:]
        yield " ".join([f"the stage itself {section['outcome']}:", *last])


def closing_words(record: Record) -> list[str]:
    """What failed, stage by stage; one line if nothing did."""
    lines = []
    for stage, section in record["stages"].items():
        found = list(failures(section))
        lines += [f"{stage}: {line}" for line in found[:MOST]]
        if len(found) > MOST:
            lines.append(f"{stage}: and {len(found) - MOST} more")
    if not lines:
        return ["Nothing failed."]
    return ["What failed (tracebacks are in the record):", *lines]
