"""A domain whose mail goes to a web server by POST, which is away, busy, refuses, or is cut off around its answer.

The promises, beside those that hold for every delivery (`promises`):
1. an answer of 2xx delivers; 4xx other than 408 and 429 fails; all else, and no answer, is tried again;
2. a request has the id of the attempt before for the same message and recipient, and no other message has it;
3. a Retry-After is heeded, except by the last attempt.
"""

from __future__ import annotations

import re
import ssl
from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import unquote

from postroad.mail.attempt import Outcome
from postroad.mail.event import Attempted
from postroad.world.http_link import HttpAnswer, HttpLink
from postroad.world.problem import Problem
from tests.sim import signing
from tests.sim.ledger import Delivery, message_id_of
from tests.sim.part import Part, Scheduled, Seen
from tests.sim.plan import DOORS
from tests.sim.sender import Order

if TYPE_CHECKING:
    from tests.sim.house import House

DOMAIN = "http.test"
PLACE = "http"
FIRST = 7000  # the number of the first order
_ORDERS = 5
_LATER_S = 600
_AGAIN = (408, 429)
_WELL, _NOT_NOW, _NEVER = (200, 202, 204), (408, 429, 408, 429, 500, 503, 302), (400, 413, 422)
_STATUS = re.compile(r"HTTP (\d+)")
_HTTP = """
[[domain]]
name = "http.test"
recipients = "any"
deliver = "http"
url = "http://app.test/mail"
[http]
ca_file = "roots.pem"
"""


class ByHttp(Part):
    """The web server, and what is known of it. `said`: the statuses that it has answered of a message to somebody."""

    def __init__(self, house: House) -> None:
        super().__init__(house)
        self.said: dict[tuple[str, str], list[int]] = defaultdict(list)
        self._ids: dict[tuple[str, str], str] = {}
        self._not_before: dict[tuple[str, str], tuple[float, float]] = {}  # until when, said when

    def settings(self, toml: str) -> str:
        return toml + _HTTP

    def orders(self) -> list[Scheduled]:
        chance = self.chance
        found: list[Scheduled] = []
        for number in range(FIRST, FIRST + _ORDERS):
            to = chance.sample(("u1", "u2", "bad1", "later1"), chance.choice((1, 1, 2)))
            order = Order(
                number, DOORS["relay"], lmtp=False, address="198.51.100.5", sender=chance.choice(("bob@home.test", "")),
                recipients=tuple((f"{each}@{DOMAIN}", chance.choice(("", "SUCCESS"))) for each in to),
                body=b"posted\r\n" * chance.choice((1, 200)), pipelining=True, bdat=False, leaves="",
            )  # fmt: skip
            found.append((self.moment(), order, 3))
        return found

    # -- the server -------------------------------------------------------------------------------------------

    def request(self, owner: str, headers: dict[str, str], octets: bytes) -> HttpAnswer | Problem:
        """The whole exchange happens in one moment: a crash comes before it, or before the node hears of it."""
        house, chance = self.house, self.chance
        recipient, message_id = unquote(headers["Postroad-Recipients"]), message_id_of(octets)
        key = headers["Postroad-Queue-Id"], recipient
        if self._ids.setdefault(key, headers["webhook-id"]) != headers["webhook-id"]:
            self.fault(f"{message_id} for {recipient} is posted once more with another id")
        until, since = self._not_before.pop(key, (0.0, 0.0))
        if house.base.now < until and self._is_calm(since) and not self._is_the_last(message_id):
            self.fault(f"{message_id} for {recipient} is posted before the time that Retry-After named")
        status = self._status(recipient)
        cut = "" if house.healed else chance.choices(("", "refused", "before", "after"), (16, 2, 2, 2))[0]
        house.trace(f"http: {message_id} for {recipient}: {status} {cut}")
        if cut in ("refused", "before"):
            return Problem("http://app.test/mail", "ConnectionResetError")
        if status < 300:
            house.taken(Delivery(
                message_id, recipient, house.base.now, PLACE, octets, owner,
                signing.plain(unquote(headers["Postroad-Sender"])), excused=bool(cut),
                path=unquote(headers["Postroad-Sender"]),
            ))  # fmt: skip
        if cut:
            return Problem("http://app.test/mail", "RemoteDisconnected")
        self.said[message_id, recipient].append(status)
        retry_after = str(_LATER_S) if status in (429, 503) and chance.random() < 0.5 else ""
        if retry_after:
            self._not_before[key] = house.base.now + _LATER_S, house.base.now
        return HttpAnswer(status, b"as you say", retry_after)

    def _status(self, recipient: str) -> int:
        chance, healed = self.chance, self.house.healed
        if recipient.startswith("bad"):
            return 404
        if recipient.startswith("later") and not healed:
            return chance.choice(_NOT_NOW)
        if not healed and chance.random() < 0.3:
            return chance.choice(_NOT_NOW)
        return chance.choice(_NEVER) if not healed and chance.random() < 0.1 else chance.choice(_WELL)

    def _is_calm(self, since: float) -> bool:
        """Whether nothing has happened that brings mail before its time."""
        house = self.house
        quiet = max(house.node.operated_at, house.node.died_at) < since
        return quiet and not house.plan.jumps and not house.plan.disk

    def _is_the_last(self, message_id: str) -> bool:
        """At the end of its lifetime a message is tried once more, whatever was named."""
        lifetime_s = 86_400 * self.house.plan.lifetime_days - 60.0
        sent = (each for each in self.house.ledger.submitted if each.message_id == message_id)
        return any(self.house.base.now > each.at + lifetime_s for each in sent)

    # -- what must hold ---------------------------------------------------------------------------------------

    def check(self, seen: Seen) -> None:
        ids: dict[str, tuple[str, str]] = {}
        for key, id in self._ids.items():
            if ids.setdefault(id, key) != key:
                self.fault(f"two requests have one id: {key} and {ids[id]}")
        for event in seen.events:
            if isinstance(event, Attempted) and event.recipients[0].endswith(f"@{DOMAIN}"):
                self._judge(seen, event)

    def _judge(self, seen: Seen, event: Attempted) -> None:
        outcome, found = event.attempt.outcome, _STATUS.match(event.attempt.text)
        if found is None:
            if outcome is Outcome.DELIVERED:
                self.fault(f"{event.recipients} were delivered without an answer: {event.attempt.text}")
            return
        status, life = int(found[1]), seen.lives.get(event.id)
        due = Outcome.DELIVERED if 200 <= status < 300 else Outcome.DEFERRED
        if 400 <= status < 500 and status not in _AGAIN:
            due = Outcome.FAILED
        if outcome is not due:
            self.fault(f"HTTP {status} makes {outcome}, not {due}: {event.recipients}")
        message_id = life.accepted.message_id if life is not None else ""
        if any(status not in self.said[message_id, each] for each in event.recipients):
            self.fault(f"{message_id} for {event.recipients} was never answered with {status}")


class Link(HttpLink):
    """A connection of a worker to the server."""

    def __init__(self, house: House, owner: str, url: str, context: ssl.SSLContext, step_s: float) -> None:
        self._server = next(each for each in house.parts if isinstance(each, ByHttp))
        self._owner = owner

    def request(
        self, method: str, headers: dict[str, str], body: Iterable[bytes] | bytes | None, length: int, answer_max: int
    ) -> HttpAnswer | Problem:
        octets = body if isinstance(body, bytes) else b"".join(body or ())
        if len(octets) != length:
            self._server.fault(f"a request has {len(octets)} octets, and says {length}")
        return self._server.request(self._owner, headers, octets)

    def close(self) -> None: ...

    def give_up(self) -> None: ...
