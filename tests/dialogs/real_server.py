"""The receive stack as a node has it, behind a socket, for the settings of a transcript: listener, session, dialog, the
rules of the listener's role, accounts, and a spool that commits to disk.

What a transcript's host says is the RFC's wording; what ours says in its place is written here once, octet by octet
(`expected`), or in the transcript itself (``R:``). Refusals keep the RFC's words: a rule of the operator says them.
"""

from __future__ import annotations

import asyncio
import base64
import random
import re
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from postroad.accounts import accounts
from postroad.accounts.accounts import Account, Accounts
from postroad.accounts.authenticate import USERS, Authenticator, AuthOptions, Found, Match, SessionFacts
from postroad.accounts.exchange import OwnExchange, OwnMechanisms
from postroad.accounts.users import Users
from postroad.check import policy
from postroad.check.client import ClientOptions, Clients
from postroad.check.policy import Directory, PolicyOptions
from postroad.mail.address import Address
from postroad.mail.envelope import Peer
from postroad.mail.event import Event, Noted
from postroad.mail.policy import ACCEPT, Action, Question, Role, Rules, Verdict
from postroad.mail.reply import Reply
from postroad.protocol.command import (
    Auth,
    AuthResponse,
    Chunk,
    Command,
    Connected,
    Content,
    Data,
    Etrn,
    Hello,
    Help,
    Mail,
    Rcpt,
    Vrfy,
    Xclient,
    Xforward,
)
from postroad.protocol.etrn import Wish
from postroad.protocol.offer import Dialect
from postroad.protocol.sasl import scram_keys
from postroad.protocol.sasl.mechanisms import MECHANISMS, ExchangeContext
from postroad.protocol.sasl.step import Hash
from postroad.receive.doors import Doors, Expansion, Knowing, Limiting, Storing
from postroad.receive.listener import Listener
from postroad.receive.options import ExtensionOptions, ListenerOptions, ListenerTls, ReceiveOptions, Telling
from postroad.receive.setup import listener_setup
from postroad.store.arrivals import Arrivals
from postroad.store.memory import MemorySpool
from postroad.store.options import SpoolOptions
from postroad.store.values import Stored
from postroad.world.network import SystemNetwork
from tests.dialogs.playing import Player, Transcript
from tests.unit.accounts.test_accounts import HASHER
from tests.unit.receive.fakes import held
from tests.unit.receive.ruled import with_rules

