"""All tests that are marked `cuda`, by pytest; each file in a process of its own.

Only the files that have such tests are read: the others need more than there may be.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from benchmarks.checkout import ROOT
from benchmarks.gpu.rows import Here, Row

MARK = "pytest.mark.cuda"
TO_END = 8.0  # seconds that pytest has to write its report, once it is interrupted
LONGEST = 3000  # characters of what a failed test says


def rows(here: Here) -> Iterator[Row]:
    end = time.monotonic() + here.limit - 2 * TO_END
    log = here.folder / f"{here.name}-tests.log"
    for path in files():
        yield from of_file(path, end - time.monotonic(), log)


def files() -> list[Path]:
    found = sorted((ROOT / "tests").rglob("test_*.py"))
    return [path for path in found if MARK in path.read_text(encoding="utf-8")]


def of_file(path: Path, seconds: float, log: Path) -> Iterator[Row]:
    """A row for each test function, and one for what the file says as a whole."""
    name = path.relative_to(ROOT).as_posix()
    with tempfile.TemporaryDirectory() as own:
        report = Path(own) / "report.xml"
        options = ["-m", "cuda", "-rA", "--tb=short", "--no-header", "--durations=10"]
        options += ["-p", "no:cacheprovider", f"--junit-xml={report}"]
        # If a test hangs, the log says where.
        options += ["-o", "faulthandler_timeout=30"]
        with log.open("a") as printed:
            process = subprocess.Popen(
                [sys.executable, "-m", "pytest", name, *options],
                cwd=ROOT,
                stdout=printed,
                stderr=subprocess.STDOUT,
            )
            code = ended(process, seconds)
        cases = list(parsed(report)) if report.exists() else []
    yield from by_function(name, cases)
    count = {how: sum(own[1] == how for own in cases) for how in OUTCOMES}
    row: Row = {"what": name, "ok": code == 0 and not count["failed"], **count}
    if not row["ok"]:
        row["why"] = (
            f"pytest was stopped after {seconds:.0f} s"
            if code is None
            else f"pytest ended with {code}, {count['failed']} failed"
        )
        if not cases:
            row["printed"] = log.read_text(errors="replace")[-LONGEST:]
    yield row


def ended(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    """Waits for pytest; None if it took too long and was stopped."""
    try:
        return process.wait(max(seconds, 0.0))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)  # so that pytest still writes its report
    try:
        process.wait(TO_END)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    return None


OUTCOMES = ("passed", "failed", "skipped")
Case = tuple[str, str, float, str]  # test, outcome, seconds, what it says


def parsed(report: Path) -> Iterator[Case]:
    for case in ElementTree.parse(report).iter("testcase"):
        told = {child.tag: child for child in case}
        outcome, text = "passed", ""
        for tag, how in (("failure", "failed"), ("error", "failed")):
            if tag in told:
                outcome, text = how, told[tag].text or told[tag].get("message", "")
        if outcome == "passed" and "skipped" in told:
            outcome, text = "skipped", told["skipped"].get("message", "")
        yield case.get("name", ""), outcome, float(case.get("time", 0)), text


def by_function(file: str, cases: list[Case]) -> Iterator[Row]:
    """A row for each function, with the words of its cases that did not pass."""
    functions: dict[str, list[Case]] = {}
    for case in cases:
        functions.setdefault(case[0].partition("[")[0], []).append(case)
    for function, own in functions.items():
        count = {how: sum(case[1] == how for case in own) for how in OUTCOMES}
        row: Row = {"what": f"{file}::{function}", "ok": not count["failed"], **count}
        if not count["failed"] and count["skipped"]:
            row |= {"ok": None, "why": own[-1][3]}
        row["seconds"] = round(sum(case[2] for case in own), 2)
        failed = [case for case in own if case[1] == "failed"]
        if failed:
            lines = failed[0][3].strip().splitlines()
            row |= {
                "why": f"{failed[0][0]}: {lines[-1] if lines else ''}",
                "failures": {case[0]: case[3][-LONGEST:] for case in failed[:10]},
            }
        yield row
