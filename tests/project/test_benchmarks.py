"""The benchmark of the overhead: it runs, its statistics are right, docs quote it."""

from __future__ import annotations

import importlib.util
import itertools
import math
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

from benchmarks.overhead import report
from benchmarks.overhead.__main__ import app
from benchmarks.overhead.cases import CASES, MODELS, Case
from benchmarks.overhead.contenders import (
    CONTENDERS,
    CONTROL,
    OURS,
    STEPS,
    Seat,
    linear_lr,
)
from benchmarks.overhead.devices import Cpu, Cuda
from benchmarks.overhead.record import RESULTS, read, table
from benchmarks.overhead.timing import (
    BLOCK_NS,
    Estimate,
    Runner,
    Step,
    measure,
    ratio,
    share,
    unresolved,
)

# --- the statistics, by a clock that we wind ourselves --------------------------------


class Machine:
    """A clock on which a step takes the time that it says, times some disturbance."""

    def __init__(self, disturbed: Callable[[int], float]) -> None:
        self.now, self.blocks, self._disturbed = 0.0, 0, disturbed

    def step(self, ns: float) -> Step:
        def step() -> None:
            self.now += ns

        return step

    def clock(self, step: Step, count: int) -> dict[str, float]:
        start = self.now
        for _ in range(count):
            step()
        self.blocks += 1
        return {"cpu": (self.now - start) * self._disturbed(self.blocks)}


def noise(seed: int) -> Callable[[int], float]:
    """A slow drift of a third, 2 % of noise, and one block in ten twice as slow."""
    random = np.random.default_rng(seed)
    return lambda block: (
        (1 + 0.3 * math.sin(block / 300))
        * random.lognormal(0, 0.02)
        * (2 if random.random() < 0.1 else 1)
    )


def race(machine: Machine, costs: dict[str, float], rounds: int = 100) -> list[Runner]:
    """Contenders with known costs, against a bare step of 20 us."""
    runners = [Runner(name, machine.step(cost)) for name, cost in costs.items()]
    measure(machine.step(20_000), runners, machine.clock, 1e-9, rounds, rounds)
    return runners


@pytest.mark.parametrize("true", [0.7, 1.05, 1.3, 40.0])
def test_a_known_ratio_is_found_on_a_noisy_machine(true: float) -> None:
    control, runner = race(Machine(noise(0)), {"": 20_000, "slower": true * 20_000})
    found = ratio(runner, "cpu")
    assert found.covers(true)
    assert abs(found.value / true - 1) < 0.01
    assert unresolved(found, ratio(control, "cpu")) == ""


def test_nothing_is_found_where_there_is_nothing() -> None:
    """An interval of 95 % is right in about 95 of 100 cases."""
    costs = {str(number): 20_000.0 for number in range(101)}
    control, *others = [
        ratio(runner, "cpu") for runner in race(Machine(noise(0)), costs, rounds=30)
    ]
    assert control.covers(1)
    right = [found for found in others if found.covers(1)]
    assert 88 <= len(right) <= 99
    assert {unresolved(found, control) for found in right} == {"within the control"}


def test_the_first_blocks_of_a_quad_may_be_dearer() -> None:
    """This happens when caches are cold: a tenth more, then a twentieth, and so on."""
    machine = Machine(lambda block: 1)
    seat = Cold(machine)
    runner = Runner("same", machine.step(20_000), seat=seat)
    measure(machine.step(20_000), [runner], machine.clock, 1e-9, 100, 100)
    assert abs(ratio(runner, "cpu").value - 1) < 0.001


