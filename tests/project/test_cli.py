"""The command line, called as a user calls it. We also open its pictures."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from torch.nn import Parameter
from typer.testing import CliRunner

from warmopt import Trace, Warmed, __version__, replay
from warmopt import __main__ as entry
from warmopt._tools.cli import app
from warmopt.criteria import Drift, InverseRootVariance

runner = CliRunner()


def size(picture: Path) -> tuple[int, int]:
    from matplotlib import image

    height, width, _ = image.imread(picture).shape
    return width, height


def test_preview_draws_in_the_terminal() -> None:
    result = runner.invoke(app, ["preview", "--mode", "cosine", "--steps", "1000"])
    assert result.exit_code == 0
    assert "cosine, 1000 updates" in result.output
    assert "1100" in result.output  # the last tick, a tenth past the end
    assert "▄" in result.output


@pytest.mark.parametrize(
    ("arguments", "title"),
    [
        ("--epochs 2 --batches 500", "linear, 1000 updates"),
        ("--epochs 0.5 --batches 500 --accumulation 4", "linear, 62 updates"),
        ("--steps 0.05 --total-steps 2000 --offset 3", "linear, 103 updates"),
        ("--steps 5 --mode exponential --start 0.1", "exponential, 5 updates"),
        ("--steps 0", "linear, 0 updates"),
        ("--epochs 0.29 --batches 100", "linear, 29 updates"),
        ("--mode radam --beta2 0.9", "radam, 382 updates"),
        ("--mode untuned_linear", "untuned_linear, 2000 updates"),
    ],
)
def test_preview_takes_the_length_in_any_unit(arguments: str, title: str) -> None:
    result = runner.invoke(app, ["preview", *arguments.split()])
    assert result.exit_code == 0, result.output
    assert title in result.output


def test_preview_saves_a_picture(tmp_path: Path) -> None:
    picture = tmp_path / "curve.png"
    result = runner.invoke(app, ["preview", "--steps", "10", "--output", str(picture)])
    assert result.exit_code == 0
    assert size(picture) == (1440, 504)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "steps must be given"),
        ("--steps 10.5", "steps must be an int of updates"),
        ("--mode foo --steps 10", "mode must be one of"),
        ("--mode radam --beta2 0.5", "needs beta2 > 0.6"),
        ("--epochs 2", "--epochs goes with --batches"),
        ("--epochs 2 --batches 10 --steps 10", "not with --steps"),
        ("--steps 10 --lr nan", "lr must be a finite number, got nan"),
        ("--steps 99999999999", "steps must be at most 10000000 to be drawn"),
        ("--steps 10 --output missing/x.png", "missing must be a folder that exists"),
        ("--steps 10 --output x.xyz", "x.xyz must end in one of"),
    ],
)
def test_preview_tells_what_is_wrong(arguments: str, message: str) -> None:
    result = runner.invoke(app, ["preview", *arguments.split()])
    assert result.exit_code == 2
    told = " ".join(result.output.replace("│", " ").split())
    assert message in told


def test_demo_does_not_train_for_a_picture_that_it_cannot_save() -> None:
    result = runner.invoke(app, ["demo", "--output", "missing/demo.png"])
    assert result.exit_code == 2
    assert "missing must be a folder" in " ".join(result.output.split())


def test_demo_trains_prints_a_table_and_saves_the_curves(tmp_path: Path) -> None:
    picture = tmp_path / "demo.png"
    arguments = ["demo", "--updates", "12", "--output", str(picture)]
    result = runner.invoke(app, arguments)
    assert result.exit_code == 0, result.output
    for name in ("no warmup", "linear", "cosine", "exponential", "radam"):
        assert name in result.output
    assert "0.0003 " in result.output  # 12 of 200 linear updates of 5e-3
    assert size(picture) == (1440, 504)


def test_the_module_runs_as_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["warmopt", "preview", "--steps", "3"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(entry.__file__, run_name="__main__")
    assert stopped.value.code == 0


def test_without_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(entry.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"pip install 'warmopt\[cli\]'"):
        entry.main()


@pytest.mark.parametrize("absent", ["typer", "rich", "matplotlib", "plotext"])
def test_if_one_package_is_absent_it_says_what_to_install(
    absent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = lambda name: None if name == absent else object()  # noqa: E731
    monkeypatch.setattr(entry.importlib.util, "find_spec", found)
    with pytest.raises(SystemExit, match=r"pip install 'warmopt\[cli\]'"):
        entry.main()


def test_it_says_its_version() -> None:
    result = runner.invoke(app, ["--version"])
    assert result.exit_code == 0
    assert result.output == f"warmopt {__version__}, torch {torch.__version__}\n"


def said(arguments: list[str], program: Any = app) -> str:
    """What a command says that it refuses, without the box around it."""
    result = runner.invoke(program, arguments)
    assert result.exit_code == 2
    return " ".join(result.output.replace("│", " ").split())


def test_near_misses_are_named() -> None:
    preview = ["preview", "--steps", "9", "--mode", "liner"]
    assert "Did you mean 'linear'?" in said(preview)


def test_files_that_do_not_exist_are_named() -> None:
    from benchmarks.study.__main__ import main

    study = typer.Typer()
    study.command()(main)
    assert "'nope' does not exist" in said(["replay", "nope"])
    assert "'nope' does not exist" in said(["nope"], study)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """The saved trace of a real warmup."""
    param = Parameter(torch.zeros(8))
    made = Trace()
    adam = torch.optim.Adam([param], betas=(0.9, 0.99))
    warmed = Warmed(adam, steps=90, mode="adaptive", trace=made, watch=[Drift()])
    while not warmed.done:
        param.grad = torch.randn(8)
        warmed.step()
    made.save(tmp_path / "run.jsonl")
    made.plot(tmp_path / "run.png")
    return tmp_path / "run.jsonl"


def test_replay_of_a_run_says_what_the_run_did(trace: Path) -> None:
    expected = replay(Trace.load(trace), InverseRootVariance())
    result = runner.invoke(app, ["replay", str(trace)])
    assert result.exit_code == 0
    assert "InverseRootVariance(threshold=0.02): settled in" in result.output
    assert f"Update {expected.end} would have been the last (" in result.output


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--criterion drift --tol 0.0001", "It would still be warming up"),
        (
            "--criterion drift --tol=0.5 --by tensor",
            "Drift(tol=0.5, quantile=0.75, by=",
        ),
        ("--criterion norm_ratio --bias-correction false", "correction=False)"),
        ("--threshold 100 --on-settled end", "would have been the last (settled)"),
        ("--threshold 100 --fast 10", "would have been the last (settled)"),
    ],
)
def test_replay_takes_another_rule(trace: Path, options: str, said: str) -> None:
    result = runner.invoke(app, ["replay", str(trace), *options.split()])
    assert result.exit_code == 0
    assert said in result.output


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--criterion mean", "criterion must be one of"),
        ("--criterion drfit", "Did you mean 'drift'?"),
        ("--tol", "options must come in pairs"),
        ("--tol 0.5", "tol"),
        ("--threshold -1", "threshold must be"),
        ("--on-settled jump", "on_settled must be one of"),
        ("--pool 3", "pool must be one of the trace, [0], got 3"),
    ],
)
def test_replay_refuses_what_it_cannot_do(trace: Path, options: str, said: str) -> None:
    result = runner.invoke(app, ["replay", str(trace), *options.split()])
    assert result.exit_code == 2
    assert said in " ".join(result.output.replace("│", " ").split())


def test_replay_needs_a_trace(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("no trace")
    result = runner.invoke(app, ["replay", str(tmp_path / "other")])
    assert result.exit_code == 2
    assert "must be a trace" in " ".join(result.output.replace("│", " ").split())


def test_a_trace_is_drawn(trace: Path) -> None:
    assert size(trace.with_name("run.png")) == (1080, 994)


def texts(trace: Trace, path: Path) -> list[str]:
    """The text in its picture, which an SVG file has in comments."""
    trace.plot(path)
    return re.findall("<!-- (.*) -->", path.read_text())


def test_the_picture_of_a_trace_names_what_it_shows(trace: Path) -> None:
    drawn, picture = Trace.load(trace), trace.with_suffix(".svg")
    shown = texts(drawn, picture)
    for text in ("factor", "effective LR", "variance of 1/√v", "settled", "Drift"):
        assert text in shown
    assert "0.02" in shown  # the threshold
    assert "InverseRootVariance (acts)" in shown
    assert "Warmup of at most 90 updates, read every 5" in shown
    for row in drawn:
        row["lr"] = None  # a tensor
        row["watched"] = {"Drift(tol=0.1)": True, "Drift(tol=0.2)": False}
    shown = texts(drawn, picture)
    for text in ("(tol=0.1)", "(tol=0.2)"):
        assert text in shown
    assert "effective LR" not in shown
    drawn.rows.clear()
    assert "InverseRootVariance (acts)" in texts(drawn, picture)
    with pytest.raises(ValueError, match=r"pool must be one of the trace, \[0\]"):
        drawn.plot(picture, pool=1)
