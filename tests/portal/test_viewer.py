"""The viewer's routes over HTTP, with a small folder in OHIF's place."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from viewer_harness import Answer, application, ask, serving

from portal.assets import precompress

INDEX = (
    '<!doctype html><html><head><meta charset="UTF-8"><script>window.PUBLIC_URL="/"</script>'
    '<script rel="preload" src="/app-config.js"></script>'
    '<script defer src="/app.bundle.0f6159c501addfe9.js"></script></head><body></body></html>'
)
SCRIPT = b"'use strict';" * 1000
ISOLATION = {
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-embedder-policy": "require-corp",
    "cross-origin-resource-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


@pytest.fixture
def dist(tmp_path: Path) -> Path:
    folder = tmp_path / "dist"
    (folder / "assets" / "images").mkdir(parents=True)
    (folder / "index.html").write_text(INDEX)
    (folder / "app.bundle.0f6159c501addfe9.js").write_bytes(SCRIPT)
    (folder / "app.bundle.css").write_text("body{}")
    (folder / "0ddf166f7a343eda.wasm").write_bytes(b"\0asm")
    (folder / "a34f9d1faa5f3315.woff2").write_bytes(b"wOF2")
    (folder / "ort.wasm.min.mjs").write_text("export {}")
    (folder / "manifest.json").write_text("{}")
    (folder / "assets" / "images" / "a.png").write_bytes(b"\x89PNG")
    (folder / "app-config.js").write_text("window.config = 'theirs'")
    (folder / "_headers").write_text("")
    (folder / ".hidden.js").write_text("")
    (tmp_path / "secret.js").write_text("secret")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "key.js").write_text("secret")
    (folder / "link.js").symlink_to(tmp_path / "secret.js")
    (folder / "linked").symlink_to(tmp_path / "secrets")
    return folder


@pytest.fixture
def base(dist: Path) -> Iterator[str]:
    with serving(application(dist)) as url:
        yield url


def is_page(answer: Answer) -> bool:
    return answer.status == 200 and b"/portal/static/imagora-banner.js" in answer.body


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("/app.bundle.0f6159c501addfe9.js", "text/javascript; charset=utf-8"),
        ("/app.bundle.css", "text/css; charset=utf-8"),
        ("/0ddf166f7a343eda.wasm", "application/wasm"),
        ("/a34f9d1faa5f3315.woff2", "font/woff2"),
        ("/ort.wasm.min.mjs", "text/javascript; charset=utf-8"),
        ("/manifest.json", "application/json"),
        ("/assets/images/a.png", "image/png"),
        ("/app-config.js", "text/javascript; charset=utf-8"),
        ("/", "text/html; charset=utf-8"),
        ("/portal/static/imagora-banner.js", "text/javascript; charset=utf-8"),
        ("/portal/sources", "text/html; charset=utf-8"),
    ],
)
def test_files_have_their_media_type_and_every_header(base: str, path: str, media_type: str) -> None:
    answer = ask(base, path)
    assert answer.status == 200
    assert answer.headers["content-type"] == media_type
    assert answer.headers.items() >= ISOLATION.items()
    assert "content-security-policy" in answer.headers
    assert int(answer.headers["content-length"]) == len(answer.body)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/index.html",
        "/viewer?StudyInstanceUIDs=1.2.3",
        "/viewer/site-csrom41200?StudyInstanceUIDs=1.2.3",
        "/viewer/site-a.b?StudyInstanceUIDs=1.2.3",
        "/segmentation",
    ],
)
def test_pages_of_ohif_are_its_index_with_our_scripts_first(base: str, path: str) -> None:
    answer = ask(base, path)
    assert is_page(answer)
    page = answer.body.decode()
    assert re.findall(r"<script[^>]*>", page)[0] == '<script src="/portal/static/imagora-banner.js">'
    assert answer.headers["cache-control"] == "no-cache"


def test_policy_allows_inline_scripts_by_hash_only(base: str) -> None:
    policy = ask(base, "/").headers["content-security-policy"]
    scripts = next(d for d in policy.split("; ") if d.startswith("script-src"))
    assert "'unsafe-inline'" not in scripts
    assert "'sha256-" in scripts
    assert "http" not in policy


@pytest.mark.parametrize(
    "path",
    [
        "/nothing.js",
        "/viewer/nothing.wasm",
        "/_headers",
        "/link.js",
        "/linked/key.js",
        "/.hidden.js",
        "/.git/config",
        "/../secret.js",
        "/assets/../../secret.js",
        "/%2e%2e/secret.js",
        "/..%2fsecret.js",
        "//secret.js",
        "/assets/images/%00a.png",
        "/portal/static/../ohif.py",
        "/portal/static/%2e%2e/ohif.py",
        "/portal/static/nothing.js",
        "/portal/nothing",
        "/dicom-web/nothing",
        "/sites/csrom41200/nothing",
        "/metrics",
    ],
)
def test_what_is_not_there_is_404_with_every_header(base: str, path: str) -> None:
    answer = ask(base, path)
    assert answer.status == 404
    assert b"secret" not in answer.body
    assert answer.headers.items() >= ISOLATION.items()


def test_methods_that_write_are_refused(base: str) -> None:
    answer = ask(base, "/viewer", method="POST")
    assert answer.status == 405
    assert answer.headers["allow"] == "GET, HEAD"
    assert answer.headers.items() >= ISOLATION.items()


def test_head_tells_the_size_without_the_body(base: str) -> None:
    for path in ("/", "/app.bundle.0f6159c501addfe9.js", "/app-config.js", "/portal/sources"):
        answer = ask(base, path, method="HEAD")
        assert answer.status == 200
        assert answer.body == b""
        assert answer.headers["content-length"] == ask(base, path).headers["content-length"]


def test_names_with_a_hash_are_kept_for_ever_and_others_revalidated(base: str) -> None:
    kept = "public, max-age=31536000, immutable"
    assert ask(base, "/app.bundle.0f6159c501addfe9.js").headers["cache-control"] == kept
    assert ask(base, "/0ddf166f7a343eda.wasm").headers["cache-control"] == kept
    for path in ("/app.bundle.css", "/app-config.js", "/portal/static/imagora-banner.js"):
        assert ask(base, path).headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("path", ["/", "/app.bundle.css", "/app-config.js", "/portal/static/imagora-banner.js"])
def test_held_content_is_not_sent_again(base: str, path: str) -> None:
    tag = ask(base, path).headers["etag"]
    for held in (tag, f'"other", {tag}', f"W/{tag}", "*"):
        answer = ask(base, path, If_None_Match=held)
        assert (answer.status, answer.body) == (304, b"")
        assert answer.headers["etag"] == tag
        assert answer.headers.items() >= ISOLATION.items()
    assert ask(base, path, If_None_Match='"other"').status == 200


def test_a_new_release_is_seen_though_size_and_date_are_the_same(dist: Path, base: str) -> None:
    old = ask(base, "/")
    (dist / "app.bundle.1f6159c501addfe9.js").write_bytes(SCRIPT)
    (dist / "new.html").write_text(INDEX.replace("0f6159", "1f6159"))
    (dist / "new.html").replace(dist / "index.html")
    new = ask(base, "/", If_None_Match=old.headers["etag"])
    assert new.status == 200
    assert b"1f6159c501addfe9" in new.body
    assert ask(base, "/app.bundle.1f6159c501addfe9.js").status == 200


def test_compressed_files_are_sent_to_those_that_accept_them(dist: Path) -> None:
    assert precompress(dist) == 1
    assert precompress(dist) == 0
    path = "/app.bundle.0f6159c501addfe9.js"
    with serving(application(dist)) as base:
        plain = ask(base, path, Accept_Encoding="identity")
        zipped = ask(base, path, Accept_Encoding="br, gzip;q=0.8")
        refused = ask(base, path, Accept_Encoding="gzip;q=0")
        alone = ask(base, path + ".gz")
    assert plain.body == refused.body == SCRIPT
    assert "content-encoding" not in plain.headers
    assert zipped.headers["content-encoding"] == "gzip"
    assert gzip.decompress(zipped.body) == SCRIPT
    assert len(zipped.body) < len(plain.body)
    assert zipped.headers["etag"] != plain.headers["etag"]
    assert zipped.headers["vary"] == plain.headers["vary"] == "Accept-Encoding"
    assert is_page(alone) is False


@pytest.mark.parametrize("given", [None, "gone"])
def test_missing_build_says_what_to_do_in_both_languages(tmp_path: Path, given: str | None) -> None:
    with serving(application(tmp_path / given if given else None)) as base:
        for path in ("/", "/viewer?StudyInstanceUIDs=1.2"):
            answer = ask(base, path)
            assert answer.status == 503
            assert answer.headers["content-type"] == "text/html; charset=utf-8"
            assert answer.headers.items() >= ISOLATION.items()
            text = answer.body.decode()
            assert text.count("scripts/setup") == 2
            assert "n'est pas installé" in text
            assert "is not installed" in text
        assert ask(base, "/app-config.js").status == 200
        assert ask(base, "/portal/static/imagora-pages.css").status == 200
        assert ask(base, "/app.bundle.css").status == 404


def test_a_build_that_appears_is_served_without_a_restart(tmp_path: Path) -> None:
    with serving(application(tmp_path / "dist")) as base:
        assert ask(base, "/").status == 503
        (tmp_path / "dist").mkdir()
        (tmp_path / "dist" / "index.html").write_text(INDEX)
        assert is_page(ask(base, "/"))


def test_sources_page_speaks_the_browsers_language_and_lists_asked_members(base: str) -> None:
    french = ask(base, "/portal/sources", Accept_Language="fr-FR,fr;q=0.9,en;q=0.8").body.decode()
    english = ask(base, "/portal/sources", Accept_Language="de, en-GB;q=0.9, fr;q=0.5").body.decode()
    assert "Choisir une source" in french
    assert "Choose a source" in english
    assert 'href="/?datasources=site-csrom41200"' in french
    assert 'href="/?datasources=folder-mirc-historique"' in french
    assert "notasked1" not in french
    assert "MIRC Centres Imagerie" not in french


def test_errors_are_json(base: str) -> None:
    assert json.loads(ask(base, "/nothing.js").body) == {"error": "Not found"}
