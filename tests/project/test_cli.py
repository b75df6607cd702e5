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
from warmopt._tools.cli import _what_it_shows, app
from warmopt._tools.demo import LRS, WARMUPS, Run, letter_entropy
from warmopt._tools.forecast import SCHEDULES, Forecast, base_lrs
from warmopt.criteria import Drift, Steady

runner = CliRunner()


def size(picture: Path) -> tuple[int, int]:
    from matplotlib import image

    height, width, _ = image.imread(picture).shape
    return width, height


def test_preview_draws_in_the_terminal() -> None:
    result = runner.invoke(app, ["preview", "--mode", "cosine", "--steps", "1000"])
    assert result.exit_code == 0
    assert "cosine, 1000 updates" in result.output
    assert re.search(r"250 +500 +750 +1000 *\n", result.output)  # round ticks
    assert {"0", "0.2", "0.4", "0.6", "0.8", "1"} == heights(result.output)
    assert "▄" in result.output


def heights(drawn: str) -> set[str]:
    """The ticks of the y axis in a drawing."""
    return set(re.findall(r"^ *(\S+)┤", drawn, re.MULTILINE))


def test_preview_compares_modes_in_one_drawing() -> None:
    """A line below the drawing names each; what is drawn twice is drawn once."""
    modes = "--mode linear --mode cosine --mode adaptive --mode radam"
    result = runner.invoke(app, ["preview", *modes.split(), "--steps", "1000"])
    assert result.exit_code == 0, result.output
    told = result.output.splitlines()[-5:]
    for line in (
        "* linear, 1000 updates",
        "+ cosine, 1000 updates",
        "x adaptive, at most 1000 updates (its range)",
        "o radam, 41098 updates",
    ):
        assert line in told
    same = "--mode linear --mode untuned_linear --steps 2000"
    result = runner.invoke(app, ["preview", *same.split()])
    assert "linear = untuned_linear, 2000 updates" in result.output
    assert "*" not in result.output
    # Before the first verdict can act, adaptive is the fixed warmup.
    short = "--mode linear --mode adaptive --steps 20"
    result = runner.invoke(app, ["preview", *short.split()])
    assert "linear, 20 updates = adaptive, at most 20 updates" in result.output


def test_preview_multiplies_with_a_schedule() -> None:
    options = "--steps 100 --schedule cosine --total-steps 1000 --lr 3e-4"
    result = runner.invoke(app, ["preview", *options.split()])
    assert result.exit_code == 0, result.output
    assert "linear, 100 updates; cosine schedule over 1000 updates" in result.output
    assert "+ cosine schedule alone" in result.output
    assert {"0", "0.0001", "0.0002", "0.0003"} == heights(result.output)


def test_a_panel_that_would_show_the_same_is_left_out(tmp_path: Path) -> None:
    """Without a schedule the effective LR is the factor, on another scale."""
    picture = tmp_path / "curve.svg"

    def shown(options: str) -> list[str]:
        arguments = ["preview", *options.split(), "--output", str(picture)]
        assert runner.invoke(app, arguments).exit_code == 0
        return re.findall("<!-- (.*) -->", picture.read_text())

    assert "factor (effective LR / base LR)" in shown("--steps 10")
    only = shown("--steps 10 --lr 0.5")
    assert "effective LR (0.5 x factor)" in only
    assert "factor (effective LR / base LR)" not in only
    both = shown("--steps 10 --schedule step --total-steps 30 --mode linear")
    assert {"factor", "effective LR / base LR", "step schedule alone"} <= {*both}
    assert both.count("linear") == 1  # one legend for both panels
    ranges = shown("--steps 100 --mode aligned --mode adaptive --mode linear")
    assert "aligned, at most 100 updates (its range)" in ranges


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_is_that_of_torch(name: str) -> None:
    """Its LRs are those of a training loop, and end where they should."""
    optimizer = torch.optim.SGD([Parameter(torch.zeros(1))], lr=0.3)
    scheduler, seen = SCHEDULES[name](optimizer, 9), []
    for _ in range(9):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert base_lrs(name, 0.3, 9) == seen
    after = {"exponential": 0.003, "step": 0.0003}.get(name, 0.0)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(after, abs=1e-9)


