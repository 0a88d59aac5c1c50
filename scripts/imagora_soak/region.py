"""The region: a real Orthanc, members that fail, and the server among them, as `imagora serve` starts it."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from imagora_bench.processes import Child, write_settings
from imagora_demo import enrolment
from imagora_demo.orthanc import OrthancServer, free_port

from imagora_soak.faults import Failing
from imagora_soak.held import FAILING, HOME, METRICS_TOKEN, OPPOSED, Study, catalogue, studies_of
from registry.embedded import Lease

_DOCTOR, _REFERENT = "10001234567", "10005678901"
#: Shorter than usual, so that much happens in a short time.
_ENVIRONMENT = {
    "IMAGORA_METRICS_TOKEN": METRICS_TOKEN,
    "IMAGORA_SEARCH__DEADLINE_S": "2.0",
    "IMAGORA_SEARCH__OWN_SITE": "include",
}


@dataclass(frozen=True, kw_only=True)
class Region:
    url: str
    settings: Path
    server: Child
    home: OrthancServer
    failing: Sequence[Failing]
    studies: Mapping[str, Study]
    token: str
    at_home: int  # instances, before anything was stored

    def verified(self) -> str:
        """What `imagora traces verify` says. Raises `DemoError` if the traces are not whole."""
        return enrolment.imagora(self.settings, "traces", "verify").strip()

    def faults(self) -> list[str]:
        """What the server logged of faults of its own; the end of each line says where."""
        log = self.server.log_tail(10**9)
        return [
            line for line in log.splitlines() if '"fault"' in line or "Traceback" in line or "never retrieved" in line
        ]


@contextmanager
def region(folder: Path, *, studies: int, instances: int, seed: int, without: Sequence[str]) -> Iterator[Region]:
    with ExitStack() as stack:
        held = {site: studies_of(site, studies, instances) for site in (HOME, *FAILING)}
        home = OrthancServer(folder / "orthanc", name=HOME)
        home.start()
        stack.callback(home.kill)
        home.upload(one.data for one in held[HOME])
        dice = random.Random(seed)
        failing = [stack.enter_context(Failing(name, held[name], dice.randrange(10**6), without)) for name in FAILING]
        port = free_port()
        settings, state = folder / "imagora.toml", folder / "state"
        sites = {HOME: home.dicomweb_url, **{f.name: f.url for f in failing}}
        write_settings(settings, port=port, state=state, sites=sites, auth="demo")
        lease = Lease(state)
        lease.acquire()
        try:
            _enrol(settings)
            program = Path(sys.executable).with_name("imagora")
            server = Child("imagora", [program, "serve", "--config", settings], folder, environment=_ENVIRONMENT)
            stack.enter_context(server)
            server.wait_ready(port, "/readyz")
        finally:
            lease.release()
        yield Region(
            url=f"http://127.0.0.1:{port}",
            settings=settings,
            server=server,
            home=home,
            failing=failing,
            studies=catalogue(held),
            token=enrolment.token(settings, _DOCTOR),
            at_home=home.count()["instances"],
        )


def _enrol(settings: Path) -> None:
    for rpps, role in ((_DOCTOR, "practitioner"), (_REFERENT, "referent")):
        who = ("--rpps", rpps)
        enrolment.imagora(settings, "practitioners", "add", *who, "--name", "SOAK^A", "--site", HOME, "--role", role)
        enrolment.imagora(settings, "practitioners", "sign", *who)
    enrolment.imagora(settings, "oppositions", "add", "--study", OPPOSED, "--by", _REFERENT, "--channel", "form")
