"""Tries a release from beginning to end, against an index on this machine.

It builds both files, checks and uploads them, installs the package by its name in a new
environment, and runs each Python block of the README there. Nothing is published:
    make rehearse-release
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import venv
import zipfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from email import message_from_bytes
from pathlib import Path
from tempfile import TemporaryDirectory

import warmopt
from tests.support import ROOT
from tests.support.pages import blocks, prints

PAGE = ROOT / "build" / "release.html"
CONSTRAINTS = ROOT / "constraints.txt"
# Warnings are errors, except for the one of a torch without NumPy.
WARNINGS = ("-W", "error", "-W", "ignore:Failed to initialize NumPy")


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Runs a command without questions; its errors are shown and end everything."""
    never_asks = {**os.environ, "TWINE_USERNAME": "nobody", "TWINE_PASSWORD": "none"}
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, cwd=cwd, env=never_asks
    )
    return done.stdout


@contextmanager
def index(folder: Path) -> Iterator[str]:
    """The address of an index that keeps its files here and takes every upload."""
    folder.mkdir()
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--interface", "127.0.0.1", "--port", str(port), "--disable-fallback"]
    options += ["--authenticate", ".", "--passwords", "."]
    command = [sys.executable, "-m", "pypiserver", "run", *options, str(folder)]
    server = subprocess.Popen(command)
    try:
        for _ in range(100):
            with closing(socket.socket()) as asked:
                if not asked.connect_ex(("127.0.0.1", port)):
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def render(wheel: Path) -> None:
    """Writes the page that an index makes of the wheel's own description."""
    from readme_renderer import markdown

    with zipfile.ZipFile(wheel) as archive:
        [name] = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
        metadata = message_from_bytes(archive.read(name))
    body = markdown.render(metadata.get_payload())
    if body is None:
        raise ValueError("The README must be Markdown that can be rendered.")
    facts = [f"{key}: {value}" for key, value in metadata.items()]
    head = f"<meta charset='utf-8'><title>{metadata['Name']}</title>"
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(head + body + f"<pre>{chr(10).join(facts)}</pre>", encoding="utf-8")


def main() -> None:
    version = warmopt.__version__
    python = sys.executable
    with TemporaryDirectory() as name:
        folder = Path(name)
        dist, home, empty = folder / "dist", folder / "venv", folder / "empty"
        print(f"1. build warmopt {version}")
        run(python, "-m", "build", "--outdir", dist, ROOT)
        files = sorted(dist.iterdir())
        print(run(python, "-m", "twine", "check", "--strict", *files))
        render(next(dist.glob("*.whl")))
        print(f"   its page: {PAGE}")
        with index(folder / "index") as url:
            print("2. upload")
            to = [
                "--repository-url",
                url,
                "--non-interactive",
                "--disable-progress-bar",
            ]
            run(python, "-m", "twine", "upload", *to, *files)
            print("3. install it by its name in a new environment")
            venv.create(home, with_pip=True)
            own = home / "bin" / "python"
            pip = [own, "-m", "pip", "--quiet", "--no-input"]
            run(*pip, "install", "--constraint", CONSTRAINTS, "torch")
            run(*pip, "install", "--index-url", f"{url}/simple/", f"warmopt=={version}")
            run(*pip, "check")
        print("4. run the README there")
        empty.mkdir()
        for block in blocks((ROOT / "README.md").read_text()):
            began = time.monotonic()
            command = [own, *WARNINGS, "-c", block]
            printed = run(*command, cwd=empty).splitlines()
            expected = prints(block)
            if printed != expected:
                raise ValueError(f"A block must print {expected}, got {printed}.")
            seconds = time.monotonic() - began
            print(f"   {seconds:.1f} s: {printed}")


if __name__ == "__main__":
    main()
