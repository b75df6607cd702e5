"""Opens every page of the site in Chromium, as wide as a phone, and says what is wrong.

    make docs && python -m docs.scripts.check_in_browser [--pictures FOLDER] [PAGE ...]

It needs the extra `browser`. It checks that a page does not scroll sideways (tables,
pictures and formulas in it may), that it loads nothing from other servers, that its
formulas and pictures can be seen, and that the console is empty. `--pictures` saves
what the pages look like: on a desktop and a phone, light and dark.
"""

import argparse
import json
import sys
from pathlib import Path

from docs.scripts.browser import DESKTOP, PHONE, Browser

SITE = Path(__file__).parent.parent.parent / "build" / "docs"
LOOK = """(() => {
  const may = "pre, .table-wrapper, .formula, .sd-card, [hidden]", width = innerWidth;
  const all = [...document.querySelectorAll("article *")];
  const said = (found) => found.slice(0, 3).map(each => each.outerHTML.slice(0, 80));
  const box = (each) => each.getBoundingClientRect();
  const page = document.documentElement.scrollWidth;
  return {
    scrolls_sideways: page > width ? page : 0,
    too_wide: said(all.filter(each => box(each).right > width && !each.closest(may))),
    unseen: said(all.filter(each => each.matches("img, math") &&
      (!box(each).height || each.naturalWidth === 0))),
  };
})()"""


def look(browser: Browser, page: Path) -> dict:
    """What is wrong with a page: empty if it is well."""
    browser.refused.clear()
    browser.open(page)
    found = browser.run(LOOK)
    found["from_elsewhere"] = [*browser.refused]
    found["console"] = [*browser.complaints]
    return {what: which for what, which in found.items() if which}


def save_pictures(browser: Browser, page: Path, folder: Path) -> None:
    """Saves what a page looks like, at two widths and in two themes."""
    for width in (DESKTOP, PHONE):
        browser.resize(width)
        for dark in (False, True):
            browser.open(page, dark)
            theme = "dark" if dark else "light"
            browser.picture(folder / f"{page.stem}-{width}-{theme}.png")


def main() -> int:
    """The command; returns 1 if something is wrong."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("pages", nargs="*", help="such as study.html; all if left out")
    given = parser.parse_args()
    browser = Browser(PHONE)
    pages = [SITE / name for name in given.pages] or sorted(SITE.rglob("*.html"))
    found = {str(page.relative_to(SITE)): look(browser, page) for page in pages}
    if given.pictures:
        for page in pages:
            save_pictures(browser, page, given.pictures)
    browser.close()
    wrong = {page: each for page, each in found.items() if each}
    print(json.dumps(wrong, indent=2) if wrong else f"{len(pages)} pages, all is well.")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
