"""The real runs of adaptive warmup: they run, and the docs quote what was recorded."""

from __future__ import annotations

import itertools
import json
import re
from functools import partial
from pathlib import Path

import pytest
from benchmarks.adaptive_runs import SEEDS, fill, grid, run
from benchmarks.adaptive_tables import ADAPTIVE, Cell, Group, Warmup
from benchmarks.adaptive_tasks import TASKS

from benchmarks import adaptive_tables as tables

RECORD = Path(__file__).parent.parent / "benchmarks" / "results" / "adaptive-runs.jsonl"

README = tables.PAGE.parent.parent / "README.md"


def test_the_page_is_made_from_the_record() -> None:
    page = tables.PAGE.read_text(encoding="utf-8")
    assert re.findall(r"<!-- table: (\w+) -->", page) == list(tables.TABLES)
    emptied = re.sub(r"(<!-- table: \w+ -->).*?(<!-- end)", r"\1\n\2", page, flags=re.S)
    assert emptied != page
    assert tables.with_tables(emptied, RECORD) == page


def test_the_figures_of_the_text_are_those_of_the_record() -> None:
    text = " ".join(tables.PAGE.read_text(encoding="utf-8").split())
    found = tables.ladders(tables.read(RECORD)[1])
    groups = [group for levels in found for group in levels]
    ends = [
        sorted(n for group in groups for n in group.lengths(Warmup("adaptive", cap)))
        for cap in tables.CAPS
    ]
    assert all(max(own) < cap for own, cap in zip(ends, tables.CAPS, strict=True))
    first, soon = zip(*((own[0], own[len(own) * 3 // 4]) for own in ends), strict=True)
    assert "{} with cap 300 and {} with cap 3000".format(*first) in text
    assert "ended by update {} and {}.".format(*soon) in text

    def verdicts(groups: list[Group]) -> list[int]:
        return [tables.verdict(g.minus(ADAPTIVE, g.best())) for g in groups]

    told, low = verdicts(groups), verdicts([levels[0] for levels in found])
    assert -1 not in told
    assert f"Of the {len(told)} combinations" in text
    assert f"to be worse in {told.count(1)}," in text
    assert f"to be worse in {low.count(1)} of {len(low)} combinations" in text

    readme = " ".join(README.read_text(encoding="utf-8").split())
    runs = len(tables.read(RECORD)[1])
    assert f"In {runs} small runs" in readme
    assert f"of {len(told)} combinations of task, optimizer and" in readme
    assert f"worse in {told.count(1)}, and not told apart in {told.count(0)}." in readme
    assert f"ended between updates {first[0]} and {soon[0]}." in readme


def test_the_record_holds_the_whole_grid_and_every_control() -> None:
    _, rows = tables.read(RECORD)
    expected = set()
    for cell in grid():
        lengths = [rows[cell("adaptive", cap)]["length"] for cap in tables.CAPS]
        expected |= {cell("adaptive", cap) for cap in tables.CAPS}
        expected |= {cell("linear", n) for n in (*tables.FIXED, *lengths)}
    assert set(rows) == expected
    assert {(cell.task, cell.seed) for cell in rows} == {
        (task, seed) for task in TASKS for seed in range(SEEDS[task])
    }


def test_cells_run_are_recorded_and_are_not_run_again(tmp_path: Path) -> None:
    out = tmp_path / "runs.jsonl"
    cells = [
        partial(Cell, "digits MLP", "Yogi", 3e-3, 0),
        partial(Cell, "char-LM post-LN", "Adam", 3e-3, 0),
    ]
    fill(out, cells[:1], updates=150)
    first = out.read_text()
    fill(out, cells[:1], updates=150)
    assert out.read_text() == first
    fill(out, cells[1:], updates=5)
    assert out.read_text().startswith(first)
    machine, rows = tables.read(out)
    assert machine["threads"] == 1
    adaptive = rows[cells[0]("adaptive", 300)]
    assert adaptive["done_reason"] == "settled"
    control = rows[cells[0]("linear", adaptive["length"])]
    assert (control["length"], control["done_reason"]) == (adaptive["length"], "cap")
    assert control["loss"] != adaptive["loss"]
    # Five updates are too few for it to end: there is nothing to match.
    assert len([cell for cell in rows if cell.task == "char-LM post-LN"]) == 5 + 2
    again = run(cells[0]("adaptive", 300), updates=150)
    assert again["loss"] == adaptive["loss"]


def test_a_record_of_another_machine_is_not_continued(tmp_path: Path) -> None:
    out = tmp_path / "runs.jsonl"
    fill(out, [])
    other = {**json.loads(out.read_text()), "torch": "1.0"}
    out.write_text(json.dumps(other) + "\n")
    with pytest.raises(ValueError, match="out must be of this machine"):
        fill(out, [])


def made_up(losses: dict[Warmup, list[float | None]]) -> Group:
    rows = {}
    for (warmup, own), seed in itertools.product(losses.items(), range(4)):
        mode, length = "linear", warmup.steps
        if warmup.kind == "adaptive":
            mode, length = "adaptive", 130 + seed  # whose fixed runs are the controls
        steps = 130 + seed if warmup.kind == "control" else warmup.steps
        rows[Cell("task", "Adam", 0.1, seed, mode, steps)] = {
            "loss": own[seed],
            "failed": own[seed] is None,
            "chance": 2.0,
            "length": length,
        }
    return Group(rows, "task", "Adam", 0.1)


def test_the_statistics_have_known_answers() -> None:
    """Paired by seed; a lost run counts as a guess; the best is that of the mean."""
    group = made_up(
        {
            Warmup("fixed", 0): [None, 3.0, 0.1, 0.1],
            Warmup("fixed", 20): [0.2, 0.2, 0.2, 0.7],
            Warmup("fixed", 100): [0.3, 0.3, 0.3, 0.3],
            Warmup("fixed", 300): [0.9, 0.9, 0.9, 0.9],
            ADAPTIVE: [0.4, 0.5, 0.4, 0.5],
            Warmup("control", 300): [0.4, 0.6, 0.2, 0.6],
        }
    )
    assert group.losses(Warmup("fixed", 0)) == [2.0, 2.0, 0.1, 0.1]
    assert group.failed(Warmup("fixed", 0)) == 1
    assert group.best() == Warmup("fixed", 100)  # 0.3 to 0.325
    assert group.best(but=3) == Warmup("fixed", 20)
    assert tables.difference(group.minus(ADAPTIVE, group.best())) == (
        "**+0.150 ± 0.029**"  # 0.1, 0.2, 0.1, 0.2; t is 5.2, beyond 3.182
    )
    assert group.minus_best_of_others(ADAPTIVE) == pytest.approx([0.1, 0.2, 0.1, -0.2])
    same_length = group.minus(ADAPTIVE, Warmup("control", 300))
    assert same_length == pytest.approx([0, -0.1, 0.2, -0.1])
    assert tables.difference(same_length) == "+0.000 ± 0.071"
    assert tables.by_seed([[0.1, 0.3], [0.3, 0.5]]) == pytest.approx([0.2, 0.4])
    assert [tables.verdict([v, v, v + 0.1]) for v in (-1.0, 0.0, 1.0)] == [-1, 0, 1]