class Cold:
    """Once entered, blocks are slower, each by half as much as the one before."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        machine._disturbed = lambda block: 1 + 0.2 * 0.5 ** (block - self._entered)
        self._entered = 0

    def __enter__(self) -> None:
        self._entered = self._machine.blocks

    def __exit__(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("period", [5, 16, 64])
def test_work_done_every_few_steps_is_not_hidden(period: int) -> None:
    machine, calls = Machine(lambda block: 1), itertools.count(1)

    def step() -> None:
        machine.now += 20_000 + (next(calls) % period == 0) * 8_000

    runner = Runner("adaptive", step, period=period)
    measure(machine.step(20_000), [runner], machine.clock, 1e-9, 10, 10)
    assert runner.block % period == 0
    assert ratio(runner, "cpu").value == pytest.approx(1 + 0.4 / period, abs=1e-9)


def test_blocks_are_of_the_same_length_whatever_a_step_takes() -> None:
    machine = Machine(lambda block: 1)
    for cost in (50, 20_000, 3_000_000):
        [runner] = race(machine, {"": cost}, rounds=2)
        dearer = max(cost, 20_000)
        assert runner.block == max(1, round(BLOCK_NS / dearer))


def test_the_share_of_a_peer() -> None:
    costs = {"": 20_000, "ours": 20_400, "peer": 22_000}
    control, ours, peer = race(Machine(noise(1)), costs)
    found = share(ours, peer, "cpu")
    assert found is not None
    assert found.covers(0.2)
    assert found.high < 0.5
    assert share(ours, control, "cpu") is None  # nothing to take a share of


@pytest.mark.parametrize(
    ("found", "control", "reason"),
    [
        (Estimate(1.3, 1.29, 1.31), Estimate(1.0, 0.99, 1.01), ""),
        (Estimate(1.3, 1.29, 1.31), Estimate(1.01, 1.001, 1.02), "control is off 1"),
        (Estimate(1.01, 1.009, 1.011), Estimate(1.0, 0.98, 1.02), "within the control"),
        (Estimate(1.02, 1.01, 1.03), Estimate(1.0, 0.99, 1.011), "within the control"),
        (Estimate(1.02, 1.011, 1.031), Estimate(1.0, 0.99, 1.01), "interval too wide"),
        (Estimate(1.3, 1.25, 1.33), Estimate(1.0, 0.99, 1.01), "interval too wide"),
        (Estimate(0.992, 0.99, 0.994), Estimate(1.0, 0.998, 1.002), "less than 1 %"),
        (Estimate(0.7, 0.69, 0.71), Estimate(1.0, 0.99, 1.01), ""),
    ],
)
def test_what_may_not_be_said(found: Estimate, control: Estimate, reason: str) -> None:
    assert unresolved(found, control).endswith(reason)
    assert bool(unresolved(found, control)) == bool(reason)


# --- what is measured -----------------------------------------------------------------


def test_the_models_are_as_large_as_they_should_be() -> None:
    sizes = {n: (len(m), sum(map(math.prod, m))) for n, m in MODELS.items()}
    assert sizes["tiny"][0] == 4
    assert sizes["resnet50"] == (161, 25_557_032)
    assert sizes["gpt2"] == (148, 124_439_808)
    assert sizes["gpt2-xl"] == (580, 1_557_611_200)
    assert sizes["llama-7b"] == (291, 6_738_415_616)
    assert (sizes["resnet50/16"][0], sizes["gpt2/16"][0]) == (161, 148)


def test_the_cases_have_names_of_their_own() -> None:
    for cases in CASES.values():
        assert len({case.name for case in cases}) == len(cases)


def test_a_contender_leaves_the_optimizer_as_it_was() -> None:
    optimizer = Case("tiny", "sgd", "loop", 2).build(Cpu())
    before = [dict(group) for group in optimizer.param_groups]
    seat = Seat(optimizer)
    with seat:
        step = linear_lr(optimizer, 10, lambda step: step)
        for _ in range(5):
            step()
        lr = optimizer.param_groups[0]["lr"]
        assert "step" in vars(optimizer)
    assert optimizer.param_groups == before
    assert "step" not in vars(optimizer)
    with seat:
        assert optimizer.param_groups[0]["lr"] == lr != before[0]["lr"]
        assert "step" in vars(optimizer)


# --- the whole program ----------------------------------------------------------------


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, catch_exceptions=False)


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The record of the shortest run that has both levels and all contenders."""
    out = tmp_path_factory.mktemp("results")
    cases = ("--cases", "machinery-10", "--cases", "tiny-adamw-fused-1")
    done = run(*cases, "--seconds", "0.01", "--rounds", "4", "--out", str(out))
    assert done.exit_code == 0
    [path] = out.glob("*.json")
    assert path.name in done.output.replace("\n", "")
    return path


