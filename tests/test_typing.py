"""Type checkers find no fault with users' code, and find the mistakes in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from tests.test_docs import programs
from warmopt.schedule import ModeName
from warmopt.shapes import MODES

pytestmark = pytest.mark.xdist_group("typing")

ROOT = Path(__file__).parent.parent
USERS_CODE = ROOT / "tests" / "users_code.py"
CALLBACKS = """
from warmopt.lightning import EffectiveLRMonitor
from warmopt.transformers import EffectiveLRCallback

callbacks = [EffectiveLRMonitor(), EffectiveLRCallback()]
"""


@pytest.fixture(scope="module")
def readme(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its examples as one program, as test_docs runs them."""
    file = tmp_path_factory.mktemp("typing") / "readme.py"
    [code] = [each.values[0] for each in programs() if each.id.startswith("README.md")]
    # The same name stands for another scheduler in the next example.
    file.write_text(f"# mypy: allow-redefinition\n{code}")
    return file


def check(checker: str, *arguments: str | Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", checker, *map(str, arguments)],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        # Else pyright asks the registry whether there is a newer one.
        env={**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_modes_that_an_editor_offers_are_those_that_there_are() -> None:
    assert get_args(ModeName) == (*MODES, "adaptive")


def test_mypy_accepts_what_users_write(readme: Path) -> None:
    """With the cache that `make test` has just filled; without it, 20 seconds."""
    callbacks = readme.with_name("callbacks.py")
    callbacks.write_text(CALLBACKS)
    check("mypy", "--strict", USERS_CODE, readme, callbacks)


@pytest.mark.skipif(shutil.which("node") is None, reason="pyright needs node")
def test_pyright_accepts_what_users_write(readme: Path) -> None:
    check("pyright", "--pythonpath", sys.executable, USERS_CODE, readme)


@pytest.mark.long
def test_pyright_accepts_the_package() -> None:
    """A minute, of which most goes to reading transformers."""
    check("pyright", "--pythonpath", sys.executable, "warmopt")
