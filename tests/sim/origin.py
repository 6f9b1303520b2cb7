"""A listener that enforces DMARC, and senders that are what they say, or not, by a DNS that fails and lies by omission.

The promises:
1. mail that its domain vouches for (by SPF or by a right signature) is never refused for its origin, whatever the DNS
   does; only if the DNS denied a record that is there may the node believe that;
2. mail that its domain disowns is never accepted, unless the DNS did not answer, or denied a record, meanwhile;
3. Authentication-Results on top says `dmarc=pass` of the former alone, and a forged one goes;
4. when all is well, each is judged exactly as its domain's records say.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from postroad.trust.dkim_sign import DkimSigner, SigningKey, SigningOptions, public_record
from tests.sim.part import Part, Scheduled, Seen
from tests.sim.sender import Order, submit
from tests.sim.virtual import START_US

if TYPE_CHECKING:
    from tests.sim.house import House
    from tests.sim.ledger import Submitted

DOMAIN: Final = "r0.test"
DOOR: Final = "192.0.2.1:27"
FIRST: Final = 9700  # the number of the first order
KINDS: Final = ("listed", "signed", "broken", "forged")
VOUCHED: Final = ("listed", "signed")
_ORDERS: Final = 16
_TRIES: Final = 5
_KEY: Final = SigningKey(DOMAIN, "s", Ed25519PrivateKey.from_private_bytes(b"simulated" * 3 + b"world"))
_LISTED, _OTHER = "198.51.105.1", "198.51.105.99"
_BEFORE_S: Final = 120.0  # so long before an answer to RCPT its questions may have been asked
_CLAIM: Final = "Authentication-Results: mx.home.test; dmarc=pass header.from=r0.test\r\n"
_TOP: Final = re.compile(rb"^Authentication-Results: mx\.home\.test;((?:.*\r?\n)(?:[ \t].*\r?\n)*)", re.MULTILINE)
_RECORDS: Final = {
    DOMAIN: f"v=spf1 ip4:{_LISTED} -all",
    f"s._domainkey.{DOMAIN}": public_record(_KEY.private),
    f"_dmarc.{DOMAIN}": "v=DMARC1; p=reject",
}
_LISTENER: Final = f"""
[[listener]]
name = "origin"
address = "192.0.2.1"
port = {DOOR.rpartition(":")[2]}
role = "mx"
inspectors = ["tests.sim.inspecting:Marking"]
dmarc = "enforce"
iprev = "mark"
"""


class Origin(Part):
    def __init__(self, house: House) -> None:
        super().__init__(house)
        self._since: dict[str, float] = {}  # by Message-ID: when its questions may have begun
        self._kinds: dict[str, str] = {}
        self._until: dict[str, float] = {}
        for name, text in _RECORDS.items():
            house.names.texts[name] = (text,)
        house.names.reverses[_LISTED] = ("client.r0.test",)
        house.names.hosts["client.r0.test"] = (_LISTED,)

    def settings(self, toml: str) -> str:
        return toml + _LISTENER + '[checks]\nexempt_networks = ["198.51.100.0/24"]\n'

    def orders(self) -> list[Scheduled]:
        chance = self.chance
        return [
            (self.moment(), self._order(number, chance.choice(KINDS)), chance.choice((1, 3)))
            for number in range(FIRST, FIRST + _ORDERS)
        ]

    def _order(self, number: int, kind: str) -> Order:
        chance = self.chance
        return Order(
            number, DOOR, lmtp=False, address=_LISTED if kind == "listed" else _OTHER, sender=f"{kind}@{DOMAIN}",
            recipients=((chance.choice(("ann@home.test", "bob@home.test")), ""),),
            body=b"who am I?\r\n" * chance.choice((1, 50, 3000)), pipelining=chance.random() < 0.5,
            bdat=chance.random() < 0.3, leaves=chance.choice(("", "", "", "content")) if number < FIRST + 100 else "",
            fields=_CLAIM if kind == "forged" else "", seal=_sealed if kind in ("signed", "broken") else None,
        )  # fmt: skip

    def begin(self) -> None:
        """The records fail, or are denied, for a while."""
        if not self.house.plan.trouble:
            return
        base, states = self.house.base, self.house.names.text_states
        for _ in range(4):
            name, state = self.chance.choice(list(_RECORDS)), self.chance.choice(("servfail", "timeout", "nxdomain"))
            at = self.moment()
            base.call_later(at, states.__setitem__, name, state)
            base.call_later(at + self.chance.choice((600.0, 7200.0)), states.pop, name, None)

    async def come(self) -> None:
        await self.house.calm()
        self.house.names.text_states.clear()
        for place, kind in enumerate(KINDS):
            for attempt in range(_TRIES):
                before = len(self.house.ledger.submitted)
                await submit(self.house, self._order(FIRST + 100 + 10 * place + attempt, kind), 1)
                taken = any(each.told for each in self.house.ledger.submitted[before:])
                if taken or kind not in VOUCHED:
                    break
                await asyncio.sleep(1000.0)
            else:
                self.fault(f"mail that is {kind} is never taken, though all is well")

    # -- what is seen -----------------------------------------------------------------------------------------

    def heard(self, order: Order, submitted: Submitted, to: str, answer: str) -> None:
        if order.door != DOOR:
            return
        now, id = self.house.base.now, submitted.message_id
        kind = self._kinds[id] = order.sender.partition("@")[0]
        self._since.setdefault(id, now - _BEFORE_S)
        self._until[id] = now
        if kind == "forged" and submitted.kept is not None:
            submitted.kept = submitted.content.replace(_CLAIM.encode(), b"")
        if kind in VOUCHED:
            if answer.startswith("550 5.7") and not self._was(self.house.names.denied, id):
                self.fault(f"{id}, which is {kind}, is refused: {answer}")
        elif not to and answer.startswith("250") and not self._was_untold(id):
            self.fault(f"{id}, which is {kind}, is taken, though its domain disowns it")

    def _was(self, times: list[float], id: str) -> bool:
        return any(self._since[id] <= at <= self._until[id] for at in times)

    def _was_untold(self, id: str) -> bool:
        names = self.house.names
        return self._was(names.denied, id) or self._was(names.failed, id)

    def check(self, seen: Seen) -> None:
        for (id, _), came in seen.deliveries.items():
            kind = self._kinds.get(id)
            if kind is None:
                continue
            told = _TOP.findall(came[0].content)
            passes = bool(told) and b"dmarc=pass" in told[0]
            if len(told) != 1:
                self.fault(f"{id} has {len(told)} fields that tell our results")
            elif passes and kind not in VOUCHED:
                self.fault(f"{id}, which is {kind}, is marked as vouched for: {told[0]!r}")
            elif not passes and kind in VOUCHED and not self._was_untold(id):
                self.fault(f"{id}, which is {kind}, is not marked as vouched for: {told[0]!r}")


def _sealed(content: bytes, sender: str) -> bytes:
    """The content with a signature at the end of its header section; the signature of who is `broken` is of another
    body."""
    head, _, body = content.partition(b"\r\n\r\n")
    signed = head + b"\r\n\r\n" + (body if sender.startswith("signed") else b"another " + body)
    field = DkimSigner((_KEY,), SigningOptions()).sign_content(signed, START_US // 1_000_000)
    return head + b"\r\n" + field + b"\r\n" + body
