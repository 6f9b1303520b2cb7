"""Where waiting mail would go now: by the settings of the running node, else by the configuration file.

A hint beside the destination that was tried. How it fails: it says nothing, if neither can be asked. Not here: MX
look-ups; the hosts of a domain are found by the workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from postroad.config.routing import NextHopSection
    from postroad.config.settings import Settings
    from postroad.mail.address import Address
    from postroad.mail.envelope import Envelope, Recipient
    from postroad.mail.routing import Found
    from postroad.operate.requests import RouteQuestion
    from postroad.store.values import Loaded, Waiting

QUESTIONS_MAX: Final = 5_000  # distinct ones that are asked for one list

Routes = Mapping[str, str]
"""By the key of the question: the destination's key, or in parentheses why there is none."""


NO_ROUTES: Final[Routes] = {}


def question(envelope: Envelope, row: Waiting) -> RouteQuestion:
    """Where would the mail of this row go?"""
    from postroad.mail import wishes
    from postroad.operate.requests import RouteQuestion

    sender = str(envelope.reverse_path or "")
    peer, priority = envelope.peer, wishes.priority(envelope.parameters)
    recipient = envelope.recipients[row.index]
    return RouteQuestion(
        str(recipient.address), sender, peer.identity, envelope.size, peer.listener, priority, envelope.classes,
        row.released, stored=recipient.destination,
    )  # fmt: skip


def questions(found: Iterable[Loaded]) -> Iterator[RouteQuestion]:
    """About the recipients of these messages that wait."""
    return (question(each.envelope, row) for each in found for row in each.waiting)


def routes(state_dir: Path, settings: Callable[[], Settings | None], asked: Iterable[RouteQuestion]) -> Routes:
    """By the node of `state_dir` if one runs, else by `settings()`, None if they are wrong."""
    from postroad.operate import control

    wanted = list(dict.fromkeys(asked))[:QUESTIONS_MAX]
    if not wanted:
        return {}
    try:
        return control.routes(state_dir, wanted)
    except control.NodeRefused:
        return {}
    except control.NotRunning:
        of_file = settings()
        return {} if of_file is None else answer(of_file, wanted)


def answer(settings: Settings, asked: Sequence[RouteQuestion], addresses: Sequence[str] = ()) -> dict[str, str]:
    """The routes by these settings, by the key of the question or by the address; none for what is no address, nor
    where maps would have to be asked."""
    from postroad.config import options
    from postroad.mail.envelope import Envelope, Peer
    from postroad.route.table import RoutingTable

    if _has_maps(settings):  # `postroad route` asks them, and waits
        return {}
    outlets = options.outlet_options(settings)
    table = RoutingTable(options.routing_options(settings), options.own_names(settings), outlets=outlets)
    found: dict[str, str] = {}
    whole_only = any(map(_looks_inside, settings.next_hop))
    for each in asked:
        if whole_only and not each.whole:
            continue
        sender = _address(each.sender) if each.sender else None
        asked_for = (("MT-PRIORITY", str(each.priority)),) if each.priority else ()
        peer = Peer(identity=each.account, listener=each.listener)
        envelope = Envelope(0, sender, (), each.size, 0, peer, parameters=asked_for, classes=each.classes)
        way = table.route(envelope, _recipient(each))
        found[each.key] = _told(way)
    for written in addresses:
        way = table.destination(_address(written))
        found[written] = _told(way)
    return found


def _recipient(asked: RouteQuestion) -> Recipient:
    from postroad.mail.envelope import Recipient

    return Recipient(_address(asked.recipient), released=asked.released, destination=asked.stored)


def _told(way: Found) -> str:
    from postroad.mail.route import Destination
    from postroad.mail.routing import HOLD, is_held

    return way.key if isinstance(way, Destination) else HOLD if is_held(way) else f"({way.text})"


def _looks_inside(hop: NextHopSection) -> bool:
    """Whether a table looks at what only the spool knows of a message."""
    numbers = hop.priority_min is not None or hop.priority_max is not None
    return numbers or bool(hop.classes or hop.fields) or hop.action.startswith("hold:")


def _has_maps(settings: Settings) -> bool:
    if settings.routing.transport_maps or settings.rewrite.relocated_maps:
        return True
    local = any(each.domain_maps or each.path_maps for each in settings.domain)
    return local or any(each.domain_maps for each in settings.relay.domain)


def _address(written: str) -> Address:
    """Also one that the grammar does not know, such as ``a..b@example.org``."""
    from postroad.mail.address import Address
    from postroad.protocol.grammar import parse_mailbox

    local_part, _, domain = written.rpartition("@")
    return parse_mailbox(written) or Address(local_part, domain.lower())


def changed(tried: str, now: str) -> str:
    """The route as it is now, if it is another than the one that was tried; else ""."""
    from postroad.mail.route import plain_key

    return now if tried and now and plain_key(tried) != plain_key(now) else ""
