from __future__ import annotations

import itertools
import re
from datetime import UTC, datetime
from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st
from support import values  # noqa: F401 - Hypothesis' settings

from imagora.scorecard import LANGUAGES, WORDS, html, lacks
from registry.profiles import Feature, Profile

PROFILES = [
    Profile(
        emetteur="csrom41200",
        name='Romorantin <script>alert("x")</script>',
        usable=True,
        features={Feature.LIMIT: True, Feature.THUMBNAIL: False, Feature.HEAD: False},
        latency_s=0.0234,
        bytes_per_s=1_234_567.0,
        checked_at=datetime(2026, 2, 1, 12, 0, tzinfo=UTC),
    ),
    Profile(emetteur="down", name="Hôpital", usable=False),
]
VOID = {"meta", "br", "hr", "link", "img", "input"}


class Read(HTMLParser):
    """Well-formed, and what accessibility rests on."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append((tag, given))
        if "id" in given:
            self.ids.append(given["id"] or "")
        if tag == "a":
            self.targets.append(given["href"] or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_every_feature_has_words_in_both_languages() -> None:
    assert WORDS.keys() == set(Feature)
    for feature, both in WORDS.items():
        assert both.fr.name, feature
        assert both.en.name, feature
        assert bool(both.fr.lack) is bool(both.en.lack), feature
    for language in range(2):
        names = [both[language].name for both in WORDS.values()]
        assert len(set(names)) == len(names)


def test_the_page_stands_alone_and_runs_nothing() -> None:
    text = html(PROFILES)
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert not re.search(r"\bon[a-z]+=|javascript:|https?:|//|url\(|@import", text)
    assert "default-src 'none'" in text


def test_the_page_can_be_read_by_all() -> None:
    page = Read(html(PROFILES))
    assert len(page.ids) == len(set(page.ids))
    assert {target.removeprefix("#") for target in page.targets} <= set(page.ids)
    assert all(given.get("scope") in ("row", "col") for tag, given in page.tags if tag == "th")
    assert page.tags[0] == ("html", {"lang": "fr"})
    assert [given["lang"] for tag, given in page.tags if tag == "section"] == ["fr", "en"]
    headings = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h\d", tag)]
    assert all(later - earlier <= 1 for earlier, later in itertools.pairwise(headings))
    assert [tag for tag, _ in page.tags].count("main") == 1


def test_each_language_says_what_is_missing_and_how_fast_it_is() -> None:
    french, english = html(PROFILES, ("fr",)), html(PROFILES, ("en",))
    assert "Pas de vignette faite par ce site." in french
    assert "No thumbnail made by this site." in english
    assert "1,2 Mo/s" in french
    assert "1.2 MB/s" in english
    assert "23 ms" in french
    assert datetime(2026, 2, 1, 12, 0, tzinfo=UTC).astimezone().strftime("%d/%m/%Y à %H:%M") in french
    assert "No thumbnail" not in french
    assert "vignette" not in english
    assert 'lang="en"' not in french
    assert lacks(PROFILES[0]) == [("Thumbnails", "No thumbnail made by this site.")]  # HEAD is missed by nobody
    assert len(LANGUAGES) == 2


@given(
    names=st.lists(st.text(max_size=20), min_size=1, max_size=3),
    features=st.dictionaries(st.sampled_from(Feature), st.booleans()),
    usable=st.booleans(),
)
def test_any_profile_makes_a_page(names: list[str], features: dict[Feature, bool], usable: bool) -> None:
    profiles = [
        Profile(emetteur=f"site-{n}", name=name, usable=usable, features=features) for n, name in enumerate(names)
    ]
    page = Read(html(profiles))
    assert len(page.ids) == len(set(page.ids))
    items = [tag for tag, _ in page.tags].count("li")
    missing = sum(not value for value in features.values())
    # In both languages each feature of each site stands in one list or, if it is missing, in the table.
    assert items == 2 + 2 * len(names) * (len(Feature) - missing)
