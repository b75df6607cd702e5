"""What is said about releases of torch, Python and hosts is what the records say."""

from __future__ import annotations

import re

import pytest
import yaml

from benchmarks import marked
from tests.support import ROOT, versions

RECORDS = versions.records()
GOOD = [each for each in RECORDS if not each["failed"] + each["error"]]
PAIRS = {
    (each["torch"].partition("+")[0], versions.minor(each["python"])) for each in GOOD
}
PYPROJECT = (ROOT / "pyproject.toml").read_text()


def oldest(found: list[str]) -> str:
    return min(found, key=versions.release)


def test_the_page_and_the_readme_are_made_from_the_records() -> None:
    readme = versions.README.read_text()
    assert versions.PAGE.read_text() == versions.page(RECORDS)
    assert versions.sentence(RECORDS) in readme
    assert readme == versions.with_sentence(readme, RECORDS)


def test_every_recorded_run_has_passed() -> None:
    assert [each["torch"] for each in RECORDS if each not in GOOD] == []


def test_the_classifiers_name_the_pythons_that_were_tested() -> None:
    named = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', PYPROJECT)
    assert {python for _, python in PAIRS} == set(named)
    assert f'requires-python = ">={oldest(named)}"' in PYPROJECT


@pytest.mark.parametrize("package", ["torch", "lightning", "transformers"])
def test_the_oldest_that_is_allowed_was_tested(package: str) -> None:
    found = re.search(rf'"{package}>=([\d.]+)"', PYPROJECT)
    assert found
    tested = [{"torch": each["torch"], **each["hosts"]}[package] for each in GOOD]
    assert versions.release(oldest(tested))[:2] == versions.release(found[1])[:2]


def test_the_public_workflow_runs_these_pairs() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    matrix = jobs["torch"]["strategy"]["matrix"]["include"]
    assert {(each["torch"], each["python"]) for each in matrix} == PAIRS


def test_a_record_is_amended_by_tests_that_pass_now() -> None:
    now = {"torch": "2.6.0", "python": "3.12.1", "hosts": {}, "commit": "b"}
    now["skipped_because"] = {"no Muon": 1}
    old = {**now, "commit": "a", "passed": 8, "skipped": 1, "failed": 3}
    old["not_passed"] = ["w", "x", "y"]
    record = versions.amended(old, now, {"y", "z"}, {"w"})
    assert record == {
        **old,
        "passed": 9,
        "skipped": 2,
        "failed": 1,
        "skipped_because": {"no Muon": 2},
        "not_passed": ["x"],
        "passed_later": {"b": ["y"]},
        "skipped_later": {"b": ["w"]},
    }
    assert "- torch 2.6.0: 1 of `y`\n" in versions.mended([record])
    with pytest.raises(ValueError, match="different releases"):
        versions.amended(old, {**now, "torch": "2.7.0"}, {"y"}, set())


def test_an_empty_part_of_a_page_is_filled_and_nothing_else() -> None:
    page = "<!-- a -->\n<!-- end -->\nkept\n<!-- b -->\nx\n<!-- end -->\n"
    assert marked.filled(page, "a", "new\n") == page.replace("a -->\n", "a -->\nnew\n")
