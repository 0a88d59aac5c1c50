"""What `imagora practitioners` and `imagora sites` change is traced; on whose behalf, and who may."""

from __future__ import annotations

from pathlib import Path

from support.commands import CORRESPONDENT, ELSEWHERE, NOBODY, PRACTITIONER, REFERENT, SUSPENDED, Commands

from imagora.commands.traced import operator

NEW = "10001234567"


def add(rpps: str = NEW, site: str = "csrom41200", role: str = "practitioner") -> tuple[str, ...]:
    return ("practitioners", "add", "--rpps", rpps, "--name", "MARTIN^CLAIRE", "--site", site, "--role", role)


def done(region: Commands, *arguments: str) -> str:
    result = region(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_each_change_of_a_practitioner_is_traced_once(region: Commands) -> None:
    on = ("--rpps", NEW)
    for command in (
        add(),
        (*add(role="correspondent"), "--by", CORRESPONDENT),
        ("practitioners", "sign", *on, "--by", CORRESPONDENT),
        ("practitioners", "suspend", *on, "--by", REFERENT),
        ("practitioners", "resume", *on),
    ):
        done(region, *command)
        done(region, *command)  # again: nothing is changed, nothing is traced
    traces = region.traces("administration")
    assert {(t["outcome"], t["patient_id"], t["study_uid"], t["origin"]) for t in traces} == {
        ("success", "", "", "csrom41200")
    }
    of = {"practitioner": NEW, "site": "csrom41200"}
    assert [(t["requester_id"], t["detail"]) for t in traces] == [
        (operator().id, {"action": "practitioner-added", **of, "role": "practitioner"}),
        (
            CORRESPONDENT,
            {"action": "practitioner-changed", **of, "role": "correspondent", "role_before": "practitioner"},
        ),
        (CORRESPONDENT, {"action": "charter-signed", **of, "version": "1"}),
        (REFERENT, {"action": "practitioner-suspended", **of}),
        (operator().id, {"action": "practitioner-resumed", **of}),
    ]
    assert operator().id.startswith("operator:")


def test_only_the_home_sites_correspondent_and_a_referent_may(region: Commands) -> None:
    before = region.fetch("SELECT * FROM practitioner ORDER BY rpps")
    on = ("--rpps", PRACTITIONER)
    for command in (add(), *(("practitioners", verb, *on) for verb in ("sign", "suspend", "resume"))):
        for by in (ELSEWHERE, PRACTITIONER, SUSPENDED, NOBODY):
            result = region(*command, "--by", by)
            assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (1, "", 1), result.stderr
    assert region.fetch("SELECT * FROM practitioner ORDER BY rpps") == before
    assert region.fetch("SELECT FROM charter_signature") == []
    assert region.traces("administration") == []


def test_a_correspondent_makes_no_referent_and_takes_nobody_from_another_site(region: Commands) -> None:
    for command, words in (
        (add(role="referent"), "may not name or change a referent"),
        (add(CORRESPONDENT, role="referent"), "may not name or change a referent"),
        (add(PRACTITIONER, site="csorl45000"), "the correspondent of csorl45000 or a referent may"),
        (add(ELSEWHERE), "may not move a practitioner of csorl45000"),
    ):
        result = region(*command, "--by", CORRESPONDENT)
        assert (result.exit_code, words in result.stderr) == (1, True), result.stderr
    demoted = region(*add(REFERENT, site="csorl45000"), "--by", ELSEWHERE)
    assert (demoted.exit_code, "may not name or change a referent" in demoted.stderr) == (1, True)
    assert region.traces("administration") == []
    done(region, *add(PRACTITIONER, site="csorl45000", role="referent"), "--by", REFERENT)
    (trace,) = region.traces("administration")
    assert trace["detail"] == {
        "action": "practitioner-changed",
        "practitioner": PRACTITIONER,
        "site": "csorl45000",
        "role": "referent",
        "site_before": "csrom41200",
        "role_before": "practitioner",
    }


def test_each_change_of_a_site_is_traced_once(region: Commands, tmp_path: Path) -> None:
    file = tmp_path / "sites.csv"
    file.write_text(
        "emetteur,site,name,folder,availability,status\n"
        "csnew41000,411,New,MIRC historique,,member\ncsrom41200,423,Renamed,,,member\n"
    )
    for command in (
        ("sites", "import", str(file)),
        ("sites", "suspend", "CSNEW41000"),
        ("sites", "resume", "csnew41000"),
    ):
        done(region, *command)
        done(region, *command)
    traces = region.traces("administration")
    assert {t["requester_id"] for t in traces} == {operator().id}
    assert [(t["origin"], t["detail"]) for t in traces] == [
        ("", {"action": "folder-added", "folder": "MIRC historique"}),
        ("csnew41000", {"action": "site-added", "site": "csnew41000"}),
        ("csrom41200", {"action": "site-changed", "site": "csrom41200"}),
        ("csnew41000", {"action": "site-suspended", "site": "csnew41000"}),
        ("csnew41000", {"action": "site-resumed", "site": "csnew41000"}),
    ]


def test_a_change_that_cannot_be_traced_is_told(region: Commands) -> None:
    region.fetch("ALTER TABLE trace RENAME TO elsewhere", "SELECT 1")
    for command in (add(), ("practitioners", "suspend", "--rpps", PRACTITIONER), ("sites", "suspend", "csrom41200")):
        result = region(*command)
        words = "Error: this was done, but it could not be traced: no trace can be made"
        assert (result.exit_code, result.stderr.startswith(words), result.stdout) == (1, True, ""), result.output
    assert [p["active"] for p in region.json("practitioners", "list") if p["rpps"] == PRACTITIONER] == [False]


def test_without_a_key_to_sign_with_nothing_is_begun(region: Commands) -> None:
    region.state.mkdir(exist_ok=True)
    (region.state / "trace-key.pem").write_text("no key")
    result = region("practitioners", "suspend", "--rpps", PRACTITIONER)
    assert (result.exit_code, "must hold one PRIVATE KEY" in result.stderr) == (1, True)
    assert [p["active"] for p in region.json("practitioners", "list") if p["rpps"] == PRACTITIONER] == [True]
