"""Certificates of lifecycles that hold: what is covered, what is said, and where it is kept."""

import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import pytest
from commanding import call, environment

from session_fsm import (
    LIVE,
    SESSION_LIFECYCLE,
    Guard,
    Lifecycle,
    Row,
    SessionState,
    StateInvalidError,
)
from session_fsm.certify import Certificate, Claim, Finding, certify, drift, path_of, render
from session_fsm.certify import __main__ as program
from session_fsm.certify.findings import Findings
from session_fsm.certify.switches import MOST_SETTINGS, POSITIONS, Switched, settings
from session_fsm.cli import certificates as command
from session_fsm.guards import Attempt, Deadline, after_grace

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "diagrams" / "session.certificate.md"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def ours() -> Certificate:
    """The certificate of the lifecycle of sessions."""
    return certify(SESSION_LIFECYCLE)


def small(*rows: Row, **more: Any) -> Lifecycle:
    """A lifecycle of two statuses, with a way out and more."""
    stop = Row("stop", "open", "closed", ending=True)
    return Lifecycle(("open", "closed"), "open", (stop, *rows), name="small", **more)


def seen(certificate: Certificate, trigger: str, status: str) -> tuple[Any, ...]:
    """What the machine was seen to do with a trigger in a status."""
    [found] = [
        each
        for each in certificate.walked.behaviours
        if (each.trigger, each.status) == (trigger, status)
    ]
    return found.targets, found.needs, found.activity


# --- what is covered -----------------------------------------------------------------------------


def test_certify_holds_for_sessions(ours: Certificate) -> None:
    """Nothing is found against the lifecycle of sessions."""
    assert ours.findings == ()
    assert ours.holds


def test_certify_covers_every_status_trigger_and_setting(ours: Certificate) -> None:
    """Each status has a case for each trigger, each value of its guards, each deadline's place."""
    walked = ours.walked
    assert dict(walked.settings) == {
        "initializing": 2 * 2 * 4,
        "active": 2 * 2**5 * 4 * 4,
        "idle": 2 * 2**2 * 4,
        "terminating": 2 * 2**2 * 4 * 4,
        "terminated": 2,
    }
    assert walked.complete == set(SESSION_LIFECYCLE.statuses)
    triggers = len(SESSION_LIFECYCLE.triggers) + 1
    assert len(walked.behaviours) == len(SESSION_LIFECYCLE.statuses) * triggers
    assert walked.cases == sum(count * triggers for _, count in walked.settings)


def test_certify_sees_what_the_table_says(ours: Certificate) -> None:
    """Targets, conditions and activity come out of the walk as they stand in the table."""
    assert seen(ours, "activate", "initializing") == (
        ("active",), ("start deadline not passed",), True,
    )  # fmt: skip
    assert seen(ours, "expire", "idle") == (
        ("terminating",), ("no active task", "'expire' due"), False,
    )  # fmt: skip
    assert seen(ours, "update", "idle") == ((None,), (), False)
    assert seen(ours, "update", "terminated") == ((), (), False)
    for row, source in SESSION_LIFECYCLE.moves():
        targets, needs, activity = seen(ours, row.trigger, str(source))
        assert targets == (row.target,)
        assert len(needs) == len(row.conditions)
        assert activity is row.activity


def test_certify_sees_every_guard_both_ways(ours: Certificate) -> None:
    """Among the real states each guard of ours, and each deadline, lets pass and refuses."""
    names = {guard.name for row in SESSION_LIFECYCLE.rows for guard in row.guards}
    due = {f"{row.trigger!r} due" for row in SESSION_LIFECYCLE.rows if row.deadline}
    assert {each.name for each in ours.tried.asked} == names | due
    assert all(each.held and each.refused for each in ours.tried.asked)
    kinds = {"accepted", "fault", "guard", "unknown_trigger", "wrong_status"}
    assert {kind for kind, _ in ours.tried.outcomes} == kinds
    assert ours.ended == (33, 33)


def test_certify_walks_to_the_end(ours: Certificate) -> None:
    """From each status there is a way that no guard can close, and a way out."""
    ways = {
        status: [(leg.trigger, leg.target, leg.kind) for leg in way]
        for status, way in ours.ways.items()
    }
    stop = ("stop_timeout", "terminated", "timed")
    assert ways == {
        "initializing": [("abort", "terminated", "unguarded")],
        "active": [("terminate", "terminating", "unguarded"), stop],
        "idle": [("terminate", "terminating", "unguarded"), stop],
        "terminating": [stop],
    }
    out = {status: [leg.trigger for leg in way] for status, way in ours.ways_out.items()}
    assert out["active"] == ["terminate", "finish"]
    assert out.keys() == ways.keys()


