"""Chromium for tests: software rendering, no traffic of its own, and a record of what a page should never do."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field

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
    page.on("console", lambda message: watch.errors.append(message.text) if message.type == "error" else None)
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
