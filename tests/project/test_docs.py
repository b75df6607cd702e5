"""Every example in README, docs and docstrings runs and prints what it says."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import warmopt
from tests.support import ROOT, what_works
from tests.support.features import needs_fsdp2, needs_torchao
from tests.support.pages import blocks, prints
from warmopt import Trace, Warmed

DOCS = ROOT / "docs"
MODULES = ["warmopt"] + [
    module.name
    for module in pkgutil.walk_packages(warmopt.__path__, "warmopt.")
    if not module.ispkg and module.name != "warmopt.__main__"
]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_docstrings_run(name: str) -> None:
    module = importlib.import_module(name)
    failed, _ = doctest.testmod(module, extraglobs={"torch": torch})
    assert failed == 0


def test_doctest_finds_the_examples() -> None:
    """Shows that the test above tests something."""
    from warmopt import criteria, shapes, warmed
    from warmopt._optimizers import second_moments

    finder = doctest.DocTestFinder()
    for module, least in (
        (shapes, 11),
        (warmed, 1),
        (second_moments, 1),
        (criteria, 5),
    ):
        assert sum(bool(found.examples) for found in finder.find(module)) >= least


PAGES = ["README.md", *(f"docs/{path.name}" for path in sorted(DOCS.glob("*.md")))]
WITHOUT_PYTHON = {"changelog", "command-line", "contributing", "design"}
WITHOUT_PYTHON |= {"mutants", "performance", "study", "study-aligned", "versions"}
WITHOUT_PYTHON |= {"study-plan", "study-tables", "performance-tables"}
WITHOUT_PYTHON |= {"adaptive-experiments", "adaptive-tables", "aligned-trials"}
WITHOUT_PYTHON |= {"study-aligned-plan", "study-aligned-tables"}
WITHOUT_PYTHON |= {"gallery", "what-works"}
# Their sections do not need each other. Each of a framework shares a worker with the
# tests of the same one.
BY_SECTION = {"README.md", "docs/frameworks.md"}
WORKERS = {"Lightning": "lightning", "transformers.Trainer": "transformers"}
WORKERS["accelerate"] = "transformers"


NEEDED = {"fully_shard": needs_fsdp2, "torchao": needs_torchao}


def programs() -> list[Any]:
    """The Python blocks of each page, joined to one program."""
    found = []
    for page in PAGES:
        text = (ROOT / page).read_text()
        for part in text.split("\n## ") if page in BY_SECTION else [text]:
            title = part.partition("\n")[0]
            worker = pytest.mark.xdist_group(WORKERS.get(title, page))
            needed = [mark for word, mark in NEEDED.items() if word in part]
            if code := "\n".join(blocks(part)):
                name = f"{page}: {title}"
                found.append(pytest.param(code, id=name, marks=[worker, *needed]))
    return found


@pytest.mark.parametrize("code", programs())
# What dynamo imports at its first compilation gives warnings.
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
# Lightning's own call into torch, and its advice to load data in processes.
@pytest.mark.filterwarnings(r"ignore:`isinstance\(treespec, LeafSpec\)` is depr")
@pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many")
def test_the_python_blocks_of_a_page_run(
    code: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All blocks run as one program. `# prints` says what a line prints."""
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "page", "exec"), {"__name__": "page"})
    expected = prints(code)
    assert expected or "torch.cuda" in code
    printed = capsys.readouterr().out.splitlines()
    assert [line for line in printed if line in expected] == expected, printed


def test_every_page_has_examples_that_run() -> None:
    """Except for pages that a program writes."""
    run = {str(program.id).partition(":")[0] for program in programs()}
    assert {*PAGES} - run == {f"docs/{name}.md" for name in WITHOUT_PYTHON}


def test_the_commands_of_the_pages_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Except for the demo, which test_cli runs."""
    from typer.testing import CliRunner

    from warmopt._tools.cli import app

    monkeypatch.chdir(tmp_path)
    weight = torch.nn.Parameter(torch.zeros(1))
    warmed = Warmed(torch.optim.Adam([weight]), steps=9, trace=(trace := Trace()))
    while not warmed.done:
        warmed.step()
    trace.save("run.jsonl")
    run = set()
    for page in PAGES:
        shell = re.findall(r"```sh\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
        for line in "".join(shell).splitlines():
            command, _, options = line.removeprefix("python -m ").partition(" ")
            if command == "warmopt" and not options.startswith("demo"):
                result = CliRunner().invoke(app, options.split())
                assert result.exit_code == 0, (page, line, result.output)
                run.add(options.split()[0])
    assert run == {"preview", "replay"}


def test_the_readme_is_short_and_each_of_its_blocks_runs_alone() -> None:
    readme = (ROOT / "README.md").read_text()
    assert len(readme.split()) < 900
    assert max(len(blocks(part)) for part in readme.split("\n## ")) == 1


@pytest.mark.parametrize("page", sorted(path.name for path in ROOT.glob("*.md")))
def test_links_outside_the_site_lead_to_files(page: str) -> None:
    """test_site.py checks those of the site."""
    links = re.findall(r"\]\(([^)#\s]+)", (ROOT / page).read_text())
    absent = [to for to in links if "://" not in to and not (ROOT / to).exists()]
    assert not absent


def test_the_commands_of_the_readme_are_targets_of_the_makefile() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    commands = re.findall(r"^make ([a-z-]+)", (ROOT / "README.md").read_text(), re.M)
    assert {"demo", "test"} <= set(commands) <= set(targets)


def test_the_table_of_modes_has_every_mode() -> None:
    rows = re.findall(r"^\| `([a-z_0-9]+)` \|", (DOCS / "modes.md").read_text(), re.M)
    assert rows == [*warmopt.shapes.MODES, "adaptive", "aligned"]


def test_every_public_name_is_documented() -> None:
    for name in MODULES:
        module = importlib.import_module(name)
        assert module.__doc__
        assert all(isinstance(public, str) for public in module.__all__)
        for public in module.__all__:
            value = getattr(module, public)
            if callable(value) and getattr(value, "__module__", "") == name:
                assert value.__doc__, f"{name}.{public}"


def test_the_page_on_the_design_shows_the_map() -> None:
    """It is the docstring of the package."""
    page = (DOCS / "design.md").read_text()
    ((file, after, before),) = re.findall(
        r"```{literalinclude} (\S+)\n:start-after: (.*)\n:end-before: '(.*)'\n", page
    )
    source = (DOCS / file).read_text()
    shown = source.partition(after)[2].partition(before)[0]
    assert "_update: " in shown
    assert shown in warmopt.__doc__


def test_the_page_of_what_works_has_the_rows_of_its_table() -> None:
    """The numbers come from the run that wrote it; all else must equal the table."""
    seen = (ROOT / "docs" / "what-works.md").read_text()
    numbers = re.findall(r"\| (\d+) \| `\w+/test_", seen)
    assert seen == what_works.page(list(map(int, numbers)))


def test_every_row_of_what_works_names_tests_that_there_are() -> None:
    for _, what, file, starts in what_works.WORKS:
        source = (ROOT / "tests" / f"{file}.py").read_text()
        for start in starts:
            assert f"\ndef {start}" in source, (what, start)
