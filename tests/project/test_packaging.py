"""The sdist and the wheel hold what they should, and the wheel works alone."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

import warmopt
from tests.project.test_docs import MODULES
from tests.support import ROOT
from tests.support.pages import blocks, prints

pytestmark = pytest.mark.xdist_group("packaging")  # two builds at once would clash


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the sdist, without isolation: the build tools are installed here."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out)]
    subprocess.run([*command, str(ROOT)], check=True, capture_output=True)
    return out


def test_the_wheel_holds_the_package_and_nothing_else(dist: Path) -> None:
    [wheel] = dist.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    package = {str(path.relative_to(ROOT)) for path in ROOT.glob("warmopt/**/*.py")}
    assert {n for n in names if ".dist-info/" not in n} == package | {
        "warmopt/py.typed"
    }
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_sdist_holds_what_the_wheel_is_built_of(dist: Path) -> None:
    [sdist] = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        files = {name.partition("/")[2] for name in archive.getnames()}
    assert {name.split("/")[0] for name in files} - {""} == {
        *("LICENSE", "MANIFEST.in", "PKG-INFO", "README.md", "pyproject.toml"),
        *("setup.cfg", "warmopt", "warmopt.egg-info"),
    }
    assert "warmopt/py.typed" in files


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == warmopt.__version__


@pytest.fixture(scope="module")
def python(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel, and with packages from outside it.

    A .pth file there can only add folders, so the repository stays out.
    """
    home = tmp_path_factory.mktemp("venv")
    venv.create(home)
    python = home / "bin" / "python"
    [site] = home.glob("lib/python*/site-packages")
    (site / "outside.pth").write_text(sysconfig.get_path("purelib"))
    [wheel] = dist.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "--quiet", "--python", str(python), "install"]
    subprocess.run([*pip, "--no-deps", "--no-index", str(wheel)], check=True)
    return python


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=cwd)
    return done.stdout


def test_the_wheel_runs_the_first_example_and_imports_all(
    python: Path, tmp_path: Path
) -> None:
    first = blocks((ROOT / "README.md").read_text())[0]
    modules = [f"import {name}" for name in MODULES]  # the framework callbacks too
    code = "\n".join([first, *modules, "print(warmopt.__file__)"])
    printed, file = run(python, "-W", "error", "-c", code, cwd=tmp_path).splitlines()
    assert [printed] == prints(first)
    assert Path(file).is_relative_to(python.parent.parent)


@pytest.mark.parametrize("command", ["--help", "preview --steps 10"])
def test_the_wheel_installs_the_command(
    python: Path, command: str, tmp_path: Path
) -> None:
    printed = run(python.with_name("warmopt"), *command.split(), cwd=tmp_path)
    assert "preview" in printed or "linear, 10 updates" in printed


@pytest.mark.long
def test_the_tests_of_the_wrapper_pass_with_the_wheel(
    python: Path, tmp_path: Path
) -> None:
    """In a copy of the tests, without the package next to it."""
    shutil.copytree(ROOT / "tests", tmp_path / "tests")
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, tmp_path)
    names = {
        "step": ("step", "closures", "factors", "hooks"),
        "groups": ("groups", "saving", "rewarm", "schedulers", "shapes"),
    }
    chosen = [f"tests/{wing}/test_{name}.py" for wing in names for name in names[wing]]
    code = "import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))"
    options = ["-q", "-p", "no:cacheprovider"]
    assert "passed" in run(python, "-c", code, *options, *chosen, cwd=tmp_path)
