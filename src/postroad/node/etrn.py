"""ETRN in a worker: who may, which messages are meant, and their retry as an operator would ask for it (RFC 1985).

What always holds: `done` is called exactly once, with the reply; a queue is started at most once in `interval_s` by one
worker, whoever asks and however often; all workers of the node look at their shards, and the reply does not wait until
the messages have been tried. Only relay domains have queues that can be started, and what is held stays held.

How it fails: 458 where a worker did not answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from postroad.check.etrn import EtrnOptions, is_allowed
from postroad.mail.address import Address
from postroad.mail.attempt import Attempt
from postroad.mail.envelope import Peer
from postroad.mail.reply import Reply
from postroad.mail.route import Destination, keys_of
from postroad.protocol import etrn
from postroad.protocol.etrn import Kind, Wish
from postroad.queue.operator import Operator, OperatorAction, OperatorRequest
from postroad.store.values import Selection

COUNT_MAX: Final = 10_000  # messages that are counted for the reply
_REMEMBERED_MAX: Final = 10_000  # queues that were started lately

Told = Callable[[Reply], None]
# To all workers: the plain wish, who asks, and what their counts are told to (None: a worker that did not answer)
Ask = Callable[[tuple[str, str, str], Callable[[list[Any]], None]], None]


class Routing(Protocol):
    def is_relay(self, domain: str) -> bool: ...
    def destination(self, address: Address) -> Destination | Attempt: ...


class Spool(Protocol):
    def select(self, selection: Selection, done: Callable[[list[int]], None]) -> None: ...


class QueueStarter:
    """`options` and `routing` are replaced at reload."""

    def __init__(
        self,
        *,
        options: EtrnOptions,
        routing: Routing,
        spool: Spool,
        operator: Operator,
        ask: Ask,
        now: Callable[[], float],
    ) -> None:
        self.options = options
        self.routing = routing
        self._spool = spool
        self._operator = operator
        self._ask = ask
        self._now = now
        self._lately: dict[Wish, float] = {}  # until when it is not started again

    # -- for sessions

    def __call__(self, peer: Peer, wish: Wish, done: Told) -> None:
        """A client's wish."""
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
        self._ask((wish.kind.value, wish.name, f"ETRN of {who}"), lambda counts: done(self._answer(wish, counts)))

    def _why_not(self, peer: Peer, wish: Wish) -> str:
        # RFC 1985 §5.1: a queue is named as the sites agree on: here by a domain whose mail it holds.
        names = [wish.name] if wish.kind is not Kind.SUBDOMAINS else [wish.name, f"any.{wish.name}"]
        relayed = [name for name in names if self.routing.is_relay(name)]
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

    def _answer(self, wish: Wish, counts: Sequence[Any]) -> Reply:
        known = [count for count in counts if isinstance(count, int)]
        if len(known) < len(counts) or not counts:
            self._lately.pop(wish, None)
            return etrn.unable(wish)
        return etrn.found(wish, sum(known), exact=all(count < COUNT_MAX for count in known))

    # -- in each worker

    def _selections(self, wish: Wish) -> tuple[Selection, ...]:
        """What is meant. By destination where there is one, which is an index; () where nothing can be routed."""
        destination = self.routing.destination(Address("postmaster", wish.name))
        if not isinstance(destination, Destination):
            return ()
        # Mail that demands more or less of the way waits under keys of its own.
        keys = keys_of(destination.key)
        match wish.kind:
            case Kind.QUEUE:
                return tuple(Selection(destination=key, limit=COUNT_MAX) for key in keys)
            case Kind.NODE | Kind.SUBDOMAINS:
                name = f"@{wish.name}"
                own = tuple(Selection(destination=key, recipient=name, limit=COUNT_MAX) for key in keys)
                if wish.kind is Kind.NODE:
                    return own
                return (*own, Selection(recipient=f"@.{wish.name}", held=False, limit=COUNT_MAX))

    def start(self, told: tuple[str, str, str], done: Callable[[int], None]) -> None:
        """Count what this worker has for it and try that now; `done` gets the count."""
        kind, name, by = told
        selections = self._selections(Wish(Kind(kind), name))
        found: set[int] = set()
        left = len(selections)

        def selected(ids: list[int]) -> None:
            nonlocal left
            found.update(ids)
            left -= 1
            if not left:
                done(min(len(found), COUNT_MAX))
                if found:
                    request = OperatorRequest(OperatorAction.RETRY, selections, by=by, rows_max=0, before_release=False)
                    self._operator.operate(request, lambda rows: None)

        if not selections:
            done(0)
        for selection in selections:
            self._spool.select(selection, selected)