def test_certify_attacks_the_database(ours: Certificate) -> None:
    """The database lets the seven edges pass, and of all else what is no move."""
    assert ours.attack.edges == set(SESSION_LIFECYCLE.edges)
    passed = {each.what: each.admitted for each in ours.attack.kinds if each.admitted}
    forms, settings = 6, 2
    assert passed == {
        "update the status, from each to each": (7 + 4) * forms * settings,
        "insert in each status": forms * settings,
        "delete in each status": settings,
    }
    assert all(each.refused for each in ours.attack.kinds)


# --- any lifecycle -------------------------------------------------------------------------------


def test_certify_prefers_a_way_without_guards() -> None:
    """A timed row whose guards have to hold is relied on only where nothing else leads out."""
    never = Guard("never", lambda _: False, "never")
    due = after_grace("short")
    rows = [
        Row("leave", "a", "b"),
        Row("give_up", "a", "z", guards=(never,), deadline=due),
        Row("expire", "b", "z", guards=(never,), deadline=due),
        Row("back", "b", "a"),
    ]
    certificate = certify(Lifecycle(("a", "b", "z"), "a", rows, graces={"short": 1}))
    assert certificate.findings == ()
    kinds = {
        status: [(leg.trigger, leg.kind) for leg in way] for status, way in certificate.ways.items()
    }
    assert kinds == {
        "a": [("give_up", "timed and guarded")],
        "b": [("expire", "timed and guarded")],
    }
    reached, living = certificate.ended
    assert reached == 0 < living  # here the guard never holds, and that is told


def test_certify_tries_what_differs_a_little_where_settings_are_too_many() -> None:
    """With very many guards not all settings are tried, and the certificate says so."""
    many = [Guard(f"guard {number}", lambda _: True, "no") for number in range(14)]
    certificate = certify(small(Row("go", "open", None, guards=many)))
    assert certificate.findings == ()
    assert certificate.walked.complete == {"closed"}
    assert dict(certificate.walked.settings)["open"] < 2 * MOST_SETTINGS
    assert seen(certificate, "go", "open")[1] == tuple(guard.name for guard in many)
    assert "open (not all: see below)" in render(certificate)
    assert "those were tried that differ in at most two" in render(certificate)


def test_certify_settings_are_all_there_are() -> None:
    """Every combination is there once; near ones differ from an end in two switches at most."""
    switched = Switched(SESSION_LIFECYCLE)
    switches = switched.switches("active")
    assert [len(switch.values) for switch in switches].count(len(POSITIONS)) == 2
    is_all, found = settings(switches)
    assert is_all
    assert len({tuple(setting.items()) for setting in found}) == len(found) == 2**5 * 4 * 4
    many = [attrs.evolve(switches[0], name=str(number)) for number in range(13)]
    is_all, found = settings(many)
    assert not is_all
    ends = [{switch: switch.values[index] for switch in many} for index in (0, -1)]
    assert all(
        min(sum(setting[each] != end[each] for each in many) for end in ends) <= 2
        for setting in found
    )
    assert len({tuple(setting.values()) for setting in found}) == len(found) == 2 * (1 + 13 + 78)


def test_certify_takes_the_states_of_a_caller() -> None:
    """What a guard looks at may be handed in; a state that is not valid is refused."""
    rare = Guard("is rare", lambda shown: shown.state.metadata.get("rare") is True, "common")
    lifecycle = small(Row("praise", "open", None, guards=(rare,)))
    text = render(certify(lifecycle))
    assert "Not seen both ways: is rare." in text
    state = SessionState.new("a", at=NOON, status="open", metadata={"rare": True})
    certificate = certify(lifecycle, probes=[state])
    [asked] = certificate.tried.asked
    assert asked.held > 0
    assert "Not seen both ways" not in render(certificate)
    with pytest.raises(StateInvalidError, match="unknown status 'shut'"):
        certify(lifecycle, probes=[SessionState.new("a", at=NOON, status="shut")])


def test_certify_finds_states_by_firing() -> None:
    """What effects write, guards may look at: states are found by firing what is permitted."""

    def paid(_: Attempt) -> Mapping[str, Any]:
        return {"metadata": {"paid": True}}

    is_paid = Guard("is paid", lambda shown: "paid" in shown.state.metadata, "not paid")
    rows = [
        Row("pay", "open", None, effect=paid),
        Row("ship", "open", "shipped", guards=(is_paid,)),
        Row("end", "shipped", "closed", ending=True),
    ]
    stop = Row("stop", "open", "closed", ending=True)
    certificate = certify(Lifecycle(("open", "shipped", "closed"), "open", (stop, *rows)))
    assert certificate.findings == ()
    [asked] = certificate.tried.asked
    assert asked.held > 0
    assert asked.refused > 0
    assert ("pay", "open", ("metadata",)) in certificate.tried.changes