MODULES = {"transformers": "transformers", "timm": "timm", "accelerate": "accelerate"}


def test_every_contender_is_in_the_record(record: Path) -> None:
    found = read(record)
    missing = [name for name in MODULES if importlib.util.find_spec(name) is None]
    for case in ("machinery-10", "tiny-adamw-fused-1"):
        rows = [
            (r["contender"], r["state"]) for r in found["rows"] if r["case"] == case
        ]
        assert rows == [(CONTROL, "")] + [
            (contender.name, state)
            for contender in CONTENDERS
            for state in STEPS
            if contender.runs(case.split("-")[1], state)
            and not any(contender.name.startswith(name) for name in missing)
        ]
    for skip in found["skipped"]:
        assert any(f"No module named '{name}" in skip["why"] for name in missing)


def test_the_record_says_where_and_when(record: Path) -> None:
    found = read(record)
    assert re.fullmatch(r"[0-9a-f]{40}|unknown", found["commit"])
    assert found["torch"] == torch.__version__
    assert found["threads"] == 1
    assert found["argv"] == sys.argv[1:]
    assert {"device", "cores", "loadavg", "python_build_flags", "dirty"} <= set(found)
    assert record.name == (
        f"{found['utc'][:10]}-cpu-{found['commit'][:9]}-part.json"
    )  # the name shows that it is not the whole table
    assert "/" not in "".join(found["python_build_flags"])


def test_the_rows_hold_together(record: Path) -> None:
    for row in read(record)["rows"]:
        low, high = row["interval"]
        assert low <= row["ratio"] <= high
        assert row["quads"] == 4
        assert row["block"] >= 1
        assert row["base_us"] > 0
        assert row["resolved"] == (not row["reason"])
        if row["resolved"]:
            assert row["control"][0] <= 1 <= row["control"][1]
    control, ours, *_ = read(record)["rows"]
    assert not control["resolved"]
    assert ours["added_us"] == pytest.approx(
        ours["base_us"] * (ours["ratio"] - 1), rel=0.5
    )


def test_the_record_has_the_counts(record: Path) -> None:
    for row in read(record)["rows"]:
        reads = row["contender"].partition(",")[2] != ""  # adaptive or aligned
        assert row["operators"] == 0 or reads, row["contender"]
        assert row["allocations"] == 0 or reads, row["contender"]
        assert row["kernels"] is row["syncs"] is None
        twice = row["contender"] == "naive Optimizer subclass"
        assert row["hook_passes"] == twice + (row["case"] != "machinery-10")


def test_the_table_is_made_from_the_record(record: Path) -> None:
    found, text = read(record), record.with_suffix(".md").read_text()
    assert text == table(found)
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(lines) == len(found["rows"]) + 2  # and a heading for each case


def test_the_docs_quote_what_is_in_the_record(record: Path) -> None:
    old = report.TABLES_PAGE.read_text()
    text = report.page(record) + report.tables_page(record, old)
    quoted = set(re.findall(r"\d[\d.e-]* \[[^]]+\]", text))
    known = set()
    for row in read(record)["rows"]:
        for value, ends, digits in (
            (row["ratio"], row["interval"], 4),
            (row["of_pytorch_warmup"], row["of_pytorch_warmup_interval"], 3),
        ):
            if value is not None:
                low, high = (f"{end:.{digits}g}" for end in ends)
                known.add(f"{value:.{digits}g} [{low}, {high}]")
    assert quoted
    assert quoted <= known


