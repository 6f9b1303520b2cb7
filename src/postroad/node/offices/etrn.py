"""ETRN in a worker: who may use it, which messages are meant, and their retry, as if an operator asked for it (RFC
1985).

What always holds: `done` is called exactly once, with the reply; a worker starts a queue at most once in `interval_s`,
however often clients ask; all workers of the node look at their shards, and the reply does not wait until the messages
have been tried. Only the queues of relay domains can be started, and held mail stays held.

While the spool searches for mail, it accepts none. So one client may start at most `names_max` queues within
`interval_s`. A worker searches for one queue at a time, and then rests longer than it has searched. The number of
waiting queues is bounded, and a queue that already waits is searched once for all clients that ask.

How it fails: 458 if a worker did not answer, or too many ask.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

from postroad.check.etrn import EtrnOptions, is_allowed
from postroad.mail.envelope import Peer
from postroad.mail.reply import Reply
from postroad.mail.route import keys_of
from postroad.maps.face import NotNow
from postroad.operate.operator import Operator, OperatorAction, OperatorRequest
from postroad.protocol import etrn
from postroad.protocol.etrn import EtrnKind, Wish
from postroad.store.values import Selection

COUNT_MAX: Final = 10_000  # messages that are counted for the reply
_REMEMBERED_MAX: Final = 10_000  # queues that were started lately, and clients that asked
_WAITING_MAX: Final = 100  # queues that wait until they are looked for
_REST: Final = 4.0  # times as long as it took to look
_REST_MAX_S: Final = 10.0

OnReply = Callable[[Reply], None]
# To all workers: the wish, who asks, and what their counts are told to (None: a worker that did not answer)
Counted = Callable[[Sequence[int | None]], None]
Ask = Callable[[Wish, str, Counted], None]


class Routing(Protocol):
    @property
    def has_maps(self) -> bool: ...
    def make_known(self, domain: str) -> NotNow | Awaitable[NotNow | None] | None: ...
    def is_relay(self, domain: str) -> bool: ...
    def keys(self, domain: str) -> tuple[str, ...]: ...


class SelectingSpool(Protocol):
    def select(self, selection: Selection, done: Callable[[list[int]], None]) -> None: ...


class QueueStarter:
    """A worker's side and a session's side of ETRN, see the module."""

    def __init__(
        self,
        *,
        options: EtrnOptions,
        routing: Routing,
        spool: SelectingSpool,
        operator: Operator,
        ask: Ask,
        now: Callable[[], float],
        later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self.options = options
        self.routing = routing
        self._spool = spool
        self._operator = operator
        self._ask = ask
        self._now = now
        self._later = later
        self._lately: dict[Wish, float] = {}  # until when it is not started again
        self._clients: dict[str, tuple[float, int]] = {}  # until when what a client has started counts, and how much
        self._waiting: dict[Wish, tuple[str, list[Callable[[int | None], None]]]] = {}
        self._busy = False
        self._settling: set[asyncio.Task[None]] = set()  # wishes for a domain that a map is asked about

    def take(self, options: EtrnOptions, routing: Routing) -> None:
        """Settings."""
        self.options, self.routing = options, routing

    # -- for sessions

    def __call__(self, peer: Peer, wish: Wish, done: OnReply) -> None:
        """A client's wish."""
        for name in _names(wish):
            pending = self.routing.make_known(name)
            if isinstance(pending, NotNow):
                done(etrn.unable(wish))
                return
            if pending is not None:
                task = asyncio.ensure_future(self._settled(peer, wish, done, pending))
                self._settling.add(task)
                task.add_done_callback(self._settling.discard)
                return
        self._begin(peer, wish, done)

    async def _settled(self, peer: Peer, wish: Wish, done: OnReply, pending: Awaitable[NotNow | None]) -> None:
        """Once it is known whether a domain is a relay domain."""
        if await pending is None:
            self(peer, wish, done)
        else:
            done(etrn.unable(wish))

    def _begin(self, peer: Peer, wish: Wish, done: OnReply) -> None:
        why_not = self._why_not(peer, wish)
        if why_not:
            done(etrn.not_allowed(wish, why_not))
            return
        if not self._selections(wish):
            done(etrn.unable(wish))
            return
        if self._is_late(wish):
            done(etrn.started(wish))
            return
        who = peer.identity or peer.address or "a Unix socket"
        if not self._may_start_another(who):
            self._lately.pop(wish, None)
            done(etrn.unable(wish))
            return
        self._ask(wish, f"ETRN of {who}", lambda counts: done(self._answer(wish, counts)))

    def _why_not(self, peer: Peer, wish: Wish) -> str:
        # RFC 1985 §5.1: a queue is named as the sites agree on: here by a domain whose mail it holds.
        relayed = [name for name in _names(wish) if self.routing.is_relay(name)]
        if not relayed:
            return "not a relay domain"
        return "" if any(is_allowed(self.options.rows, peer, name) for name in relayed) else "not for this client"

    def _is_late(self, wish: Wish) -> bool:
        """Whether it was started a moment ago; if not, it is now."""
        now, lately = self._now(), self._lately
        if lately.get(wish, 0.0) > now:
            return True
        if len(lately) >= _REMEMBERED_MAX:
            lately.clear()
        lately[wish] = now + self.options.interval_s
        return False

    def _may_start_another(self, who: str) -> bool:
        now, clients = self._now(), self._clients
        until, count = clients.get(who, (0.0, 0))
        if until <= now:
            if len(clients) >= _REMEMBERED_MAX:
                clients.clear()
            until, count = now + self.options.interval_s, 0
        clients[who] = (until, count + 1)
        return count < self.options.names_max

    def _answer(self, wish: Wish, counts: Sequence[int | None]) -> Reply:
        known = [count for count in counts if isinstance(count, int)]
        if len(known) < len(counts) or not counts:
            self._lately.pop(wish, None)
            return etrn.unable(wish)
        return etrn.found(wish, sum(known), exact=all(count < COUNT_MAX for count in known))

    # -- in each worker

    def _selections(self, wish: Wish) -> tuple[Selection, ...]:
        """What is meant. By destination if all are known, which is an index; () if nothing can be routed."""
        if self.routing.has_maps:
            names = (f"@{wish.name}", f"@.{wish.name}") if wish.kind is EtrnKind.SUBDOMAINS else (f"@{wish.name}",)
            return tuple(Selection(recipient=name, held=False, limit=COUNT_MAX) for name in names)
        # Mail that demands more or less of the way waits under keys of its own.
        keys = tuple(key for plain in self.routing.keys(wish.name) for key in keys_of(plain))
        if not keys:
            return ()
        match wish.kind:
            case EtrnKind.QUEUE:
                return tuple(Selection(destination=key, limit=COUNT_MAX) for key in keys)
            case EtrnKind.NODE | EtrnKind.SUBDOMAINS:
                name = f"@{wish.name}"
                own = tuple(Selection(destination=key, recipient=name, limit=COUNT_MAX) for key in keys)
                if wish.kind is EtrnKind.NODE:
                    return own
                return (*own, Selection(recipient=f"@.{wish.name}", held=False, limit=COUNT_MAX))

    def start(self, wish: Wish, by: str, done: Callable[[int | None], None]) -> None:
        """Count what this worker has for it and try that; `done` gets the count, None if too many wait."""
        waiting = self._waiting.get(wish)
        if waiting is not None:
            waiting[1].append(done)
        elif len(self._waiting) >= _WAITING_MAX:
            done(None)
        else:
            self._waiting[wish] = (by, [done])
            self._look()

    def _look(self) -> None:
        """For the queue that has waited longest."""
        if self._busy or not self._waiting:
            return
        self._busy = True
        wish = next(iter(self._waiting))
        by, tell = self._waiting.pop(wish)
        _Search(self._spool, self._selections(wish), self._now()).start(
            lambda search: self._looked(search, by, tell)
        )

    def _looked(self, search: _Search, by: str, tell: Sequence[Callable[[int | None], None]]) -> None:
        for done in tell:
            done(min(len(search.found), COUNT_MAX))
        if search.found:
            retry = OperatorRequest(OperatorAction.RETRY, search.selections, by=by, rows_max=0, before_release=False)
            self._operator.operate(retry, lambda rows: self._rest(search.began))
        else:
            self._rest(search.began)

    def _rest(self, began: float) -> None:
        self._later(min(_REST_MAX_S, _REST * (self._now() - began)), self._rested)

    def _rested(self) -> None:
        self._busy = False
        self._look()


def _names(wish: Wish) -> tuple[str, ...]:
    """The domains whose mail is meant."""
    return (wish.name, f"any.{wish.name}") if wish.kind is EtrnKind.SUBDOMAINS else (wish.name,)


class _Search:
    """Which messages of this worker are meant."""

    def __init__(self, spool: SelectingSpool, selections: tuple[Selection, ...], began: float) -> None:
        self.selections = selections
        self.began = began
        self.found: set[int] = set()
        self._spool = spool
        self._left = len(selections)

    def start(self, done: Callable[[_Search], None]) -> None:
        def selected(ids: list[int]) -> None:
            self.found.update(ids)
            self._left -= 1
            if not self._left:
                done(self)

        if not self.selections:
            done(self)
        for selection in self.selections:
            self._spool.select(selection, selected)
