"""Where aliases lead an address, for `postroad route`: each step, and the mailboxes, programs and files at the end.

It reads the files and asks the maps from this process, as a worker would. How it fails: `Followed.problem` says what
cannot be told. Not here: files ``.forward``, which only the porter may read.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from postroad.config.aliasing import aliases_of, relocated_of
from postroad.mail.address import Address
from postroad.mail.envelope import Recipient
from postroad.maps.asked import Asked, answered
from postroad.maps.face import NotNow
from postroad.maps.maps import Maps, make
from postroad.operate.maps import needed
from postroad.route.aliases import Aliases
from postroad.route.domain_maps import mapped_domains
from postroad.route.domains import OwnNames
from postroad.route.recipients import Recipients, mailboxes_of
from postroad.route.table import RoutingTable
from postroad.world.clock import SystemClock

if TYPE_CHECKING:
    from postroad.config.settings import Settings

STEPS_MAX: Final = 100  # aliases that are shown
ENDS_MAX: Final = 50  # mailboxes, programs and files at the end whose ways are shown


class Followed(msgspec.Struct, frozen=True):
    """`steps`: each alias with its targets, in words. `ends`: the recipients in whose place they stand; () if there is
    no alias. `more`: ends that are not among these. `problem`: why nothing can be told, or why mail is refused."""

    steps: tuple[str, ...] = ()
    ends: tuple[Recipient, ...] = ()
    more: int = 0
    problem: str = ""
    warnings: tuple[str, ...] = ()


async def follow(settings: Settings, ourselves: OwnNames, recipient: Recipient) -> Followed:
    """Where the mail of a recipient is led when it is accepted."""
    from postroad.config import options

    routed = options.routing_options(settings)
    named = [*settings.alias_maps, *settings.rewrite.relocated_maps]
    for domain in settings.domain:
        named += (*domain.recipient_maps, *domain.path_maps, *domain.domain_maps)
    for relayed in settings.relay.domain:
        named += (*relayed.recipient_maps, *relayed.domain_maps)
    maps = make(needed(options.map_options(settings), named), SystemClock(), lambda level, text: None)
    if not isinstance(maps, Maps):
        return Followed(problem="; ".join(map(str, maps)))
    try:
        table = RoutingTable(
            routed, ourselves, mapped_domains(routed, maps.named), options.outlet_options(settings)
        )
        recipients = Recipients(
            mailboxes_of(routed, maps.named), table.table_of, options.report_mailboxes(settings)
        )
        aliases = aliases_of(settings, table, recipients, maps.named, relocated_of(settings, table, maps.named))
        problems = recipients.load() or aliases.load(recipients.edition)
        if problems:
            return Followed(problem="; ".join(map(str, problems)))
        question = partial(_followed, table, aliases, recipients, recipient)
        answer = answered(question) if table.mapped is None else table.mapped.answered(question)
        found = answer if isinstance(answer, Followed | NotNow) else await answer
        return Followed(problem=found.text) if isinstance(found, NotNow) else found
    finally:
        maps.close()


def _followed(
    table: RoutingTable, aliases: Aliases, recipients: Recipients, recipient: Recipient, asked: Asked
) -> Followed:
    (meant,) = table.at_home((recipient,))
    address, exists = meant.address, partial(recipients.has_box, asked=asked)
    expansion = aliases.expand(0, 0, (meant,), exists, None, asked)
    if expansion.excess:
        return Followed(problem=expansion.excess)
    steps = [
        f"{current} leads to {', '.join(map(str, reached))}"
        for current, reached in aliases.steps(address, exists, asked, STEPS_MAX)
    ]
    if not expansion.events and (why := aliases.entangled(address, asked)):
        return Followed(tuple(steps), problem=why)
    if not expansion.events and steps and recipients.known(address, asked) is False:
        return Followed(tuple(steps), problem="no target of the alias exists: new mail for it is refused")
    if not expansion.events:
        return Followed(tuple(steps), warnings=_doubts(table, aliases, recipients, address, asked))
    ends = expansion.recipients
    if not ends:
        return Followed(tuple(steps), problem="the alias leads to nobody")
    return Followed(tuple(steps), ends[:ENDS_MAX], max(0, len(ends) - ENDS_MAX))


def _doubts(
    table: RoutingTable, aliases: Aliases, recipients: Recipients, address: Address, asked: Asked
) -> tuple[str, ...]:
    """What new mail for a mailbox meets."""
    if recipients.known(address, asked) is False and not aliases.names(address, asked):
        return (f"there is no mailbox and no alias {address}: new mail for it is refused",)
    local = table.local(address.domain)
    if local is not None and local.forward_files:
        return ("the user may have a .forward file, which is not read here",)
    return ()
