"""Writes the results into pages: replaces the text between their markers.

A part that is replaced begins with `<!-- table: NAME -->` or `<!-- figure: NAME -->`,
and ends with `<!-- end -->`. The rest of the page is written by hand.
"""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks.study import (
    aligned_figures,
    aligned_tables,
    every,
    figures,
    short,
    tables,
)
from benchmarks.study.config import Config
from benchmarks.study.measures import Results
from benchmarks.study.store import read

PICTURES = "pictures"  # the folder of the figures, beside the page
MARKED = re.compile(r"(<!-- (table|figure): (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def results_of(study: Config, path: Path) -> Results:
    if not path.exists():
        return Results(study, {"machine": {}}, [])
    machine, rows = read(path)
    reused = [] if study.reuse is None else read(study.reuse)[1]
    return Results(study, machine, reused + rows)


def rendered(text: str, results: Results, folder: Path | None) -> str:
    """Returns the page with new tables; draws the figures if there is a folder."""
    known = {
        "table": tables.TABLES | short.TABLES | aligned_tables.TABLES | every.TABLES,
        "figure": figures.FIGURES | aligned_figures.FIGURES | every.FIGURES,
    }

    def made(match: re.Match[str]) -> str:
        head, kind, name, end = match.groups()
        if name not in known[kind]:
            names = ", ".join(known[kind])
            raise ValueError(f"{kind} must be one of {names}, got {name!r}.")
        if kind == "table":
            return f"{head}\n{known[kind][name](results)}\n{end}"
        if not results.rows:
            return head + end
        file, draw = f"study-{results.study.name}-{name}.svg", known[kind][name]
        if folder is not None:
            from docs.scripts import themed

            (folder / PICTURES).mkdir(exist_ok=True)
            with themed.style():
                draw(results, folder / PICTURES / file)
        return f"{head}\n![{draw.__doc__}]({PICTURES}/{file})\n\n{end}"

    return MARKED.sub(made, text)


def write(study: Config, path: Path) -> None:
    """Fills the pages of a study. Creates the first one if it does not exist."""
    page = study.pages[0]
    if not page.exists():
        page.parent.mkdir(parents=True, exist_ok=True)
        marks = ["table: state", "table: every_warmup", "table: every_loss"]
        marks += ["table: every_regret"] * bool(study.tuning)
        marks += ["table: controls"] * any(each.controls for each in study.plan)
        marks += ["figure: every_lr", "figure: every_length"]
        if any(each.run["warmup"]["kind"] == "aligned" for each in study.plan):
            marks += ["table: aligned_state", "table: aligned_narrowing"]
        page.write_text(
            f"# {study.name}\n\n"
            + "\n".join(f"<!-- {mark} -->\n<!-- end -->\n" for mark in marks),
            encoding="utf-8",
        )
    results = results_of(study, path)
    for page in study.pages:
        text = rendered(page.read_text(encoding="utf-8"), results, page.parent)
        page.write_text(text, encoding="utf-8")
        print(f"{page.name} is written")
