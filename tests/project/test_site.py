"""The site builds without warnings, its links work, it loads nothing from outside."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from itertools import filterfalse
from pathlib import Path
from urllib.parse import unquote

import pytest

import warmopt
from tests.support import ROOT

pytestmark = pytest.mark.xdist_group("site")


class Page(HTMLParser):
    """The ids of an HTML page, its links, and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str | None] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id":
                self.ids.add(value)
            elif name in ("href", "src", "srcset", "data", "poster") and value:
                (self.links if tag == "a" else self.loads).append(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built in its own process, like `make docs`; warnings are errors."""
    out = tmp_path_factory.mktemp("site")
    options = ["--quiet", "--fail-on-warning", "--doctree-dir", str(out / "doctrees")]
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *options, "docs", str(out / "html")],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return out / "html"


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path.read_text()) for path in site.rglob("*.html")}


def is_elsewhere(url: str) -> bool:
    return re.match(r"([a-z][a-z0-9+.-]*:|//)", url) is not None


def test_every_link_leads_to_a_page_and_a_place_that_there_are(
    pages: dict[Path, Page],
) -> None:
    broken, seen = set(), 0
    for path, page in pages.items():
        for url in filterfalse(is_elsewhere, [*page.links, *page.loads]):
            seen += 1
            name, _, place = unquote(url).partition("#")
            target = (path.parent / name.partition("?")[0]).resolve() if name else path
            known = pages[target].ids if target in pages else set()
            if not target.is_file() or (place and place not in known):
                broken.add(f"{path.name}: {url}")
    assert seen > 500
    assert not broken


def test_no_page_loads_anything_from_elsewhere(
    site: Path, pages: dict[Path, Page]
) -> None:
    loaded = [url for page in pages.values() for url in page.loads]
    assert not [url for url in loaded if is_elsewhere(url)]
    for sheet in site.rglob("*.css"):
        assert not re.findall(r"(?:url\(|@import)\W*(?:https?:)?//", sheet.read_text())


def test_links_to_elsewhere_are_safe(pages: dict[Path, Page]) -> None:
    outside = {u for page in pages.values() for u in page.links if is_elsewhere(u)}
    assert outside
    assert all(url.startswith("https://") for url in outside)


def test_formulas_are_written_as_mathml(site: Path) -> None:
    """No script has to write them, and no TeX is left."""
    shapes = (site / "api" / "shapes.html").read_text()
    formulas = re.findall(r"<math.*?</math>", shapes, re.DOTALL)
    assert len(formulas) >= len(set(warmopt.shapes.MODES.values())) - 2
    assert "mathjax" not in shapes.lower()
    assert not [each for each in formulas if "\\" in each]


def test_every_public_name_has_a_place_in_the_reference(
    pages: dict[Path, Page],
) -> None:
    ids = {each for page in pages.values() for each in page.ids}
    types = {"Criterion", "FixedMode", "Mode", "Shape"}
    for module in (warmopt, warmopt.shapes, warmopt.criteria):
        for name in {*module.__all__} - types - {"__version__"}:
            assert f"{module.__name__}.{name}" in ids, name


def test_the_page_of_the_command_line_has_every_option(site: Path) -> None:
    text = re.sub(r"<[^>]*>", "", (site / "command-line.html").read_text())
    for option in ("--output", "--epochs", "--on-settled", "--criterion", "--beta2"):
        assert option in text


def test_the_script_draws_the_pictures_that_there_are(tmp_path: Path) -> None:
    from docs.scripts.draw_pictures import PICTURES, draw

    draw(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert len(names) == len(PICTURES)
    pictures = {path.name for path in (ROOT / "docs" / "pictures").iterdir()}
    others = {name for name in pictures if name.startswith(("demo", "study-"))}
    assert names | others == pictures
