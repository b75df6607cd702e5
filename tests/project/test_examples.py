"""The examples run as scripts, are notebooks too, and print what the gallery shows."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import pytest

from tests.support import ROOT
from tests.support.features import WARNINGS_OF_TORCH, needs_fsdp2, needs_muon

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
GALLERY = (ROOT / "docs" / "gallery.md").read_text()
NEEDED = {"fsdp2": needs_fsdp2, "muon": needs_muon}
# Sometimes a thread of gloo outlives the interpreter: pytorch/pytorch#190489.
CRASH_AT_EXIT = "terminate called without an active exception"
LINE = re.compile(r"update (\d+): base LR (\S+), used (\S+), loss (\S+)")
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")


def run(script: Path, folder: Path, *launcher: str) -> list[str]:
    """The lines that an example prints on a CPU; it must not give warnings."""
    done = subprocess.run(
        [sys.executable, *launcher, str(script)],
        check=False,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    if not done.stderr.startswith(CRASH_AT_EXIT):
        # Lightning leaves the word out, but each warning names the file that caused it.
        warned = re.findall(rf".*(?:Warning: |{script.name}:).*", done.stderr)
        known = re.compile("|".join(WARNINGS_OF_TORCH))
        assert done.returncode == 0, done.stderr
        assert not [line for line in warned if not known.search(line)], done.stderr
    return done.stdout.splitlines()


def shown(script: Path) -> list[str]:
    """The lines that the gallery shows of an example."""
    link = f"[examples/{script.name}](../examples/{script.name})"
    (part,) = [part for part in GALLERY.split("\n## ") if link in part]
    (block,) = re.findall(r"```text\n(.*?)```", part, re.DOTALL)
    return str(block).splitlines()


def agree(line: str, other: str) -> bool:
    """Whether the words are the same, and the numbers nearly so."""
    numbers, others = (map(float, NUMBER.findall(each)) for each in (line, other))
    return NUMBER.sub("#", line) == NUMBER.sub("#", other) and all(
        math.isclose(a, b, rel_tol=0.05) for a, b in zip(numbers, others, strict=True)
    )


def marked(script: Path) -> Any:
    return pytest.param(script, id=script.stem, marks=NEEDED.get(script.stem, ()))


@pytest.mark.parametrize("script", [*map(marked, EXAMPLES)])
def test_an_example_prints_what_the_gallery_shows(script: Path, tmp_path: Path) -> None:
    printed = iter(run(script, tmp_path))
    expected = shown(script)
    assert len(expected) >= 3
    for line in expected:  # in this order
        assert any(agree(line, other) for other in printed), line


def test_the_gallery_has_every_example_and_no_other() -> None:
    links = re.findall(r"\[(examples/\w+\.py)\]\(\.\./(examples/\w+\.py)\)", GALLERY)
    names = [f"examples/{script.name}" for script in EXAMPLES]
    assert sorted(links) == [(name, name) for name in names]


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda script: script.stem)
def test_an_example_is_a_notebook(script: Path) -> None:
    """Its first cell says what it shows; it stays the same when Jupyter saves it."""
    made = jupytext.reads(script.read_text(), fmt="py:percent")
    notebook = nbformat.reads(jupytext.writes(made, fmt="ipynb"), as_version=4)
    nbformat.validate(notebook)
    first, *others = notebook.cells
    assert first.cell_type == "markdown"
    assert re.match(r"# .*\.\n\n.*\n\nTo install: `pip", first.source, re.DOTALL)
    for cell in others:
        assert cell.cell_type in ("code", "markdown")
        if cell.cell_type == "code":
            compile(cell.source, script.name, "exec")
    saved = jupytext.writes(notebook, fmt="py:percent")
    again = jupytext.reads(saved, fmt="py:percent")
    assert [(cell.cell_type, cell.source) for cell in again.cells] == [
        (cell.cell_type, cell.source) for cell in notebook.cells
    ]


@needs_fsdp2
def test_fsdp2_goes_on_with_more_ranks_in_the_middle_of_the_warmup(
    tmp_path: Path,
) -> None:
    (script,) = [script for script in EXAMPLES if script.stem == "fsdp2"]
    seen = []
    for ranks in ("2", "4"):
        launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node")
        seen += LINE.findall("\n".join(run(script, tmp_path, *launcher, ranks)))
    assert [int(update) for update, *_ in seen] == list(range(1, 21))
    for number, base, used, _ in seen:
        update = int(number)
        schedule = 3e-3 * (1 + math.cos(math.pi * (update - 1) / 400)) / 2
        assert float(base) == pytest.approx(schedule, rel=1e-5)  # six digits
        assert float(used) == pytest.approx(schedule * update / 40, rel=1e-5)
    losses = [float(loss) for *_, loss in seen]
    assert losses[10] < (losses[0] + losses[9]) / 2  # the model was loaded too
