"""The command that certifies a lifecycle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..certify import Certificate, Claim, certify, drift, render
from .lifecycles import LifecycleName, load_lifecycle
from .options import AsJson, NoColor, UsageError
from .output import Screen, Styled
from .text import counted


def certify_lifecycle(
    lifecycle_name: LifecycleName = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            show_default="the standard output",
            help="Where the certificate is written; a file that is there is replaced.",
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Write nothing; fail if --output isn't up to date."),
    ] = False,
    as_json: AsJson = False,
    no_color: NoColor = False,
) -> None:
    """Walk a lifecycle through everything, and write what holds of it as a certificate.

    Every status, trigger, guard valuation and deadline goes through the machine, and plain SQL
    attacks a store file that is thrown away. Where anything does not hold, each counterexample is
    named, --output is left as it was, and the exit code is 1.
    """
    screen = Screen(as_json=as_json, no_color=no_color)
    if check and output is None:
        raise UsageError("--check", "name the certificate that is checked: --output FILE")
    lifecycle = load_lifecycle(lifecycle_name)
    with screen.progress() as bar:
        bar.phase("certifying")
        certificate = certify(lifecycle)
    text = render(certificate)
    stale = drift(output, text) if check and output is not None else None
    if output is not None and certificate.holds and not check:
        output.write_bytes(text.encode())
    if as_json:
        screen.document(_record(certificate) | ({"stale": stale} if check else {}))
    elif not certificate.holds:
        for finding in certificate.findings:
            screen.line(f"{finding.claim.value} But {finding}")
    elif output is None:
        screen.text(text)
    elif stale is None:
        state = "is up to date" if check else "written"
        screen.line(Styled("holds", "bold green"), f": {output} {state}")
    if not certificate.holds:
        found = counted(len(certificate.findings), "counterexample")
        screen.fault(f"lifecycle {lifecycle.name!r} can't be certified: {found}")
        raise typer.Exit(1)
    if stale is not None:
        screen.fault(f"{output} is stale: {stale}")
        raise typer.Exit(1)


def _record(certificate: Certificate) -> dict[str, object]:
    return {
        "lifecycle": certificate.lifecycle.name,
        "fingerprint": certificate.lifecycle.fingerprint,
        "holds": certificate.holds,
        "digest": certificate.digest,
        "claims": [
            {
                "claim": claim.name.lower(),
                "holds": not certificate.against(claim),
                "counterexamples": [str(each) for each in certificate.against(claim)],
            }
            for claim in Claim
        ],
        "cases": {
            "switched": certificate.walked.cases,
            "real": certificate.tried.cases,
            "sql": sum(each.admitted + each.refused for each in certificate.attack.kinds),
        },
        "edges": sorted([*edge] for edge in certificate.attack.edges),
    }
