"""A domain with MTA-STS (RFC 8461): its policy changes, its policy host fails, its record vanishes, and somebody takes
STARTTLS away from its mail server.

The promises, beside those that hold for every delivery (`promises`):
1. while a policy is in force that demands TLS, no recipient is named to the server in the clear, nor to a server that
   the policy does not name. In force is what the node has kept: from the moment at which it was kept until another
   one is, whatever happens to record, policy host, workers and node;
2. a policy for testing, and one that ends MTA-STS, keep no mail back; nor does a policy host that fails;
3. a domain is asked once at a time.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING

from postroad.mail.tls_policy import StsMode, StsPolicy
from postroad.store.sts import NAME, StsEntry, StsStore
from postroad.world.http import Fetch, HttpRequest, HttpResponse
from postroad.world.http_link import Unproved
from postroad.world.problem import Problem
from tests.sim.names import Zone
from tests.sim.part import Part, Scheduled
from tests.sim.plan import DOORS
from tests.sim.process import Process
from tests.sim.remote import Host
from tests.sim.sender import Order

if TYPE_CHECKING:
    from tests.sim.house import House
    from tests.sim.wire import End

DOMAIN = "sts.test"
SERVER = "mx.sts.test"
FIRST = 7800  # the number of the first order
_ORDERS = 12
_CHANGES = 30
_LEEWAY_S = 60.0  # between what the node knows and the session that must obey it
_OFFERS = ("PIPELINING", "8BITMIME", "STARTTLS")
_HOST = "mta-sts.sts.test"
_OTHER = "other.sts.test"
_POLICIES = (
    ("enforce", SERVER), ("enforce", "*.sts.test"), ("enforce", _OTHER), ("enforce", _OTHER), ("testing", _OTHER),
    ("none", ""),
)  # fmt: skip
_SETTINGS = """
[[map]]
name = "tls"
kind = "inline"
entries = "sts.test sts"
"""


class StsDomain(Part):
    """See the module. `kept`: what the node has kept, and when."""

    def __init__(self, house: House) -> None:
        super().__init__(house)
        self.kept: list[tuple[float, StsEntry]] = []
        self.id, self.policy = 1, ("enforce", SERVER)
        self.record = ""  # "", or how the question for it ends
        self.serves = "well"
        self._host = Host(SERVER, "203.0.113.230", offers=_OFFERS, trouble=house.plan.trouble / 2)
        self._begun: dict[End, float] = {}
        self._asking: dict[object, Process] = {}  # fetches under way, of processes that may have died meanwhile

    def settings(self, toml: str) -> str:
        return toml.replace("[routing]\n", '[routing]\ntls_policy_maps = ["tls"]\n') + _SETTINGS

    def hosts(self) -> list[Host]:
        self.house.names.hosts[_HOST] = ("203.0.113.231",)
        self.house.names.zones[DOMAIN] = Zone(((10, SERVER),))
        self._tell_names()
        return [self._host]

    def orders(self) -> list[Scheduled]:
        chance = self.chance
        found: list[Scheduled] = []
        for number in range(FIRST, FIRST + _ORDERS):
            to = chance.sample(("u1", "u2", "bad1", "later1"), chance.choice((1, 1, 2)))
            order = Order(
                number, DOORS["relay"], lmtp=False, address="198.51.100.9", sender="bob@home.test",
                recipients=tuple((f"{each}@{DOMAIN}", "") for each in to), body=b"sealed\r\n", pipelining=True,
                bdat=False, leaves="",
            )  # fmt: skip
            found.append((self.moment(), order, 3))
        return found

    def begin(self) -> None:
        base = self.house.base
        for _ in range(_CHANGES):
            base.call_later(self.moment(), self._change)
        base.call_later(self.house.plan.days * 86_400 - 1.0, self._mend)
        if self.house.plan.parts == {"sts"}:  # others do not expect it
            base.call_later(self.moment(), self._cut)

    # -- the world ----------------------------------------------------------------------------------------------------

    def _change(self) -> None:
        if self.house.healed:
            return
        chance = self.chance
        match chance.choice(("policy", "policy", "record", "host", "host", "server")):
            case "policy":
                self.id, self.policy = self.id + 1, chance.choice(_POLICIES)
            case "record":
                self.record = chance.choice(("", "", "gone", "servfail", "timeout"))
            case "host":
                self.serves = chance.choice(("well", "well", "away", "slow", "certificate", "nonsense", "status"))
            case _:
                self._host.offers = chance.choice((_OFFERS, _OFFERS[:-1]))
        self.house.trace(f"sts: id {self.id} {self.policy} {self.record} {self.serves} {self._host.offers[-1]}")
        self._tell_names()

    def _cut(self) -> None:
        """What the node knows must be on the disk."""
        if not self.house.healed:
            self.house.node.power_cut(60.0)

    def _mend(self) -> None:
        """All is well from here on: with the policy as it is, or with a new one if the server is not named."""
        self.record, self.serves, self._host.offers = "", "well", _OFFERS
        if self.policy[1] == _OTHER or self.chance.random() < 0.5:
            self.id, self.policy = self.id + 1, ("enforce", SERVER)
        self._tell_names()

    def _tell_names(self) -> None:
        name, names = f"_mta-sts.{DOMAIN}", self.house.names
        names.texts[name], names.text_states[name] = (f"v=STSv1; id={self.id};",), self.record

    def fetcher(self, process: Process, executor: Executor, ca_file: str) -> Fetch:
        """The HTTPS of one worker."""

        async def fetch(request: HttpRequest) -> HttpResponse | Problem:
            assert request.url == f"https://{_HOST}/.well-known/mta-sts.txt", request
            id, serves = str(self.id), "well" if self.house.healed else self.serves
            this = object()
            if any(each.alive for each in self._asking.values()):
                self.fault("the policy host is asked twice at a time")
            self._asking[this] = process
            await asyncio.sleep(self.chance.random() if serves != "slow" else request.timeout_s)
            del self._asking[this]
            self.house.trace(f"sts: {serves} is answered for id {id}")
            match serves:
                case "well":
                    mode, mx = self.policy
                    line = f"mx: {mx}\r\n" if mx else ""
                    body = f"version: STSv1\r\nmode: {mode}\r\n{line}max_age: 31557600\r\n"
                    return HttpResponse(200, body.encode(), "text/plain")
                case "nonsense":
                    return HttpResponse(200, b"<html>", "text/plain")
                case "status":
                    return HttpResponse(self.chance.choice((301, 404, 503)), b"", "text/plain")
                case "certificate":
                    return Unproved(request.url, "its certificate does not prove its name")
                case _:
                    return Problem(request.url, "did not answer in time")

        return fetch

    def store(self, folder: Path) -> StsStore:
        """Where the node keeps policies."""
        part = self

        class Watched(StsStore):
            def put(self, entry: StsEntry) -> None:
                super().put(entry)
                part._keeps(entry)

        return Watched(folder / NAME, lambda text: self.fault(f"the node says: {text}"))

    def _keeps(self, entry: StsEntry) -> None:
        before = self.kept[-1][1].policy if self.kept else None
        if before is None or before != entry.policy:
            self.kept.append((self.house.base.now, entry))

    # -- what must hold -----------------------------------------------------------------------------------------------

    def told_size(self, host: Host, end: End) -> None:
        self._begun.setdefault(end, self.house.base.now)

    def told_rcpt(self, host: Host, sender: str, recipient: str, said: str, end: End) -> None:
        if not recipient.endswith(f"@{DOMAIN}"):  # the server may serve another domain, too
            return
        now, begun = self.house.base.now, self._begun.get(end, self.house.base.now)
        policy = self._in_force(begun - _LEEWAY_S, now)
        if policy is None or policy.mode is not StsMode.ENFORCE:
            return
        if end.peer is not None and not end.peer.tls:
            self.fault(f"{recipient} is named to {host.name} in the clear, though {policy.lines} is in force")
        if not {host.name, "*." + host.name.partition(".")[2]} & {*policy.mx}:
            self.fault(f"{recipient} is named to {host.name}, which {policy.lines} does not name")

    def _in_force(self, since: float, until: float) -> StsPolicy | None:
        """The policy that was in force all this time; None if it changed, or there was none."""
        found = [(at, entry) for at, entry in self.kept if at <= until]
        if not found or found[-1][0] > since:
            return None
        return found[-1][1].policy
