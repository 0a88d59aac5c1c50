"""`imagora exams` as people run it: who may, what stands, what is traced."""

from __future__ import annotations

from support.commands import CORRESPONDENT, ELSEWHERE, NOBODY, PRACTITIONER, REFERENT, SUSPENDED, Commands

STUDY = "1.2.840.99.1"
ON = ("--study", STUDY, "--site", "CSROM41200")


def test_an_exam_is_withheld_listed_and_released(region: Commands) -> None:
    withheld = region("exams", "withhold", *ON, "--by", CORRESPONDENT, "--reason", "  unconscious\n since Monday ")
    assert (withheld.exit_code, withheld.stdout) == (0, f"{STUDY} of csrom41200 is withheld.\n"), withheld.output
    (exam,) = region.json("exams", "list")["exams"]
    assert (exam["study_uid"], exam["emetteur"], exam["state"]) == (STUDY, "csrom41200", "withheld")
    assert (exam["reason"], exam["by"]) == ("unconscious since Monday", CORRESPONDENT)
    assert region.json("exams", "list", "--site", "csorl45000")["exams"] == []
    lines = region("exams", "list").stdout.splitlines()
    assert lines[0].split() == ["STUDY", "SITE", "STATE", "SINCE", "BY", "REASON"]
    assert lines[1].startswith(f"{STUDY}  csrom41200  withheld")
    assert lines[-1] == "1 exam withheld."
    released = region("exams", "release", *ON, "--by", f"8{REFERENT}")
    assert released.stdout == f"{STUDY} of csrom41200 is released.\n"
    assert region.json("exams", "list") == {"defaults": [], "exams": []}
    traces = region.traces("consent")
    assert [(t["requester_id"], t["study_uid"], t["origin"], t["detail"]) for t in traces] == [
        (CORRESPONDENT, STUDY, "csrom41200", {"action": "exam-withheld", "reason": "unconscious since Monday"}),
        (REFERENT, STUDY, "csrom41200", {"action": "exam-released"}),
    ]


def test_what_stands_already_is_said_and_not_written_again(region: Commands) -> None:
    for verb, state in (("withhold", "withheld"), ("release", "released")):
        region("exams", verb, *ON, "--by", CORRESPONDENT)
        again = region("exams", verb, *ON, "--by", REFERENT, "--reason", "other")
        assert (again.exit_code, again.stdout) == (0, f"{STUDY} of csrom41200 is {state} already.\n")
    assert len(region.fetch("SELECT FROM exam_hold")) == len(region.traces("consent")) == 2


def test_a_site_withholds_by_default_until_it_says_otherwise(region: Commands) -> None:
    default = ("exams", "default", "--site", "csrom41200", "--by", CORRESPONDENT)
    assert region(*default, "--release").stdout == "csrom41200 shows each exam of which nothing is said already.\n"
    assert region.traces("consent") == []
    assert region(*default, "--withhold").stdout == "csrom41200 withholds each exam of which nothing is said.\n"
    assert region(*default, "--withhold").stdout.endswith(" already.\n")
    region("exams", "release", *ON, "--by", CORRESPONDENT)
    listed = region.json("exams", "list", "--site", "csrom41200")
    assert [(d["emetteur"], d["state"], d["by"]) for d in listed["defaults"]] == [
        ("csrom41200", "withheld", CORRESPONDENT)
    ]
    assert [(e["study_uid"], e["state"]) for e in listed["exams"]] == [(STUDY, "released")]
    assert "csrom41200 withholds every other exam until it is released (since 20" in region("exams", "list").stdout
    region(*default, "--release")
    assert region.json("exams", "list")["exams"] == []  # released, as all are
    assert [(t["origin"], t["detail"]) for t in region.traces("consent")] == [
        ("csrom41200", {"action": "site-default-withheld"}),
        ("csrom41200", {"action": "exam-released"}),
        ("csrom41200", {"action": "site-default-released"}),
    ]


def test_only_the_sites_correspondent_and_a_referent_may(region: Commands) -> None:
    who_may = "the correspondent of csrom41200 or a referent may"
    for command in (("withhold", *ON), ("release", *ON), ("default", "--site", "csrom41200", "--withhold")):
        for by, words in (
            (ELSEWHERE, who_may),
            (PRACTITIONER, who_may),
            (SUSPENDED, f"{SUSPENDED} is suspended"),
            (NOBODY, f"no practitioner has the RPPS {NOBODY}"),
        ):
            result = region("exams", *command, "--by", by)
            assert (result.exit_code, result.stderr.count("\n"), words in result.stderr) == (1, 1, True), result.stderr
    assert region.fetch("SELECT FROM exam_hold") == region.fetch("SELECT FROM hold_default") == []
    assert region.traces("consent") == []


def test_what_cannot_be_done_is_told(region: Commands) -> None:
    for command, status, words in (
        (("withhold", "--study", "1.x", *ON[2:]), 2, "'1.x' is not a UID"),
        (("withhold", *ON[:3], "nowhere"), 1, "no site has the EMETTEUR 'nowhere'"),
        (("withhold", *ON, "--reason", "x" * 501), 2, "at most 500 characters"),
        (("withhold", *ON, "--reason", "a\x1b[2J"), 2, "no control characters"),
        (("withhold", *ON[2:]), 2, "Missing option '--study'"),
        (("default", *ON[2:]), 2, "say one of --withhold and --release"),
        (("default", *ON[2:], "--withhold", "--release"), 2, "say one of --withhold and --release"),
        (("list", "--site", "nowhere"), 1, "no site has the EMETTEUR 'nowhere'"),
    ):
        by = () if command[0] == "list" else ("--by", CORRESPONDENT)
        result = region("exams", *command, *by)
        assert (result.exit_code, words in result.stderr) == (status, True), result.stderr
    missing = region("exams", "withhold", *ON)
    assert (missing.exit_code, "Missing option '--by'" in missing.stderr) == (2, True)


def test_what_cannot_be_traced_is_not_done(region: Commands) -> None:
    region.fetch("ALTER TABLE trace RENAME TO elsewhere", "SELECT 1")
    for command in (("withhold", *ON), ("default", "--site", "csrom41200", "--withhold")):
        result = region("exams", *command, "--by", CORRESPONDENT)
        assert (result.exit_code, "So nothing was changed" in result.stderr) == (1, True), result.stderr
    assert region.fetch("SELECT FROM exam_hold") == region.fetch("SELECT FROM hold_default") == []
    region.fetch("ALTER TABLE elsewhere RENAME TO trace", "SELECT 1")
    (region.state / "trace-key.pem").write_text("no key")
    result = region("exams", "withhold", *ON, "--by", CORRESPONDENT)
    assert (result.exit_code, "must hold one PRIVATE KEY" in result.stderr) == (1, True)
    assert region.fetch("SELECT FROM exam_hold") == []
