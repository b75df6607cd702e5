from __future__ import annotations

import json
import time
from collections.abc import Iterator

import hypothesis
import pytest
import torch

from tests.support import versions, what_works
from tests.support.broken_upstream import BROKEN_UPSTREAM
from tests.support.features import WARNINGS_OF_TORCH
from tests.support.optimizers import ROWS, Row
from tests.support.ranks import Ranks

torch.set_num_threads(1)  # the tensors are tiny
# The same examples in every run, even on a slow machine.
hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(params=list(ROWS))
def row(request: pytest.FixtureRequest) -> Row:
    return ROWS[request.param]


@pytest.fixture(params=[name for name, row in ROWS.items() if not row.one_group])
def multi_group_row(request: pytest.FixtureRequest) -> Row:
    return ROWS[request.param]


@pytest.fixture(params=[True, False], ids=["plain", "update"])
def with_and_without_the_plain_step(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For contracts: the plain step is only faster, so they hold without it too."""
    monkeypatch.setattr("warmopt._update.plain.is_used", request.param)


@pytest.fixture(scope="session")
def groups() -> Iterator[dict[int, Ranks]]:
    """Process groups of 2 and of 4 ranks, which all tests of one worker share."""
    groups = {size: Ranks(size) for size in (2, 4)}
    yield groups
    for ranks in groups.values():
        ranks.stop()


def _without_way(name: str) -> str:
    """The name of a test case that begins with its row, if it has one."""
    return name.replace("[plain-", "[").replace("[update-", "[")


def _upstream_error(item: pytest.Item) -> str | None:
    for start, message in BROKEN_UPSTREAM.items():
        if _without_way(item.name).startswith(start):
            return message
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if message := _upstream_error(item):
            item.add_marker(pytest.mark.xfail(strict=True, reason=message))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """A test that upstream breaks must fail with the error in the table."""
    message = _upstream_error(item)
    try:
        return (yield)
    except (Exception, pytest.fail.Exception) as error:
        if message and message not in f"{type(error).__name__}: {error}":
            # It is no longer an xfail, whatever the marker says.
            item.session.shouldfail = (
                f"{item.name}: expected {message!r}, got {error!r}"
            )
        raise


def pytest_configure(config: pytest.Config) -> None:
    for start in WARNINGS_OF_TORCH:
        config.addinivalue_line("filterwarnings", f"ignore:{start}")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--write-what-works", metavar="FILE", help="write the table of what works"
    )
    parser.addoption(
        "--write-record", metavar="FILE", help="write what this run has shown"
    )
    parser.addoption(
        "--amend-record", metavar="FILE", help="note which failed tests pass now"
    )


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Prints how many cases the tests ran, and writes the table of what works."""
    if hasattr(config, "workerinput"):
        return  # a worker of xdist, which knows its own tests only
    if path := config.getoption("--write-record"):
        seconds = time.time() - terminalreporter._session_start.time
        record = versions.record(terminalreporter.stats, seconds)
        file = config.invocation_params.dir.joinpath(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(record, indent=1) + "\n")
    if path := config.getoption("--amend-record"):
        file = config.invocation_params.dir.joinpath(path)
        now = versions.record(terminalreporter.stats, seconds=0.0)
        passed, skipped = (
            {report.nodeid for report in terminalreporter.getreports(outcome)}
            for outcome in ("passed", "skipped")
        )
        record = versions.amended(json.loads(file.read_text()), now, passed, skipped)
        file.write_text(json.dumps(record, indent=1) + "\n")
    passed = what_works.counts(
        report.nodeid for report in terminalreporter.getreports("passed")
    )
    for section, number in what_works.per_section(passed).items():
        if number:
            terminalreporter.write_line(f"{section}: {number} cases")
    if path := config.getoption("--write-what-works"):
        config.invocation_params.dir.joinpath(path).write_text(what_works.page(passed))
    reports = [
        _without_way(report.nodeid).rpartition("::")[2].partition("[")
        for outcome in ("passed", "xfailed", "failed")
        for report in terminalreporter.getreports(outcome)
    ]
    cases = [
        contract
        for contract, _, parameters in reports
        if any(parameters.rstrip("]").startswith(name) for name in ROWS)
        or contract == "test_it_does_what_the_bare_optimizer_does"
    ]
    peers = sum(
        "of_the_peer" in name or "the_peer_itself" in name for name, *_ in reports
    )
    if not (cases or peers):
        return
    terminalreporter.write_line(
        f"{len(ROWS)} optimizers x {len(set(cases))} contracts: {len(cases)} cases; "
        f"conventions of peers x lengths: {peers} cases"
    )
