"""`python -m benchmarks.gpu` runs on a CPU, so that it works once a GPU is at hand.

What it needs is no more than torch, numpy and pytest: all else is hidden from it here.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, product, repeat
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import marked
from benchmarks.checkout import RESULTS, ROOT
from benchmarks.gpu import (
    amp,
    capture,
    conductor,
    cuda_tests,
    kernels,
    report,
    study,
    syncs,
)
from benchmarks.gpu.record import newest, write
from benchmarks.gpu.rows import Here, checked, finite
from benchmarks.gpu.stages import STAGES, Stage
from benchmarks.gpu.study import TIMES, WARMUPS
from benchmarks.gpu.trainings import NAMES
from benchmarks.gpu.words import closing_words, words_of
from tests.support.graphs import StandInGraph, pretend_to_capture

pytestmark = pytest.mark.xdist_group("gpu")

HIDDEN = ("click", "pytorch_optimizer", "pytorch_warmup", "rich", "sklearn", "timm")
HIDDEN += ("torch_optimizer", "typer")
HIDES = f"""
from importlib.machinery import PathFinder
find = PathFinder.find_spec
def find_but_some(cls, name, path=None, target=None):
    return None if name.partition(".")[0] in {HIDDEN} else find(name, path, target)
PathFinder.find_spec = classmethod(find_but_some)
"""


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a run on this CPU, and what it printed."""
    site, out = (tmp_path_factory.mktemp(name) for name in ("site", "out"))
    (site / "sitecustomize.py").write_text(HIDES)
    # It takes half a minute. Where others use the cores too, it may take more.
    options = ("--device", "cpu", "--minutes", "5", "--output", str(out))
    done = command(*options, PYTHONPATH=str(site))
    assert done.returncode == 0, done.stderr
    return out, done.stdout


@pytest.fixture
def record(ran: tuple[Path, str]) -> dict[str, Any]:
    [path] = ran[0].glob("*.json")
    return json.loads(path.read_text())


def rows_of(record: dict[str, Any], stage: str) -> dict[str, dict[str, Any]]:
    return {row["what"]: row for row in record["stages"][stage]["rows"]}


def test_the_command_runs_on_a_cpu_and_nothing_fails(ran: tuple[Path, str]) -> None:
    out, printed = ran
    assert "Nothing failed." in printed, printed
    names = sorted(path.name for path in out.iterdir())
    assert len(names) == 2
    assert re.fullmatch(r"gpu-\d{4}-\d\d-\d\d-\d{6}-tests\.log", names[0])
    assert names[1] == names[0].replace("-tests.log", ".json")
    assert all(path.stat().st_size < 1_000_000 for path in out.iterdir())


def test_every_stage_is_in_the_record_in_its_order(record: dict[str, Any]) -> None:
    assert list(record["stages"]) == [stage.name for stage in STAGES]
    for stage in STAGES:
        section = record["stages"][stage.name]
        if stage.needs_cuda:
            assert section["why"] == f"needs CUDA: {stage.needs_cuda}"
            continue
        assert section["outcome"] == "done"
        assert any(row["ok"] for row in section["rows"])
        for row in section["rows"]:
            # What is not judged has a value or a reason.
            assert row["ok"] or (row["ok"] is None and {"why", "ratio"} & row.keys())


def test_the_record_says_what_machine_it_was(record: dict[str, Any]) -> None:
    assert (record["device"], record["schema"]) == ("cpu", 1)
    found = rows_of(record, "machine")
    assert found["machine"]["torch"] == torch.__version__
    assert found["machine"]["commit"] == record["commit"]
    versions = found["software"]["versions"]
    assert versions["pytest"] == pytest.__version__
    assert "numpy" in versions


def test_it_reads_the_files_that_have_tests_for_cuda(record: dict[str, Any]) -> None:
    found = rows_of(record, "tests")
    file = "tests/execution/test_cuda.py"
    written = re.findall(r"^def (test_\w+)", (ROOT / file).read_text(), re.MULTILINE)
    assert set(found) == {file, *(f"{file}::{name}" for name in written)}
    assert found[file]["passed"] + found[file]["skipped"] > len(written)
    for name in written:
        assert found[f"{file}::{name}"]["why"] == "needs a CUDA device"


