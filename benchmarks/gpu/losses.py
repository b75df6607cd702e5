"""The table of the study, for docs/study.md."""

from __future__ import annotations

from statistics import fmean, stdev
from typing import Any

from benchmarks.gpu.record import Record
from benchmarks.gpu.sections import section, source, wrong
from benchmarks.markdown_tables import grid


def study(record: Record, name: str) -> str:
    rows = [row for row in section(record, "study")["rows"] if "loss" in row]
    warmups = dict.fromkeys(row["warmup"] for row in rows)
    times = dict.fromkeys(row["times"] for row in rows)
    lines = []
    for warmup in warmups:
        cells = []
        for own in times:
            ran = [r for r in rows if (r["warmup"], r["times"]) == (warmup, own)]
            cells.append(cell(ran))
        lines.append([warmup, *cells])
    sizes = {(row["parameters"], row["updates"]) for row in rows}
    sized = "; ".join(f"{p} parameters, {u} updates" for p, u in sorted(sizes))
    head = ["warmup", *(f"LR x{own}" for own in times)]
    told = (
        "Loss on held-out text, in nats per character: the mean over seeds, and their\n"
        f"standard deviation. {sized or 'No run ended'}.\n"
    )
    parts = [source(record, name), told, grid(head, lines) if lines else ""]
    return "\n".join(parts + wrong(record, "study"))


def cell(rows: list[dict[str, Any]]) -> str:
    losses = [row["loss"] for row in rows if row["loss"] is not None]
    if not losses:
        return "not finite" if rows else ""
    spread = f" ± {stdev(losses):.3f}" if losses[1:] else ""
    lost = len(rows) - len(losses)
    seeds = f" ({len(losses)} seeds{f', {lost} not finite' if lost else ''})"
    return f"{fmean(losses):.3f}{spread}{seeds}"
