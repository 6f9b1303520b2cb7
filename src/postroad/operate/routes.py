"""Where waiting mail would go now: by the settings of the running node, else by the configuration file.

A hint beside the destination that was tried. How it fails: it says nothing, if neither can be asked. Not here: MX
look-ups; the hosts of a domain are found by the workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from postroad.config.settings import Settings
    from postroad.mail.address import Address
    from postroad.mail.envelope import Envelope
    from postroad.operate.requests import RouteQuestion
    from postroad.store.values import Loaded

QUESTIONS_MAX: Final = 5_000  # distinct ones that are asked for one list

Routes = Mapping[str, str]
"""By the key of the question: the destination's key, or in parentheses why there is none."""


NO_ROUTES: Final[Routes] = {}


def question(envelope: Envelope, index: int) -> RouteQuestion:
    """Where would mail for this recipient go?"""
    from postroad.operate.requests import RouteQuestion

    sender = str(envelope.reverse_path or "")
    return RouteQuestion(str(envelope.recipients[index].address), sender, envelope.peer.identity)


def questions(found: Iterable[Loaded]) -> Iterator[RouteQuestion]:
    """About the recipients of these messages that wait."""
    return (question(each.envelope, row.index) for each in found for row in each.waiting)


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
    from postroad.mail.envelope import Envelope, Peer, Recipient
    from postroad.mail.route import Destination
    from postroad.route.table import RoutingTable

    if settings.routing.transport_maps or _has_domain_maps(settings):  # `postroad route` asks them, and waits
        return {}
    table = RoutingTable(options.routing_options(settings), options.own_names(settings))
    found: dict[str, str] = {}
    for each in asked:
        sender = _address(each.sender) if each.sender else None
        envelope = Envelope(0, sender, (), 0, 0, Peer(identity=each.account))
        way = table.route(envelope, Recipient(_address(each.recipient)))
        found[each.key] = way.key if isinstance(way, Destination) else f"({way.text})"
    for written in addresses:
        way = table.destination(_address(written))
        found[written] = way.key if isinstance(way, Destination) else f"({way.text})"
    return found


def _has_domain_maps(settings: Settings) -> bool:
    local = any(each.domain_maps for each in settings.domain)
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
