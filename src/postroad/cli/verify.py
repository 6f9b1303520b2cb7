"""`postroad verify`: checks a message in a file, step by step, and says what is wrong.

Exit codes: 0 all checks that were asked for passed, 1 one did not, 2 none failed but one could not be judged, or the
file is no message, or wrong usage; 78 the configuration is wrong.
"""

from __future__ import annotations

import ipaddress
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from postroad.cli.options import config_option, json_option, settings_if_any

if TYPE_CHECKING:
    from postroad.config.settings import Settings
    from postroad.mail.address import Address
    from postroad.operate.message_file import MessageFile
    from postroad.operate.verifying import AskedSession, CheckFacts, VerifyFacts

NOT_JUDGED: Final = 2


@click.command()
@click.argument("file", metavar="FILE|-")
@click.option("--client", default=None, metavar="IP", help="The address of the client that sent the message.")
@click.option("--helo", default="", metavar="NAME", help="The name that the client said in EHLO or HELO.")
@click.option("--from", "sender", default=None, metavar="ADDRESS", help="The sender of the envelope, or <>.")
@click.option(
    "--outgoing", is_flag=True, help="Also check what Gmail, Yahoo and Microsoft demand of those who send to them."
)
@config_option
@json_option
def verify(
    file: str, client: str | None, helo: str, sender: str | None, outgoing: bool, config: Path | None, as_json: bool
) -> None:
    """Check SPF, DKIM, ARC and DMARC of the message in FILE, or on standard input (-).

    For each check: the result, its steps, and the answers of the DNS that it used. For a signature that fails: what
    has changed since the message was signed, if that can be told. SPF needs --client and --from; without them, what
    the message alone shows is checked. Names are looked up with the settings of [dns] if there is a configuration,
    else by the system's resolvers; no node needs to run.

    Ends with 0 if all checks passed, with 1 if one did not, and with 2 if one could not be judged, or the file is no
    message.
    """
    from postroad.cli.command import print_json
    from postroad.operate.message_file import MessageFile, UnfitFileError
    from postroad.operate.verifying import AskedSession

    address = _client(client)
    reverse_path = _sender(sender)
    settings = settings_if_any(config)
    receiver = settings.hostname if settings else "localhost"
    asked = AskedSession(address, helo, reverse_path, receiver, outgoing)
    try:
        with click.open_file(file, "rb") as opened:
            found = _verified(MessageFile(opened.read), asked, settings)
    except UnfitFileError as error:
        _end(f"{_named(file)}: {error}")
    except OSError as error:
        _end(f"{_named(file)} cannot be read: {error.strerror or error}")
    if as_json:
        print_json(found)
    else:
        _print(found)
    if found.failed:
        sys.exit(1)
    if found.not_judged:
        sys.exit(NOT_JUDGED)


def _client(given: str | None) -> str:
    if given is None:
        return ""
    try:
        return str(ipaddress.ip_address(given))
    except ValueError:
        raise click.BadParameter(f"{given!r} is not an IP address", param_hint="--client") from None


def _sender(given: str | None) -> Address | str | None:
    from postroad.protocol.grammar import parse_mailbox

    if given is None:
        return None
    written = given.strip().removeprefix("<").removesuffix(">")
    if not written:
        return ""
    found = parse_mailbox(written)
    if found is None:
        raise click.BadParameter(f"{given!r} is not a mail address", param_hint="--from")
    return found


def _verified(message: MessageFile, asked: AskedSession, settings: Settings | None) -> VerifyFacts:
    import asyncio
    import random

    from postroad.cli.command import time_us
    from postroad.config import options
    from postroad.operate import verifying
    from postroad.world.clock import SystemClock
    from postroad.world.dns import DnsOptions, DnsResolver

    async def ask() -> VerifyFacts:
        dns = options.dns_options(settings) if settings else DnsOptions()
        resolver = DnsResolver(dns, SystemClock(), random.SystemRandom())
        try:
            return await verifying.verify(message, asked, resolver, time_us() // 1_000_000)
        finally:
            resolver.close()

    return asyncio.run(ask())


def _named(file: str) -> str:
    return "standard input" if file == "-" else file


def _end(text: str) -> None:
    click.echo(text, err=True)
    sys.exit(NOT_JUDGED)


def _print(found: VerifyFacts) -> None:
    for note in found.notes:
        _say(f"note: {note}")
    for check in found.checks:
        _print_check(check)
    if found.demands:
        _say("")
        _say("What large providers demand:")
    for demand in found.demands:
        standing = {True: "yes", False: "NO", None: "unknown"}[demand.met]
        _say(f"  {standing:8}{demand.what} ({', '.join(demand.by)})")
        _say(f"          {demand.told}")
    if found.hints:
        _say("")
    for hint in found.hints:
        _say(f"hint: {hint}")
    _say("")
    for line in found.authentication_results.splitlines():
        _say(line)
    _say("")
    _say(_conclusion(found))


def _conclusion(found: VerifyFacts) -> str:
    if found.first_wrong:
        return f"The first thing that is wrong: {found.first_wrong}"
    if found.not_judged:
        return "Nothing is wrong as far as could be judged, but not all could be judged."
    return "Nothing is wrong."


def _print_check(check: CheckFacts) -> None:
    _say(f"{check.method.upper():6} {check.result:10} {check.told}")
    for answer in check.dns:
        shown = ", ".join(f'"{each}"' for each in answer.records) or answer.text or answer.status
        _say(f"         DNS: {answer.type} {answer.name}: {shown}")
    for step in check.steps:
        _say(f"         {step}")
    for cause in check.causes:
        _say(f"         cause: {cause}")


def _say(text: str) -> None:
    from postroad.report.text import clean

    click.echo(clean(text))
