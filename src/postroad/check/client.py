"""The limits of one client: sessions at a time; connections, messages, recipients and wrong guesses within a time.

A client is an IPv4 address, or an IPv6 /64 (which one customer is given, RFC 6177). Its network is the /24 or the /48
around it, unless set otherwise. All counts are those of the whole node (`check.tally` says how exact they are). What
always holds: each `admit` that returned ACCEPT is followed by one `left`; counters of clients that are gone take no
memory. Trusted networks are counted, but only the limit for all sessions holds for them, and the node itself never bans
them. A limit of 0 means no limit, and nothing is counted for it.

Not here: who is banned and for how long (`node.offices.guard`, `check.bans`); the rules of the protocol's own limits.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from postroad.check.bans import Bans, account_of, network_of
from postroad.check.tally import (
    ACCOUNT_FAILURES,
    CONNECTIONS,
    FAILURES,
    LOGINS,
    MESSAGES,
    OFFENCES,
    RECIPIENTS,
    SESSIONS,
    Tally,
)
from postroad.mail.judging import compose
from postroad.mail.policy import ACCEPT, Question, Rule, Rules, Verdict, defer

RATES: Final = 0  # the window of connections, messages and recipients
TROUBLES: Final = 1  # the window of offences and failures
NETWORK_FAILURES: Final = 5  # so many failures of a network keep an answer back as long as one of the client itself
KNOWN: Final = 3  # the window of logins; that of reports is before it (`check.reports`)
KNOWN_S: Final = 604_800.0  # its length: for so long, and at most twice as long, a client is known that has logged in


class ClientOptions(msgspec.Struct, frozen=True):
    """How many sessions and commands clients may have at a time and within a time."""

    sessions_max: Annotated[int, Meta(ge=1, description="The most sessions at a time in the whole node.")] = 20_000
    sessions_per_client_max: Annotated[
        int,
        Meta(
            ge=1,
            description="The most sessions at a time of one client (an IPv4 address or an IPv6 /64).",
        ),
    ] = 100
    sessions_per_network_max: Annotated[
        int,
        Meta(
            ge=0,
            description="The most sessions at a time of one network. 0: no limit.",
        ),
    ] = 500
    rate_s: Annotated[float, Meta(ge=1, description="The time span for which the six rate limits below count.")] = 60.0
    connection_rate_max: Annotated[
        int,
        Meta(
            ge=0,
            description="The most connections of one client within `rate_s`. 0: no limit.",
        ),
    ] = 0
    connection_rate_network_max: Annotated[
        int,
        Meta(
            ge=0,
            description="The most connections of one network within `rate_s`. 0: no limit.",
        ),
    ] = 0
    message_rate_max: Annotated[
        int,
        Meta(
            ge=0,
            description="The most MAIL commands of one client within `rate_s`. 0: no limit.",
        ),
    ] = 0
    message_rate_network_max: Annotated[
        int,
        Meta(
            ge=0,
            description="The most MAIL commands of one network within `rate_s`. 0: no limit.",
        ),
    ] = 0
    recipient_rate_max: Annotated[
        int,
        Meta(
            ge=0,
            description="The most RCPT commands of one client within `rate_s`. 0: no limit.",
        ),
    ] = 0
    recipient_rate_network_max: Annotated[
        int,
        Meta(
            ge=0,
            description="The most RCPT commands of one network within `rate_s`. 0: no limit.",
        ),
    ] = 0
    network_prefix_ipv4: Annotated[
        int,
        Meta(
            ge=8,
            le=32,
            description="The prefix length of an IPv4 network: addresses with the same prefix count as one network. "
            "A change needs a restart.",
        ),
    ] = 24
    network_prefix_ipv6: Annotated[
        int,
        Meta(
            ge=16,
            le=64,
            description="The prefix length of an IPv6 network. A change needs a restart.",
        ),
    ] = 48
    failure_delay_s: float = 1.0
    failure_delay_max_s: Annotated[
        float,
        Meta(
            ge=0,
            le=240,
            description="The longest such delay. The delay doubles with each failure of the client or of the account "
            "within `bans.window_s`.",
        ),
    ] = 30.0


class BanOptions(msgspec.Struct, frozen=True):
    """When the node bans by itself, and for how long."""

    time_s: Annotated[float, Meta(ge=1, description="How long such a ban lasts.")] = 3600.0
    window_s: Annotated[
        float,
        Meta(
            ge=1,
            description="The time span for which failures and ended sessions count.",
        ),
    ] = 600.0
    failures_max: Annotated[
        int,
        Meta(
            ge=0,
            description="The number of failed AUTH attempts of a client within `window_s` after which the node bans "
            "the client. 0: no ban.",
        ),
    ] = 20
    network_failures_max: Annotated[
        int,
        Meta(
            ge=0,
            description="The number of failed AUTH attempts of a network (`limits.network_prefix_ipv4`, "
            "`limits.network_prefix_ipv6`) within `window_s` after which the node bans the network. "
            "Clients of this network that have logged in within the last week are not banned with it, "
            "and the ban does not hold on listeners without AUTH: mail from servers of this network is "
            "accepted there as before. 0: no ban.",
        ),
    ] = 100
    account_failures_max: Annotated[
        int,
        Meta(
            ge=0,
            description="The number of failed AUTH attempts at an account within `window_s` after which the node "
            "bans the account. Nobody can then authenticate as this account for `time_s`, not even its "
            "owner. 0: no ban.",
        ),
    ] = 0
    offences_max: Annotated[
        int,
        Meta(
            ge=0,
            description="The number of sessions of a client within `window_s` that ended because of errors, refused "
            "commands, unknown recipients or speaking before the greeting, after which the node bans the "
            "client. 0: no ban.",
        ),
    ] = 10
    exempt: Annotated[
        tuple[str, ...],
        Meta(
            description="Networks that the node never bans by itself. Networks that a listener trusts are exempt, too.",
        ),
    ] = ("127.0.0.0/8", "::1/128")


# RFC 5321 §3.8, §4.3.2: 421 in place of the greeting
_FULL: Final = defer(421, "4.7.0", "Too many sessions here now, come back later", "too many sessions", disconnect=True)
_CLIENT: Final = defer(
    421, "4.7.0", "Too many sessions from your address", "too many sessions of client", disconnect=True
)
_NETWORK: Final = defer(
    421, "4.7.0", "Too many sessions from your network", "too many sessions of network", disconnect=True
)
_FAST: Final = defer(421, "4.7.0", "Too many connections, come back later", "connection rate", disconnect=True)
BANNED: Final = defer(421, "4.7.0", "Your address is banned for now", "banned", disconnect=True)
_MESSAGES: Final = defer(450, "4.7.1", "Too many messages from you, come back later", "message rate")
_RECIPIENTS: Final = defer(450, "4.7.1", "Too many recipients from you, come back later", "recipient rate")


class Clients:
    """Admits and counts the clients of one worker."""

    def __init__(
        self,
        options: ClientOptions,
        tally: Tally | None = None,
        bans: Bans | None = None,
        now_us: Callable[[], int] = lambda: 0,
    ) -> None:
        self.options = options
        self._prefix_ipv4, self._prefix_ipv6 = options.network_prefix_ipv4, options.network_prefix_ipv6
        self.bans = bans if bans is not None else Bans()  # in force, as the supervisor says
        self.tally = tally or Tally((options.rate_s, 1.0, 1.0, KNOWN_S), lambda told: None, lambda seconds, call: None)
        self._now_us = now_us
        self._all = 0
        self.admitted = 0  # sessions since this worker started

    def take(self, options: ClientOptions) -> None:
        """Settings; all but the prefixes of networks, by which the sessions that are there have been counted."""
        self.options = options

    @property
    def sessions(self) -> int:
        """Those that this worker has now."""
        return self._all

    def admit(self, address: str, trusted: bool, auth: bool = True) -> Verdict:
        """Count a new session in, or say why not. `address` "" is a Unix socket: only the limit for all holds. `auth`:
        one can log in there."""
        tally = self.tally
        if tally.sessions(SESSIONS) >= self.options.sessions_max:
            return _FULL
        keys = _keys_of(address, self._prefix_ipv4, self._prefix_ipv6)
        if address and not trusted:
            refused = self._refused(address, keys, auth)
            if refused is not None:
                return refused
        tally.came(keys)
        self._all += 1
        self.admitted += 1
        return ACCEPT

    def _refused(self, address: str, keys: tuple[str, ...], auth: bool) -> Verdict | None:
        """Why a client that is not trusted may not come in now."""
        options, tally = self.options, self.tally
        _, of_client, of_network = keys
        if self.bans.networks and self.is_banned(address, auth):
            return BANNED
        if tally.sessions(of_client) >= options.sessions_per_client_max:
            return _CLIENT
        most = options.sessions_per_network_max
        if most and tally.sessions(of_network) >= most:
            return _NETWORK
        if (options.connection_rate_max or options.connection_rate_network_max) and self._passes(
            CONNECTIONS, *self._names(address), options.connection_rate_max, options.connection_rate_network_max
        ):
            return _FAST
        return None

    def left(self, address: str) -> None:
        """A session that was admitted has ended."""
        self._all -= 1
        self.tally.went(_keys_of(address, self._prefix_ipv4, self._prefix_ipv6))

    def is_banned(self, address: str, auth: bool = True) -> bool:
        """Whether a client is kept out. `auth`: one can log in there.

        A ban of a network that the node itself has made is for failed log-ins, which may be others': it holds if one
        could try another, so not for mail from servers of the network, nor for who has logged in from it lately."""
        return any(
            ban.by or ban.subject == client_of(address) or (auth and not self.is_known(address))
            for ban in self.bans.all_of_address(address, self._now_us())
        )

    def is_known(self, address: str) -> bool:
        """Whether somebody has logged in from there lately."""
        return self.tally.windows[KNOWN].total(LOGINS + client_of(address), self._now_us()) > 0

    def succeeded(self, address: str) -> None:
        """Somebody has logged in from there."""
        if address:
            self.tally.count(KNOWN, LOGINS + client_of(address), self._now_us())

    def names_of(self, address: str) -> tuple[str, str]:
        """By what names a client and its network are counted."""
        return self._names(address)

    # ---- Troubles

    def offended(self, address: str) -> None:
        """A session of a client that is not trusted was ended for what it did."""
        if address:
            self.tally.count(TROUBLES, OFFENCES + client_of(address), self._now_us())

    def failed(self, address: str, account: str) -> float:
        """AUTH has failed. For how many seconds the answer is to be kept back."""
        now_us, options = self._now_us(), self.options
        failures = 1.0
        if account:  # of who has not said who he is nothing is to be held against others
            failures = self.tally.count(TROUBLES, ACCOUNT_FAILURES + account_of(account), now_us)
        if address:
            client, network = self._names(address)
            failures = max(failures, self.tally.count(TROUBLES, FAILURES + client, now_us))
            failures = max(failures, self.tally.count(TROUBLES, FAILURES + network, now_us) // NETWORK_FAILURES)
        first_s = options.failure_delay_s
        return float(min(first_s * 2 ** min(failures - 1, 32), max(first_s, options.failure_delay_max_s)))

    def is_barred(self, account: str) -> bool:
        """Whether an account may not authenticate now."""
        return self.bans.of_account(account, self._now_us()) is not None

    # ---- Rates

    def limited(self, rules: Rules) -> Rules:
        """The rules with those of the rates in front, as far as there are such."""
        options = self.options
        mail = options.message_rate_max or options.message_rate_network_max
        rcpt = options.recipient_rate_max or options.recipient_rate_network_max
        return msgspec.structs.replace(
            rules,
            mail=_before(self._mail_rate, rules.mail) if mail else rules.mail,
            rcpt=_before(self._recipient_rate, rules.rcpt) if rcpt else rules.rcpt,
        )

    def _mail_rate(self, question: Question) -> Verdict:
        options = self.options
        most, of_network = options.message_rate_max, options.message_rate_network_max
        return _MESSAGES if self._is_over(question, MESSAGES, most, of_network) else ACCEPT

    def _recipient_rate(self, question: Question) -> Verdict:
        options = self.options
        most, of_network = options.recipient_rate_max, options.recipient_rate_network_max
        return _RECIPIENTS if self._is_over(question, RECIPIENTS, most, of_network) else ACCEPT

    def _is_over(self, question: Question, kind: str, most: int, of_network: int) -> bool:
        address = question.peer.address
        return not (question.trusted or not address) and self._passes(kind, *self._names(address), most, of_network)

    def _passes(self, kind: str, client: str, network: str, most: int, of_network: int) -> bool:
        """Counts one more, and tells whether it is one too many. What is refused counts, too: who keeps on trying
        keeps on waiting."""
        now_us, over = self._now_us(), False
        if most:
            over = self.tally.count(RATES, kind + client, now_us) > most
        if of_network:
            over = self.tally.count(RATES, kind + network, now_us) > of_network or over
        return over

    def _names(self, address: str) -> tuple[str, str]:
        return names_of(address, self._prefix_ipv4, self._prefix_ipv6)


def _before(rule: Rule, rest: Rule | None) -> Rule | None:
    return compose((rule, rest) if rest is not None else (rule,))


def limit_of(key: str, clients: ClientOptions, bans: BanOptions) -> int:
    """The limit of what a key of the tally counts, 0 for none."""
    kind, whom = key[:1], key[1:]
    if kind == SESSIONS:
        if not whom:
            return clients.sessions_max
        return clients.sessions_per_network_max if _is_network(whom) else clients.sessions_per_client_max
    of_network = _is_network(whom)
    if kind == CONNECTIONS:
        return clients.connection_rate_network_max if of_network else clients.connection_rate_max
    if kind == MESSAGES:
        return clients.message_rate_network_max if of_network else clients.message_rate_max
    if kind == RECIPIENTS:
        return clients.recipient_rate_network_max if of_network else clients.recipient_rate_max
    if kind == OFFENCES:
        return bans.offences_max
    if kind == LOGINS:
        return 1  # all workers are to know who has logged in
    if kind == ACCOUNT_FAILURES:
        return bans.account_failures_max
    return bans.network_failures_max if of_network else bans.failures_max


def troubles_of(subject: str, is_account: bool) -> Iterable[str]:
    """The keys whose counts led, or may lead, to a ban of this client or account."""
    if is_account:
        return (ACCOUNT_FAILURES + subject,)
    of_client = OFFENCES + subject, FAILURES + subject
    return (*of_client, f"{FAILURES}{_NETWORK_MARK}{subject}") if "/" in subject else of_client


def subject_of(whom: str) -> str:
    """The address or network that a key of the tally counts for, as bans name it."""
    return whom.removeprefix(_NETWORK_MARK)


_NETWORK_MARK: Final = "net "


def _is_network(whom: str) -> bool:
    return whom.startswith(_NETWORK_MARK)


@lru_cache(maxsize=4096)
def _keys_of(address: str, prefix_ipv4: int, prefix_ipv6: int) -> tuple[str, ...]:
    """Under which keys a session is counted: of all, of a client and of its network."""
    if not address:
        return (SESSIONS,)
    client, network = names_of(address, prefix_ipv4, prefix_ipv6)
    return SESSIONS, SESSIONS + client, SESSIONS + network


@lru_cache(maxsize=4096)
def names_of(address: str, prefix_ipv4: int, prefix_ipv6: int) -> tuple[str, str]:
    """By what names a client and its network are counted."""
    client = client_of(address)
    prefix = prefix_ipv6 if ":" in client else prefix_ipv4
    network = network_of(f"{client.partition('/')[0]}/{prefix}")
    return client, f"{_NETWORK_MARK}{network}"


@lru_cache(maxsize=4096)
def client_of(address: str) -> str:
    """What counts as one client: the IPv4 address itself, the /64 of an IPv6 address."""
    if ":" not in address:
        return address
    whole = ipaddress.IPv6Address(address.partition("%")[0])
    mapped = whole.ipv4_mapped
    return str(mapped) if mapped is not None else f"{ipaddress.IPv6Address(int(whole) >> 64 << 64)}/64"
