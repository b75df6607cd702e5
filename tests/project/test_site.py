"""The site builds without warnings, its links work, it loads nothing from outside."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
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


PICTURES = ROOT / "docs" / "pictures"


def test_the_script_draws_the_pictures_that_there_are(tmp_path: Path) -> None:
    from docs.scripts import draw_pictures

    draw_pictures.draw(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert len(names) == len(draw_pictures.PICTURES)
    pictures = {path.name for path in PICTURES.glob("*.svg")}
    made_elsewhere = "demo", "study-", "performance"
    others = {name for name in pictures if name.startswith(made_elsewhere)}
    assert names | others == pictures


def test_every_picture_is_shown_somewhere_and_none_is_missing() -> None:
    shown = set()
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        shown |= set(re.findall(r"\bpictures/([\w-]+\.\w+)", page.read_text()))
    assert shown == {path.name for path in PICTURES.iterdir()}


@pytest.mark.parametrize(
    "path", sorted(PICTURES.glob("*.svg")), ids=lambda path: path.stem
)
def test_a_picture_has_no_colour_that_is_the_same_in_light_and_dark(path: Path) -> None:
    from docs.scripts.themed import COLOURS

    text = path.read_text()
    ET.fromstring(text)
    colours = {*re.findall(r"(?:fill|stroke): ([^;\"}]*)", text)}
    assert {"var(--ink)", "var(--ground)"} <= colours
    assert colours <= {"none", *(f"var(--{name})" for name in COLOURS)}
    assert "@media (prefers-color-scheme: dark)" in text
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"|<!DOCTYPE[^>]*>', "", text)


def luminance(colour: str) -> float:
    """As the Web Content Accessibility Guidelines define it."""
    parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [
        p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_the_colours_of_pictures_can_be_seen(theme: int) -> None:
    from docs.scripts.themed import COLOURS, CURVES

    ground = luminance(COLOURS["ground"][theme])
    for name in ("ink", "muted", *CURVES):
        both = sorted([ground, luminance(COLOURS[name][theme])])
        contrast = (both[1] + 0.05) / (both[0] + 0.05)
        assert contrast >= 4.5, (name, contrast)


def test_a_colour_without_a_name_is_refused(tmp_path: Path) -> None:
    from docs.scripts.themed import rewrite

    path = tmp_path / "picture.svg"
    path.write_text('<svg><defs/><path style="fill: #123456"/></svg>')
    with pytest.raises(ValueError, match="got #123456"):
        rewrite(path)


def test_the_site_has_five_layers_and_every_page_is_in_one(site: Path) -> None:
    index = (site / "index.html").read_text()
    captions = re.findall(r'class="caption-text">([^<]*)<', index)
    assert captions == ["Start", "Guides", "Reference", "Evidence", "Contributing"]


def test_code_can_be_copied_and_the_logo_is_shown(pages: dict[Path, Page]) -> None:
    for path, page in pages.items():
        loaded = " ".join(page.loads + page.links)
        assert "copybutton.js" in loaded, path
        assert loaded.count("logo.svg") >= 1, path
