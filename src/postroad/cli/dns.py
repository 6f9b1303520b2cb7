"""`postroad dns`: the records that the mail of a domain needs, and whether the DNS has them (docs/dns.md).

No node needs to run. The commands read the settings, certificates and keys, and ask the resolvers of `[dns]`.
"""

from __future__ import annotations

import ipaddress
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from postroad.cli import dns_policy
from postroad.cli.command import end, print_json, time_us
from postroad.cli.options import config_option, json_option, settings_of

if TYPE_CHECKING:
    from postroad.config.settings import Settings
    from postroad.operate.domain_check import RecordFinding
    from postroad.operate.domain_records import NodeFacts

NOT_JUDGED: Final = 2
_MODES: Final = ("enforce", "testing", "none")
_MARKS: Final = {"ok": "ok", "advice": "advice", "wrong": "WRONG", "unknown": "unknown"}


@click.group()
def dns() -> None:
    """Show the DNS records that the mail of a domain needs, and compare them with what the DNS says. Show the TLS
    policy of another domain."""


dns.add_command(dns_policy.policy)


_address_option = click.option(
    "--address", "addresses", multiple=True, metavar="IP",
    help="A public address from which the node sends. May be given several times. Default: those of this machine.",
)


@dns.command()
@click.argument("domain")
@_address_option
@click.option(
    "--sts-mode", type=click.Choice(_MODES), default="testing", show_default=True, help="Mode of the policy of MTA-STS."
)
@json_option
@config_option
def show(domain: str, addresses: tuple[str, ...], sts_mode: str, as_json: bool, config: Path | None) -> None:
    """Print all records that the mail of DOMAIN needs, ready for its zone file.

    These are MX, SPF, DKIM, DMARC, MTA-STS with its policy file, TLS-RPT, TLSA (for the certificates in use and the
    next ones) and PTR. Records that belong into other zones are comments.
    """
    from postroad.operate import domain_records

    facts = _facts(settings_of(config), domain, addresses, sts_mode)
    found = domain_records.records(facts)
    if as_json:
        print_json(found)
    else:
        click.echo(domain_records.zone_text(found), nl=False)


@dns.command()
@click.argument("domain")
@_address_option
@json_option
@config_option
def check(domain: str, addresses: tuple[str, ...], as_json: bool, config: Path | None) -> None:
    """Compare what the DNS says of DOMAIN with what its mail needs, and name each difference with its effect.

    Ends with 0 if nothing is wrong, with 1 if something is, and with 2 if nothing is wrong as far as the DNS has
    answered, but it has not answered all questions.
    """
    settings = settings_of(config)
    facts = _facts(settings, domain, addresses, "testing")
    found = _checked(settings, facts)
    if as_json:
        print_json(found)
    else:
        for each in found:
            _print(each)
    standings = {each.standing.value for each in found}
    sys.exit(1 if "wrong" in standings else NOT_JUDGED if "unknown" in standings else 0)


def _facts(settings: Settings, domain: str, addresses: tuple[str, ...], mode: str) -> NodeFacts:
    import msgspec

    from postroad.mail.tls_policy import StsMode
    from postroad.operate.domain_facts import node_facts
    from postroad.trust import keyring

    name = keyring.canonical(domain)
    if name is None:
        raise click.UsageError(f"{domain!r} is not a domain name.")
    facts, notes = node_facts(settings, name, tuple(map(_address, addresses)), StsMode(mode))
    for note in notes:
        click.echo(f"note: {note}", err=True)
    # Behind the certificates, which only root may be able to read: keys are read with the rights of the node's user.
    return msgspec.structs.replace(facts, keys=_keys(settings, name))


def _address(written: str) -> str:
    try:
        return str(ipaddress.ip_address(written))
    except ValueError:
        raise click.BadParameter(f"{written!r} is not an IP address", param_hint="--address") from None


def _keys(settings: Settings, domain: str) -> Any:
    from postroad.operate import signing_keys
    from postroad.operate.key_folder import open_store
    from postroad.operate.view import CannotRead

    try:
        return signing_keys.domain_keys(open_store(settings, time_us), domain)
    except (CannotRead, signing_keys.KeysRefused) as error:
        end(str(error))


def _checked(settings: Settings, facts: NodeFacts) -> tuple[RecordFinding, ...]:
    import asyncio
    import random
    from concurrent.futures import ThreadPoolExecutor

    from postroad.config import options
    from postroad.operate.domain_check import check
    from postroad.trust.sts_fetch import StsFetched, fetch
    from postroad.world.clock import SystemClock
    from postroad.world.dns import DnsResolver
    from postroad.world.http import fetcher

    sts = options.sts_options(settings)

    async def ask() -> tuple[RecordFinding, ...]:
        resolver = DnsResolver(options.dns_options(settings), SystemClock(), random.SystemRandom())
        with ThreadPoolExecutor(1) as pool:

            async def policy(domain: str, id: str) -> StsFetched:
                return await fetch(domain, id, resolver, fetcher(pool, sts.ca_file), sts)

            try:
                return await check(facts, resolver, policy, time_us())
            finally:
                resolver.close()

    return asyncio.run(ask())


def _print(found: RecordFinding) -> None:
    from postroad.report.text import clean

    click.echo(clean(f"{_MARKS[found.standing.value]:8}{found.kind:8}{found.name}: {found.told}"))
    if found.effect:
        click.echo(clean(f"                effect: {found.effect}"))
    if found.standing.value in ("wrong", "advice"):
        for each in found.found:
            click.echo(clean(f"                DNS:    {each}"))
        for each in found.expected:
            click.echo(clean(f"                needed: {each}"))
