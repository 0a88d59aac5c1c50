"""Many slow clients at once, each reading a study: what they cost in memory."""

from __future__ import annotations

from imagora_bench import member
from imagora_bench.parts import DICOM, Bench, Sampler
from imagora_bench.processes import BenchError
from imagora_bench.ratios import Row
from imagora_bench.servers import prepare, started

TARGET = 200e6
RATE = 1e6  # bytes a second, of each client
#: A client that got less than this share of what it would have read was kept waiting: too few were served at once.
_LEAST = 0.5


def measure(bench: Bench) -> list[Row]:
    plan = bench.plan
    megabytes = plan.instances * member.INSTANCE_BYTES / 1e6
    what = f"{plan.clients} clients of {plan.client_members} members at once, each reading {megabytes:.0f} MB"
    what += f" at {RATE / 1e6:g} MB/s"
    bench.tell(f"memory, {what}, for {plan.clients_s:g} s")
    sites = {f"bench-relay-{number}": f"{bench.member_url}/dicom-web" for number in range(1, plan.client_members + 1)}
    with started(bench, prepare(bench, "clients", sites)) as server:
        bases = [f"{server.url}/sites/{site}/dicom-web/studies" for site in sites]
        # What is loaded on first use is no growth.
        for base in bases:
            bench.sink.ask({"do": "stream", "url": f"{base}/{member.SMALL_STUDY_UID}", "accept": DICOM})
        with Sampler(server.pid) as sampler:
            answer = bench.sink.ask(
                {
                    "do": "crowd",
                    "urls": [f"{base}/{member.MIDDLE_STUDY_UID}" for base in bases],
                    "accept": DICOM,
                    "clients": plan.clients,
                    "read_s": plan.clients_s,
                    "rate": RATE,
                }
            )
    wanted = min(RATE * plan.clients_s, plan.instances * member.INSTANCE_BYTES)
    if answer["refused"] or answer["least"] < _LEAST * wanted:
        raise BenchError(
            f"{what}: {answer['refused']} had no whole answer ({answer['why']}), "
            f"the slowest got {answer['least'] / 1e6:.1f} MB of {wanted / 1e6:.1f} MB"
        )
    return [
        Row(
            what=f"Memory growth, {what}, for {plan.clients_s:g} s",
            value=f"{sampler.growth / 1e6:.0f} MB",
            spread="",
            target=f"≤ {TARGET / 1e6:.0f} MB",
            met=sampler.growth <= TARGET,
            absolute=f"{answer['bytes_a_second'] / 1e6:.0f} MB/s in all, first bytes after "
            f"{answer['first_s']:.1f} to {answer['last_s']:.1f} s"
            + (f", {answer['again']} were told to come again (503)" if answer["again"] else ""),
            measured={"growth_bytes": sampler.growth, "rss_before": sampler.before, **answer},
        )
    ]