HERE = "127.0.0.0/8"
NAMED = ("192.0.2.0/24", "2001:db8::/32")  # clients that the dialogs name by XCLIENT
# 2007-05-01T00:00:00Z, the day of RFC 4865's example
_NOW_US = 1_177_977_600_000_000
_HELP = "See RFC 5321"
# Keywords that ours has in every session; a transcript may leave them out to be as short as the RFC's.
_ALWAYS = {"PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "DSN", "CHUNKING", "HELP"}
_QUEUED = r"250 2\.0\.0 Ok: queued as [0-9A-Za-z]+"
_ANSWERS: dict[type, str] = {
    Mail: "250 2.1.0 Sender OK",
    Rcpt: "250 2.1.5 Recipient OK",
    Data: "354 Send the message, end with <CRLF>.<CRLF>",
    Chunk: "250 2.0.0 Chunk OK",
    Xforward: "250 2.0.0 The client of the next message is noted",
    Help: f"214 2.0.0 {_HELP}",
}
# Salt and the server's nonce of RFC 5802 §5 and RFC 7677 §3; the account is "user", the password "pencil".
_SCRAM = {
    "SCRAM-SHA-1": ("QSXCR+Q6sek8bf92", "3rfcNHYJY1ZVvWVs7j", Hash.SHA_1),
    "SCRAM-SHA-256": ("W22ZaJ0SNY7soEsUEjb6gQ==", "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0", Hash.SHA_256),
}


_TOKEN = "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg=="


class Clock:
    def now_us(self) -> int:
        return _NOW_US


class Asked(Player):
    """Plays sans-I/O, and learns by it which reply answers which command of the host. The others are the machine's."""

    def __init__(self, transcript: Transcript) -> None:
        super().__init__(transcript, split=False)
        self.commands: dict[int, Command] = {}

    def _next(self) -> Reply:
        answer = super()._next()
        self.commands[self.given] = self.handed[-1]
        return answer


def hostname(transcript: Transcript) -> str:
    """As the greeting tells it."""
    return transcript.replies[0][0].split(" ")[1]


def expected(transcript: Transcript) -> list[Callable[[list[str]], None]]:
    """For each reply of the transcript, what looks at the one that came in its place."""
    asked = Asked(transcript)
    asked.play()
    return [
        _check(transcript, lines, asked.commands.get(place), transcript.instead.get(place))
        for place, lines in enumerate(transcript.replies)
    ]


def _check(
    transcript: Transcript, lines: list[str], command: Command | None, instead: str | None
) -> Callable[[list[str]], None]:
    refused = int(lines[0][:3]) >= 400
    greeting = f"220 {hostname(transcript)} {transcript.dialect.name.replace('SMTP', 'ESMTP')} Postroad"

    def same(came: list[str]) -> None:
        assert came == lines, f"{came}, not {lines}"

    def literally(text: str) -> Callable[[list[str]], None]:
        def check(came: list[str]) -> None:
            assert came == [text], f"{came}, not {text}"

        return check

    def offered(came: list[str]) -> None:
        assert came[0][4:] == hostname(transcript), came
        wanted, got = _keywords(lines), _keywords(came)
        left_out = _ALWAYS - wanted.keys() if len(came) > 1 else set()
        assert {name: words for name, words in got.items() if name not in left_out} == wanted, f"{came}, not {lines}"

    def queued(came: list[str]) -> None:
        assert len(came) == 1 and re.fullmatch(_QUEUED, came[0]), came

    if instead is not None:
        return queued if instead == "queued" else literally(instead)
    if command is None or refused or lines[0].startswith(("250 2.3.6 ", "334")):
        return same
    match command:
        case Connected() | Xclient():
            return literally(greeting)
        case Hello():
            return offered
        case Content():
            return queued
        case Auth() | AuthResponse():
            return literally("235 2.7.0 Authentication succeeded")
        case Etrn() | Vrfy():
            return same
        case _:
            return literally(_ANSWERS[type(command)])


def _keywords(lines: list[str]) -> dict[str, set[str]]:
    return {words[0]: set(words[1:]) for words in (line[4:].split(" ") for line in lines[1:])}


class RealServer:
    """One for all transcripts: a spool, accounts. `listener` makes a listener as a transcript wants it."""

    def __init__(self, directory: Path, context: ssl.SSLContext, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._context = context
        self.spool = MemorySpool(directory / "spool", [0], SpoolOptions(), Clock(), loop)
        self.spool.start()
        users = directory / "users"
        users.write_text("".join(f"{accounts.format_line(account)}\n" for account in _accounts()))
        self._accounts = Accounts(users, lambda faults: None)
        self._pool = ThreadPoolExecutor(1)
        self.queued: list[Stored] = []
        self.faults: list[Event] = []

    def close(self) -> None:
        self.spool.close()
        self._pool.shutdown()

    def listener(self, transcript: Transcript) -> Listener:
        offer = transcript.offer
        asked = Asked(transcript)
        asked.play()
        role = Role.SUBMISSION if offer.auth_required or offer.hold_max_s else Role.MX
        trusted = (role is Role.SUBMISSION and not offer.auth_required) or offer.xverp
        options = ListenerOptions(
            "front",
            role,
            transcript.dialect,
            tls=_tls(transcript),
            trusted_networks=(HERE,) if trusted else (),
            auth=bool(offer.auth or offer.auth_after_tls),
            auth_without_tls=bool(offer.auth) and not offer.tls,
            xclient_networks=(HERE, *NAMED) if offer.xclient else (),
            xforward_networks=(HERE, *NAMED) if offer.xforward else (),
            vrfy=Telling.ON if offer.vrfy else Telling.OFF if offer.vrfy_off else Telling.AMBIGUOUS,
            expn=Telling.ON if offer.expn else Telling.OFF,
            dsn_for_strangers=True,
        )
        known = Directory(lambda domain: True, lambda domain: False, lambda address: True, lambda name, address: True)
        lmtp = transcript.dialect is Dialect.LMTP
        own = policy.rules(role, PolicyOptions(trust_network=trusted), known, lmtp=lmtp)
        rules = with_rules(own, _refusals(asked))
        return Listener(listener_setup(options, _receive(transcript), rules, self._doors(transcript, asked)))

    def _doors(self, transcript: Transcript, asked: Asked) -> Doors:
        offer = transcript.offer
        clients = Clients(ClientOptions())
        members = {
            Address("Example-People", hostname(transcript)): [
                Address("Postel", "isi.example"),
                Address("Fred", "host.example"),
                Address("Sam", "host.example"),
            ]
        }
        return Doors(
            loop=self._loop,
            now_us=Clock().now_us,
            record=self._record,
            log=self._record,
            network=SystemNetwork(),
            tls_context=lambda asking: self._context,
            storing=Storing(
                join=Arrivals(self._loop.time).join,
                new_id=self.spool.new_id,
                accept=self.spool.accept,
                incoming=self.spool.incoming,
                queued=self.queued.append,
                reports=lambda stored, given, events: ((), ()),
                held=held,
                waiting=lambda id, rows: None,
            ),
            knowing=Knowing(
                expand=lambda id, now_us, recipients: Expansion(recipients),
                known=lambda address: True,
                members=members.get,
                owns=lambda name, address: True,
                authenticator=self._authenticator(tuple({*offer.auth, *offer.auth_after_tls})),
                etrn=_etrn(transcript, asked) if offer.etrn else None,
            ),
            limiting=Limiting(
                admit=clients.admit,
                left=clients.left,
            ),
        )

    def _record(self, events: tuple[Event, ...]) -> None:
        self.faults += [event for event in events if isinstance(event, Noted) and event.level == "error"]

    def _authenticator(self, mechanisms: tuple[str, ...]) -> Authenticator | None:
        if not mechanisms:
            return None
        options = AuthOptions(mechanisms=mechanisms, failure_delay_s=0.0)
        chance = random.Random(1)
        source = _Source(self._accounts, options, self._loop, chance, b"secret", self._pool)
        return Authenticator({USERS: _Mechanisms(source, chance)}, self._accounts, options, self._loop)


class _Source(Users):
    """The users file, and a place that knows one token: that of RFC 7628 §4.1."""

    def mechanisms(self) -> tuple[str, ...]:
        return (*super().mechanisms(), "OAUTHBEARER", "XOAUTH2")

    def token(self, mechanism: str, token: str, name: str, facts: SessionFacts, done: Found) -> None:
        good = token == _TOKEN
        done(Match.RIGHT if good else Match.WRONG, Account("user@example.com") if good else None)


class _Mechanisms(OwnMechanisms):
    """With the nonces of the RFCs' examples instead of chance."""

    def exchange(self, mechanism: str, facts: SessionFacts) -> OwnExchange:
        nonce = _SCRAM[mechanism][1] if mechanism in _SCRAM else "x"
        around = ExchangeContext(nonce, facts.binding, facts.offered, "https://mail.example.com/")
        return OwnExchange(mechanism, MECHANISMS[mechanism](around), self.source, facts)


def _accounts() -> list[Account]:
    keys = tuple(scram_keys.derive(hash, "pencil", base64.b64decode(salt), 4096) for salt, _, hash in _SCRAM.values())
    return [
        Account("test", HASHER.hash("1234"), ("*",)),
        Account("tim", HASHER.hash("secret"), ("*",)),
        Account("user", HASHER.hash("pencil"), ("*",), keys),
    ]


def _tls(transcript: Transcript) -> ListenerTls:
    offer = transcript.offer
    if offer.tls:
        return ListenerTls.IMPLICIT
    if offer.tls_required:
        return ListenerTls.REQUIRED
    return ListenerTls.STARTTLS if offer.starttls else ListenerTls.NONE


def _receive(transcript: Transcript) -> ReceiveOptions:
    offer = transcript.offer
    return ReceiveOptions(
        hostname=hostname(transcript),
        default_domain=hostname(transcript).lower(),
        limits=transcript.limits,
        auth_failures_max=100,
        repair=False,
        help=_HELP,
        extensions=ExtensionOptions(
            binarymime=offer.binarymime,
            limits=offer.limits,
            requiretls=offer.requiretls,
            deliver_by=offer.by_min_s is not None,
            deliver_by_min_s=float(offer.by_min_s or 0),
            future_release_max_s=float(offer.hold_max_s or 0),
            mt_priority=offer.mt_priority is not None,
            mt_priority_profile=offer.mt_priority or "",
            mt_priority_strangers_max=3,
            rrvs=offer.rrvs,
            xverp=offer.xverp,
        ),
    )


def _refusals(asked: Asked) -> Rules:
    """The refusals of the transcript's host as an operator's rules."""
    recipients: dict[str, Reply] = {}
    connect: Reply | None = None
    for place, command in asked.commands.items():
        answer = _reply(asked.transcript.replies[place])
        if answer.code < 400:
            continue
        if isinstance(command, Rcpt):
            recipients[str(command.forward_path)] = answer
        elif isinstance(command, Connected):
            connect = answer

    def rcpt(context: Question) -> Verdict:
        answer = recipients.get(str(context.recipient))
        return ACCEPT if answer is None else Verdict(Action.REJECT, answer, "as the transcript says")

    def connected(context: Question) -> Verdict:
        return ACCEPT if connect is None else Verdict(Action.REJECT, connect, "as the transcript says")

    return Rules(connect=connected, rcpt=rcpt)


def _etrn(transcript: Transcript, asked: Asked) -> Callable[[Peer, Wish, Callable[[Reply], None]], None]:
    """The transcript's queues."""
    answers = [
        _reply(transcript.replies[place]) for place, command in asked.commands.items() if isinstance(command, Etrn)
    ]

    def start(peer: Peer, wish: Wish, done: Callable[[Reply], None]) -> None:
        asyncio.get_running_loop().call_soon(done, answers.pop(0))

    return start


def _reply(lines: list[str]) -> Reply:
    found = [re.fullmatch(r"([245]\.\d{1,3}\.\d{1,3}) (.*)", line[4:]) for line in lines]
    if all(found):
        return Reply(int(lines[0][:3]), found[0][1], tuple(one[2] for one in found if one))  # type: ignore[index]
    return Reply(int(lines[0][:3]), "", tuple(line[4:] for line in lines))
