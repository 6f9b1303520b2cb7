"""Doubts about mailboxes that settings name and that are not there: a copy or a report for one of them would make a
mailbox that nobody reads.

Only what the configuration and its files know is judged. If aliases or recipients come from maps, nothing is said.
"""

from __future__ import annotations

from collections.abc import Iterator

from postroad.config import files
from postroad.config.finding import Finding
from postroad.config.locate import Path
from postroad.config.options import alias_limits, alias_sources, outlet_options
from postroad.config.settings import Settings
from postroad.mail.address import Address
from postroad.mail.extension import without_extension
from postroad.protocol.grammar import parse_mailbox
from postroad.route import alias_file
from postroad.route.includes import IncludingTargets
from postroad.route.recipients import fold


def find(settings: Settings, now_s: float) -> Iterator[Finding]:
    named: list[tuple[Path, str]] = [(("postmaster",), settings.postmaster)] if settings.postmaster else []
    named += [(("rewrite", "always_bcc", at), each) for at, each in enumerate(settings.rewrite.always_bcc)]
    named += [(("dsn", "contact"), settings.dsn.contact)] if settings.dsn.contact else []
    named += [(("feedback", "contact"), settings.feedback.contact)] if settings.feedback.contact else []
    named += [
        (("listener", at, "quarantine_to"), each.quarantine_to)
        for at, each in enumerate(settings.listener) if each.quarantine_to
    ]  # fmt: skip
    if not named or settings.alias_maps:
        return
    homes, aliases = files.homes(settings), aliases_in_file(settings)
    if homes is None or aliases is None:
        return  # a problem, not a doubt
    for key, written in named:
        address = parse_mailbox(written)
        if address is not None and homes.known(address) is False and not _is_alias(address, aliases, homes.delimiter):
            text = f"There is no mailbox and no alias {written}"
            yield Finding((key,), text, "Add it to `recipients` of its domain or to the aliases, or write another one")


def aliases_in_file(settings: Settings) -> alias_file.AliasTable | None:
    """Those of the alias file; None if it cannot be read, which is a finding of its own."""
    if settings.aliases is None:
        return {}
    text = files.read_text(settings.aliases)
    if not isinstance(text, str):
        return None
    reader, source = IncludingTargets(outlet_options(settings)), alias_sources(settings)[""]
    found = alias_file.parse(text, str(settings.aliases), None, alias_limits(settings), reader, source)
    return None if isinstance(found, tuple) else found


def _is_alias(address: Address, aliases: alias_file.AliasTable, delimiter: str) -> bool:
    local_parts = {fold(each, "") for each in (address.local_part, without_extension(address.local_part, delimiter))}
    names = {f"@{address.domain}", *local_parts, *(f"{each}@{address.domain}" for each in local_parts)}
    return not names.isdisjoint(aliases)