def test_all_tests_for_cuda_are_in_files_that_it_can_read() -> None:
    """Where typer, say, is missing, other files cannot even be imported."""
    assert [path.name for path in cuda_tests.files()] == ["test_cuda.py"]


def test_every_mode_is_stepped_through_its_end(record: dict[str, Any]) -> None:
    found = rows_of(record, "capture")
    known = {f"{mode}, {how}" for mode, how in product(NAMES, ("loop", "fused"))}
    assert set(found) == known | {"rewarm"}
    assert found["linear, loop"]["updates"] == 6 + 4
    assert found["saturating, loop"]["updates"] > 200


def test_every_mode_meets_infinities(record: dict[str, Any]) -> None:
    found = rows_of(record, "amp")
    lrs = ("float", "tensor")
    assert set(found) == {f"{mode}, {lr} LR" for mode, lr in product(NAMES, lrs)}
    assert all((row["updates"], row["skipped"]) == (10, 4) for row in found.values())


def test_what_a_step_launches_is_counted(record: dict[str, Any]) -> None:
    found = rows_of(record, "kernels")
    assert found["linear, foreach, float LR"]["added"] == [0] * 10
    assert set(found["linear, fused, tensor LR"]["added"]) != {0}
    readings = found["adaptive, foreach, float LR"]["added"]
    assert [at for at, more in enumerate(readings) if more] == [3, 8]


def test_what_a_step_costs_is_measured(record: dict[str, Any]) -> None:
    rows = record["stages"]["overhead"]["rows"]
    measured = {(row["contender"], row["state"]) for row in rows if "ratio" in row}
    assert {("warmopt", "warming"), ("warmopt", "done")} <= measured
    [missing, _] = [row for row in rows if "pytorch_warmup" in row["what"]]
    assert missing["why"] == "ModuleNotFoundError: No module named 'pytorch_warmup'"


def test_graphs_are_counted(record: dict[str, Any]) -> None:
    found = rows_of(record, "compile")
    assert found["linear, float LR, wrapped step"]["graphs"] == [0] * 12 + [1] * 12
    assert found["linear, tensor LR, step"]["graphs"] == [1] * 24


def test_one_rank_trains(record: dict[str, Any]) -> None:
    found = rows_of(record, "ranks")
    for engine in ("DDP", "FSDP2"):
        assert found[f"{engine}, linear, tensor LR"]["updates"] == 12
        assert found[f"{engine}, adaptive"]["done_reason"] == "settled"
    assert "FSDP2, adaptive, saved and loaded" in found


def test_every_warmup_of_the_study_trains(record: dict[str, Any]) -> None:
    rows = record["stages"]["study"]["rows"]
    asked = [(row["times"], row["warmup"]) for row in rows]
    assert asked == list(product(TIMES, WARMUPS))
    losses = {row["warmup"]: row["loss"] for row in rows if row["times"] == 1}
    assert losses["none"] != losses["fixed 30 %"]
    lengths = {row["warmup"]: row["length"] for row in rows if row["times"] == 1}
    assert (lengths["none"], lengths["fixed 30 %"]) == (0, 6)  # of 20 updates
    # Every warmup sees the same first batch through the same model.
    firsts = {row["training_losses"][0] for row in rows}
    assert len(firsts) == 1


# --- what a CPU would not run -----------------------------------------------------


class Event:
    """Stands for torch.cuda.Event."""

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing


