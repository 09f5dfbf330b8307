"""Chromium for tests of a page: Debian's, driven by Playwright. Skips where one of the two is not here."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
MILLISECONDS = 20_000  # the longest wait for one thing


def playwright_api() -> Any:
    """playwright.sync_api, or a skip."""
    if chromium() is None:
        pytest.skip(
            "chromium is not here (Debian: apt install chromium; or KOSMOS_EDGE_CHROMIUM)", allow_module_level=True
        )
    return pytest.importorskip("playwright.sync_api", reason="Playwright is not here: pip install playwright")


def chromium() -> str | None:
    """The program's path."""
    return os.environ.get("KOSMOS_EDGE_CHROMIUM") or shutil.which("chromium")


@dataclass
class Tab:
    """A page of the browser, and what it complained about and asked for."""

    page: Any
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.set_default_timeout(MILLISECONDS)
        self.page.on("console", lambda message: self._heard(message.type, message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def _heard(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.complaints.append(text)

    def text(self, selector: str) -> str:
        """The text of an element that is shown."""
        found = self.page.locator(selector)
        found.wait_for()
        return str(found.inner_text())

    def take(self, picture: Path | dict[str, Any]) -> None:
        """Chooses a picture."""
        self.page.locator("#file").set_input_files(picture)

    def finished(self) -> str:
        """Waits for the answer; its text."""
        self.page.locator("#copy").wait_for()
        return self.text("#text")

    def focused(self, expression: str = "element.id") -> Any:
        """About the element that has the focus."""
        return self.page.evaluate(f"(() => {{ const element = document.activeElement; return {expression}; }})()")

    def violations(self) -> list[str]:
        """What axe-core objects to."""
        pytest.importorskip("axe_playwright_python", reason="axe-core is not here: pip install axe-playwright-python")
        script = (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")
        if not self.page.evaluate("'axe' in window"):
            self.page.evaluate(script)
        found = self.page.evaluate("tags => axe.run(document, {runOnly: tags})", RULES)
        assert len(found["passes"]) > 10
        return [f"{one['id']}: {[node['html'] for node in one['nodes']]}" for one in found["violations"]]


@contextlib.contextmanager
def browsing(api: Any) -> Iterator[Any]:
    """The browser. Without a sandbox, which root cannot have; the pages are ours."""
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox", *CAMERA])
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def opened(browser: Any, url: str, **settings: Any) -> Iterator[Tab]:
    """A tab of its own, as of a new user, at the address. settings: Playwright's, of a context."""
    with contextlib.closing(browser.new_context(**settings)) as context:
        tab = Tab(context.new_page())
        tab.page.goto(url)
        yield tab


__all__ = ["Tab", "browsing", "opened", "playwright_api"]
