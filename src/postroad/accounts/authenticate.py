"""AUTH as a session sees it: the mechanisms on offer, an exchange by one of them, and its result (RFC 4954).

All authentications pass `Authenticator`. It picks who judges them (our own mechanisms with a `Source`, or Dovecot),
tells `noted` how each ended, and delays the answer to a failure.

What always holds: each `begin` and `respond` of an exchange is answered exactly once, on the loop, perhaps at once; the
client hears of a failure after `failure_delay_s`, or after the time that `delay_s` makes of it; no password or token is
kept here or is part of what is noted. A failure counts as soon as it is found, also if the client has gone. A success
counts only if the client is told of it; else it is forgotten. If a client goes, work that has not begun is dropped. The
number of log-ins that are under way or wait is bounded for each client, for its network and in all (`accounts.places`).
A client that finds no place waits for one for up to `timeout_s`, then hears 454.

Not here: the mechanisms (`protocol.sasl`), passwords (`users`, `function`, `dovecot`), tokens (`introspection`), the
dialog (`dialog`).
"""

from __future__ import annotations

import asyncio
import enum
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Final, Protocol

import msgspec
from msgspec import Meta

from postroad.accounts import accounts
from postroad.accounts.accounts import Account
from postroad.accounts.places import Place, Places, WaitingLogin
from postroad.mail.account import canonical_account
from postroad.mail.address import Address
from postroad.mail.reply import Reply
from postroad.protocol.sasl.mechanisms import HASHES, MECHANISMS

PLUS: Final = "-PLUS"
ASKED_ONLY: Final = frozenset({"CRAM-MD5", "DIGEST-MD5"})
"""Offered only if `mechanisms` names them, whoever could do them: MD5 protects a password badly, and the server must
keep the password itself or what is as good (RFC 6331 for DIGEST-MD5). SCRAM takes their place."""
TOKENS: Final = ("OAUTHBEARER", "XOAUTH2")
PASSWORDS: Final = ("PLAIN", "LOGIN")

USERS: Final = "users"  # the name of the backend that is our own users file

_NO_PLACE: Final = "too many log-ins at once (auth.client_max, network_max, queue_max, waiting_max)"
_BARRED: Final = "the account is locked for a time (bans.account_failures_max)"
_TOLD_MAX: Final = 100_000  # accounts whose addresses somebody other than the users file has told


class CertificateName(enum.Enum):
    """Which name of a client's certificate is that of its account (EXTERNAL)."""

    NONE = "none"  # certificates authenticate nobody
    MAILBOX = "mailbox"  # a mailbox of its subjectAltName
    COMMON_NAME = "common-name"


class AuthOptions(msgspec.Struct, frozen=True):
    """How log-ins are checked. `detail_delimiter`: the characters that begin an address extension, "" for none. The
    owner of a mailbox owns its extensions."""

    mechanisms: Annotated[
        tuple[str, ...],
        Meta(
            description="The SASL mechanisms to offer. Empty: all that are possible. SCRAM is possible if every "
            "account of the users file has keys for it. EXTERNAL is possible with `certificate_name`. "
            "CRAM-MD5 and DIGEST-MD5 are offered only if this setting names them.",
        ),
    ] = ()
    certificate_name: Annotated[
        CertificateName,
        Meta(
            description="Which name in a client's certificate is the client's account (EXTERNAL): `none`, a "
            "`mailbox` in it, or its `common-name`. `[tls]` must then ask for certificates and name the "
            "root certificates that issue them.",
        ),
    ] = CertificateName.NONE
    account_domain: Annotated[
        str,
        Meta(
            description="The domain for accounts whose name has none: account NAME may send from NAME at this "
            "domain, unless other addresses are set for it.",
        ),
    ] = ""
    detail_delimiter: str = accounts.DELIMITER
    threads: Annotated[
        int,
        Meta(
            ge=1,
            le=64,
            description="How many passwords one worker verifies, or how many functions it runs, at a time.",
        ),
    ] = 2
    queue_max: Annotated[
        int,
        Meta(
            ge=1,
            description="The most authentications that one worker handles at a time. One more waits (`waiting_max`). "
            "A quarter of the places is kept for clients that have logged in within the last week.",
        ),
    ] = 64
    client_max: Annotated[
        int,
        Meta(
            ge=1,
            description="The most authentications that one client (an IPv4 address or an IPv6 /64) may have among "
            "these. If the client has not logged in within the last week, a failed authentication counts "
            "until its answer is due. If it has, it may use half of `queue_max`.",
        ),
    ] = 8
    network_max: Annotated[
        int,
        Meta(
            ge=1,
            description="The most authentications that one network may have among these. Clients that have logged in "
            "within the last week do not count.",
        ),
    ] = 24
    waiting_max: Annotated[
        int,
        Meta(
            ge=0,
            description="The most authentications that wait in one worker until `queue_max`, `client_max` and "
            "`network_max` leave room for them. One more, and one that has waited for `timeout_s`, is "
            "answered 454, so that the client tries again later. A client that has not logged in within "
            "the last week may have a quarter of these, its network half, and all such clients together "
            "three quarters. 0: none waits.",
        ),
    ] = 256
    cache_s: Annotated[
        float,
        Meta(
            ge=0,
            description="How long the node remembers a correct password or token. 0: not at all.",
        ),
    ] = 60.0
    cache_max: Annotated[
        int,
        Meta(
            ge=0,
            description="The most correct passwords and tokens that the node remembers.",
        ),
    ] = 4096
    failure_delay_s: Annotated[
        float,
        Meta(
            ge=0,
            le=60,
            description="How long the node delays the answer to the first wrong password.",
        ),
    ] = 1.0
    timeout_s: Annotated[
        float,
        Meta(
            ge=1,
            le=300,
            description="How long Dovecot, the function or the introspection of a token may take, and how long an "
            "authentication may wait for its turn. After that the client is answered 454 and can try "
            "again later.",
        ),
    ] = 30.0


