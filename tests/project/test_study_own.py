"""A study from a Python file of one's own: every warmup that ran is in its report."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.study import every, measures, pages, pool
from benchmarks.study.own import (
    Data,
    Facts,
    Study,
    Task,
    always,
    of_samples,
    report,
    run,
)
from benchmarks.study.store import SETTINGS, read
from benchmarks.study.tasks import TASKS
from benchmarks.study.warmups import WARMUPS
from tests.support import ROOT

OWN = """
import torch
from benchmarks.study.own import *


def blobs(folder):
    random = torch.Generator().manual_seed(0)
    y = torch.randint(2, (300,), generator=random)
    x = torch.randn(300, 4, generator=random) + y[:, None]
    return of_samples(x, y, held_out=100, classes=2)


def model(data):
    return torch.nn.Linear(4, data.classes)


def late(facts, steps, wait=0):
    return {"mode": "cosine", "steps": steps, "offset": wait}


study = Study(
    FOLDER,
    tasks={"blobs": Task(blobs, model, always(16), fails_above=0.65)},
    warmups={
        "fixed": {"kind": "linear", "steps": [0, 0.1, 0.3]},
        "late": {"kind": late, "steps": 0.3, "wait": [2, 8]},
        "adaptive": {
            "kind": "adaptive", "steps": 1.0, "every": 2, "window": 2, "fast": 5,
            "criterion": "drift", "constants": {"tol": 9.0}, "controls": ["length"],
        },
    },
    lrs=[0.01, 0.1],
    updates=30,
    seeds=[0, 1],
)
"""
LABELS = ["none", "fixed 10 %", "fixed 30 %", "late 30 % wait=2", "late 30 % wait=8"]
LABELS += ["adaptive 100 % drift tol=9.0 every=2 window=2 fast=5"]
RUNS = 2 * 2 * len(LABELS)


def written(folder: Path) -> dict[str, Any]:
    """What the file defines."""
    made: dict[str, Any] = {"__name__": "own"}
    exec(OWN.replace("FOLDER", repr(str(folder))), made)
    return made


@pytest.fixture
def study(tmp_path: Path) -> Study:
    found: Study = written(tmp_path / "mine")["study"]
    return found


def test_every_warmup_that_ran_is_in_every_table_and_figure(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = run(study)
    folder = Path(study.folder)
    assert [row.get("error") for row in rows] == [None] * len(rows)
    labels = {measures.label(row["warmup"], row["updates"]) for row in rows}
    assert {*LABELS} <= labels  # and the lengths of the controls
    drawn: list[Any] = []
    monkeypatch.setattr(every, "save", lambda f, axes, path: drawn.append(axes))
    page = report(study)
    assert page == folder / "report.md"
    tables = page.read_text().split("<!-- table: ")
    shown = [*LABELS, f"length of {LABELS[-1]}"]
    for name in ("every_warmup", "every_loss"):
        (table,) = (each for each in tables if each.startswith(name))
        assert all(f"| {label} |" in table for label in shown), name
    assert "<!-- table: controls -->" in page.read_text()
    by_lr, by_length = drawn
    (axis,) = by_lr
    lines = {line.get_label(): line for line in axis.get_lines()}
    assert {*shown} <= {*lines}
    assert all(list(line.get_xdata()) == [0.01, 0.1] for line in lines.values())
    (axis,) = by_length
    lines = {line.get_label(): line for line in axis.get_lines()}
    assert {"fixed", "late wait=2", "late wait=8", shown[-1]} <= {*lines}
    assert list(lines["fixed"].get_xdata()) == [0.0, 10.0, 30.0]
    # What was there before is there again.
    assert "late" not in WARMUPS
    assert "blobs" not in TASKS


def test_all_that_it_writes_is_in_its_folder(study: Study) -> None:
    """Nothing runs twice, and the text around the tables stays."""
    folder = Path(study.folder)
    rows = run(study)
    assert len(rows) >= RUNS
    before = study.results.read_bytes()
    assert run(study) == rows
    assert study.results.read_bytes() == before
    page = report(study)
    files = {str(path.relative_to(folder)) for path in folder.rglob("*.*")}
    pictures = {f"pictures/study-mine-{name}.svg" for name in every.FIGURES}
    assert files == {"results.jsonl", "report.md", *pictures}
    page.write_text("My findings.\n\n" + page.read_text())
    assert report(study).read_text().startswith("My findings.")


def test_a_warmup_of_one_s_own_is_what_it_says() -> None:
    """`late` waits: a run with it is one with that warmup by hand."""
    made = written(Path("unused"))
    (task,) = made["study"].tasks.values()
    with made["study"].known():
        from benchmarks.study.train import train

        settings = {"task": "blobs", "optimizer": "Adam", "beta2": None, "lr": 0.1}
        settings |= {"updates": 30, "seed": 0, "code": 1, "evaluations": 1}
        warmup = {"kind": "late", "steps": 9, "wait": 8}
        row = train({**settings, "warmup": warmup})
    assert row["groups"] == [{"length": 17}]
    from warmopt import Warmed

    torch.manual_seed(0)
    data, draw = task.data(None), torch.Generator().manual_seed(0)
    model = task.model(data)
    adam = torch.optim.Adam(model.parameters(), lr=0.1)
    optimizer = Warmed(adam, 9, "cosine", offset=8)
    for done in range(30):
        adam.param_groups[0]["lr"] = 0.1 * task.decay(done, 30)
        x, y = data.batch(draw, 16)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    x, y = data.validation
    loss = torch.nn.functional.cross_entropy(model(x), y)
    assert row["loss"] == pytest.approx(loss.item(), abs=1e-5)


def test_regret_is_there_once_there_are_tuning_seeds(tmp_path: Path) -> None:
    made = written(tmp_path / "tuned")
    study = Study(
        tmp_path / "tuned",
        tasks=made["study"].tasks,
        warmups={"fixed": {"kind": "linear", "steps": [0, 0.1]}},
        lrs=[0.1],
        updates=20,
        seeds=[0, 1],
        tuning_seeds=[10, 11],
    )
    assert len(run(study)) == 2 * 4
    text = report(study).read_text()
    assert "<!-- table: every_regret -->" in text
    assert "| fixed 10 % | 1 |" in text


def test_lengths_whose_shares_look_the_same_are_two_warmups(tmp_path: Path) -> None:
    """2000 and 2001 of 300000 updates are both 0.667 %."""
    made = written(tmp_path)["study"]
    fixed = {"kind": "linear", "steps": [2000, 2001]}
    study = Study(tmp_path, made.tasks, {"fixed": fixed}, lrs=[0.1], updates=300000)
    with study.known() as plan:
        told = {"loss": 0.1, "failed": False, "chance": 0.7, "initial": 0.7}
        rows = [{**p.run, **told, "groups": [{"length": 2000}]} for p in plan.plan]
        (group,) = measures.grouped(measures.Results(plan, {}, rows))
        assert list(group.rows) == ["fixed 0.667 %", "fixed 0.667 % (2001 updates)"]
        assert [len(own) for own in group.rows.values()] == [3, 3]


@pytest.mark.long  # three processes import all that the study imports
def test_workers_give_what_one_process_gives(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    folder = tmp_path / "parallel"
    calls = "if __name__ == '__main__':\n    run(study, workers=2)\n    report(study)\n"
    file.write_text(OWN.replace("FOLDER", repr(str(folder))) + calls)
    done = subprocess.run(
        [sys.executable, str(file)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "late 30 % wait=8" in (folder / "report.md").read_text()
    rows = read(folder / "results.jsonl")[1]
    alone = run(written(tmp_path / "alone")["study"])

    def losses(rows: list[dict[str, Any]]) -> dict[str, float]:
        return {json.dumps([r["lr"], r["seed"], r["warmup"]]): r["loss"] for r in rows}

    assert losses(rows) == losses(alone)


def broken(facts: Facts) -> dict[str, Any]:
    raise RuntimeError("no luck")


def no_data(folder: Path | None) -> Data:
    return of_samples(torch.zeros(9, 1), torch.zeros(9).long(), held_out=3, classes=2)


def linear(facts: Facts, steps: int) -> dict[str, Any]:
    return {"steps": steps}


class Pipe:
    """What a worker reads its runs from, and writes its results to."""

    def __init__(self, runs: list[dict[str, Any]]) -> None:
        self.runs, self.sent = runs, list[dict[str, Any]]()

    def recv(self) -> dict[str, Any]:
        if not self.runs:
            raise EOFError
        return self.runs.pop()

    def send(self, row: dict[str, Any]) -> None:
        self.sent.append(row)


def zeros_model(data: Data) -> torch.nn.Module:
    return torch.nn.Linear(1, 2)


def halved(facts: Facts, steps: int) -> dict[str, Any]:
    return {"steps": steps // 2}


def test_a_worker_is_told_what_is_one_s_own(tmp_path: Path) -> None:
    """It gets the functions by pickle, and trains with them as this process does."""
    task = Task(no_data, zeros_model, always(2), 1.0)
    warmups = {"mine": {"kind": halved, "steps": 8}}
    study = Study(tmp_path, {"none": task}, warmups, lrs=[0.1], updates=9, seeds=[0])
    (row,) = run(study)
    where = pool.Where(2, tasks={"none": task}, kinds=study.kinds)
    threads = torch.get_num_threads()
    settings = {name: row[name] for name in SETTINGS}
    with study.known():
        TASKS.pop("none")
        WARMUPS.pop("halved")
        pipe: Any = Pipe([settings])
        pool.serve(pipe, 0, pickle.loads(pickle.dumps(where)))
    torch.set_num_threads(threads)
    (sent,) = pipe.sent
    assert sent["groups"] == [{"length": 4}]
    assert sent["loss"] == row["loss"]


def test_an_error_is_raised_at_once_and_names_what_is_wrong(tmp_path: Path) -> None:
    task = Task(no_data, lambda data: torch.nn.Linear(1, 2), always(2), 1.0)

    def mine(**warmup: Any) -> Study:
        grid: Any = {"lrs": [0.1], "updates": 4, "seeds": [0]}
        return Study(tmp_path / "mine", {"none": task}, {"mine": warmup}, **grid)

    with pytest.raises(RuntimeError, match="no luck"):
        run(mine(kind=broken))
    with pytest.raises(ValueError, match="kind must be a function with a name"):
        run(mine(kind=linear, steps=2))
    with pytest.raises(ValueError, match=r"warmups.mine: kind must be one of linear, "):
        run(mine(kind="bent"))
    with pytest.raises(ValueError, match=r"warmups.mine: wait must be one of step"):
        run(mine(kind="linear", steps=2, wait=3))
    with pytest.raises(ValueError, match="workers must be 1 unless"):
        run(mine(kind="linear", steps=2), workers=2)


def test_a_page_before_the_first_run_says_that_there_is_none(study: Study) -> None:
    text = report(study).read_text()
    assert "| 0 |" in text
    assert "![" not in text
    assert pages.MARKED.search(text)
