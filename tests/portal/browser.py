"""Chromium for tests: software rendering, no traffic of its own, and a record of what a page should never do."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, Request, sync_playwright

CHROMIUM = os.environ.get("IMAGORA_CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
ARGUMENTS = (
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    "--disable-background-networking",
)
REPORT_VIOLATIONS = """
document.addEventListener('securitypolicyviolation', (event) =>
  console.error('policy violation', event.violatedDirective, event.blockedURI, event.sourceFile));
"""


@dataclass
class Watch:
    """Requests to other hosts, errors on the page, breaches of the page's policy."""

    outside: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def page_of(browser: Browser, base: str, *, locale: str = "fr-FR") -> Iterator[tuple[Page, Watch]]:
    """A page in a fresh profile; `base` is the only host that it should talk to."""
    context = browser.new_context(locale=locale, base_url=base, viewport={"width": 1400, "height": 900})
    context.add_init_script(REPORT_VIOLATIONS)
    page = context.new_page()
    watch = Watch()

    def note(request: Request) -> None:
        # Chromium's PDF viewer loads its parts from chrome: and chrome-extension:, which is no traffic.
        if request.url.startswith(("http", "ws")) and not request.url.startswith(f"{base}/"):
            watch.outside.append(request.url)

    page.on("request", note)
    # OHIF logs much of its own as errors; ours to answer for are refused and missing resources.
    ours = ("policy violation", "Failed to load resource", "Refused to", "imagora")
    page.on("console", lambda m: watch.errors.append(m.text) if m.type == "error" and m.text.startswith(ours) else None)
    page.on("pageerror", lambda error: watch.errors.append(str(error)))
    try:
        yield page, watch
    finally:
        context.close()


def grey_levels(locator: Locator) -> int:
    """How many grey levels the middle of an element shows; a blank canvas shows one."""
    picture = Image.open(io.BytesIO(locator.screenshot())).convert("L")
    width, height = picture.size
    middle = picture.crop((width // 4, height // 4, 3 * width // 4, 3 * height // 4))
    return len(middle.getcolors(256) or ())


def expect_picture(page: Page) -> None:
    """Wait until the middle of the viewport shows a picture."""
    canvas = page.locator("canvas.cornerstone-canvas").first
    canvas.wait_for()
    for _ in range(60):
        if grey_levels(canvas) > 16:
            break
        page.wait_for_timeout(250)
    else:
        pytest.fail("the viewport stayed blank")
    keep(page)


def keep(page: Page) -> None:
    """Keep a screenshot in the folder that IMAGORA_SHOTS names, for people to look at."""
    if folder := os.environ.get("IMAGORA_SHOTS"):
        page.wait_for_timeout(1000)
        name = os.environ["PYTEST_CURRENT_TEST"].partition("::")[2].partition(" ")[0].replace("/", "-")
        page.screenshot(path=f"{folder}/{name}.png")
