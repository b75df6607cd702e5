"""The page explore.md says what Python says: formulas, numbers, curves and code."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support import ROOT
from warmopt._groups.schedule import Schedule
from warmopt.shapes import MODES, last_update

pytestmark = pytest.mark.xdist_group("site")

FORMULAS = ROOT / "docs" / "_static" / "shapes.js"
LENGTHS = (1, 2, 3, 4, 5, 7, 10, 33, 100, 999, 12345)
STARTS = (None, 0.1, 1.0, 1.7)
SCHEDULES = ["none", "CosineAnnealingLR", "LinearLR", "PolynomialLR"]
SCHEDULES += ["ExponentialLR", "StepLR"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    reason = "needs a browser: pip install '.[browser]'"
    pytest.importorskip("PyQt6.QtWebEngineWidgets", reason=reason, exc_type=ImportError)
    from docs.scripts.browser import Browser

    made = Browser()
    yield made
    made.close()


@pytest.fixture(scope="module")
def page(browser: Any, site: Path) -> Any:
    """The browser, with the page open."""
    browser.open(site / "explore.html")
    return browser


def in_node(expression: str) -> Any:
    if shutil.which("node") is None:
        pytest.skip("needs node")
    script = f"{FORMULAS.read_text()}\nconsole.log(JSON.stringify({expression}))"
    done = subprocess.run(
        ["node", "-"], input=script, check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout)


@pytest.fixture(params=["node", "browser"])
def evaluate(request: pytest.FixtureRequest) -> Callable[[str], Any]:
    """The value of an expression in JavaScript, which may use our formulas."""
    if request.param == "node":
        return in_node
    run: Callable[[str], Any] = request.getfixturevalue("page").run
    return run


def cases() -> Iterator[tuple[str, int, float, float, float]]:
    """Shape, update, length, start and the factor that Python gives."""
    for name, (shape, rule) in MODES.items():
        for length in map(rule, (0.7, 0.9, 0.98, 0.999, 0.9999)) if rule else LENGTHS:
            for start in STARTS:
                schedule = Schedule(name, None if rule else int(length), start)
                end = round(length)
                for t in {*range(1, 12), end // 2, end - 1, end, end + 1, 3 * end} - {
                    0
                }:
                    factor = schedule.factor(t, length, schedule.start)
                    yield shape.__name__, t, length, schedule.start, factor


def test_the_formulas_are_those_of_python(evaluate: Callable[[str], Any]) -> None:
    every = list(cases())
    asked = json.dumps([each[:4] for each in every])
    found = evaluate(f"{asked}.map((each) => warmup.factor(...each))")
    assert len(every) > 3000
    for (*case, factor), same in zip(every, found, strict=True):
        assert same == pytest.approx(factor, rel=1e-9, abs=1e-12), case


def test_a_warmup_ends_where_it_ends_in_python(evaluate: Callable[[str], Any]) -> None:
    every = [(mode.shape, n) for mode in MODES.values() for n in (6, 20, 100)]
    asked = json.dumps([(shape.__name__, n, 10**5) for shape, n in every])
    found = evaluate(f"{asked}.map((each) => warmup.last(...each))")
    assert found == [last_update(shape, n) for shape, n in every]


def test_the_page_has_every_mode_and_every_schedule(page: Any) -> None:
    names = "[...document.getElementById('explore-{}').options].map((o) => o.value)"
    assert page.run(names.format("mode")) == [*MODES]
    assert page.run(names.format("schedule")) == SCHEDULES


def move(page: Any, controls: dict[str, Any]) -> None:
    """Sets controls one after the other, as a user does."""
    page.run(
        f"""Object.entries({json.dumps(controls)}).forEach(([name, value]) => {{
            const each = document.getElementById(`explore-${{name}}`);
            each[value === true || value === false ? "checked" : "value"] = value;
            each.dispatchEvent(new Event("input", {{bubbles: true}}));
        }})"""
    )


def readings(page: Any, updates: tuple[int, ...]) -> list[dict[str, float]]:
    """The numbers that the page shows as the slider is moved to these updates."""
    found = page.run(
        f"""{json.dumps(updates)}.map((t) => {{
            const at = (name) => document.getElementById(`explore-${{name}}`);
            at("update").value = t;
            at("update").dispatchEvent(new Event("input", {{bubbles: true}}));
            const names = ["chosen", "base", "factor", "effective"];
            const pairs = names.map((name) => [name, at(name).textContent]);
            return Object.fromEntries(pairs);
        }})"""
    )
    return [{name: float(shown) for name, shown in row.items()} for row in found]


def text(page: Any, name: str) -> str:
    shown: str = page.run(f"document.getElementById('explore-{name}').textContent")
    return shown


def drawn(page: Any, name: str) -> list[float]:
    """The heights of the points of a curve: 0 at the bottom, 1 at the top."""
    points = f"document.querySelector('polyline.{name}').getAttribute('points')"
    lines = (
        "[...document.querySelectorAll('line.grid')].map((e) => +e.getAttribute('y1'))"
    )
    bottom, *_, top = page.run(lines)
    heights = [float(point.split(",")[1]) for point in page.run(points).split()]
    return [(bottom - height) / (bottom - top) for height in heights]


def trained(code: str, total: int) -> tuple[list[float], list[float]]:
    """Runs the code of the page; returns base and effective LR of each update."""
    names: dict[str, Any] = {"model": torch.nn.Linear(2, 1)}
    exec(compile(code, "explore", "exec"), names)
    optimizer, scheduler = names["optimizer"], names.get("scheduler")
    base, effective = [], []
    for _ in range(total):
        for parameter in names["model"].parameters():
            parameter.grad = torch.zeros_like(parameter)
        base.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        effective += optimizer.get_last_lr()
        if scheduler is not None:
            scheduler.step()
    return base, effective


RUNS = [
    *({"mode": mode, "schedule": "CosineAnnealingLR"} for mode in MODES),
    *({"mode": "linear", "schedule": name} for name in SCHEDULES),
    *({"mode": "cosine", "schedule": name, "waits": True} for name in SCHEDULES),
    {"mode": "sqrt", "schedule": "StepLR", "start": 1.5, "lr": 0.3},
    {"mode": "untuned_linear", "beta2": "0.98", "schedule": "StepLR", "waits": True},
    {"mode": "saturating", "steps": 2, "schedule": "LinearLR", "waits": True},
    {"mode": "exponential", "start-slider": 0.25, "schedule": "none"},
    {"mode": "constant", "steps-slider": 30, "schedule": "none"},
    {"mode": "linear", "steps": 500, "schedule": "StepLR", "waits": True},  # never over
]
START = {"total": 120, "steps": 25, "lr": 0.001, "waits": False, "beta2": "0.999"}


@pytest.mark.parametrize("run", RUNS, ids=lambda run: "-".join(map(str, run.values())))
def test_the_numbers_and_curves_are_those_of_the_code_shown(
    page: Any, run: dict[str, Any]
) -> None:
    """The code runs in Python, with torch's own scheduler."""
    move(page, START | run)
    total = START["total"]
    base, effective = trained(text(page, "code"), total)
    updates = (1, 2, 24, 25, 26, 60, total - 1, total)
    for update, row in zip(updates, readings(page, updates), strict=True):
        assert row["chosen"] == update
        assert row["base"] == pytest.approx(base[update - 1], rel=1e-5)
        assert row["effective"] == pytest.approx(effective[update - 1], rel=1e-5)
        assert row["base"] * row["factor"] == pytest.approx(row["effective"], rel=2e-5)
    peak = max(1.0, run.get("start", 0.0)) * run.get("lr", START["lr"])
    for name, values in (("base", base), ("effective", effective)):
        assert drawn(page, name) == pytest.approx([v / peak for v in values], abs=1e-3)
    assert page.complaints == []


