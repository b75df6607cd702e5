"""A real browser that nobody sees: the Chromium of Qt (the extra `browser`).

Only files of this machine are loaded; whatever else a page asks for is refused, and
noted in `refused`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")  # no screen is needed
os.environ.setdefault("QTWEBENGINE_DISABLE_SANDBOX", "1")  # root may not have one
os.environ.setdefault("QTWEBENGINE_CHROMIUM_FLAGS", "--disable-gpu --no-sandbox")

from PyQt6.QtCore import QEventLoop, QTimer, QUrl
from PyQt6.QtWebEngineCore import (
    QWebEnginePage,
    QWebEngineProfile,
    QWebEngineUrlRequestInfo,
    QWebEngineUrlRequestInterceptor,
)
from PyQt6.QtWebEngineWidgets import QWebEngineView
from PyQt6.QtWidgets import QApplication

DESKTOP, PHONE = 1280, 390  # widths, in pixels


class _OnlyFiles(QWebEngineUrlRequestInterceptor):
    """Refuses what is not on this machine."""

    def __init__(self, refused: list[str]) -> None:
        super().__init__()
        self.refused = refused

    def interceptRequest(self, info: QWebEngineUrlRequestInfo) -> None:  # noqa: N802
        if info.requestUrl().scheme() not in ("file", "data", "blob"):
            self.refused.append(info.requestUrl().toString())
            info.block(True)


class _Page(QWebEnginePage):
    """A page whose warnings and errors can be read."""

    complaints: list[str]

    def javaScriptConsoleMessage(  # noqa: N802
        self, level: Any, message: str, line: int, source: str
    ) -> None:
        if level != QWebEnginePage.JavaScriptConsoleMessageLevel.InfoMessageLevel:
            self.complaints.append(f"{Path(source).name}:{line}: {message}")


class Browser:
    """One window.

    Attributes:
        complaints: The warnings and errors in the console since `open`.
        refused: What pages wanted from elsewhere.
    """

    def __init__(self, width: int = DESKTOP, height: int = 900) -> None:
        self._app = QApplication.instance() or QApplication(["browser"])
        self.refused: list[str] = []
        self.complaints: list[str] = []
        self._profile = QWebEngineProfile()  # keeps nothing on the disk
        self._interceptor = _OnlyFiles(self.refused)
        self._profile.setUrlRequestInterceptor(self._interceptor)
        self._page = _Page(self._profile)
        self._page.complaints = self.complaints
        self._view = QWebEngineView()
        self._view.setPage(self._page)
        self._view.resize(width, height)
        self._view.show()

    def resize(self, width: int, height: int = 900) -> None:
        """Makes the window wider, narrower, higher or lower."""
        self._view.resize(width, height)
        if self._page.url().isLocalFile():
            self._settle()

    def _settle(self) -> None:
        """Waits until the page is as large as the window, and painted."""
        self.run(
            "(() => { window.settled = false; requestAnimationFrame(() =>"
            "requestAnimationFrame(() => { window.settled = true; })); })()"
        )
        size = f"innerWidth === {self._view.width()} && "
        size += f"innerHeight === {self._view.height()}"
        self._until(f"{size} && window.settled")

    def _until(self, condition: str) -> None:
        """Waits until something is true of the page."""
        for _ in range(6000):
            if self.run(condition):
                return
            self.wait(0.05)
        raise RuntimeError(f"This did not become true: {condition}")

    def wait(self, seconds: float) -> None:
        """Lets the page go on."""
        loop = QEventLoop()
        QTimer.singleShot(round(1000 * seconds), loop.quit)
        loop.exec()

    def open(self, page: Path, dark: bool = False) -> None:
        """Loads a page, with all its pictures.

        Raises:
            RuntimeError: It does not load within five minutes.
        """
        self.complaints.clear()
        loop, loaded = QEventLoop(), []
        self._page.loadFinished.connect(loaded.append)
        self._page.loadFinished.connect(loop.quit)
        QTimer.singleShot(300_000, loop.quit)
        self._page.load(QUrl.fromLocalFile(str(page.resolve())))
        loop.exec()
        self._page.loadFinished.disconnect()
        if loaded != [True]:
            raise RuntimeError(f"{page} does not load: {loaded}")
        self.run(f"document.body.dataset.theme = {'dark' if dark else 'light'!r}")
        self.run("[...document.images].forEach(each => each.loading = 'eager')")
        self._until("[...document.images].every((each) => each.complete)")
        self._settle()

    def run(self, script: str) -> Any:
        """The value of an expression in JavaScript, as far as JSON can say it.

        Raises:
            RuntimeError: There is no answer within five minutes.
        """
        loop, answers = QEventLoop(), []

        def answer(value: Any) -> None:
            answers.append(value)
            loop.quit()

        self._page.runJavaScript(f"JSON.stringify({script}) ?? 'null'", answer)
        QTimer.singleShot(300_000, loop.quit)
        if not answers:
            loop.exec()
        if not answers or answers == [None] or answers == [""]:
            raise RuntimeError(f"No answer to {script!r}: {self.complaints}")
        return json.loads(answers[0])

    def picture(self, path: Path, most: int = 4000) -> None:
        """Saves what the whole page looks like, up to a height in pixels."""
        width, height = self._view.width(), self._view.height()
        whole = self.run("document.documentElement.scrollHeight")
        self.resize(width, min(whole, most))
        self.wait(0.5)
        image = None
        while image != (now := self._view.grab().toImage()):  # until it stays the same
            image = now
            self.wait(0.3)
        image.save(str(path))
        self.resize(width, height)

    def close(self) -> None:
        """Ends the browser."""
        self._view.close()
        self._view.setPage(None)
        self._page.deleteLater()
        self._view.deleteLater()
        self.wait(0.1)
