"""What is said about releases of torch, Python and hosts is what the records say."""

from __future__ import annotations

import re

import pytest
import yaml

from tests.support import ROOT, versions

RECORDS = versions.records()
GOOD = [each for each in RECORDS if not each["failed"] + each["error"]]
PAIRS = {
    (each["torch"].partition("+")[0], versions.minor(each["python"])) for each in GOOD
}
PYPROJECT = (ROOT / "pyproject.toml").read_text()


def oldest(versions_: list[str]) -> str:
    return min(versions_, key=versions.release)


def test_the_page_and_the_readme_are_made_from_the_records() -> None:
    readme = versions.README.read_text()
    assert versions.PAGE.read_text() == versions.page(RECORDS)
    assert versions.sentence(RECORDS) in readme
    assert readme == versions.with_sentence(readme, RECORDS)


def test_every_recorded_run_has_passed() -> None:
    assert [each["torch"] for each in RECORDS if each not in GOOD] == []


def test_the_classifiers_name_the_pythons_that_were_tested() -> None:
    named = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', PYPROJECT)
    assert set(named) == {python for _, python in PAIRS}
    assert f'requires-python = ">={oldest(named)}"' in PYPROJECT


def test_the_oldest_torch_is_the_one_that_is_asked_for() -> None:
    torch = oldest([torch for torch, _ in PAIRS])
    assert f'dependencies = ["torch>={versions.minor(torch)}"]' in PYPROJECT


@pytest.mark.parametrize("host", ["lightning", "transformers"])
def test_the_oldest_host_is_the_one_that_is_asked_for(host: str) -> None:
    asked = oldest([each["hosts"][host] for each in GOOD])
    assert f'{host} = ["{host}>={asked}"]' in PYPROJECT


def test_the_public_workflow_runs_the_same_pairs() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    matrix = jobs["torch"]["strategy"]["matrix"]["include"]
    assert {(each["torch"], each["python"]) for each in matrix} == PAIRS
