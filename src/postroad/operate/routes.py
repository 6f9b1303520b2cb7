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
    from postroad.store.values import Loaded

ADDRESSES_MAX: Final = 10_000  # distinct addresses that are looked up for one list

Routes = Mapping[str, str]
"""By address: the destination's key, or in parentheses why there is none."""


NO_ROUTES: Final[Routes] = {}


def addresses_of(found: Iterable[Loaded]) -> Iterator[str]:
    """The recipients of these messages that wait."""
    return (str(each.envelope.recipients[row.index].address) for each in found for row in each.waiting)


def routes(state_dir: Path, settings: Callable[[], Settings | None], addresses: Iterable[str]) -> Routes:
    """For these addresses: by the node of `state_dir` if one runs, else by `settings()`, None if they are wrong."""
    from postroad.operate import control

    wanted = list(dict.fromkeys(addresses))[:ADDRESSES_MAX]
    if not wanted:
        return {}
    try:
        return control.routes(state_dir, wanted)
    except control.NodeRefused:
        return {}
    except control.NotRunning:
        of_file = settings()
        return {} if of_file is None else answer(of_file, wanted)


def answer(settings: Settings, addresses: Sequence[str]) -> dict[str, str]:
    """The routes by these settings; none for what is no address."""
    from postroad.config import options
    from postroad.mail.address import Address
    from postroad.mail.route import Destination
    from postroad.protocol.grammar import parse_mailbox
    from postroad.route.table import RoutingTable

    table = RoutingTable(options.routing_options(settings), options.own_names(settings))
    found: dict[str, str] = {}
    for written in addresses:
        address = parse_mailbox(written) or Address(*_halves(written))
        way = table.destination(address)
        found[written] = way.key if isinstance(way, Destination) else f"({way.text})"
    return found


def _halves(written: str) -> tuple[str, str]:
    """Local-part and domain of an address that the grammar does not know, such as ``a..b@example.org``."""
    local_part, _, domain = written.rpartition("@")
    return local_part, domain.lower()


def changed(tried: str, now: str) -> str:
    """The route as it is now, if it is another than the one that was tried; else ""."""
    from postroad.mail.route import plain_key

    return now if tried and now and plain_key(tried) != plain_key(now) else ""