@pytest.mark.parametrize("fault", ["guard raises", "guard is no bool", "effect", "deadline"])
def test_certify_counts_faults_of_functions(fault: str) -> None:
    """Where a function of the author's is at fault, the machine changes nothing, and says so."""

    def raises(_: Attempt) -> Any:
        raise ZeroDivisionError

    rows = {
        "guard raises": Row("go", "open", None, guards=(Guard("g", raises, "no"),)),
        "guard is no bool": Row("go", "open", None, guards=(Guard("g", lambda _: 1, "no"),)),  # type: ignore[arg-type, return-value]
        "effect": Row("go", "open", None, effect=raises),
        "deadline": Row("go", "open", "closed", deadline=Deadline("some day", raises)),
    }
    certificate = certify(small(rows[fault]))
    assert certificate.findings == ()
    assert dict(certificate.tried.outcomes)["fault"] > 0


def test_certify_takes_odd_words() -> None:
    """Statuses, guards and names may be any words, and a row may lead to its own status."""
    guards = [Guard("| `x` <b>\n", lambda _: True, "no"), Guard("open due", lambda _: False, "no")]
    rows = [
        Row("open_", "to | do", "to | do", guards=guards[:1]),
        Row("shut", ("to | do", "übrig"), "(unknown)", ending=True),
        Row("open", "to | do", "übrig", guards=guards[1:], deadline=after_grace("short")),
        Row("unknown", LIVE, None),
    ]
    lifecycle = Lifecycle(
        ("to | do", "übrig", "(unknown)"), "to | do", rows, graces={"short": 0}, name="a/b's ? <i>"
    )
    certificate = certify(lifecycle)
    assert certificate.findings == ()
    assert all(line.isprintable() for line in render(certificate).splitlines())
    assert "| to \\| do | open\\_ | to \\| do | \\| \\`x\\` \\<b\\>\\\\n |" in render(certificate)
    with pytest.raises(ValueError, match="can't be the name of a file"):
        path_of(lifecycle, ROOT)


# --- the text ------------------------------------------------------------------------------------


def test_certify_file_is_up_to_date(ours: Certificate) -> None:
    """The certificate beside the diagrams is that of the lifecycle as it is."""
    assert path_of(SESSION_LIFECYCLE, KEPT.parent) == KEPT
    assert drift(KEPT, render(ours)) is None


def test_certify_text_says_what_holds(ours: Certificate) -> None:
    """Fingerprint, digest, claims and counts stand in the text, and nothing of this machine."""
    text = render(ours)
    assert text.startswith("# Certificate: session\n")
    assert f"| {SESSION_LIFECYCLE.fingerprint} |" in text
    assert f"| {ours.digest} |" in text
    assert all(f"| {claim.value} | holds |" in text for claim in Claim)
    assert f"| {ours.walked.cases:,} | {ours.walked.accepted:,} |" in text
    assert f"{ours.tried.cases:,} cases at {ours.tried.states:,} states" in text
    assert str(ROOT) not in text
    assert sys.version.split()[0] not in text


def test_certify_text_names_every_counterexample(ours: Certificate) -> None:
    """What does not hold stands at the top, with each counterexample below its claim."""
    findings = Findings()
    findings.add(Claim.FINAL, "'update' in 'terminated'", "is accepted", "it is late")
    findings.add(Claim.AGREES, "'touch' in 'idle'", "guard, has to be accepted", "one holds")
    findings.add(Claim.AGREES, "'touch' in 'idle'", "guard, has to be accepted", "two hold")
    failed = attrs.evolve(ours, findings=findings.all())
    assert failed.findings == (
        Finding(Claim.AGREES, "'touch' in 'idle'", "guard, has to be accepted", "one holds", 2),
        Finding(Claim.FINAL, "'update' in 'terminated'", "is accepted", "it is late"),
    )
    text = render(failed)
    assert text.startswith("# Not certified: session\n")
    assert f"| {Claim.FINAL.value} | does not hold: 1 counterexample |" in text
    first = (
        "- 'touch' in 'idle': guard, has to be accepted when one holds (2 cases like it)\n\n"
        f"### Against: {Claim.FINAL.value}\n\n- 'update' in 'terminated': is accepted when it is"
    )
    assert f"### Against: {Claim.AGREES.value}\n\n{first}" in text


@pytest.mark.parametrize("seed", ["0", "1", "4711"])
def test_certify_text_is_the_same_under_any_hash_seed(seed: str) -> None:
    """The bytes don't depend on the order of sets."""
    run = subprocess.run(
        [sys.executable, "-m", "session_fsm", "certify"],
        env=environment(PYTHONHASHSEED=seed),
        capture_output=True,
        check=True,
    )
    assert run.stdout == KEPT.read_bytes()