def test_a_control_changes_the_curve_the_numbers_and_the_code(page: Any) -> None:
    seen = []
    for controls in (START, {"mode": "log"}, {"steps": 60}, {"start": 0.5}):
        move(page, controls)
        move(page, {"update": 20})
        curve = drawn(page, "effective")
        seen.append((tuple(curve), text(page, "effective"), text(page, "code")))
    assert all(len({*each}) == len(seen) for each in zip(*seen, strict=True))


def test_the_button_copies_the_code_that_is_shown(page: Any) -> None:
    move(page, START | {"mode": "sqrt"})
    button = "document.getElementById('explore-code').closest('.highlight')"
    target = f"{button}.querySelector('.copybtn').dataset.clipboardTarget"
    copied = page.run(f"document.querySelector({target}).innerText")
    assert copied.strip() == text(page, "code")
    assert 'mode="sqrt"' in copied


def test_a_mode_brings_its_own_start(page: Any) -> None:
    own = {
        name: Schedule(name, None if r else 9).start for name, (_, r) in MODES.items()
    }
    for name, start in own.items():
        move(page, {"mode": "linear"})
        move(page, {"start": 0.5})
        assert "start=0.5" in text(page, "code")
        move(page, {"mode": name})
        assert "start=" not in text(page, "code")
        shown = float(page.run("document.getElementById('explore-start').value"))
        assert shown == pytest.approx(start, abs=1e-4)


@pytest.mark.parametrize("wrong", ["", "-5", "0", "1e9"])
def test_a_number_that_makes_no_sense_is_limited(page: Any, wrong: str) -> None:
    for name in ("steps", "total", "lr", "start"):
        move(page, {**START, "mode": "cosine", "schedule": "LinearLR", name: wrong})
        code = text(page, "code")
        assert not re.search("NaN|Infinity|undefined|null|=-", code)
        trained(code, 3)
        move(page, {"update": 2})
        assert float(text(page, "effective")) > 0
    move(page, START | {"start": 0})
    assert page.complaints == []


# --- how the site looks ---------------------------------------------------------------


def test_no_page_is_wider_than_a_phone_or_complains(browser: Any, site: Path) -> None:
    from docs.scripts.browser import DESKTOP, PHONE
    from docs.scripts.check_in_browser import look

    browser.resize(PHONE)
    pages = sorted(site.rglob("*.html"))
    wrong = {page.name: found for page in pages if (found := look(browser, page))}
    browser.resize(DESKTOP)
    assert len(pages) > 25
    assert wrong == {}


def test_a_picture_is_dark_where_the_page_is(
    browser: Any, site: Path, tmp_path: Path
) -> None:
    from PIL import Image

    from docs.scripts.themed import COLOURS

    for theme, ground in zip((False, True), COLOURS["ground"], strict=True):
        browser.open(site / "index.html", dark=theme)
        browser.picture(tmp_path / "page.png")
        place = "document.querySelector('p > img').getBoundingClientRect()"
        left, top = browser.run(f"[{place}.left + scrollX, {place}.top + scrollY]")
        with Image.open(tmp_path / "page.png") as image:
            pixel = image.convert("RGB").getpixel((round(left) + 4, round(top) + 4))
        assert "#{:02x}{:02x}{:02x}".format(*pixel) == ground