@pytest.mark.parametrize("steps", [40, 90, 300, 3000])
@pytest.mark.parametrize("seed", [0, 1])
def test_adaptive_stays_in_its_range(steps: int, seed: int) -> None:
    """And both ends of the range can be reached."""
    latest, earliest = Forecast("adaptive", steps, beta2=0.99).edges(steps)
    fixed = Forecast("linear", steps).edges(steps)
    assert [latest] == fixed
    assert all(low <= high for low, high in zip(latest, earliest, strict=True))
    param = Parameter(torch.zeros(64))
    adam = torch.optim.Adam([param], betas=(0.9, 0.99))
    warmed, draw = Warmed(adam, steps, "adaptive"), torch.Generator().manual_seed(seed)
    for low, high in zip(latest, earliest, strict=True):
        assert low <= warmed.factors[0] <= high
        param.grad = torch.randn(64, generator=draw)
        warmed.step()


def test_aligned_may_do_anything_below_its_fastest_climb() -> None:
    lowest, highest = Forecast("aligned", 100).edges(120)
    assert set(lowest) == {0.0}
    assert highest.index(1.0) + 1 == 49  # 0.1 at most in the logarithm, from 0.01
    assert highest[:2] == [0.01, 0.01] < highest[1:3]  # the second update is read
    (only,) = Forecast("linear", 4, start=0.5).edges(5)
    assert only == [0.625, 0.75, 0.875, 1.0, 1.0]


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
    assert size(picture) == (1080, 504)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "--steps must be given with --mode linear, got None. Pass the length"),
        ("--steps 10.5", "--steps must be an int of updates"),
        ("--steps 0.1", "--total-steps must be given where steps is a ratio, got --st"),
        ("--steps 9 --total-steps 0", "--total-steps must be a positive int, got 0"),
        ("--steps 9 --offset -1", "--offset must be an int of updates, >= 0, got -1"),
        ("--steps 9 --start inf", "--start must be a finite number >= 0, got inf"),
        ("--mode foo --steps 10", "--mode must be one of"),
        ("--mode radam --steps 9", "--steps must be left out with --mode radam"),
        ("--mode aligned --steps 9 --start 1", "start, got 1.0. Leave it out."),
        ("--mode radam --beta2 0.5", "needs beta2 > 0.6"),
        ("--steps 9 --beta2 nan", "'--beta2': it must be in [0, 0.9999], got nan"),
        ("--epochs 2", "--epochs goes with --batches"),
        ("--epochs 2 --batches 10 --steps 10", "not with --steps"),
        ("--epochs 2 --batches 0", "'--batches': it must be an int >= 1, got 0"),
        ("--epochs inf --batches 9", "'--epochs': it must be a finite number >= 0"),
        ("--steps 10 --lr nan", "'--lr': it must be a finite number > 0, got nan"),
        ("--steps 10 --lr 0", "'--lr': it must be a finite number > 0, got 0.0"),
        ("--steps 99999999999", "--steps must be at most 10000000 to be drawn, got 99"),
        ("--steps 9 --schedule cosin", "Did you mean 'cosine'?"),
        ("--steps 9 --schedule step", "--total-steps must be given with --schedule st"),
        (
            "--steps 9 --schedule step --total-steps 1000001",
            "--total-steps must be at most 1000000 to be drawn, got 1000001",
        ),
        ("--steps 10 --output missing/x.png", "missing must be a folder that exists"),
        ("--steps 10 --output x.xyz", "x.xyz must end in one of png, svg"),
        ("--steps 10 --output folder.png", "folder.png must be a file, but it is"),
    ],
)
def test_preview_tells_what_is_wrong(
    arguments: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.png").mkdir()
    result = runner.invoke(app, ["preview", *arguments.split()])
    assert result.exit_code == 2
    told = " ".join(result.output.replace("│", " ").split())
    assert message in told


def test_what_the_library_warns_of_is_a_note() -> None:
    result = runner.invoke(app, ["preview", "--steps", "10", "--start", "1e-6"])
    assert result.exit_code == 0
    assert "Note: --start 1e-06 is a factor of the LR, not an LR." in result.output


def test_a_picture_that_cannot_be_saved_is_an_error_of_its_option(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    told = said(["preview", "--steps", "9", "--output", str(tmp_path / "x.png")])
    assert "No space left on device" in told


def test_demo_does_not_train_for_a_picture_that_it_cannot_save() -> None:
    result = runner.invoke(app, ["demo", "--output", "missing/demo.png"])
    assert result.exit_code == 2
    assert "missing must be a folder" in " ".join(result.output.split())


@pytest.mark.parametrize("option", ["--seed -1", "--seed 99999999999999999999"])
def test_demo_refuses_a_seed_that_torch_would_not_take(option: str) -> None:
    assert "'--seed': it must be an int in [0, 2**63)" in said(
        ["demo", *option.split()]
    )


@pytest.mark.filterwarnings("error")
def test_demo_trains_says_what_it_shows_and_saves_the_curves(tmp_path: Path) -> None:
    picture = tmp_path / "demo.png"
    arguments = ["demo", "--updates", "12", "--output", str(picture)]
    result = runner.invoke(app, arguments)
    assert result.exit_code == 0, result.output
    for name in WARMUPS:
        assert result.output.count(name) >= len(LRS)
    assert "they were too short. 400 updates" in " ".join(result.output.split())
    assert size(picture) == (2160, 504)


def test_demo_names_the_runs_that_learned() -> None:
    entropy = letter_entropy()
    losses = {"no warmup": entropy, "aligned": entropy - 0.6}
    runs = {lr: {n: Run([loss]) for n, loss in losses.items()} for lr in LRS}
    runs[LRS[1]]["aligned"] = Run([entropy - 0.4])
    told = _what_it_shows(runs)
    assert f"has {entropy:.2f}." in told
    assert "At LR 0.005, these learned clearly more: aligned." in told
    assert "At LR 0.05, these learned clearly more: none." in told


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
    expected = replay(Trace.load(trace), Steady())
    result = runner.invoke(app, ["replay", str(trace)])
    assert result.exit_code == 0
    told = "Steady(threshold=0.02, most=0.2, quantile=0.75): settled in"
    assert told in " ".join(result.output.split())
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
        ("--criterion mean", "--criterion must be one of"),
        ("--criterion drfit", "Did you mean 'drift'?"),
        ("--threshold", "--threshold must have a value: --threshold VALUE"),
        (
            "--tol 0.5",
            "--tol must be an option of replay, or of --criterion steady: "
            "--threshold, --most, --quantile.",
        ),
        ("--threshhold 1", "Did you mean '--threshold'?"),
        ("--threshold -1", "--threshold must be a finite number > 0, got -1."),
        ("--threshold high", "--threshold must be a finite number > 0, got 'high'."),
        ("--on-settled jump", "--on-settled must be one of"),
        ("--fast 0", "--fast must be >= 1, got 0."),
        ("--pool 3", "--pool must be one of the trace, [0], got 3"),
        ("--output run.xyz", "run.xyz must end in one of"),
    ],
)
def test_replay_refuses_what_it_cannot_do(trace: Path, options: str, said: str) -> None:
    result = runner.invoke(app, ["replay", str(trace), *options.split()])
    assert result.exit_code == 2
    assert said in " ".join(result.output.replace("│", " ").split())


