"""Dovecot's auth socket as the backend of AUTH: its mechanisms are offered, and whole exchanges passed through to it.

A worker has one connection. It is made when it is first needed, and kept. A lost connection is made again, for the next
client at once, else every `RETRY_S`. While Dovecot is down, its last known mechanisms stay on offer: so clients hear
454 and come back, instead of finding no AUTH.

What always holds: each request, and the handshake with Dovecot, is answered once and within `timeout_s`, or the
connection is given up. A client whose request was under way when the connection ended hears 454 4.7.0 (RFC 4954 §6); so
does one whose failure Dovecot calls temporary. Names come from Dovecot (`user=`), not from what the client said. What
clients send reaches Dovecot only as base64 (`protocol.dovecot_auth`).

Not here: mechanisms with channel binding, for which Dovecot would have to see our TLS. Dovecot 2.2 to 2.4.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from functools import partial
from typing import Final, cast

from postroad.accounts.accounts import NAME_MAX, Account
from postroad.accounts.authenticate import (
    PASSWORDS,
    PLUS,
    AuthOptions,
    Busy,
    Challenged,
    Improper,
    OnOutcome,
    Outcome,
    Right,
    SessionFacts,
    Wrong,
)
from postroad.protocol import dovecot_auth as wire
from postroad.protocol.sasl.step import MALFORMED
from postroad.world.network import Network, why

RETRY_S: Final = 5.0
_IDS_MAX: Final = 2**31


class Dovecot:
    """The backend. `path`: of the socket, such as ``/run/dovecot/auth-client``."""

    def __init__(
        self,
        path: str,
        options: AuthOptions,
        loop: asyncio.AbstractEventLoop,
        network: Network,
        log: Callable[[str], None],
    ) -> None:
        self._path = path
        self._options = options
        self._loop = loop
        self._network = network
        self._log = log
        self._mechanisms: tuple[str, ...] = PASSWORDS  # until Dovecot has said what it has
        self._link: _Link | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._complained = False
        self._closed = False
        self._last = 0
        self._wanting: list[DovecotExchange] = []  # begun while there was no connection
        self._under_way: dict[int, DovecotExchange] = {}
        self._connect()

    def mechanisms(self) -> tuple[str, ...]:
        return self._mechanisms

    def exchange(self, mechanism: str, facts: SessionFacts) -> DovecotExchange:
        return DovecotExchange(self, mechanism, facts)

    def close(self) -> None:
        self._closed = True
        if self._retry is not None:
            self._retry.cancel()
        if self._connecting is not None:
            self._connecting.cancel()
        if self._link is not None:
            self._link.close()
        self._give_up()

    # ---- what exchanges ask for

    def begin(self, exchange: DovecotExchange) -> None:
        """Ask now, or when the connection is there."""
        if self._link is not None and self._link.ready:
            self._ask(exchange)
        elif self._closed or len(self._wanting) >= self._options.queue_max:
            exchange.hear(Busy())
        else:
            self._wanting.append(exchange)
            self._connect()

    def write(self, octets: bytes) -> bool:
        """False: there is no connection."""
        if self._link is None or not self._link.ready:
            return False
        self._link.write(octets)
        return True

    def forget(self, exchange: DovecotExchange) -> None:
        if exchange in self._wanting:
            self._wanting.remove(exchange)
        if self._under_way.get(exchange.id) is exchange:
            del self._under_way[exchange.id]

    def _ask(self, exchange: DovecotExchange) -> None:
        self._last = self._last % _IDS_MAX + 1
        exchange.id = self._last
        octets = exchange.request()
        if octets is None:
            exchange.hear(Improper(MALFORMED))
            return
        self._under_way[exchange.id] = exchange
        self.write(octets)

    # ---- the connection

    def _connect(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if self._connecting is None and self._link is None and not self._closed:
            self._connecting = self._loop.create_task(self._connected())

    async def _connected(self) -> None:
        limit_s = self._options.timeout_s
        try:
            _, link = await self._network.connect(
                partial(_Link, self, self._loop, limit_s), "", 0, path=self._path, timeout_s=limit_s
            )
        except OSError as error:
            self._connecting = None
            self._lost(why(error))
            return
        self._connecting = None
        if link.alive:
            self._link = link
        else:
            self._lost("the connection was closed at once")

    def ready(self, mechanisms: tuple[str, ...]) -> None:
        """The handshake with Dovecot is done."""
        self._mechanisms = tuple(name for name in mechanisms if not name.endswith(PLUS))
        if self._complained:
            self._complained = False
            self._log(f"Dovecot's auth socket {self._path} is back")
        wanting, self._wanting = self._wanting, []
        for exchange in wanting:
            self._ask(exchange)

    def hear(self, event: wire.Continued | wire.LoginAccepted | wire.Denied) -> None:
        """An answer. One that comes too late belongs to nobody."""
        exchange = self._under_way.get(event.id)
        if exchange is None:
            return
        if not isinstance(event, wire.Continued):
            del self._under_way[event.id]
        exchange.hear(_outcome(event))

    def gone(self, link: _Link, text: str) -> None:
        """The connection is."""
        if self._link is link or self._connecting is not None:
            self._link = None
            self._lost(text)

    def _lost(self, text: str) -> None:
        self._give_up()
        if self._closed:
            return
        if not self._complained:
            self._complained = True
            self._log(f"Dovecot's auth socket {self._path}: {text}; clients are told to try again later")
        if self._retry is None:
            self._retry = self._loop.call_later(RETRY_S, self._connect)

    def _give_up(self) -> None:
        """Nobody waits any longer."""
        waiting = [*self._wanting, *self._under_way.values()]
        self._wanting.clear()
        self._under_way.clear()
        for exchange in waiting:
            exchange.hear(Busy())


class _Link(asyncio.Protocol):
    """The connection: octets to and from the machine."""

    def __init__(self, backend: Dovecot, loop: asyncio.AbstractEventLoop, timeout_s: float) -> None:
        self._backend = backend
        self._machine = wire.DovecotMachine()
        self._timeout_s = timeout_s
        self._timer = loop.call_later(timeout_s, self._late)
        self._transport: asyncio.Transport | None = None
        self.alive = True
        self.ready = False

    def connection_made(self, given: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, given)
        self._transport.write(wire.handshake(os.getpid()))

    def write(self, octets: bytes) -> None:
        if self._transport is not None:
            self._transport.write(octets)

    def data_received(self, data: bytes) -> None:
        machine = self._machine
        machine.feed(data)
        while self.alive and (event := machine.next_event()) is not None:
            match event:
                case wire.DovecotReady():
                    self.ready = True
                    self._timer.cancel()
                    self._backend._link = self
                    self._backend.ready(event.mechanisms)
                case wire.DovecotBroken():
                    self._end(event.text)
                case _:
                    self._backend.hear(event)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(f"the connection was lost{f': {exc}' if exc is not None else ''}")

    def _late(self) -> None:
        self._end(f"no handshake within {self._timeout_s:g} s")

    def close(self) -> None:
        self.alive = self.ready = False
        self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()

    def _end(self, text: str) -> None:
        if self.alive:
            self.close()
            self._backend.gone(self, text)


class DovecotExchange:
    """One exchange."""

    def __init__(self, backend: Dovecot, mechanism: str, facts: SessionFacts) -> None:
        self.id = 0
        self._backend, self._mechanism, self._facts = backend, mechanism, facts
        self._initial: bytes | None = None
        self._on_outcome: OnOutcome | None = None
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, initial: bytes | None, on_outcome: OnOutcome) -> None:
        self._initial = initial
        self._wait(on_outcome)
        self._backend.begin(self)

    def respond(self, response: bytes, on_outcome: OnOutcome) -> None:
        octets = wire.response(self.id, response)
        if octets is None:
            self._give_up()
            on_outcome(Improper(MALFORMED))
            return
        self._wait(on_outcome)
        # A connection that was lost and made again since knows nothing of this exchange.
        if self._backend._under_way.get(self.id) is not self or not self._backend.write(octets):
            self.hear(Busy())

    def cancel(self) -> bool:
        """What Dovecot has to answer is waited for, so that it counts; all else is given up."""
        if self._on_outcome is not None and self.id and self._backend._under_way.get(self.id) is self:
            return False
        self._give_up()
        return True

    def _give_up(self) -> None:
        self._on_outcome = None
        self._stop_waiting()
        if self.id and self._backend._under_way.get(self.id) is self:
            self._backend.write(wire.cancel(self.id))
        self._backend.forget(self)

    def request(self) -> bytes | None:
        return wire.request(self.id, self._mechanism, _parameters(self._facts), self._initial)

    def hear(self, outcome: Outcome) -> None:
        """What Dovecot says, or that nothing is to be had of it."""
        self._stop_waiting()
        on_outcome, self._on_outcome = self._on_outcome, None
        if on_outcome is not None:
            on_outcome(outcome)

    def _wait(self, on_outcome: OnOutcome) -> None:
        self._on_outcome = on_outcome
        self._timer = self._backend._loop.call_later(self._backend._options.timeout_s, self._late)

    def _late(self) -> None:
        on_outcome, self._on_outcome = self._on_outcome, None
        self._give_up()
        self._backend._log(f"Dovecot did not answer within {self._backend._options.timeout_s:g} s")
        if on_outcome is not None:
            on_outcome(Busy())

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _parameters(facts: SessionFacts) -> tuple[tuple[str, str], ...]:
    """What Dovecot is told of the session; a value "" is a flag."""
    on_outcome = [("service", "smtp")]
    for key, value in (("rip", facts.address), ("lip", facts.local_address)):
        if value:
            on_outcome.append((key, value))
    for key, port in (("rport", facts.port), ("lport", facts.local_port)):
        if port:
            on_outcome.append((key, str(port)))
    if facts.tls:
        on_outcome.append(("secured", ""))
    if facts.certificate:
        on_outcome += [("valid-client-cert", ""), ("cert_username", facts.certificate[0])]
    return tuple(on_outcome)


def _outcome(event: wire.Continued | wire.LoginAccepted | wire.Denied) -> Outcome:
    match event:
        case wire.Continued():
            return Challenged(event.challenge)
        case wire.LoginAccepted():
            name = event.user
            return Right(Account(name)) if len(name) <= NAME_MAX and name.isprintable() else Busy()
        case wire.Denied():
            return Busy() if event.temporary else Wrong(event.user, event.reason)