class SessionFacts(msgspec.Struct, frozen=True):
    """The session that asks. `certificate`: names of the client's certificate that the option allows, () without one.
    `binding`: channel bindings of its TLS (`protocol.sasl.scram.Binding`). `offered`: what it could choose from."""

    address: str = ""
    port: int = 0
    local_address: str = ""
    local_port: int = 0
    hello: str = ""
    listener: str = ""
    tls: str = ""
    certificate: tuple[str, ...] = ()
    binding: Callable[[str], bytes | None] = lambda kind: None
    offered: tuple[str, ...] = ()


class Match(enum.Enum):
    """What was found of a client's claim."""

    RIGHT = "right"
    WRONG = "wrong"
    BUSY = "busy"  # too many wait already, or who should know cannot be asked: nothing was found


Found = Callable[[Match, Account | None], bool | None]
"""What was found, and the account if it is RIGHT. False: nobody was told, so nothing of it is to be remembered."""


# ---- what an exchange comes to


class Challenged(msgspec.Struct, frozen=True):
    """Send this (334). `denied`: it says that the client is not who it says it is; what follows can only be Wrong."""

    octets: bytes
    denied: bool = False
    name: str = ""


class Right(msgspec.Struct, frozen=True):
    """The client is this account (235). `source`: the backend that found it to be so."""

    account: Account
    source: str = ""


class Wrong(msgspec.Struct, frozen=True):
    """It is not who it says it is (535). `name`: who that is, "" if it has not said."""

    name: str = ""
    reason: str = ""


class Busy(msgspec.Struct, frozen=True):
    """Nothing could be found out, or nothing may be told (454). `reason`: why, "" if who verifies cannot be asked;
    `name`: who the client says it is, as far as that is known."""

    reason: str = ""
    name: str = ""


class Improper(msgspec.Struct, frozen=True):
    """The exchange was not as its mechanism demands: answer with this."""

    reply: Reply


Outcome = Challenged | Right | Wrong | Busy | Improper
OnOutcome = Callable[[Outcome], bool | None]
"""False: nobody hears it any more."""

Failed = Callable[[str], None]
"""Hears of each failure when it is found, with the name of the account, "" if the client has not said."""


class Exchange(Protocol):
    """One AUTH."""

    def begin(self, initial: bytes | None, on_outcome: OnOutcome) -> None: ...

    def respond(self, response: bytes, on_outcome: OnOutcome) -> None: ...

    def cancel(self) -> bool:
        """The client has given up or gone. True: nothing more is told. False: work is under way that cannot be undone;
        what comes of it is told, for those who count."""


class Backend(Protocol):
    """Who looks into whole exchanges."""

    def mechanisms(self) -> tuple[str, ...]:
        """What it can do now."""

    def exchange(self, mechanism: str, facts: SessionFacts) -> Exchange: ...

    def close(self) -> None: ...


class Tried(msgspec.Struct, frozen=True):
    """One authentication that came to its end: by which client address, for which account ("" if the client has not
    said), by which mechanism, and whether it was right."""

    address: str
    name: str
    mechanism: str
    right: bool