def test_replay_draws_the_run_and_the_replay(trace: Path, tmp_path: Path) -> None:
    picture = tmp_path / "replay.svg"
    options = "--criterion drift --tol 99 --on-settled end --output"
    result = runner.invoke(app, ["replay", str(trace), *options.split(), str(picture)])
    assert result.exit_code == 0, result.output
    assert f"The picture is in {picture}." in result.output
    drawn = re.findall("<!-- (.*) -->", picture.read_text())
    for text in ("Steady (acts)", "Drift", "Drift would end", "99"):
        assert any(text in each for each in drawn), (text, drawn)
    assert "(replayed)" in " ".join(drawn)


def test_replay_needs_a_trace(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("no trace")
    result = runner.invoke(app, ["replay", str(tmp_path / "other")])
    assert result.exit_code == 2
    assert "must be a trace" in " ".join(result.output.replace("│", " ").split())


def test_a_trace_is_drawn(trace: Path) -> None:
    assert size(trace.with_name("run.png")) == (1080, 994)


def texts(trace: Trace, path: Path, **options: Any) -> list[str]:
    """The text in its picture, which an SVG file has in comments."""
    trace.plot(path, **options)
    return re.findall("<!-- (.*) -->", path.read_text())


def test_the_picture_of_a_trace_names_what_it_shows(trace: Path) -> None:
    drawn, picture = Trace.load(trace), trace.with_suffix(".svg")
    shown = texts(drawn, picture)
    for text in ("factor", "effective LR", "variance of 1/√v", "settled", "Drift"):
        assert text in shown
    assert "0.02" in shown  # the threshold
    assert "Steady (acts)" in shown
    assert "Warmup of at most 90 updates, read every 5" in shown
    for row in drawn:
        row["lr"] = None  # a tensor
        row["watched"] = {"Drift(tol=0.1)": True, "Drift(tol=0.2)": False}
    shown = texts(drawn, picture)
    for text in ("(tol=0.1)", "(tol=0.2)"):
        assert text in shown
    assert "effective LR" not in shown
    drawn.rows.clear()
    assert "Steady (acts)" in texts(drawn, picture)
    with pytest.raises(ValueError, match=r"pool must be one of the trace, \[0\]"):
        drawn.plot(picture, pool=1)
