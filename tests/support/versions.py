"""Which releases of torch and Python the tests have run on, from the records of runs.

A run of all tests writes its record; `make test-torch` does that. The page in the
docs, and the sentence in the README, are made from the records:
    python -m tests.support.versions
"""

from __future__ import annotations

import json
import platform
import re
import subprocess
from collections import Counter
from collections.abc import Iterable
from datetime import date
from importlib import metadata
from typing import Any

import torch

from benchmarks import marked
from benchmarks.markdown_tables import grid
from tests.support import ROOT

RECORDS = ROOT / "tests" / "records"
PAGE = ROOT / "docs" / "versions.md"
README = ROOT / "README.md"
HOSTS = ("lightning", "transformers", "accelerate")
SAME = ("torch", "python", "hosts")  # what two runs of one record have in common
OUTCOMES = ("passed", "skipped", "xfailed", "failed", "error")

HEAD = """\
# Which torch, which Python

Every line is one run of the tests on a CPU under Linux: of all but those of this
repository's own tools, such as its benchmarks and its site. Its record is in
`tests/records/`, and this page is made from the records.

"""

MENDED = """
These tests have failed in that run. They, or the environment, were mended, and then
they passed by themselves:

"""

WHY = """
A test is skipped where the release does not have what it is about. An expected failure
is a fault of torch or of another library, with a bare optimizer too; the list is in
`tests/support/broken_upstream.py`.

## What was skipped

What needs a GPU is not in this table.

"""

TRY = """
## To try another one

    make test-torch TORCH=2.6.0 PYTHON=python3.12

makes an environment of its own in `build/`, runs the tests, and writes the record. An
ordinary torch from the package index takes 2 to 6 GB there; it runs on a CPU too. To
try another release of a host, add it: `WITH="transformers==4.46.3"`.
"""


def record(reports: dict[str, list[Any]], seconds: float) -> dict[str, Any]:
    """What a run has shown: the versions, how many tests had which outcome, and why.

    Args:
        reports: The reports of pytest for each outcome.
        seconds: How long the run took.
    """
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=ROOT
    )
    reasons = Counter(
        re.sub("^Skipped: ", "", report.longrepr[-1])
        for report in reports.get("skipped", [])
    )
    return {
        "date": date.today().isoformat(),
        "commit": commit.stdout.strip(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "hosts": {name: metadata.version(name) for name in HOSTS},
        "seconds": round(seconds),
        **{outcome: len(reports.get(outcome, [])) for outcome in OUTCOMES},
        "skipped_because": dict(sorted(reasons.items())),
        "not_passed": sorted(
            report.nodeid
            for outcome in ("failed", "error")
            for report in reports.get(outcome, [])
        ),
    }


def amended(
    old: dict[str, Any], now: dict[str, Any], passed: set[str], skipped: set[str]
) -> dict[str, Any]:
    """A record after tests that had failed were mended, and ran again by themselves.

    Args:
        old: The record of the whole run.
        now: That of the second one, with the same torch and Python.
        passed: The ids of the tests that have passed in the second one.
        skipped: Of those that were skipped, since the release lacks what they need.
    """
    if [old[key] for key in SAME] != [now[key] for key in SAME]:
        raise ValueError(f"These are runs of different releases: {old}, {now}")
    mended = [test for test in old["not_passed"] if test in passed]
    left_out = [test for test in old["not_passed"] if test in skipped]
    reasons = Counter(old["skipped_because"]) + Counter(now["skipped_because"])
    return {
        **old,
        "passed": old["passed"] + len(mended),
        "skipped": old["skipped"] + len(left_out),
        "failed": old["failed"] - len(mended) - len(left_out),
        "skipped_because": dict(sorted(reasons.items())),
        "not_passed": [t for t in old["not_passed"] if t not in passed | skipped],
        "passed_later": {**old.get("passed_later", {}), now["commit"]: mended},
        "skipped_later": {**old.get("skipped_later", {}), now["commit"]: left_out},
    }


def release(version: str) -> tuple[int, ...]:
    """The numbers of a version, to sort by: (2, 13, 0) for "2.13.0+cpu"."""
    return tuple(map(int, re.findall(r"\d+", version.partition("+")[0])))


def records() -> list[dict[str, Any]]:
    """All records, the oldest torch first."""
    read = [json.loads(path.read_text()) for path in RECORDS.glob("*.json")]
    return sorted(read, key=lambda each: (release(each["torch"]), each["python"]))


def minor(version: str) -> str:
    """Two numbers of a version: "3.11" for "3.11.7"."""
    return ".".join(version.split(".")[:2])


def table(runs: Iterable[dict[str, Any]]) -> str:
    """A line for each run."""
    head = ["torch", "Python", "passed", "skipped", "expected failures", "failed"]
    return grid(
        [*head, *HOSTS, "run on"],
        [
            [
                each["torch"].partition("+")[0],
                minor(each["python"]),
                *(f"{each[o]:,}" for o in OUTCOMES[:3]),
                str(each["failed"] + each["error"]),
                *(each["hosts"][name] for name in HOSTS),
                each["date"],
            ]
            for each in runs
        ],
    )


def skipped(runs: Iterable[dict[str, Any]]) -> str:
    """A line for each reason that depends on the release."""
    numbers: dict[str, dict[str, int]] = {}
    for each in runs:
        for reason, number in each["skipped_because"].items():
            if "CUDA" not in reason:
                version = each["torch"].partition("+")[0]
                numbers.setdefault(reason, {})[version] = number
    return grid(
        ["why", "tests, by torch"],
        [
            [why, ", ".join(f"{version}: {n}" for version, n in found.items())]
            for why, found in sorted(numbers.items())
        ],
    )


def mended(runs: Iterable[dict[str, Any]]) -> str:
    """How many tests have failed at first and passed later, by release and function."""
    numbers = Counter(
        (each["torch"].partition("+")[0], re.split(r"[\[@]", test)[0])
        for each in runs
        for tests in each.get("passed_later", {}).values()
        for test in tests
    )
    lines = [f"- torch {torch}: {n} of `{t}`\n" for (torch, t), n in numbers.items()]
    return MENDED + "".join(lines) if lines else ""


def page(runs: list[dict[str, Any]]) -> str:
    return HEAD + table(runs) + mended(runs) + WHY + skipped(runs) + TRY


def sentence(runs: list[dict[str, Any]]) -> str:
    """For the README: what was tested, from the oldest to the newest."""
    good = [each for each in runs if not each["failed"] + each["error"]]
    torches = [each["torch"].partition("+")[0] for each in good]
    pythons = sorted({minor(each["python"]) for each in good}, key=release)
    fewest = min(each["passed"] for each in good)
    number = f"{fewest:,} tests or more" + " each" * (len(good) > 1)
    return (
        f"Tested with {len(set(torches))} releases of torch, {torches[0]} to "
        f"{torches[-1]}, and with Python {', '.join(pythons)}, on a CPU: {number} "
        "([the runs](docs/versions.md)).\n"
    )


def with_sentence(text: str, runs: list[dict[str, Any]]) -> str:
    """The README with this sentence between its marks."""
    return marked.filled(text, "versions", sentence(runs))


if __name__ == "__main__":
    PAGE.write_text(page(records()), encoding="utf-8")
    README.write_text(with_sentence(README.read_text(), records()), encoding="utf-8")
