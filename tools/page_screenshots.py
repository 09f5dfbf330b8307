"""Takes the screenshots of the server's page that docs/page.md shows: python tools/page_screenshots.py [FOLDER]

Needs Debian's chromium (or another one: KOSMOS_EDGE_CHROMIUM), `pip install playwright`, and kosmos-edge[server]. The
page is shown as it is, served by nano; the fonts are those of the machine.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
MOST = 60_000  # bytes of one file
WIDE, TALL, PHONE = ({"width": width, "height": height} for width, height in ((1200, 720), (1200, 900), (360, 780)))


@contextlib.contextmanager
def server() -> Iterator[str]:
    """The address of a server of nano."""
    command = [sys.executable, "-P", "-m", "kosmos_edge", "serve", "-m", "nano", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if found := re.search(r"served at (\S+)", line):
                    break
            else:
                raise SystemExit("the server did not start")
            yield found.group(1)
        finally:
            process.terminate()


def save(page: Page, path: Path) -> None:
    """The visible part of the page as WebP of at most MOST bytes."""
    page.mouse.move(0, 0)
    image = Image.open(io.BytesIO(page.screenshot(animations="disabled"))).convert("RGB")
    for quality in range(88, 40, -4):
        data = io.BytesIO()
        image.save(data, "WEBP", quality=quality, method=6)
        if data.tell() <= MOST:
            break
    else:
        raise SystemExit(f"{path}: larger than {MOST} bytes")
    path.write_bytes(data.getvalue())
    print(f"{path}: {image.width} x {image.height}, {data.tell()} bytes")


def captioned(page: Page, example: int) -> None:
    """One of the example pictures with its caption, a phrase of which is lit."""
    page.locator("[data-example]:visible").nth(example).click()
    page.locator("#copy").wait_for()
    page.locator("#text .phrase").nth(1).click()


def main(folder: Path) -> None:
    """Takes all of them."""
    chromium = os.environ.get("KOSMOS_EDGE_CHROMIUM") or shutil.which("chromium")
    with server() as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])

        def opened(address: str, size: dict[str, int], scheme: str) -> Page:
            context = browser.new_context(viewport=size, color_scheme=scheme, reduced_motion="reduce")
            page = context.new_page()
            page.goto(address)
            page.locator("#model").wait_for()
            return page

        page = opened(url, WIDE, "light")
        save(page, folder / "page-empty.webp")
        page = opened(url, TALL, "light")
        for example in (2, 1, 0):
            captioned(page, example)
            if example:
                page.get_by_role("button", name="Close").click()
        save(page, folder / "page-light.webp")
        page = opened(url, TALL, "dark")
        captioned(page, 0)
        page.get_by_role("tab", name="Describe").click()
        area = page.locator("#picture").bounding_box()
        assert area is not None
        page.mouse.move(area["x"] + area["width"] * 0.63, area["y"] + area["height"] * 0.29)
        page.mouse.down()
        page.mouse.move(area["x"] + area["width"] * 0.93, area["y"] + area["height"] * 0.68)
        page.mouse.up()
        page.locator("#copy").wait_for()
        save(page, folder / "page-dark.webp")
        page = opened(url, PHONE, "light")
        captioned(page, 1)
        save(page, folder / "page-phone.webp")
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs")
