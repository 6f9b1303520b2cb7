"""The hops of a destination for which several servers are set, and of its fallbacks.

Servers are tried by priority, the lowest number first; those of one priority in an order by chance that follows their
weights (RFC 2782). A list of transport(5), ``[a]:25, [b]:25``, is a list of priorities. Fallbacks come behind all
others.

What always holds: a server that cannot be found keeps nobody from the others; if one of them is this node, it and all
that do not come before it are left out, so that mail cannot go in circles (as with MX records, RFC 5321 §5.1). How it
fails: with an Attempt that tells of all, a deferral if one of them may be found later. What loops back to us goes to no
fallback, and neither does mail for a domain that says that it takes none (RFC 7505). Not here: look-ups (`route.mx`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from random import Random
from typing import Final

import msgspec

from postroad.mail.attempt import Attempt, Outcome
from postroad.mail.route import Destination, Fallback, Route, SetServer

LOOP: Final = "5.4.6"  # the domain's best mail exchanger is this node
OURSELVES: Final = "4.3.5"  # the server that was set is this node
NULL_MX: Final = "5.1.10"
_NO_FALLBACK: Final = (LOOP, OURSELVES, NULL_MX)
_TOLD_MAX: Final = 1000  # characters of what several servers lack

Find = Callable[[Destination], Awaitable[Route | Attempt]]


async def hops(destination: Destination, find: Find, random: Random) -> Route | Attempt:
    """The route to the servers of a destination and to its fallbacks. `find`: the route of one server."""
    if not destination.fallbacks:
        return await _among(destination, find, random)
    found, *behind = await asyncio.gather(
        _among(destination, find, random),
        *(_fallen_back(destination, each, find) for each in _in_order(destination.fallbacks, random)),
    )
    if isinstance(found, Attempt) and found.status in _NO_FALLBACK:
        return found
    first = found.hops if isinstance(found, Route) else ()
    last = tuple(hop for each in behind if isinstance(each, Route) for hop in each.hops)
    if first or last:
        return Route(destination, first + last)
    attempts = [each for each in (found, *behind) if isinstance(each, Attempt)]
    return _verdict(attempts)


async def _among(destination: Destination, find: Find, random: Random) -> Route | Attempt:
    if not destination.servers:
        return await find(destination)
    ordered = list(by_weight(destination.servers, random))
    found = await asyncio.gather(*(find(_alone(destination, server)) for server in ordered))
    limit = min(
        (server.priority for server, each in zip(ordered, found, strict=True) if _is_us(each)), default=None
    )
    kept = [
        each
        for server, each in zip(ordered, found, strict=True)
        if limit is None or server.priority < limit or (server.priority == limit and _is_us(each))
    ]
    hops = tuple(hop for each in kept if isinstance(each, Route) for hop in each.hops)
    return Route(destination, hops) if hops else _verdict([each for each in kept if isinstance(each, Attempt)])


def _is_us(found: Route | Attempt) -> bool:
    return isinstance(found, Attempt) and found.status in (LOOP, OURSELVES)


def _alone(destination: Destination, server: SetServer) -> Destination:
    """The destination as if it had this server only."""
    host, domain = ("", server.host) if server.mx else (server.host, "")
    return msgspec.structs.replace(destination, host=host, domain=domain, port=server.port, servers=(), fallbacks=())


async def _fallen_back(destination: Destination, fallback: Fallback, find: Find) -> Route | Attempt:
    alone = msgspec.structs.replace(_alone(destination, fallback.server), tls=fallback.tls, terms=fallback.terms)
    found = await find(alone)
    if isinstance(found, Attempt):
        return found
    return Route(destination, tuple(msgspec.structs.replace(hop, fallback=fallback) for hop in found.hops))


def _in_order(fallbacks: Sequence[Fallback], random: Random) -> Iterator[Fallback]:
    by_server = {each.server: each for each in fallbacks}
    return (by_server[server] for server in by_weight(tuple(by_server), random))


def by_weight(servers: Sequence[SetServer], random: Random) -> Iterator[SetServer]:
    """RFC 2782: by priority; within one, each next one is drawn with a chance that follows its weight. One without a
    weight is drawn seldom while there are others that have one."""
    for _, group in groupby(sorted(servers, key=attrgetter("priority")), attrgetter("priority")):
        left = list(group)
        random.shuffle(left)
        left.sort(key=attrgetter("weight"))
        while len(left) > 1:
            drawn = random.randint(min(left[0].weight, 1), sum(server.weight for server in left))
            at = 0
            while (drawn := drawn - left[at].weight) > 0:
                at += 1
            yield left.pop(at)
        yield left[0]


def _verdict(attempts: Sequence[Attempt]) -> Attempt:
    """One outcome for all: the first deferral, else the first failure; its text tells of them all."""
    chosen = next((each for each in attempts if each.outcome is Outcome.DEFERRED), attempts[0])
    if len(attempts) == 1:
        return chosen
    told = "; ".join(dict.fromkeys(each.text for each in attempts))[:_TOLD_MAX]
    return msgspec.structs.replace(chosen, text=told)
