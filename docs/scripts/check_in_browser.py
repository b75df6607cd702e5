"""Opens every page of the site in Chromium, as wide as a phone, and says what is wrong.

    make docs && python -m docs.scripts.check_in_browser

Run this by hand; it needs `chromium`. It checks that a page does not scroll sideways
(tables, pictures and formulas in it may), that it loads nothing from other servers, and
that its formulas and pictures can be seen.
"""

import json
import subprocess
import sys
import tempfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SITE = Path(__file__).parent.parent.parent / "build" / "docs"
WIDTH = 390
MAY_SCROLL = "pre, .table-wrapper, .formula, p:has(> img)"

# Each page gets its own frame. A page may look into frames from the same server.
LOOK = """<script>
const results = {};
async function look(page) {
  const frame = document.createElement("iframe");
  frame.width = WIDTH; frame.height = 800; frame.src = page;
  const loaded = new Promise(done => frame.onload = done);
  document.body.append(frame); await loaded;
  const seen = frame.contentDocument, main = seen.documentElement;
  for (const image of seen.images) image.loading = "eager";
  await Promise.all([...seen.images].map(image => image.decode().catch(() => 0)));
  const asked = frame.contentWindow.performance.getEntriesByType("resource");
  results[page] = {
    scrolls_sideways: main.scrollWidth > WIDTH ? main.scrollWidth : 0,
    too_wide: [...seen.querySelectorAll("article *")].filter(each =>
      each.getBoundingClientRect().right > WIDTH && !each.closest(MAY_SCROLL)
    ).slice(0, 3).map(each => each.outerHTML.slice(0, 80)),
    from_elsewhere: asked.map(each => each.name).filter(
      name => !name.startsWith(location.origin)),
    unseen: [...seen.querySelectorAll("article img, article math")].filter(each =>
      !each.getBoundingClientRect().height || each.naturalWidth === 0
    ).map(each => each.outerHTML.slice(0, 80)),
  };
  frame.remove();
}
window.onload = async () => {
  for (const page of PAGES) await look(page);
  await fetch("/results", {method: "POST", body: JSON.stringify(results)});
};
</script><body></body>"""


def look(site: Path) -> dict[str, dict]:
    """Opens all pages; returns for each page, by name, what was found."""
    pages = sorted(str(path.relative_to(site)) for path in site.rglob("*.html"))
    script = LOOK.replace("PAGES", json.dumps(pages)).replace("WIDTH", str(WIDTH))
    script = script.replace("MAY_SCROLL", json.dumps(MAY_SCROLL))

    results: dict[str, dict] = {}
    seen = threading.Event()

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path != "/look":
                return super().do_GET()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(script.encode())
            return None

        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            results.update(json.loads(self.rfile.read(length)))
            seen.set()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    options = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    options += "--disable-background-networking --disable-component-update "
    options += "--disable-sync"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        address = f"http://127.0.0.1:{server.server_port}/look"
        browser = subprocess.Popen(
            ["chromium", *options.split(), f"--user-data-dir={profile}", address],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        answered = seen.wait(timeout=120)
        browser.terminate()
        browser.wait()
    assert answered, "Chromium has not answered."
    assert sorted(results) == pages
    return results


if __name__ == "__main__":
    seen = look(Path(sys.argv[1]) if sys.argv[1:] else SITE)
    wrong = {page: {k: v for k, v in each.items() if v} for page, each in seen.items()}
    wrong = {page: each for page, each in wrong.items() if each}
    print(json.dumps(wrong, indent=2) if wrong else f"{len(seen)} pages, all is well.")
    sys.exit(bool(wrong))
