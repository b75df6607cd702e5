"""What the pages say of GPUs, from the newest record in benchmarks/results.

Each part stands in its page between `<!-- gpu: NAME -->` and `<!-- end -->`. Without a
record it says that this was not measured.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.checkout import RESULTS, ROOT
from benchmarks.gpu.losses import study
from benchmarks.gpu.performance import performance
from benchmarks.gpu.record import Record, newest
from benchmarks.gpu.works import sentence, what_works
from benchmarks.marked import filled


def or_nothing(told: Callable[[Record, str], str]) -> Callable[..., str]:
    def part(record: Record | None, name: str) -> str:
        return told(record, name) if record is not None else "Not measured.\n"

    return part


# Page -> the name of the part -> what writes it.
PARTS: dict[str, tuple[str, Callable[[Record | None, str], str]]] = {
    "docs/performance-tables.md": ("gpu: performance", or_nothing(performance)),
    "docs/what-works.md": ("gpu: what works", what_works),
    "docs/study.md": ("gpu: study", or_nothing(study)),
    "README.md": ("gpu: sentence", sentence),
}


def part_of(page: str, results: Path = RESULTS) -> str:
    """What stands between the markers of a page, from the newest record."""
    told = PARTS[page][1](*(newest(results) or (None, "")))
    return f"\n{told.strip()}\n\n"


def rendered(page: str, text: str, results: Path = RESULTS) -> str:
    """The page with a new part."""
    return filled(text, PARTS[page][0], part_of(page, results))


def write(root: Path = ROOT, results: Path = RESULTS) -> list[str]:
    """Writes all pages; returns their names."""
    for page in PARTS:
        path = root / page
        text = rendered(page, path.read_text(encoding="utf-8"), results)
        path.write_text(text, encoding="utf-8")
    return list(PARTS)
