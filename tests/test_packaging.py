"""The sdist and the wheel hold what they should, and the wheel works by itself."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.processes import run_python

pytestmark = pytest.mark.xdist_group("packaging")  # two builds at once would clash

ROOT = Path(__file__).parent.parent


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
    package = {f"warmopt/{path.name}" for path in (ROOT / "warmopt").glob("*.py")}
    assert {n for n in names if ".dist-info/" not in n} == package | {
        "warmopt/py.typed"
    }
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_sdist_builds_the_wheel(dist: Path) -> None:
    [sdist] = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    assert {"README.md", "LICENSE", "pyproject.toml", "warmopt/py.typed"} <= names


def test_the_wheel_works_without_the_repository(dist: Path, tmp_path: Path) -> None:
    [wheel] = dist.glob("*.whl")
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    subprocess.run([*install, "--target", str(site), str(wheel)], check=True)
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r}); import torch, warmopt; "
        "w = torch.nn.Parameter(torch.zeros(1)); "
        "print(warmopt.Warmed(torch.optim.SGD([w], lr=1.0), steps=4).factors, "
        "warmopt.__file__)"
    )
    printed = run_python(code, "-W", "error", cwd=tmp_path)
    factors, file = printed.rsplit(maxsplit=1)
    assert factors == "[0.25]"
    assert Path(file).is_relative_to(site)