class Authenticator:
    """See the module. `backends`: by a name that stays the same as long as the same is asked; the first that has a
    mechanism gets it. `known`: the accounts of the users file, if there is one. `bindable`: whether channel bindings
    can be had."""

    def __init__(
        self,
        backends: Mapping[str, Backend],
        known: accounts.Accounts | None,
        options: AuthOptions,
        loop: asyncio.AbstractEventLoop,
        *,
        bindable: bool = False,
    ) -> None:
        self.options = options
        self.noted: Callable[[Tried], None] = _unheard
        self.delay_s: Callable[[Tried], float] = lambda tried: options.failure_delay_s
        self.barred: Callable[[str], bool] = lambda name: False  # who may not authenticate now, right or not
        self.succeeded: Callable[[str], None] = _unheard_address  # from which address somebody has logged in
        self.places = Places(options)
        self._backends = backends
        self._known = known
        self.loop = loop
        self._bindable = bindable
        self._told: OrderedDict[str, tuple[str, ...]] = OrderedDict()  # addresses of accounts, not of the users file

    def mechanisms(self, *, bindable: bool = False, certificate: bool = False) -> tuple[str, ...]:
        """What a session may choose from, strongest first; `bindable`: it is under TLS of our own; `certificate`: its
        client has shown one with a name."""
        there = {name for backend in self._backends.values() for name in backend.mechanisms()}
        if not (bindable and self._bindable):
            there = {name for name in there if not name.endswith(PLUS)}
        if not certificate:
            there.discard("EXTERNAL")
        if self.options.mechanisms:
            there &= set(self.options.mechanisms)
        else:
            there -= ASKED_ONLY
        known = [name for name in MECHANISMS if name in there]
        return (*known, *sorted(there.difference(known)))

    def exchange(self, mechanism: str, facts: SessionFacts, failed: Failed | None = None) -> Exchange | None:
        """An exchange of one of `mechanisms`; None if it has gone since it was offered. `failed` hears of a failure
        when it is found, the client when its time has come."""
        for source, backend in self._backends.items():
            if mechanism in backend.mechanisms():
                return _Watched(self, backend.exchange(mechanism, facts), mechanism, facts.address, source, failed)
        return None

    def owns(self, name: str, address: Address) -> bool:
        """Whether the account called `name` may send from `address`: as the users file says if that knows it, else
        as was told when it authenticated, else by its own name."""
        account = self._known.find(name) if self._known is not None else None
        if account is None:
            canonical = canonical_account(name)
            on_outcome = self._told.get(canonical)
            if on_outcome is None:
                return False
            self._told.move_to_end(canonical)
            account = Account(name, addresses=on_outcome)
        delimiter = self.options.detail_delimiter
        if accounts.owns(account, address, delimiter):
            return True
        domain = self.options.account_domain
        if account.addresses or not domain or "@" in name:
            return False
        return accounts.owns(Account(f"{name}@{domain}"), address, delimiter)

    def holds(self, name: str, source: str) -> bool:
        """Whether a session that authenticated as the account called `name` by the backend `source` is still that
        account: the backend is there, and so is the account if we know."""
        if source not in self._backends:
            return False
        return source != USERS or (self._known is not None and self._known.find(name) is not None)

    def follow(self, before: Authenticator) -> None:
        """This one takes the place of another: sessions that have authenticated with that one go on as who they are."""
        self._told = before._told

    def close(self) -> None:
        for backend in self._backends.values():
            backend.close()

    def succeeds(self, tried: Tried, outcome: Right, on_outcome: OnOutcome) -> bool:
        """An exchange has come to a good end. False: nobody was told."""
        self._remember(outcome.account)  # what it may send from: the next command may be handled while it is told
        if on_outcome(outcome) is False:
            return False
        self.noted(tried)
        self.succeeded(tried.address)
        return True

    def fails(
        self, tried: Tried, outcome: Wrong | Busy, on_outcome: OnOutcome | None, failed: Failed | None, place: Place
    ) -> None:
        """It has come to a bad end, or to one that is to look like it. `on_outcome`: None if the client has gone;
        what it would have waited for, its place waits for all the same."""
        self.noted(tried)
        if failed is not None and isinstance(outcome, Wrong):
            failed(tried.name)
        place.found()
        delay_s = self.delay_s(tried)
        if place.known:
            place.leave()
        self.loop.call_later(delay_s, self._say, on_outcome, outcome, place)

    def _say(self, on_outcome: OnOutcome | None, outcome: Outcome, place: Place) -> None:
        place.leave()
        if on_outcome is not None:
            on_outcome(outcome)

    def abandoned(self, tried: Tried, failed: Failed | None) -> None:
        """A client that was denied has gone, or cancelled, before it was told so in full: it counts all the same."""
        self.noted(tried)
        if failed is not None:
            failed(tried.name)
        self.delay_s(tried)

    def _remember(self, account: Account) -> None:
        if self._known is not None and self._known.find(account.name) is not None:
            return
        self._told[account.name] = account.addresses
        self._told.move_to_end(account.name)
        while len(self._told) > _TOLD_MAX:
            self._told.popitem(last=False)


