"""A domain whose MTA-STS policy changes, vanishes and cannot be had, and whose servers satisfy it now and then.

The promises:
1. while the policy is in the mode enforce, no mail goes to a host that it does not name, none without TLS, and none to
   a host whose certificate proves nothing;
2. what waits goes on when the policy is gone or satisfied again; the mode testing keeps nothing: that nothing is lost
   or stuck is in `promises`.

Fetching is not played: workers ask here which policy there is.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from postroad.mail.tls_policy import NO_STS, StsAnswer, StsMode, StsPolicy, TlsFailure
from tests.sim.names import Zone
from tests.sim.part import Part, Scheduled
from tests.sim.plan import DOORS
from tests.sim.remote import Host
from tests.sim.sender import Order
from tests.sim.wire import End

if TYPE_CHECKING:
    from tests.sim.house import House

DOMAIN = "published.test"
NAMED, OTHER = ("mx0.published.test", "203.0.113.213"), ("mx1.published.test", "203.0.113.214")
FIRST = 7700  # the number of the first order
_ORDERS = 8
_CHANGES = 4
_BEFORE_S = 3600.0  # how long before its first words a connection may have been decided upon
_STATES = ("enforce", "enforce", "enforce", "kept", "kept", "testing", "none", "lost")
_ENFORCING = frozenset({"enforce", "kept"})
_SETTINGS = f"""
[[next_hop]]
domain = "{DOMAIN}"
tls = "sts"
"""


class PublishedPolicies:
    """What workers ask in place of `node.wiring.sts.WorkerSts`. `others`: of the worker itself, for other domains."""

    def __init__(self, part: Published, others: Any = None) -> None:
        self._part, self._others = part, others

    def beside(self, others: Any) -> Any:
        """The same for one worker."""
        return PublishedPolicies(self._part, others)

    async def __call__(self, domain: str, /) -> StsAnswer:
        if domain != DOMAIN and self._others is not None:
            found: StsAnswer = await self._others(domain)
            return found
        await asyncio.sleep(2.0 * self._part.chance.random() ** 4)
        return self._part.answer if domain == DOMAIN else NO_STS

    def take(self, *settings: Any) -> None:
        if self._others is not None:
            self._others.take(*settings)

    def hear(self, frame: Any) -> None:
        if self._others is not None:
            self._others.hear(frame)

    def close(self) -> None:
        if self._others is not None:
            self._others.close()


class Published(Part):
    """`_told`: since when the policy is in which state; `_proofs`: since when the named host shows a good
    certificate."""

    def __init__(self, house: House) -> None:
        super().__init__(house)
        self.answer = NO_STS
        self._told: list[tuple[float, str]] = []
        self._proofs: list[tuple[float, str]] = []
        self._began: dict[End, float] = {}
        house.sts = PublishedPolicies(self)

    def settings(self, toml: str) -> str:
        return toml + _SETTINGS

    def hosts(self) -> list[Host]:
        tls, trouble = ("PIPELINING", "DSN", "STARTTLS"), self.house.plan.trouble
        return [Host(*NAMED, trouble=trouble, offers=tls), Host(*OTHER, trouble=trouble, offers=tls)]

    def orders(self) -> list[Scheduled]:
        found: list[Scheduled] = []
        for number in range(FIRST, FIRST + _ORDERS):
            order = Order(
                number, DOORS["relay"], lmtp=False, address="198.51.100.4", sender="cid@home.test",
                recipients=((f"u{number}@{DOMAIN}", ""),), body=b"by the policy\r\n", pipelining=True, bdat=False,
                leaves="",
            )  # fmt: skip
            found.append((self.moment(), order, 2))
        return found

    def begin(self) -> None:
        base, chance = self.house.base, self.chance
        first, second = (10, 20) if chance.random() < 0.5 else (20, 10)
        self.house.names.fixed[DOMAIN] = Zone(((first, NAMED[0]), (second, OTHER[0])))
        self._change(chance.choice(_STATES))
        self._prove(chance.choice(("good", "bad")))
        for _ in range(_CHANGES):
            base.call_later(self.moment(), self._change, chance.choice(_STATES))
            base.call_later(self.moment(), self._prove, chance.choice(("good", "bad")))
        base.call_later(self.house.plan.days * 86_400, self._prove, "good")

    def _change(self, state: str) -> None:
        self._told.append((self.house.base.now, state))
        mode = StsMode.TESTING if state == "testing" else StsMode.ENFORCE
        policy = StsPolicy(DOMAIN, "1", mode, (NAMED[0],), 86_400)
        failure = TlsFailure.STS_POLICY_FETCH_ERROR if state in ("lost", "kept") else TlsFailure.NO_FAILURE
        self.answer = StsAnswer(None if state in ("none", "lost") else policy, failure, "no answer" if failure else "")

    def _prove(self, state: str) -> None:
        self._proofs.append((self.house.base.now, state))
        untrusted = self.house.wires.untrusted
        (untrusted.discard if state == "good" else untrusted.add)(f"{NAMED[1]}:25")

    # -- what is seen -----------------------------------------------------------------------------------------

    def told_size(self, host: Host, end: End) -> None:
        if host.name in (NAMED[0], OTHER[0]):
            self._began.setdefault(end, self.house.base.now)

    def told_rcpt(self, host: Host, sender: str, recipient: str, said: str, end: End) -> None:
        if host.name not in (NAMED[0], OTHER[0]) or not recipient.endswith(f"@{DOMAIN}"):
            return
        began = self._began.get(end, self.house.base.now)
        if not _states(self._told, began) <= _ENFORCING:
            return
        if host.name == OTHER[0]:
            self.fault(f"{host.name} got mail, though the policy does not name it")
        elif not (end.peer is not None and end.peer.tls):
            self.fault(f"{host.name} got mail without TLS, though the policy is enforced")
        elif _states(self._proofs, began) == {"bad"}:
            self.fault(f"{host.name} got mail, though its certificate proves nothing")


def _states(told: list[tuple[float, str]], began: float) -> set[str]:
    """Those from shortly before a connection until it had begun."""
    since = max((at for at, _ in told if at <= began - _BEFORE_S), default=0.0)
    return {state for at, state in told if since <= at <= began}
