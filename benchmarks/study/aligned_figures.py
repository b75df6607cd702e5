"""The figure of docs/study-aligned.md. Its docstring is its description."""

from __future__ import annotations

from pathlib import Path

from benchmarks.study.aligned_tables import ALIGNED, at, every
from benchmarks.study.figures import draw_ladders
from benchmarks.study.measures import Results
from benchmarks.study.tables import ladders

SHOWN = ("none", "fixed 3 %", "fixed 30 %", "fixed 100 %", ALIGNED)


def aligned_by_lr(results: Results, path: Path) -> None:
    """Final loss against the learning rate that was asked for, by task."""
    found = [ladder for ladder in ladders(at(every(results), 1)) if ladder[1:]]
    draw_ladders(found, SHOWN, path)


FIGURES = {"aligned_by_lr": aligned_by_lr}