class _Watched:
    """An exchange that has a place while it is worked for, and whose end is told to the authenticator first."""

    __slots__ = (
        "_address",
        "_authenticator",
        "_denied",
        "_failed",
        "_gone",
        "_inner",
        "_mechanism",
        "_place",
        "_source",
        "_timer",
        "_waiting",
    )

    def __init__(
        self,
        authenticator: Authenticator,
        inner: Exchange,
        mechanism: str,
        address: str,
        source: str,
        failed: Failed | None,
    ) -> None:
        self._authenticator, self._inner, self._mechanism, self._address = authenticator, inner, mechanism, address
        self._source, self._failed = source, failed
        self._denied: Tried | None = None  # what it will have been, though the client may not wait for it
        self._place: Place | None = None  # while something is under way
        self._waiting: WaitingLogin | None = None  # for a place
        self._timer: asyncio.TimerHandle | None = None  # how long it may wait
        self._gone = False

    def begin(self, initial: bytes | None, on_outcome: OnOutcome) -> None:
        self._work(partial(self._inner.begin, initial), on_outcome)

    def respond(self, response: bytes, on_outcome: OnOutcome) -> None:
        self._work(partial(self._inner.respond, response), on_outcome)

    def cancel(self) -> bool:
        if self._gone:
            return True
        self._gone = True
        self._stop_waiting()
        over = self._inner.cancel()
        if over:  # else the place is left when the work has ended
            self._leave()
        self._abandon()
        return over

    def _work(self, step: Callable[[OnOutcome], None], on_outcome: OnOutcome) -> None:
        authenticator = self._authenticator
        place = authenticator.places.admit(self._address)
        if place is not None:
            self._place = place
            step(partial(self._heard, on_outcome))
            return
        self._waiting = authenticator.places.wait(self._address, partial(self._admitted, step, on_outcome))
        if self._waiting is None:
            self._turn_away(on_outcome)
        else:
            self._timer = authenticator.loop.call_later(authenticator.options.timeout_s, self._turn_away, on_outcome)

    def _admitted(self, step: Callable[[OnOutcome], None], on_outcome: OnOutcome, place: Place) -> None:
        """A place has been left for this one. The work begins when the loop comes round, not within who left it."""
        self._waiting = None
        self._stop_waiting()
        self._place = place
        self._authenticator.loop.call_soon(self._begin_work, step, on_outcome)

    def _begin_work(self, step: Callable[[OnOutcome], None], on_outcome: OnOutcome) -> None:
        if not self._gone:
            step(partial(self._heard, on_outcome))

    def _turn_away(self, on_outcome: OnOutcome) -> None:
        """There is no place, or there was none for too long."""
        self._stop_waiting()
        self._inner.cancel()
        self._abandon()
        on_outcome(Busy(_NO_PLACE))

    def _stop_waiting(self) -> None:
        waiting, self._waiting = self._waiting, None
        timer, self._timer = self._timer, None
        if waiting is not None:
            waiting.stop()
        if timer is not None:
            timer.cancel()

    def _leave(self) -> None:
        if self._place is not None:
            self._place.leave()
            self._place = None

    def _abandon(self) -> None:
        denied, self._denied = self._denied, None
        if denied is not None:
            self._authenticator.abandoned(denied, self._failed)

    def _heard(self, on_outcome: OnOutcome, outcome: Outcome) -> bool:
        """What came of a step. False: nobody is told now."""
        if isinstance(outcome, Right | Wrong):
            return self._ended(on_outcome, outcome)
        self._leave()
        if isinstance(outcome, Challenged) and outcome.denied:
            self._denied = Tried(self._address, canonical_account(outcome.name), self._mechanism, False)
            if self._gone:
                self._abandon()
        return not self._gone and on_outcome(outcome) is not False

    def _ended(self, on_outcome: OnOutcome, outcome: Right | Wrong) -> bool:
        authenticator, right = self._authenticator, isinstance(outcome, Right)
        name = canonical_account(outcome.account.name if isinstance(outcome, Right) else outcome.name)
        tried, barred = Tried(self._address, name, self._mechanism, right), authenticator.barred(name)
        self._denied = None
        if isinstance(outcome, Right) and not barred:
            self._leave()
            account = msgspec.structs.replace(outcome.account, name=name)
            return not self._gone and authenticator.succeeds(tried, Right(account, self._source), on_outcome)
        place, self._place = self._place, None
        assert place is not None
        # The same answer for right and wrong if it is barred, else it would tell which password is right.
        answer = Wrong(name, outcome.reason) if isinstance(outcome, Wrong) and not barred else Busy(_BARRED, name)
        authenticator.fails(tried, answer, None if self._gone else on_outcome, self._failed, place)
        return False


def _unheard_address(address: str) -> None:
    """Nobody wants to know."""


def _unheard(tried: Tried) -> None:
    """Nobody wants to know."""


def scram_names(hashes: tuple[str, ...]) -> tuple[str, ...]:
    """The SCRAM mechanisms of these hash functions."""
    return tuple(name for name, hash in HASHES.items() if hash.value in hashes)
