"""DKIM signatures on mail that goes out, by two keys, of which each reload has one more or one less.

The promises:
1. mail of our own clients with an author at home.test, and reports of the node, come to hosts with a signature of each
   key that was in use, whatever the host offers (8BITMIME, CHUNKING), how long its lines are, and how often it was
   tried; mail of others comes without any;
2. each signature is right for the octets that came;
3. mailboxes and programs of ours, and LMTP servers, get no signature.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from postroad.trust.dkim_sign import SigningKey
from tests.sim.ledger import Delivery
from tests.sim.part import Part, Scheduled, Seen
from tests.unit.trust.dkim_parts import pem, verify, zone_of

FIRST: Final = 10_500  # the number of the first order
_ORDERS: Final = 8
_KEYS: Final = tuple(
    SigningKey("home.test", f"k{number}", Ed25519PrivateKey.from_private_bytes(bytes([number] * 32)))
    for number in (1, 2)
)
_ON_TOP: Final = re.compile(rb"(?:DKIM-Signature:[^\n]*\n(?:[ \t][^\n]*\n)*)+", re.IGNORECASE)
_AUTHOR: Final = re.compile(rb"^From:[^\n]*@(?:mx\.)?home\.test>?\r?$", re.IGNORECASE | re.MULTILINE)
_TRACE: Final = re.compile(rb"^Received:", re.MULTILINE)


def divided(content: bytes) -> tuple[bytes, bytes]:
    """The signatures on top, and the rest."""
    found = _ON_TOP.match(content)
    end = found.end() if found is not None else 0
    return content[:end], content[end:]


class SignedMail(Part):
    """See the module."""

    _reloads = 0

    def settings(self, toml: str) -> str:
        keys = _KEYS[: 1 + self._reloads % 2]
        self._reloads += 1
        made = []
        for key in keys:
            path = self.house.folder / f"{key.selector}.pem"
            if not path.exists():
                path.write_bytes(pem(key.private))
                path.chmod(0o600)
            made.append(
                f'[[dkim.key]]\ndomain = "home.test"\nselector = "{key.selector}"\nfile = "{path}"\n'
            )
        return f"{toml}\n{''.join(made)}"

    def orders(self) -> list[Scheduled]:
        """Lines and octets that are changed on the way out; and strangers who take an author's name."""
        from tests.sim.plan import DOORS
        from tests.sim.sender import Order

        chance = self.chance
        domains = [name for name in self.house.names.zones if name.startswith("r")]
        found: list[Scheduled] = []
        for number in range(FIRST, FIRST + _ORDERS):
            line = chance.choice((b"word \r\n", "größer \r\n".encode(), b"x" * 1200 + b"\r\n"))
            to = [f"u1@{each}" for each in chance.sample(domains, min(2, len(domains)))]
            is_stranger = number % 4 == 0  # an alias leads his mail to hosts
            eight_bit = not line.isascii()
            order = Order(
                number, DOORS["mx"] if is_stranger else chance.choice((DOORS["relay"], DOORS["submission"])),
                lmtp=False, address="198.51.100.5", sender="ann@home.test",
                recipients=tuple((each, "") for each in (["out@home.test"] if is_stranger else to)),
                body=line * chance.choice((1, 40, 4000)), pipelining=chance.random() < 0.5, bdat=chance.random() < 0.3,
                leaves="", eight_bit=eight_bit,
                fields="MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
                "Content-Transfer-Encoding: 8bit\r\n" if eight_bit else "",
            )  # fmt: skip
            found.append((self.moment(), order, 3))
        return found

    def check(self, seen: Seen) -> None:
        for delivery in self.house.ledger.deliveries:
            if delivery.said is None or delivery.final:
                if delivery.signatures:
                    self.fault(f"{delivery.message_id} came with a signature to {delivery.place}")
            else:
                self._check_one(delivery, seen)

    def _check_one(self, delivery: Delivery, seen: Seen) -> None:
        head = delivery.content.partition(b"\r\n\r\n")[0]
        sent = seen.submitted.get(delivery.message_id)
        if len(_TRACE.findall(head)) > (sent is not None):
            return  # a host has handed it back to us as a stranger
        ours = sent is None or sent.is_known
        if not (ours and _AUTHOR.search(head)):
            if delivery.signatures:
                self.fault(f"{delivery.message_id} is of others, and came with a signature to {delivery.place}")
            return
        with ThreadPoolExecutor(1) as pool:  # it runs a loop of its own
            work = pool.submit(verify, delivery.signatures + delivery.content, zone_of(_KEYS), now_s=1 << 40)
            found = work.result()
        if not found or any(each.result != "pass" for each in found):
            told = [(each.selector, each.result, each.reason) for each in found]
            self.fault(f"{delivery.message_id} came with these signatures to {delivery.place}: {told}"[:300])