@pytest.mark.parametrize(
    ("kept", "told"),
    [
        (None, "it is missing"),
        (b"a\nb\n", None),
        (b"a\nc\n", "line 2 is 'c', has to be 'b'"),
        (b"a\n", "it has 1 lines, has to have 2"),
        (b"a\r\nb\r\n", "its lines end differently"),
        (b"\xff\nb\n", "line 1 is '\ufffd', has to be 'a'"),
    ],
)
def test_certify_drift_is_told(tmp_path: Path, kept: bytes | None, told: str | None) -> None:
    """A file that differs is stale, and where it differs is told."""
    path = tmp_path / "certificate.md"
    if kept is not None:
        path.write_bytes(kept)
    assert drift(path, "a\nb\n") == told


# --- the commands --------------------------------------------------------------------------------


def test_certify_module_makes_and_checks_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file is made where it is stale; a check writes nothing, and fails while it is stale."""
    given = ["--directory", str(tmp_path)]
    path = tmp_path / KEPT.name
    assert program.main([*given, "--check"]) == 1
    stale = f"{path} is stale: it is missing; run `make diagrams`\n"
    assert capsys.readouterr() == ("", stale)
    assert not path.exists()
    assert program.main(given) == 0
    assert capsys.readouterr() == (f"made {path}\n", "")
    assert path.read_bytes() == KEPT.read_bytes()
    path.write_bytes(path.read_bytes().replace(b"holds", b"stands", 1))
    assert program.main([*given, "--check"]) == 1
    assert program.main(["--directory", str(tmp_path / "none")]) == 1
    assert "No such file or directory" in capsys.readouterr().err


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch, ours: Certificate) -> Certificate:
    """What `certify` returns to the commands: a certificate that doesn't hold."""
    finding = Finding(Claim.FINAL, "'update' in 'terminated'", "is accepted")
    failed = attrs.evolve(ours, findings=(finding,))
    for module in (program, command):
        monkeypatch.setattr(module, "certify", lambda _: failed)
    return failed


FOUND = f"{Claim.FINAL.value} But 'update' in 'terminated': is accepted"


def test_certify_module_names_counterexamples(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], failing: Certificate
) -> None:
    """What can't be certified leaves the file as it is."""
    path = tmp_path / KEPT.name
    path.write_text("as it was")
    assert program.main(["--directory", str(tmp_path)]) == 1
    assert capsys.readouterr() == ("", f"error: {FOUND}\n")
    assert path.read_text() == "as it was"


def test_certify_command_writes_and_checks(tmp_path: Path) -> None:
    """`--output` gets the certificate; `--check` writes nothing and fails where it differs."""
    path = tmp_path / "any.md"
    answer = call("certify", "--output", str(path), "--check")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err == f"session-fsm: {path} is stale: it is missing\n"
    assert not path.exists()
    answer = call("certify", "-o", str(path))
    assert (answer.code, answer.out, answer.err) == (0, f"holds: {path} written\n", "")
    assert path.read_bytes() == KEPT.read_bytes()
    answer = call("certify", "-o", str(path), "--check")
    assert (answer.code, answer.out) == (0, f"holds: {path} is up to date\n")
    answer = call("certify", "-o", str(path / "in" / "a" / "file"))
    assert answer.code == 1
    assert "Not a directory" in answer.err


def test_certify_command_needs_a_file_to_check() -> None:
    """Nothing is checked where nothing is named."""
    answer = call("certify", "--check")
    assert answer.code == 2
    assert "name the certificate that is checked: --output FILE" in answer.err


def test_certify_command_names_counterexamples(tmp_path: Path, failing: Certificate) -> None:
    """A claim that does not hold ends the command with 1; no certificate is written."""
    path = tmp_path / "any.md"
    answer = call("certify", "-o", str(path))
    assert (answer.code, answer.out) == (1, f"{FOUND}\n")
    problem = "lifecycle 'session' can't be certified: 1 counterexample"
    assert answer.err == f"session-fsm: {problem}\n"
    assert not path.exists()
    document = call("certify", "--json").document
    assert document["holds"] is False
    [final] = [each for each in document["claims"] if not each["holds"]]
    assert final["claim"] == "final"
    assert final["counterexamples"] == ["'update' in 'terminated': is accepted"]


def test_certify_command_takes_any_lifecycle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--lifecycle` names what is certified."""
    source = (
        "from session_fsm import Lifecycle, Row\n"
        "DOOR = Lifecycle(('open', 'shut'), 'open', [Row('shut', 'open', 'shut')], name='door')\n"
    )
    (tmp_path / "doors_to_certify.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    named = ("--lifecycle", "doors_to_certify:DOOR")
    assert call("certify", *named).out.startswith("# Certificate: door\n")
    document = call("certify", *named, "--json").document
    assert document["lifecycle"] == "door"
    assert document["edges"] == [["open", "shut"]]
    assert document["holds"] is True
    assert document["cases"]["sql"] > 100
