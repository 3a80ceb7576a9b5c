"""A certificate as a Markdown document: what holds, what was tried, and what was seen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from ..diagrams.markdown import escaped
from ..diagrams.picture import plain
from .certificate import Certificate
from .findings import Claim
from .switches import MOST_SETTINGS
from .ways import Way

_YES, _STAYS = "yes", "stays"


def render(certificate: Certificate) -> str:
    """Write a certificate as Markdown; the same bytes for the same lifecycle, everywhere."""
    return "\n\n".join(_parts(certificate)) + "\n"


def _parts(certificate: Certificate) -> Iterator[str]:
    lifecycle = certificate.lifecycle
    name = _cell(lifecycle.name)
    verdict = "Certificate" if certificate.holds else "Not certified"
    yield f"# {verdict}: {name}"
    yield (
        "Everything below was seen on the machine, the function `step` and the dry run `explain`,"
        " and on a store file; the table was read only to be compared with it."
    )
    graces = [f"{each} {_seconds(certificate, each)}" for each in sorted(lifecycle.graces)]
    yield _table(
        ("", ""),
        [
            ("lifecycle", lifecycle.name),
            ("fingerprint of its table", lifecycle.fingerprint),
            ("graces", ", ".join(graces) or "none"),
            ("digest of what was seen", certificate.digest),
        ],
    )
    yield "## What holds"
    yield _table(("claim", ""), _claims(certificate))
    for claim in Claim:
        if found := certificate.against(claim):
            yield f"### Against: {claim.value}"
            yield "\n".join(f"- {_cell(str(each))}" for each in found)
    yield from _covered(certificate)
    yield from _seen(certificate)
    yield from _ways(certificate)
    yield from _guards(certificate)
    yield from _database(certificate)


def _claims(certificate: Certificate) -> Iterator[tuple[str, str]]:
    for claim in Claim:
        found = certificate.against(claim)
        number = f"{len(found):,} counterexample{'' if len(found) == 1 else 's'}"
        yield claim.value, f"does not hold: {number}" if found else "holds"


def _covered(certificate: Certificate) -> Iterator[str]:
    walked, tried = certificate.walked, certificate.tried
    triggers = len(certificate.lifecycle.triggers) + 1
    yield "## What was covered"
    yield (
        "Each guard was replaced by a switch that holds or fails, and each deadline by one that"
        " the instant of firing lies before, at or after, or that never comes. In each status every"
        " trigger, and one that does not exist, was fired in every setting of what the status's"
        " rows ask for, and this twice: while all that other rows ask for holds, and while it"
        " fails."
    )
    yield _table(
        ("status", "settings", "triggers", "cases", "accepted"),
        [
            (
                f"{status}{'' if status in walked.complete else ' (not all: see below)'}",
                f"{count:,}",
                f"{triggers:,}",
                f"{sum(each.cases for each in walked.behaviours if each.status == status):,}",
                f"{sum(each.accepted for each in walked.behaviours if each.status == status):,}",
            )
            for status, count in walked.settings
        ]
        + [("all", "", "", f"{walked.cases:,}", f"{walked.accepted:,}")],
    )
    if len(walked.complete) < len(walked.settings):
        yield (
            f"Where a status has more than {MOST_SETTINGS:,} settings, those were tried that differ"
            " in at most two guards or deadlines from all letting rows pass, or from none."
        )
    yield (
        f"With guards, deadlines and effects as they were written: {tried.cases:,} cases at"
        f" {tried.states:,} states, just before, at and just after each deadline, before the last"
        f" change and long after it. They came to: {_counts(tried.outcomes)}. A case is a fault"
        " where an argument makes no valid state, or a guard or an effect could not deal with it;"
        " the machine then changes nothing. In every case it was compared what was returned, the"
        " whole state, the revision, and for a refusal its kind, all failed guards, what is"
        " permitted, and what fires by itself next."
    )


def _counts(counted: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{_cell(what)} {number:,}" for what, number in counted)


def _seen(certificate: Certificate) -> Iterator[str]:
    tried = certificate.tried
    changes = {(trigger, status): fields for trigger, status, fields in tried.changes}
    yield "## What the machine does"
    yield (
        "All that it accepts, and what that depends on; it refuses all else. It changes the status"
        " and `status_since` where a row leads elsewhere, `last_activity_at` where the row counts"
        " as activity, `updated_at` always, and of the data what its effect was seen to change."
    )
    yield _table(
        ("in", "trigger", "leads to", "when", "activity", "changes", "accepted"),
        [
            (
                each.status,
                each.trigger,
                " or ".join(target or _STAYS for target in each.targets),
                ", ".join(each.needs) or "always",
                _YES if each.activity else "",
                ", ".join(changes.get((each.trigger, each.status), ())),
                f"{each.accepted:,} of {each.cases:,}",
            )
            for each in certificate.walked.behaviours
            if each.accepted
        ],
    )
    quiet = [
        status
        for status, _ in certificate.walked.settings
        if not any(each.accepted for each in certificate.walked.behaviours if each.status == status)
    ]
    yield f"Nothing is accepted in: {_cell(', '.join(quiet) or 'no status')}."


def _ways(certificate: Certificate) -> Iterator[str]:
    reached, living = certificate.ended
    yield "## Ways to the end"
    yield (
        "Walked by the machine with every guard switched off: what time alone lets pass, and what"
        " nothing can stop."
    )
    yield _table(("from", "way", "by rows that are"), _way_rows(certificate.ways))
    yield (
        f"{reached:,} of {living:,} real states that live came to their end along these ways, each"
        " timed row fired when it was due by its own deadline."
    )
    if certificate.ways_out:
        yield "The ways out that a manager goes when it ends one at once, guards holding:"
        yield _table(("from", "way"), [row[:2] for row in _way_rows(certificate.ways_out)])


def _way_rows(ways: Mapping[str, Way]) -> Iterator[tuple[str, str, str]]:
    for status, way in ways.items():
        legs = ", ".join(f"{leg.trigger} → {leg.target}" for leg in way)
        yield status, legs, ", ".join(leg.kind for leg in way)


def _guards(certificate: Certificate) -> Iterator[str]:
    asked = certificate.tried.asked
    if not asked:
        return
    yield "## Guards and deadlines as they were written"
    yield "How often each let its row pass, and refused it, at the real states."
    yield _table(
        ("guard or deadline", "let pass", "refused"),
        [(each.name, f"{each.held:,}", f"{each.refused:,}") for each in asked],
    )
    if unseen := [each.name for each in asked if not each.held or not each.refused]:
        yield (
            f"Not seen both ways: {_cell(', '.join(unseen))}. What these look at is not among the"
            " states that were made up; as switches they were set both ways. States of one's own"
            " can be handed to `certify(…, probes=…)`."
        )


def _database(certificate: Certificate) -> Iterator[str]:
    attacked = certificate.attack
    yield "## The database"
    yield (
        "A store file with a session in each status, attacked with plain SQL: every statement in"
        " every form of `OR …`, with recursive triggers off and on. After each, every session of"
        " the file was compared with what had to be there."
    )
    order = [str(status) for status in certificate.lifecycle.statuses]
    edges = sorted(attacked.edges, key=lambda edge: tuple(map(order.index, edge)))
    shown = ", ".join(f"{source} → {target}" for source, target in edges)
    yield f"Of all pairs of different statuses it let these {len(edges)} pass: {_cell(shown)}."
    yield _table(
        ("tried", "let pass", "refused"),
        [(each.what, f"{each.admitted:,}", f"{each.refused:,}") for each in attacked.kinds],
    )


def _seconds(certificate: Certificate, grace: str) -> str:
    return f"{certificate.lifecycle.graces[grace].total_seconds():.10g} s"


def _cell(text: str) -> str:
    return escaped(plain(text))


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *([_cell(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
