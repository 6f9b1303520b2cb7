"""A domain whose servers have TLSA records that change, fail and lie, so that DANE holds, fails or is not there.

The promises:
1. while the records of a host demand TLS, no mail goes there without it; while they fit no certificate of the host, or
   nobody can tell what they are, no mail goes there at all;
2. what waits for such a host goes on when the records are right again: that nothing is lost or stuck is in `promises`.

Handshakes are not played: a host shows the octets that stand for its certificate, and a record has their digest.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from postroad.world.dns import TlsaRecord
from tests.sim.part import Part, Scheduled
from tests.sim.plan import DOORS
from tests.sim.remote import Host
from tests.sim.sender import Order
from tests.sim.wire import End

if TYPE_CHECKING:
    from tests.sim.house import House

DOMAIN = "policy.test"
_HOSTS = (("tls0.policy.test", "203.0.113.211"), ("tls1.policy.test", "203.0.113.212"))
FIRST = 7600  # the number of the first order
_ORDERS = 6
_CHANGES = 10
_BEFORE_S = 3600.0  # how long before its first words a connection may have been decided upon
_STATES = ("good", "wrong", "servfail", "none", "rolled")
_DEMANDING = frozenset({"good", "wrong", "servfail", "rolled"})
_FORBIDDING = frozenset({"wrong", "servfail"})
_SETTINGS = f"""
[[next_hop]]
domain = "{DOMAIN}"
hosts = [{', '.join(f'"{name}"' for name, _ in _HOSTS)}]
tls = "dane"
[dns]
servers = ["192.0.2.53"]
validating = true
"""


class Policies(Part):
    """`_told`: for each host, since when its records are in which state. `_began`: when a connection was heard of."""

    def __init__(self, house: House) -> None:
        super().__init__(house)
        self._told: dict[str, list[tuple[float, str]]] = {name: [] for name, _ in _HOSTS}
        self._began: dict[End, float] = {}

    def settings(self, toml: str) -> str:
        return toml + _SETTINGS

    def hosts(self) -> list[Host]:
        tls = ("PIPELINING", "DSN", "STARTTLS")
        offers = (tls, self.chance.choice((tls, tls[:2])))
        return [
            Host(name, address, trouble=self.house.plan.trouble, offers=offered)
            for (name, address), offered in zip(_HOSTS, offers, strict=True)
        ]

    def orders(self) -> list[Scheduled]:
        found: list[Scheduled] = []
        for number in range(FIRST, FIRST + _ORDERS):
            order = Order(
                number, DOORS["relay"], lmtp=False, address="198.51.100.4", sender="cid@home.test",
                recipients=((f"u{number}@{DOMAIN}", ""),), body=b"not for everybody\r\n", pipelining=True, bdat=False,
                leaves="",
            )  # fmt: skip
            found.append((self.moment(), order, 2))
        return found

    def begin(self) -> None:
        names, base = self.house.names, self.house.base
        for name, address in _HOSTS:
            names.proved.add(name)
            self.house.wires.certificates[f"{address}:25"] = _shown(name)
            self._change(name, self.chance.choice(_STATES))
            for _ in range(_CHANGES):
                base.call_later(self.moment(), self._change, name, self.chance.choice(_STATES))
            base.call_later(self.house.plan.days * 86_400, self._change, name, "good")

    def _change(self, name: str, state: str) -> None:
        self._told[name].append((self.house.base.now, state))
        good = TlsaRecord(3, 0, 1, hashlib.sha256(_shown(name)).digest())
        wrong = TlsaRecord(3, 0, 1, b"\0" * 32)
        records = {"good": (good,), "wrong": (wrong,), "servfail": None, "none": (), "rolled": (wrong, good)}
        self.house.names.tlsa[name] = records[state]

    # -- what is seen -----------------------------------------------------------------------------------------

    def told_size(self, host: Host, end: End) -> None:
        if host.name in self._told:
            self._began.setdefault(end, self.house.base.now)

    def told_rcpt(self, host: Host, sender: str, recipient: str, said: str, end: End) -> None:
        if host.name not in self._told or not recipient.endswith(f"@{DOMAIN}"):  # it may serve another domain, too
            return
        began = self._began.get(end, self.house.base.now)
        states = self._states(host.name, began - _BEFORE_S, began)
        if states <= _DEMANDING and not (end.peer is not None and end.peer.tls):
            self.fault(f"{host.name} got mail without TLS, though its records were {sorted(states)}")
        if states <= _FORBIDDING:
            self.fault(f"{host.name} got mail, though its records were {sorted(states)}")

    def _states(self, name: str, first: float, last: float) -> set[str]:
        """Those of the records between two moments."""
        told = self._told[name]
        since = max((at for at, _ in told if at <= first), default=0.0)
        return {state for at, state in told if since <= at <= last}


def _shown(name: str) -> bytes:
    return f"the certificate of {name}".encode()