@contextmanager
def no_profile(**_: Any) -> Iterator[Any]:
    """A CPU has no CUDA events to record."""
    yield type("Profile", (), {"events": list})


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Here:
    """A CPU that says it is a GPU: the few calls to torch.cuda are replaced."""
    capturing = pretend_to_capture(monkeypatch)

    def captured(step: Any) -> Any:
        capturing["capturing"] = True
        try:
            with StandInGraph() as graph:
                step()
        finally:
            capturing["capturing"] = False
        # What it recorded also ran; a real graph runs for the first time when replayed.
        replays = chain([lambda: None], repeat(graph.replay))
        return lambda: next(replays)()

    monkeypatch.setattr(Here, "on_cuda", True)
    monkeypatch.setattr(capture, "captured", captured)
    monkeypatch.setattr(capture, "beside", lambda step: step())
    for module in (capture, kernels):
        of_cuda = module.IMPLEMENTATIONS["cuda"]
        monkeypatch.setitem(module.IMPLEMENTATIONS, "cpu", of_cuda)
    for name, fake in {
        "is_available": lambda: True,
        "is_current_stream_capturing": lambda: capturing["capturing"],
        "Event": Event,
        "synchronize": lambda: None,
        "set_sync_debug_mode": lambda mode: None,
    }.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr("benchmarks.overhead.devices.profile", no_profile)
    return Here("cpu", 2.0, 20.0, tmp_path, "x")


@pytest.mark.filterwarnings("ignore:This instance was constructed with capturable")
@pytest.mark.filterwarnings("ignore:The warmup of param group 0 holds")
@pytest.mark.parametrize("stage", [capture, amp, syncs, kernels])
def test_the_branches_for_cuda_run_but_for_cuda_itself(
    stage: Any, pretended: Here
) -> None:
    rows = {row["what"]: row for row in stage.rows(pretended)}
    assert [row for row in rows.values() if row["ok"] is False] == []
    if stage is capture:
        assert rows["cosine, fused"]["told"] == "replayed"
        for what in ("adaptive, foreach", "float LR is refused", "momentum is refused"):
            assert "captured in a CUDA graph" in rows[what]["told"]
    if stage is syncs:
        assert rows["linear, foreach, float LR"]["waits_at_end"] == 0
        assert "SGD" in "".join(rows)
    if stage is kernels:
        assert rows["linear, fused, float LR"]["added"] == [0] * 10


