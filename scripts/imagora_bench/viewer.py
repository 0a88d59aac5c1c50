"""OHIF in Chromium opening a CT: through Imagora, and the same build and the same Orthanc behind nginx.

Each opening is a fresh profile's, so nothing comes from the browser's cache. Times are the browser's own: from the
request for the page to the end of the answers that hold frames.
"""

from __future__ import annotations

import os
import shutil
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from imagora_demo.orthanc import free_port
from playwright.sync_api import Browser, CDPSession, sync_playwright

from imagora.settings import load_settings
from imagora_bench import member, nginx
from imagora_bench.data import CT_UID, HEAVY
from imagora_bench.parts import Bench
from imagora_bench.processes import BenchError
from imagora_bench.ratios import Row, compare, interleave
from imagora_bench.servers import prepare, started

TARGET = 1.15
_PATIENCE_S = 180.0
#: As in tests/portal: software rendering, no traffic of its own.
_ARGUMENTS = (
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    "--disable-background-networking",
)


def measure(bench: Bench) -> list[Row]:
    plan, orthanc = bench.plan, bench.orthancs[HEAVY]
    with ExitStack() as stack:
        server = stack.enter_context(started(bench, prepare(bench, "ohif", {HEAVY: orthanc.dicomweb_url})))
        dist = load_settings(server.settings).portal.ohif_path
        if not (dist / "index.html").exists():
            raise BenchError(f"OHIF is missing in {dist}: scripts/setup brings it")
        with urllib.request.urlopen(f"{server.url}/app-config.js", timeout=20) as answer:
            config = answer.read()
        port = free_port()
        proxy = nginx.viewer(bench.folder, port=port, upstream=orthanc.url, dist=dist, config=config)
        stack.enter_context(proxy).wait_ready(port)
        urls = {"imagora": server.url, "nginx": f"http://127.0.0.1:{port}"}
        path = f"/dicom-web/studies/{CT_UID}"
        bench.same_pixels({"direct": urls["nginx"] + path, "imagora": urls["imagora"] + path})
        browser = stack.enter_context(_chromium())
        bench.tell(f"OHIF opens {plan.instances} CT")
        firsts: dict[str, list[float]] = {"imagora": [], "nginx": []}
        lasts = interleave(
            {name: partial(_open, browser, url, plan.instances, firsts[name]) for name, url in urls.items()},
            plan.openings,
        )
    what = f"OHIF, {plan.instances} CT, from a click to the"
    # The first round does not count.
    pairs = (("first", {name: times[1:] for name, times in firsts.items()}), ("last", lasts))
    return [
        compare(f"{what} {which} frame, against nginx before OHIF and Orthanc", s["imagora"], s["nginx"], most=TARGET)
        for which, s in pairs
    ]


@contextmanager
def _chromium() -> Iterator[Browser]:
    program = os.environ.get("IMAGORA_CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
    if not Path(program).exists():
        raise BenchError("Chromium is missing: scripts/setup --tests installs it")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(_ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


def _open(browser: Browser, base: str, frames: int, firsts: list[float]) -> float:
    """→ seconds until the last frame has come; those until the first are added to `firsts`."""
    context = browser.new_context(locale="fr-FR", viewport={"width": 1400, "height": 900})
    try:
        page = context.new_page()
        watch = _Watch(context.new_cdp_session(page))
        page.goto(f"{base}/viewer?StudyInstanceUIDs={CT_UID}", wait_until="commit")
        limit = time.monotonic() + _PATIENCE_S
        while len(watch.whole) < frames and not watch.faults:
            if time.monotonic() > limit:
                raise BenchError(f"OHIF at {base}: {len(watch.whole)} of {frames} frames after {_PATIENCE_S:g} s")
            page.wait_for_timeout(50)
    finally:
        context.close()
    if watch.faults or len(watch.whole) != frames:
        raise BenchError(f"OHIF at {base}: {len(watch.whole)} frames, {watch.faults[:1]}")
    ends = sorted(watch.whole.values())
    firsts.append(ends[0] - watch.began)
    return ends[-1] - watch.began


class _Watch:
    """What Chromium says of its requests (Chrome DevTools Protocol). Times are its own, in seconds.

    A frame has come when all of its bytes have. The end of the request would be another event for each server: OHIF
    cancels it as soon as it reads the closing boundary, if the end of the answer comes in a packet of its own.
    """

    def __init__(self, session: CDPSession) -> None:
        self.began = 0.0
        self.whole: dict[str, float] = {}  # by URL
        self.faults: list[str] = []
        self._urls: dict[str, str] = {}  # of the frames that are asked for, by request
        self._came: dict[str, int] = {}  # bytes, by request
        session.on("Network.requestWillBeSent", self._sent)
        session.on("Network.responseReceived", self._answered)
        session.on("Network.dataReceived", self._received)
        session.on("Network.loadingFailed", self._failed)
        session.send("Network.enable")

    def _sent(self, event: dict[str, Any]) -> None:
        if event.get("type") == "Document" and not self.began:
            self.began = event["timestamp"]
        if "/frames/" in event["request"]["url"]:
            self._urls[event["requestId"]] = event["request"]["url"]

    def _answered(self, event: dict[str, Any]) -> None:
        url = self._urls.get(event["requestId"])
        if url is not None and event["response"]["status"] != 200:
            self.faults.append(f"{url}: status {event['response']['status']}")

    def _received(self, event: dict[str, Any]) -> None:
        url = self._urls.get(event["requestId"])
        if url is None:
            return
        came = self._came[event["requestId"]] = self._came.get(event["requestId"], 0) + event["dataLength"]
        if came >= member.INSTANCE_BYTES:
            self.whole.setdefault(url, event["timestamp"])

    def _failed(self, event: dict[str, Any]) -> None:
        url = self._urls.get(event["requestId"])
        if url is not None and not event.get("canceled"):
            self.faults.append(f"{url}: {event['errorText']}")
