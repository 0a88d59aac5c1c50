"""Tags of bulk data as one body, and what hangs on them: If-Range and If-None-Match."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import retrieve_wire as wire
from retrieve_bulk import PAYLOAD, SINGLE, Bulk, assert_answers, parted, plain
from retrieve_member import Deliver


def test_tag_comes_where_the_member_has_a_strong_one_and_tells_nothing_of_it(bulk: Bulk) -> None:
    tags = {own: bulk.get(plain(tag=own)).headers.get("etag") for own in ('"v1-inode77"', 'W/"v1"', "v1", "")}
    assert [own for own, ours in tags.items() if ours] == ['"v1-inode77"']
    assert "inode77" not in str(tags['"v1-inode77"'])
    assert bulk.get(parted(ETag='"v1"')).headers["etag"]
    bulk.holder.other = plain(tag='"v1"')
    uri = bulk.uri()
    first, again = (wire.get(uri, "", SINGLE).headers["etag"] for _ in range(2))
    assert first == again
    assert "etag" not in wire.get(uri, "").headers  # parts are under another boundary each time
    bulk.holder.other = plain(tag='"v2"')
    assert wire.get(uri, "", SINGLE).headers["etag"] != first


@pytest.mark.parametrize("learnt", [False, True])
@pytest.mark.parametrize("form", [plain, parted])
def test_range_is_given_while_the_tag_holds_else_the_whole(
    form: Callable[..., Deliver], learnt: bool, bulk: Bulk
) -> None:
    def deliver(tag: str) -> Deliver:
        return plain(tag=tag) if form is plain else parted(ETag=tag)

    uri = bulk.uri()
    if learnt:
        bulk.learn()

    def get(member: Deliver, condition: str, **more: str) -> wire.Seen:
        bulk.holder.other = member
        return wire.get(uri, "", {**SINGLE, "Range": "bytes=5-9", "If-Range": condition, **more})

    bulk.holder.other = deliver('"v1"')
    tag = wire.get(uri, "", SINGLE).headers["etag"]
    assert_answers(get(deliver('"v1"'), tag), PAYLOAD, slice(5, 10))
    assert get(deliver('"v1"'), tag).headers["etag"] == tag
    assert_answers(get(deliver('"v2"'), tag), PAYLOAD, "whole")
    assert_answers(get(deliver(""), tag), PAYLOAD, "whole")
    for condition in (f"W/{tag}", '"v1"', "Wed, 21 Oct 2015 07:28:00 GMT", "nonsense", f'{tag}, "x"'):
        assert_answers(get(deliver('"v1"'), condition), PAYLOAD, "whole")


def test_what_the_client_has_is_not_sent_again(bulk: Bulk) -> None:
    bulk.holder.other = plain(tag='"v1"')
    uri = bulk.uri()
    tag = wire.get(uri, "", SINGLE).headers["etag"]
    for more in ({}, {"Range": "bytes=5-9"}, {"Range": "bytes=99999-"}):
        seen = wire.get(uri, "", {**SINGLE, "If-None-Match": f'"other", {tag}', **more})
        assert (seen.status, seen.body) == (304, b"")
        assert seen.headers["etag"] == tag
        assert seen.headers["cache-control"] == "no-store"
    bulk.holder.other = plain(tag='"v2"')
    assert_answers(wire.get(uri, "", {**SINGLE, "If-None-Match": tag}), PAYLOAD, "whole")
    bulk.holder.other = plain()
    assert_answers(wire.get(uri, "", {**SINGLE, "If-None-Match": "*"}), PAYLOAD, "whole")