def test_a_step_that_waits_is_found(
    pretended: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step() -> None:
        if mode == "error":
            raise RuntimeError("called a synchronizing CUDA operation")
        warnings.warn("called a synchronizing CUDA operation", stacklevel=1)

    def remember(new: str) -> None:
        nonlocal mode
        mode = new

    mode = "default"
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", remember)
    ours = syncs.training(pretended, "foreach, float LR")
    assert syncs.counted(step, ours, range(1, 4)) == 3
    mode = "warn"  # the first step is not looked at
    with pytest.warns(UserWarning, match="synchronizing"):
        syncs.forbidden(step, ours, range(1, 2))
    with (
        pytest.warns(UserWarning, match="synchronizing"),
        pytest.raises(RuntimeError, match="synchronizing"),
    ):
        syncs.forbidden(step, ours, range(1, 3))
    assert mode == "default"


def test_the_study_ends_when_its_time_is_over(
    pretended: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless = study.PLANS["cpu"]._replace(updates=60, seeds=10**6)
    monkeypatch.setitem(study.PLANS, "cpu", endless)
    began = time.monotonic()
    *rows, last = study.rows(pretended)
    assert time.monotonic() - began < 3 * pretended.seconds
    assert last["what"] == "no time for more"
    assert rows[0]["ok"]
    assert len(rows[0]["training_losses"]) == 30


# --- what may go wrong ----------------------------------------------------------------

BAD = {
    "hangs": "import time\n    time.sleep(60)",
    "dies": "import os\n    os.kill(os.getpid(), 11)",
    "raises": "raise ValueError('out of luck')",
    "works": "yield {'what': 'second', 'ok': True, 'loss': float('nan')}",
}


def test_no_stage_stops_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(conductor, "GRACE", 3.0)
    for name, end in BAD.items():
        first = "    yield {'what': 'first', 'ok': True}\n    "
        (tmp_path / f"{name}.py").write_text(f"def rows(here):\n{first}{end}\n")
    stages = [Stage(name, name, 1) for name in BAD]
    stages.insert(0, Stage("cuda", "works", 1, needs_cuda="no reason"))
    seen: dict[str, Any] = {}
    conductor.conduct(stages, "cpu", 0.0, tmp_path, "x", seen.__setitem__)
    outcomes = {name: section["outcome"] for name, section in seen.items()}
    assert outcomes == {
        "cuda": "skipped",
        "hangs": "stopped after 3 s",
        "dies": "ended by signal 11",
        "raises": "failed",
        "works": "done",
    }
    for name in BAD:
        assert seen[name]["rows"][0] == {"what": "first", "ok": True}
    assert seen["works"]["rows"][1] == {"what": "second", "ok": True, "loss": None}
    assert "out of luck" in seen["raises"]["printed"]
    assert words_of("works", seen["works"]).startswith("works: 2 of 2 as they should")
    assert closing_words({"stages": seen})[1:] == [
        "hangs: the stage itself stopped after 3 s:",
        "dies: the stage itself ended by signal 11:",
        "raises: the stage itself failed: ValueError: out of luck",
    ]


def test_when_the_time_is_over_no_stage_begins(tmp_path: Path) -> None:
    seen: dict[str, Any] = {}
    stages = [Stage("late", "works", 1)]
    conductor.conduct(stages, "cpu", -10.0, tmp_path, "x", seen.__setitem__)
    assert seen["late"]["why"] == "no time"


def test_an_error_ends_only_its_row() -> None:
    row = checked("division", lambda: {"value": 1 / 0})
    assert row["ok"] is False
    assert row["why"] == "ZeroDivisionError: division by zero"
    assert "Traceback" in row["traceback"]
    assert checked("fine", lambda: {"value": 1}) == {
        "what": "fine",
        "ok": True,
        "value": 1,
    }


def test_json_gets_no_numbers_that_it_does_not_have() -> None:
    told = finite({"a": [float("inf"), (1.0, float("nan"))], 2: "x"})
    assert told == {"a": [None, [1.0, None]], "2": "x"}


FAILING = f"""
import pytest
pytestmark = {cuda_tests.MARK}
@pytest.mark.parametrize("n", [1, 2, 3])
def test_some(n):
    assert n != 2, "two is wrong"
def test_skipped():
    pytest.skip("not today")
@pytest.fixture
def broken():
    raise OSError("no disk")
def test_error(broken):
    pass
@pytest.mark.xfail(strict=True)
def test_expected():
    raise ValueError
"""


def test_failed_tests_are_told_with_what_they_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_tests, "ROOT", tmp_path)
    file = tmp_path / "test_failing.py"
    file.write_text(FAILING)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = cuda: x\n")
    log = tmp_path / "log"
    found = {row["what"]: row for row in cuda_tests.of_file(file, 60.0, log)}
    some = found["test_failing.py::test_some"]
    assert (some["ok"], some["passed"], some["failed"]) == (False, 2, 1)
    assert some["why"].startswith("test_some[2]: ")
    assert "two is wrong" in some["failures"]["test_some[2]"]
    assert found["test_failing.py::test_skipped"]["why"] == "not today"
    assert "no disk" in found["test_failing.py::test_error"]["failures"]["test_error"]
    assert found["test_failing.py::test_expected"]["failed"] == 0
    whole = found["test_failing.py"]
    assert whole["why"] == "pytest ended with 1, 2 failed"
    assert "two is wrong" in log.read_text()


def test_if_no_test_runs_the_record_has_what_pytest_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_tests, "ROOT", tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --of-another-plugin\n")
    file, log = tmp_path / "test_none.py", tmp_path / "log"
    [row] = cuda_tests.of_file(file, 60.0, log)
    assert row["ok"] is False
    assert "--of-another-plugin" in row["printed"]


def test_tests_that_hang_are_stopped_and_the_others_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_tests, "ROOT", tmp_path)
    file = tmp_path / "test_hanging.py"
    file.write_text(
        f"import pytest, time\npytestmark = {cuda_tests.MARK}\n"
        "def test_first(): pass\ndef test_hangs(): time.sleep(60)\n"
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = cuda: x\n")
    log = tmp_path / "log"
    found = {row["what"]: row for row in cuda_tests.of_file(file, 20.0, log)}
    assert found["test_hanging.py::test_first"]["passed"] == 1
    assert found["test_hanging.py"]["why"] == "pytest was stopped after 20 s"
    assert found["test_hanging.py"]["ok"] is False


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_nothing_begins(tmp_path: Path) -> None:
    done = command("--output", str(tmp_path / "out"))
    assert done.returncode == 2
    assert "there is no CUDA device. Use --device cpu." in done.stderr
    assert not list(tmp_path.iterdir())


# --- the pages ------------------------------------------------------------------------


@pytest.mark.parametrize("page", report.PARTS)
def test_the_pages_are_what_the_command_writes(page: str) -> None:
    text = (ROOT / page).read_text()
    assert report.rendered(page, text, RESULTS) == text


@pytest.mark.parametrize("page", report.PARTS)
def test_without_a_record_the_pages_say_not_measured(page: str, tmp_path: Path) -> None:
    part = report.part_of(page, tmp_path)
    assert "not measured" in part.lower()
    assert not re.search(r"\d of \d", part)


@pytest.fixture
def of_gpu(record: dict[str, Any], tmp_path: Path) -> Path:
    """A folder with a record that looks like one of a GPU, and others."""
    write(record, tmp_path / "gpu-of-a-cpu.json")
    record["device"] = "cuda"
    wrong = {"what": "cosine, fused", "ok": False, "why": "it was not equal"}
    record["stages"]["capture"]["rows"].append(wrong)
    write(record, tmp_path / "gpu-new.json")
    older = {**record, "utc": "2001-01-01", "stages": {}}
    write(older, tmp_path / "gpu-old.json")
    return tmp_path


def test_the_newest_record_of_a_gpu_is_taken(
    of_gpu: Path, record: dict[str, Any]
) -> None:
    found = newest(of_gpu)
    assert found is not None
    assert found[1] == "gpu-new.json"
    assert found[0]["stages"]["study"] == record["stages"]["study"]


def test_the_pages_say_what_is_in_the_record(
    of_gpu: Path, record: dict[str, Any]
) -> None:
    works = report.part_of("docs/what-works.md", of_gpu)
    rows = len(record["stages"]["capture"]["rows"])
    assert f"warmup, or refused | {rows - 1} of {rows} |" in works
    assert "- capture: cosine, fused: it was not equal" in works
    assert "waits for the device | skipped |" in works
    good = sum(
        row["ok"] is True
        for stage in ("tests", "capture", "amp", "kernels", "compile", "ranks")
        for row in record["stages"][stage]["rows"]
    )
    sentence = " ".join(report.part_of("README.md", of_gpu).split())
    assert f"{good} of {good + 1} checks went as they should" in sentence
    performance = report.part_of("docs/performance-tables.md", of_gpu)
    assert "gpu-new.json" in performance
    assert "| tiny-adamw-fused-1 |" in performance
    assert "| linear, foreach, float LR | 16 | 0 | 0 |  |" in performance
    assert "| linear, tensor LR, step | eager | 1 | 1 | 1 |" in performance
    assert "No module named 'pytorch_warmup'" in performance
    losses = report.part_of("docs/study.md", of_gpu)
    for row in record["stages"]["study"]["rows"]:
        assert f" {row['loss']:.3f} (1 seeds)" in losses
    assert "| none |" in losses


def test_only_the_marked_parts_of_the_pages_are_written(
    of_gpu: Path, tmp_path: Path
) -> None:
    for page in report.PARTS:
        (tmp_path / page).parent.mkdir(exist_ok=True)
        (tmp_path / page).write_text((ROOT / page).read_text())
    assert report.write(tmp_path, of_gpu) == list(report.PARTS)
    for page, (name, _) in report.PARTS.items():
        before, after = (ROOT / page).read_text(), (tmp_path / page).read_text()
        assert before != after
        assert marked.filled(after, name, marked.part(before, name)) == before


def test_a_page_without_the_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="must have <!-- gpu: x --> and <!-- end -->"):
        marked.filled("no markers", "gpu: x", "new")
