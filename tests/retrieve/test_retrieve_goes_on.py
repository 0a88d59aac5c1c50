"""A holder that breaks off in the middle: another gives the rest, every instance once; else the transfer is broken."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pytest
import retrieve_wire as wire
from imagora_demo import exams
from imagora_demo.orthanc import OrthancServer
from retrieve_member import (
    DICOM,
    Deliver,
    Framing,
    Held,
    Holder,
    answer_head,
    content_type,
    delivering,
    framed,
    giving,
    multipart,
    read,
)
from support.peer import Connection, Request
from support.serving import Serving

SEED = 20261125
POINTS = 50
STUDY = exams.study(seed="goes-on", n_series=2, n_instances=3, rows=24, columns=24)
UID = exams.uid("goes-on", "study")
MULTIPART = {"Accept": f'multipart/related; type="{DICOM}"'}
A, B = "csrom41200", "cpsax18000"


@dataclass
class CutOnce:
    """Gives what it is asked for, but breaks its first answer off after `after` bytes of its body."""

    after: int
    framing: Framing = Framing.LENGTH
    then: Deliver | None = None  # what it does from its second answer on
    asked: list[str] = field(default_factory=list)

    async def __call__(self, request: Request, connection: Connection, held: list[Held]) -> None:
        self.asked.append(request.path)
        if self.then is not None and len(self.asked) > 1:
            await self.then(request, connection, held)
            return
        body = multipart([i.data for i in held], "b")
        on_the_wire, place = framed(body, self.framing)
        await connection.send(answer_head(self.framing, len(on_the_wire), content_type("b")))
        if len(self.asked) == 1:
            await connection.send(on_the_wire[: place(min(self.after, len(body) - 1))])
        else:
            await connection.send(on_the_wire)
            if self.framing is not Framing.CLOSE:
                return
        connection.writer.close()


@pytest.fixture(scope="module")
def holders() -> Iterator[tuple[Holder, Holder]]:
    with Holder(STUDY) as first, Holder(STUDY) as second:
        yield first, second


@pytest.fixture(scope="module")
def server(holders: tuple[Holder, Holder], serve_module) -> Serving:
    members = {A: holders[0].url, B: holders[1].url}
    serving: Serving = serve_module(members, search={"breaker_failures": 1000, "deadline_s": 10})
    return serving


@pytest.fixture(scope="module")
def reference(server: Serving, holders: tuple[Holder, Holder]) -> dict[str, bytes]:
    holders[0].deliver = holders[1].deliver = delivering()
    return instances(wire.get(server.dicomweb(), f"/studies/{UID}", MULTIPART))


def instances(seen: wire.Seen) -> dict[str, bytes]:
    """SOPInstanceUID → bytes of a whole answer that has each instance once."""
    assert (seen.status, seen.ended) == (200, True), (seen.status, seen.ended, len(seen.body))
    found = [(str(read(p.body).SOPInstanceUID), p.body) for p in seen.parts]
    assert len({sop for sop, _ in found}) == len(found)
    return dict(found)


def points(length: int) -> list[int]:
    dice = random.Random(SEED)
    return sorted(dice.randrange(length) for _ in range(POINTS))


@pytest.mark.parametrize("framing", Framing)
def test_whole_study_comes_wherever_the_first_holder_breaks_off(
    framing: Framing, server: Serving, holders: tuple[Holder, Holder], reference: dict[str, bytes]
) -> None:
    first, second = holders
    second.deliver = delivering()
    went_on = 0
    for after in points(len(multipart(STUDY, "b"))):
        first.deliver = cut = CutOnce(after, framing)
        second.peer.requests.clear()
        seen = wire.get(server.dicomweb(), f"/studies/{UID}", MULTIPART)
        assert instances(seen) == reference, after
        assert len(cut.asked) == 1
        went_on += bool(second.retrieves())
    assert went_on == POINTS


def test_what_has_passed_is_not_asked_for_again(
    server: Serving, holders: tuple[Holder, Holder], reference: dict[str, bytes]
) -> None:
    first, second = holders
    second.deliver = delivering()
    body = multipart(STUDY, "b")
    behind_four = [i for i in range(len(body)) if body.startswith(b"--b\r\n", i)][4] + 5
    first.deliver = CutOnce(behind_four)
    second.peer.requests.clear()
    assert instances(wire.get(server.dicomweb(), f"/studies/{UID}", MULTIPART)) == reference
    asked = [r.path for r in second.retrieves()]
    dataset = read(STUDY[4])
    series = f"/studies/{UID}/series/{dataset.SeriesInstanceUID}"
    assert sorted(asked) == sorted(f"{series}/instances/{read(d).SOPInstanceUID}" for d in STUDY[4:])


def test_a_series_and_one_instance_go_on_too(server: Serving, holders: tuple[Holder, Holder]) -> None:
    first, second = holders
    second.deliver = delivering()
    dataset = read(STUDY[0])
    series = f"/studies/{UID}/series/{dataset.SeriesInstanceUID}"
    for path, count in ((series, 3), (f"{series}/instances/{dataset.SOPInstanceUID}", 1)):
        first.deliver = CutOnce(len(STUDY[0]) // 2)
        assert len(instances(wire.get(server.dicomweb(), path, MULTIPART))) == count


def _without(number: int) -> list[bytes]:
    return [d for n, d in enumerate(STUDY) if n != number]


def _other_head() -> list[bytes]:
    return [d.replace(b"Scanner", b"SCANNER") if b"Scanner" in d else d.replace(b"CT", b"ct", 1) for d in STUDY]


@pytest.mark.parametrize("cut", [0.2, 0.55, 0.9])
@pytest.mark.parametrize(
    "copy", [lambda: _without(5), lambda: _without(0), list], ids=["lacks the last", "lacks the first", "nothing"]
)
def test_a_holder_with_a_part_does_not_go_on(cut: float, copy: Callable[[], Sequence[bytes]], serve) -> None:
    """It breaks off as if there were nobody else, unless the part is a whole series that is fetched by itself."""
    with Holder(STUDY) as first, Holder(copy()) as second:
        server = serve({A: first.url, B: second.url}, search={"breaker_failures": 1000})
        first.deliver = CutOnce(int(len(multipart(STUDY, "b")) * cut), then=giving(500, b"", "text/plain"))
        seen = wire.get(server.dicomweb(), f"/studies/{UID}", MULTIPART)
        assert not (seen.status == 200 and (seen.ended or seen.closed))


def starts() -> list[int]:
    """Where the parts of a body begin, each at its boundary."""
    body = multipart(STUDY, "b")
    return [i for i in range(len(body)) if body.startswith(b"--b\r\n", i)]


@pytest.mark.parametrize("framing", Framing)
def test_a_holder_without_another_goes_on_itself_between_instances(framing: Framing, serve) -> None:
    """Orthanc breaks off so before an instance that it can't transcode: also where the boundary behind the last one is
    missing, which its Content-Length tells to be whole. Within an instance nothing tells that the rest is of the same.
    """
    whole = len(multipart(STUDY, "b"))
    with Holder(STUDY) as only:
        root = serve({A: only.url}, search={"breaker_failures": 1000}).dicomweb()
        expected = instances(wire.get(root, f"/studies/{UID}", MULTIPART))
        for start in starts()[1:]:
            for after in (start - 2, start, start + 5, start + 40):
                only.deliver = cut = CutOnce(after, framing)
                assert instances(wire.get(root, f"/studies/{UID}", MULTIPART)) == expected, (start, after)
                assert len(cut.asked) == 1 + len(STUDY) - starts().index(start)
        for after in (starts()[2] - 40, whole - 60, whole - 5):
            only.deliver = CutOnce(after, framing)
            seen = wire.get(root, f"/studies/{UID}", MULTIPART)
            assert not (seen.status == 200 and (seen.ended or seen.closed)), after


def test_a_copy_that_is_another_where_it_was_cut_does_not_go_on(serve) -> None:
    """Half of one picture and half of another must never look like one."""
    with Holder(STUDY) as first, Holder(_other_head()) as second:
        server = serve({A: first.url, B: second.url}, search={"breaker_failures": 1000})
        first.deliver = CutOnce(len(STUDY[0]) // 2 + 300)
        seen = wire.get(server.dicomweb(), f"/studies/{UID}", MULTIPART)
        assert not (seen.status == 200 and (seen.ended or seen.closed))


def test_a_killed_orthanc_is_gone_on_for_by_another(serve) -> None:
    large = exams.study(seed="goes-on-large", n_instances=24, rows=1024, columns=1024)
    uid = exams.uid("goes-on-large", "study")
    with OrthancServer(name="one") as one, OrthancServer(name="other") as other:
        one.upload(large)
        other.upload(large)
        server = serve({A: one.dicomweb_url, B: other.dicomweb_url})
        link = wire.connect(server.dicomweb(), f"/studies/{uid}", MULTIPART)
        with link:
            got = link.recv(1 << 20)
            one.kill()
            seen = wire.read_to_end(link, got)
        assert len(instances(seen)) == 24