def test_the_pages_in_the_docs_are_made_from_the_record_they_name() -> None:
    text, more = report.PAGE.read_text(), report.TABLES_PAGE.read_text()
    name, *others = re.findall(r"\(\.\./benchmarks/results/(.+)\.md\)", text + more)
    path = RESULTS / f"{name}.json"
    assert others == [name]
    assert text == report.page(path)
    assert more == report.tables_page(path, more)
    assert not read(path)["dirty"]
    assert path.with_suffix(".md").read_text() == table(read(path))
    assert "-part" not in path.name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cases", "huge-*"], "tiny-adamw-fused-1"),
        (["--rounds", "1"], "greater than or equal to 2"),
        (["--seconds", "-1"], "greater than or equal to 0.001"),
        (["--device", "tpu"], "'cpu', 'cuda'"),
        pytest.param(
            ["--device", "cuda"],
            "no CUDA device",
            marks=pytest.mark.skipif(
                torch.cuda.is_available(), reason="there is a CUDA device"
            ),
        ),
    ],
)
def test_a_bad_argument_is_refused_before_anything_is_measured(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    done = run(*arguments, "--out", str(tmp_path))
    assert done.exit_code == 2
    assert message in " ".join(done.output.replace("│", " ").split())
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_measured_is_said_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Cpu, "free_bytes", lambda self: 10_000)
    monkeypatch.setitem(sys.modules, "transformers", None)
    cases = ("--cases", "machinery-1", "--cases", "tiny-sgd-loop-1")
    run(*cases, "--seconds", "0.01", "--rounds", "2", "--out", str(tmp_path))
    [path] = tmp_path.glob("*.json")
    skipped = {skip["what"]: skip["why"] for skip in read(path)["skipped"]}
    assert skipped["tiny-sgd-loop-1"] == "needs 0.0 GB, 0.0 GB are free"
    what = "machinery-1, transformers linear schedule, warming"
    assert "transformers" in skipped[what]
    assert what in path.with_suffix(".md").read_text()
    assert {row["case"] for row in read(path)["rows"]} == {"machinery-1"}


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method")  # inductor's own
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++")
def test_a_compiled_step_is_measured(tmp_path: Path) -> None:
    cases = ("--cases", "*-compile", "--seconds", "0.1", "--rounds", "2")
    run(*cases, "--out", str(tmp_path))
    [path] = tmp_path.glob("*.json")
    found = read(path)
    assert not found["skipped"]
    assert len(found["rows"]) == 6
    assert all(row["operators"] is None for row in found["rows"])


# --- CUDA -----------------------------------------------------------------------------


class Event:
    """Does what torch.cuda.Event does, with the clock of the host."""

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        self.at = time.perf_counter()

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, end: Event) -> float:
        return (end.at - self.at) * 1e3


@contextmanager
def no_profile(**_: Any) -> Iterator[Any]:
    """A CPU has no CUDA events to record."""
    yield type("Profile", (), {"events": list})


def test_the_cuda_branch_runs_but_for_cuda_itself(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The parameters are on the CPU, and the few calls to torch.cuda are replaced."""
    modes = []
    monkeypatch.setattr(Cuda, "torch_device", "cpu")
    for name, fake in {
        "is_available": lambda: True,
        "is_current_stream_capturing": lambda: False,
        "Event": Event,
        "synchronize": lambda: None,
        "empty_cache": lambda: None,
        "_sleep": lambda cycles: None,
        "mem_get_info": lambda: (50_000_000_000, 140_000_000_000),
        "get_device_name": lambda: "NVIDIA H200",
        "set_sync_debug_mode": modes.append,
    }.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr("benchmarks.overhead.devices.profile", no_profile)
    cases = ("--cases", "tiny-sgd-fused-1", "--cases", "llama-7b-*")
    run(
        *("--device", "cuda", *cases, "--seconds", "0.01"),
        *("--rounds", "2", "--out", str(tmp_path)),
    )
    [path] = tmp_path.glob("*.json")
    found = read(path)
    assert "-nvidia-h200-" in path.name
    assert {row["time"] for row in found["rows"]} == {"host", "device"}
    ours = [row for row in found["rows"] if row["contender"] == OURS]
    assert len(ours) == 4
    assert all(row["kernels"] == row["syncs"] == 0 for row in ours)
    assert set(modes) == {"error", "default"}
    assert modes[-1] == "default"
    assert {"what": "llama-7b-adamw-fused-1"}.items() <= found["skipped"][-1].items()
    assert "needs 107.8 GB, 50.0 GB are free" in found["skipped"][-1]["why"]
    with pytest.raises(ValueError, match=r"benchmarks\.gpu writes the part on CUDA"):
        report.page(path)
    assert "Device time.\n" in report.section("CUDA", found, path.stem)
