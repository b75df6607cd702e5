"""The part of docs/performance-tables.md that is about CUDA."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.gpu.record import Record
from benchmarks.gpu.sections import section, source, wrong
from benchmarks.gpu.words import Section, judged
from benchmarks.markdown_tables import grid
from benchmarks.overhead.report import tables


def performance(record: Record, name: str) -> str:
    rows = [row for row in section(record, "overhead")["rows"] if "ratio" in row]
    parts = [source(record, name)]
    for time in dict.fromkeys(row["time"] for row in rows):
        parts += [f"{time.capitalize()} time.\n", *tables({"rows": rows}, time)]
    missing = [
        [row["what"], row["why"]]
        for row in section(record, "overhead")["rows"]
        if "ratio" not in row and row.get("why")
    ]
    if missing:
        parts += ["### Not measured\n", grid(["what", "why"], missing)]
    parts += launched(section(record, "kernels"))
    parts += waits(section(record, "syncs"))
    parts += compiled(section(record, "compile"))
    return "\n".join(parts + wrong(record, "overhead", "kernels", "syncs", "compile"))


def launched(found: Section) -> Iterator[str]:
    lines = [
        [
            row["what"],
            *(str(row["bare"]), str(min(row["added"])), str(row["after"])),
            str(row.get("reading", "")),
        ]
        for row in found["rows"]
        if "added" in row
    ]
    if lines:
        yield "### Kernels\n"
        yield (
            "What the bare step launches; what a step adds during the warmup and\n"
            "after it; and what a reading of the second moment adds, whose goal was\n"
            "8. The other fixed modes do as `linear`.\n"
        )
        yield grid(["", "bare", "warming", "after", "a reading"], lines)


def waits(found: Section) -> Iterator[str]:
    good, all_ = judged(found)
    if all_:
        ends = [row["waits_at_end"] for row in found["rows"] if "waits_at_end" in row]
        yield "### Waits for the device\n"
        yield (
            f"Steps of every mode ran while torch forbids to wait: {good} of {all_}\n"
            f"as they should be. Around the end of the warmup at most "
            f"{max(ends, default=0)} step waited.\n"
        )


def compiled(found: Section) -> Iterator[str]:
    lines = [
        [row["what"], row["backend"], *(str(row["graphs"][i]) for i in (0, 11, -1))]
        for row in found["rows"]
        if "graphs" in row
    ]
    if lines:
        yield "### torch.compile\n"
        yield (
            "Graphs compiled so far: after the first step, when the warmup of 12\n"
            "updates ends, and after 24 updates.\n"
        )
        yield grid(["", "backend", "first", "end of the warmup", "last"], lines)
