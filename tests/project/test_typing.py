"""Type checkers accept the code of users, and find the mistakes in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from tests.project.test_docs import PAGES
from tests.support import ROOT
from tests.support.features import needs_exported_names
from tests.support.pages import blocks
from warmopt.shapes import MODES
from warmopt.warmed import ModeName

pytestmark = pytest.mark.xdist_group("typing")

USERS_CODE = ROOT / "tests" / "support" / "users_code.py"
CALLBACKS = """
from warmopt.lightning import EffectiveLRMonitor
from warmopt.transformers import EffectiveLRCallback

callbacks = [EffectiveLRMonitor(), EffectiveLRCallback()]
"""


# In the next example the same name is another scheduler.
IN_README = "# mypy: allow-redefinition"
# Other examples have no annotations and use packages without types.
ELSEWHERE = f"""\
{IN_README}, allow-untyped-defs, allow-untyped-calls
# mypy: disable-error-code="import-untyped"
"""
# Frameworks take long to read, and the types of bitsandbytes export nothing.
UNCHECKED = {"docs/frameworks.md", "docs/adaptive.md"}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The examples of each page as one program; the README comes first."""
    folder, files = tmp_path_factory.mktemp("typing"), []
    for page in PAGES:
        code = blocks((ROOT / page).read_text())
        if code and page not in UNCHECKED:
            files.append(folder / Path(page).with_suffix(".py").name.replace("-", "_"))
            header = ELSEWHERE if files[1:] else IN_README
            files[-1].write_text("\n".join([header, *code]))
    return files


def check(checker: str, *arguments: str | Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", checker, *map(str, arguments)],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        # Without this, pyright asks the registry for a newer version.
        env={**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_modes_that_an_editor_offers_are_those_that_there_are() -> None:
    assert get_args(ModeName) == (*MODES, "adaptive", "aligned")


@needs_exported_names
def test_mypy_accepts_what_users_write(pages: list[Path], tmp_path: Path) -> None:
    """With the cache that `make test` has just filled; without it, 20 seconds."""
    callbacks = tmp_path / "callbacks.py"
    callbacks.write_text(CALLBACKS)
    check("mypy", "--strict", "--follow-imports=silent", USERS_CODE, callbacks, *pages)


@needs_exported_names
@pytest.mark.skipif(shutil.which("node") is None, reason="pyright needs node")
def test_pyright_accepts_what_users_write(pages: list[Path]) -> None:
    check("pyright", "--pythonpath", sys.executable, USERS_CODE, pages[0])


@pytest.mark.long
def test_pyright_accepts_the_package() -> None:
    """This takes a minute, most of it to read transformers."""
    check("pyright", "--pythonpath", sys.executable, "warmopt")
