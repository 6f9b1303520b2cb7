"""`postroad dns policy`: a dry run of the TLS policy of another domain, with what its hosts show.

Exit codes: 0 mail would go, 1 it would not; 2 wrong usage; 78 the configuration is wrong.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from postroad.cli.options import config_option, json_option, settings_of

if TYPE_CHECKING:
    from postroad.mail.tls_policy import StsPolicy
    from postroad.operate.tls_policy import HostFacts, ShownCertificate, StsFacts, TlsPolicyFacts

_LEVELS = ("none", "may", "encrypt", "verify", "dane", "dane-only", "sts")


@click.command()
@click.argument("destination", metavar="DESTINATION")
@click.option(
    "--level", type=click.Choice(_LEVELS), default=None, help="As if the settings demanded this of the destination."
)
@config_option
@json_option
def policy(destination: str, level: str | None, config: Path | None, as_json: bool) -> None:
    """Show which TLS policy holds for mail to a domain or address, and whether its hosts satisfy it.

    For the domain: its MX records, whether DNSSEC proves them, its MTA-STS record, the policy that its server has now,
    and the one that the node knows. For each host: TLSA records and which certificate they fit, whether it can be
    reached and offers STARTTLS, its certificates, and whether it satisfies the policy. Then what would happen to mail
    now. No mail is sent. The command asks by itself, with the settings of [dns]; no node needs to run.

    Ends with 1 if mail would not go.
    """
    from postroad.cli.command import print_json
    from postroad.mail.route import TlsDemand
    from postroad.operate.tls_policy import dry_run

    found = dry_run(settings_of(config), destination, TlsDemand(level) if level else None)
    if as_json:
        print_json(found)
    else:
        _print(found)
    if not found.goes:
        sys.exit(1)


def _say(text: str, depth: int = 0) -> None:
    from postroad.report.text import clean

    click.echo("  " * depth + clean(text))


def _print(found: TlsPolicyFacts) -> None:
    if found.problem:
        _say(f"{found.asked}: {found.problem}")
        return
    _say(f"Mail for {found.asked} goes to {found.destination}; TLS: {found.level or 'may'}{_from(found.source)}")
    if found.mx is not None:
        proved = "proved by DNSSEC" if found.mx.secure else "not proved by DNSSEC"
        _say(f"MX records ({proved}): {', '.join(found.mx.records) or found.mx.text}")
    if found.sts is not None:
        _print_sts(found.sts)
    for host in found.hosts:
        click.echo()
        _print_host(host)
    click.echo()
    for note in found.notes:
        _say(f"Note: {note}")
    _say(f"Now: {found.outcome}")


def _from(source: str) -> str:
    return f" ({source})" if source else ""


def _print_sts(sts: StsFacts) -> None:
    if not (sts.record or sts.kept or sts.text):
        _say("MTA-STS: no record")
        return
    missing = "not known" if sts.text else "none"
    _say(f"MTA-STS record: {'; '.join(sts.record) or missing}" + (f" ({sts.text})" if sts.text else ""))
    if sts.fetched is not None:
        _say(f"its policy now: {_policy(sts.fetched)}", 1)
    elif sts.problem:
        _say(f"its policy cannot be had: {sts.problem} ({sts.failure})", 1)
    for note in sts.notes:
        _say(f"passed over: {note}", 1)
    if sts.kept is not None:
        _say(f"the node knows until {sts.kept_until}: {_policy(sts.kept)}, id {sts.kept.id or 'not known'}", 1)
    if sts.kept_problem:
        _say(sts.kept_problem, 1)


def _policy(found: StsPolicy) -> str:
    names = f", mx {', '.join(found.mx)}" if found.mx else ""
    return f"{found.mode.value}{names}, max_age {found.max_age_s} s"


def _print_host(host: HostFacts) -> None:
    _say(f"{host.preference} {host.name} [{host.address}]:{host.port}")
    if host.level:
        _say(f"policy: {host.level}{_from(host.source)}", 1)
    for record in host.tlsa:
        fits = f"fits certificate {record.fits}" if record.fits else "fits no certificate"
        _say(f"TLSA {record.record}: {fits if record.usable else 'is not usable for SMTP'}", 1)
    if not host.connects:
        _say(f"shows: {host.shows}", 1)
    else:
        _say(f"shows: {host.tls or 'no TLS'}" + (f" ({host.shows})" if host.shows else ""), 1)
    for number, each in enumerate(host.chain, 1):
        _say(f"certificate {number}: {_certificate(each)}", 1)
    if host.held:
        _say("the policy is satisfied" + (f", but: {host.text}" if host.text else ""), 1)
    else:
        _say(f"not satisfied: {host.text or host.shows}" + (f" ({host.failure})" if host.failure else ""), 1)


def _certificate(each: ShownCertificate) -> str:
    names = ", ".join(each.names[:10]) or "no name"
    return f"{names}; {each.not_before} to {each.not_after}, {each.state}; from {each.issuer}; SHA-256 {each.sha256}"
