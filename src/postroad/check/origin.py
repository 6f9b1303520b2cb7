"""Checks where mail comes from: an inspector that makes SPF, DKIM, DMARC, ARC and iprev for one listener.

What it does when: at MAIL it begins to ask for SPF and for the client's name; as soon as the header section is there,
for the keys of the signatures and for DMARC records, all side by side; the body is hashed piece by piece as it comes.
At the end it waits for what is still missing, and puts Authentication-Results on top of the message.

What always holds: a refusal comes only from a check that is set to `enforce` (`origin_decision`). Mail of exempt
clients is left as it is, and costs no question. A message costs no more DNS queries and time than its limits allow, and
nothing of it is kept but its header section. When a transaction ends, what it asked for is given up.

How it fails: the DNS cannot be asked: `temperror`, and what the settings say of it. The room `trust` raises nothing; if
it did, `receive.inspecting` would answer 451.

Not here: the checks themselves (the room `trust`), what follows from them (`origin_decision`).
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final

import msgspec

from postroad.check.origin_decision import Decision, MessageFacts, fits, of_client, of_message
from postroad.check.origin_options import CheckMode, OriginChecks, OriginOptions, Quarantine
from postroad.mail import evaluation, message
from postroad.mail.account import canonical_account
from postroad.mail.address import Address
from postroad.mail.effects import TEXT_MAX
from postroad.mail.envelope import Peer
from postroad.mail.evaluation import DmarcFacts, Evaluation, Found, JudgedMessage
from postroad.mail.event import Evaluated, Event
from postroad.mail.policy import (
    ACCEPT,
    Action,
    Answer,
    Effect,
    Evaluate,
    Phase,
    Prepend,
    Question,
    Redirect,
    RemoveField,
    Verdict,
)
from postroad.protocol.grammar import parse_mailbox
from postroad.trust import authres, authres_reading, dkim_verify, dmarc, iprev, received_spf, results
from postroad.trust.arc import ArcResult, ArcVerification
from postroad.trust.asking import DnsQuestions, client_address
from postroad.trust.author import Authors, authors
from postroad.trust.dkim_head import SignedHead
from postroad.trust.dkim_verify import DkimResult, DkimVerification
from postroad.trust.dmarc import DmarcVerdict, Judgement
from postroad.trust.dmarc_record import PREFIX
from postroad.trust.iprev import ReverseName
from postroad.trust.spf import SpfClient, SpfResult, check_helo, check_mail_from
from postroad.world.dns import Resolver

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_OFF: Final = CheckMode.OFF
_ENFORCE: Final = CheckMode.ENFORCE
_MAIL: Final = Phase.MAIL
_RCPT: Final = Phase.RCPT
_MESSAGE: Final = Phase.MESSAGE
_RECEIVED_SPF: Final = "Received-SPF"
_AUTHRES: Final = "Authentication-Results"
_EVERY_ACCOUNT: Final = "*"
RESULTS_MAX: Final = 64  # of one message, in the history
_TAKEN_OVER: Final = (results.SPF, results.IPREV, results.DKIM)  # methods for which others are believed


class OriginInspector:
    """One listener's. `record`: events for history and log. `on_unaligned`: hears of messages for which not both SPF
    and DKIM brought an aligned identifier; None: nobody wants to hear of them."""

    def __init__(
        self,
        checks: OriginChecks,
        options: OriginOptions,
        resolver: Resolver,
        now_us: Callable[[], int],
        record: Callable[[tuple[Event, ...]], None],
        on_unaligned: Callable[[JudgedMessage], None] | None = None,
    ) -> None:
        self.checks = checks
        self.options = options
        self.resolver = resolver
        self.now_us = now_us
        self.record = record
        self.on_unaligned = on_unaligned
        self.authserv_id = options.authserv_id or options.receiver
        self.ours = (self.authserv_id, *options.believed_authserv_ids)
        self.wants_spf = checks.spf is not _OFF or checks.dmarc is not _OFF
        self.wants_dkim = checks.dkim is not _OFF or checks.dmarc is not _OFF
        self.refuses_clients = _ENFORCE in (checks.spf, checks.iprev)
        self.quarantine_to = parse_mailbox(checks.quarantine_to) if checks.quarantine_to else None
        self._networks = tuple(ipaddress.ip_network(each) for each in options.exempt_networks)

    def visit(self, peer: Peer) -> OriginInspection | None:
        """None for clients whose mail is never looked at."""
        exempt = self.is_exempt(peer.address)
        if (exempt or peer.trusted) and not self.options.believed_authserv_ids:
            return None
        return OriginInspection(self, exempt=exempt)

    def is_exempt(self, client: str) -> bool:
        """Whether the address is in an exempt network."""
        address = client_address(client) if client else None
        return address is not None and any(address in network for network in self._networks)

    def is_exempt_account(self, identity: str) -> bool:
        accounts = self.options.exempt_accounts
        return bool(identity) and (_EVERY_ACCOUNT in accounts or canonical_account(identity) in accounts)

    def without_forged(self, question: Question, authserv_ids: tuple[str, ...]) -> Verdict:
        """Fields that claim to be of these services go, and nothing else happens."""
        if not authres_reading.forged(question.head, authserv_ids):
            return ACCEPT
        return Verdict(Action.ACCEPT, effects=(RemoveField(_AUTHRES, partial(self.claims, authserv_ids)),))

    @staticmethod
    def claims(authserv_ids: tuple[str, ...], value: bytes) -> bool:
        return authres_reading.claims(value, authserv_ids)


class OriginInspection:
    """One session. `exempt`: the client is in an exempt network."""

    __slots__ = ("_exempt", "_hello", "_inspector", "_name", "_only_forged", "_transaction")

    reads_content = True

    def __init__(self, inspector: OriginInspector, *, exempt: bool) -> None:
        self._inspector = inspector
        self._exempt = exempt
        self._name: asyncio.Task[ReverseName] | None = None  # of the client; it is the same for all messages
        self._hello: tuple[str, asyncio.Task[SpfResult]] | None = None  # what the name in HELO came to
        self._transaction: _Transaction | None = None
        self._only_forged = False  # nothing is checked, but an account is no host that may write our fields

    def ask(self, question: Question) -> Answer:
        phase = question.phase
        if phase is _MAIL:
            self._begin(question)
            return ACCEPT
        transaction = self._transaction
        if transaction is None:
            if not self._only_forged or phase is not _MESSAGE:
                return ACCEPT
            return self._inspector.without_forged(question, self._inspector.ours)
        if phase is _RCPT:
            return transaction.at_recipient()
        if phase is _MESSAGE:
            self._transaction = None
            return transaction.at_end(question)
        return ACCEPT

    def content(self, octets: bytes) -> None:
        if self._transaction is not None:
            self._transaction.content(octets)

    def aborted(self) -> None:
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            transaction.give_up()

    def ended(self) -> None:
        for task in (self._name, None if self._hello is None else self._hello[1]):
            if task is not None:
                task.cancel()

    def _begin(self, question: Question) -> None:
        inspector, peer = self._inspector, question.peer
        self.aborted()
        known = self._exempt or question.trusted
        self._only_forged = not known and inspector.is_exempt_account(peer.identity)
        if inspector.is_exempt_account(peer.identity):
            return
        if known and not inspector.options.believed_authserv_ids:
            return
        transaction = self._transaction = _Transaction(inspector, question, believing=known)
        if known or not peer.address:
            return
        checks = inspector.checks
        client = SpfClient(peer.address, peer.hello, inspector.options.receiver, inspector.now_us() // 1_000_000)
        if inspector.wants_spf:
            transaction.ask_spf(client, question.reverse_path)
        if checks.spf is _ENFORCE and question.reverse_path is not None:
            transaction.hello = self._asked_hello(client, transaction.questions)
        if checks.iprev is not _OFF:
            transaction.name = self._asked_name(peer.address, transaction.questions)

    def _asked_name(self, address: str, questions: DnsQuestions) -> asyncio.Task[ReverseName]:
        if self._name is None or _is_to_be_asked_again(self._name):
            self._name = asyncio.get_running_loop().create_task(iprev.check(address, questions))
        return self._name

    def _asked_hello(self, client: SpfClient, questions: DnsQuestions) -> asyncio.Task[SpfResult]:
        if self._hello is None or self._hello[0] != client.helo or _is_to_be_asked_again(self._hello[1]):
            task = asyncio.get_running_loop().create_task(check_helo(client, questions))
            self._hello = client.helo, task
        return self._hello[1]


def _is_to_be_asked_again(task: asyncio.Task[ReverseName] | asyncio.Task[SpfResult]) -> bool:
    """Whether a question about the client, asked for an earlier message of the session, has come to nothing."""
    return task.done() and (
        task.cancelled() or task.exception() is not None or task.result().result == results.TEMPERROR
    )


class _Transaction:
    """One message from MAIL to the verdict on it. `believing`: it comes from a host whose results are believed."""

    __slots__ = (
        "_asked", "_authors", "_believing", "_chain", "_early", "_head", "_inspector", "_look_at", "_pieces",
        "_section", "_sender", "_signatures", "_size", "_spf", "hello", "name", "questions",
    )  # fmt: skip

    def __init__(self, inspector: OriginInspector, question: Question, *, believing: bool) -> None:
        self.questions = DnsQuestions(inspector.resolver, inspector.options.asking)
        self.hello: asyncio.Task[SpfResult] | None = None
        self.name: asyncio.Task[ReverseName] | None = None
        self._inspector = inspector
        self._believing = believing
        self._sender = question.reverse_path
        self._spf: asyncio.Task[SpfResult] | None = None
        self._asked: list[asyncio.Task[Any]] = []  # for keys and records
        self._early: Verdict | None = None  # on the client and the sender
        self._pieces: list[bytes] = []
        self._size = 0
        self._look_at = 0  # from so many octets on it is worth looking whether the header section is whole
        self._head = False  # it has been read
        self._section = b""
        self._authors = Authors()
        self._signatures: DkimVerification | None = None
        self._chain: ArcVerification | None = None

    def ask_spf(self, client: SpfClient, sender: Address | None) -> None:
        self._spf = asyncio.get_running_loop().create_task(check_mail_from(client, sender, self.questions))

    def give_up(self) -> None:
        for task in (self._spf, *self._asked):
            if task is not None:
                task.cancel()

    # ---- The client and the sender

    def at_recipient(self) -> Answer:
        if not self._inspector.refuses_clients or self._believing:
            return ACCEPT
        if self._early is not None:
            return self._early
        return self._judged_client()

    async def _judged_client(self) -> Verdict:
        checks, found = self._inspector.checks, []
        name = None if self.name is None or checks.iprev is not _ENFORCE else await self.name
        if checks.spf is _ENFORCE:
            found = [await task for task in (self.hello, self._spf) if task is not None]
        self._early = of_client(checks, found, name, self._is_exempt(self._domain))
        return self._early

    def _exempt_author(self) -> str:
        """The author domain, if each is exempt; "" if not. The sender does not count: anybody may name one who is."""
        if not self._inspector.options.exempt_domains:
            return ""
        named = self._authors if self._authors.domains else authors(self._section)
        exempt = named.domains and not named.more and all(map(self._is_exempt, named.domains))
        return named.domains[0] if exempt else ""

    @property
    def _domain(self) -> str:
        return "" if self._sender is None else self._sender.domain

    def _is_exempt(self, domain: str) -> bool:
        return fits(domain, self._inspector.options.exempt_domains)

    # ---- The content

    def content(self, octets: bytes) -> None:
        if self._head:
            if self._signatures is not None:
                self._signatures.feed(octets)
            return
        self._pieces.append(octets)
        self._size += len(octets)
        if self._size < self._look_at:
            return
        joined = b"".join(self._pieces)
        self._pieces[:] = [joined]
        if self._size > message.HEADER_MAX or message.header_is_whole(joined):
            self._read(joined)
        else:
            self._look_at = 2 * self._size  # so that all looks together cost no more than two

    def _read(self, octets: bytes) -> None:
        """The header section is there: asks for all that it names."""
        self._pieces.clear()
        self._head = True
        end = message.header_end(octets)
        if not end:  # as the message will be stored (`receive.draft.finished`)
            octets = message.joining(octets)
            end = message.header_end(octets)
        self._section = section = octets[:end]
        inspector = self._inspector
        if self._believing and not authres_reading.trusted(section, inspector.options.believed_authserv_ids):
            return
        head = SignedHead(section)
        if inspector.checks.arc is not _OFF:
            self._chain = ArcVerification(head)
        chain = self._chain
        if inspector.wants_dkim or chain is not None:
            forms = () if chain is None else chain.forms
            signatures = self._signatures = DkimVerification(head, inspector.options.dkim, further=forms)
            if signatures.wants_body:
                signatures.feed(octets[end + 2 if octets.startswith(b"\r\n", end) else end :])
        if inspector.checks.dmarc is not _OFF:
            self._authors = authors(section)
        self._ask()

    def _ask(self) -> None:
        """Asks for keys and DMARC records side by side. `questions` keeps the records."""
        questions, create_task = self.questions, asyncio.get_running_loop().create_task
        self._asked = [create_task(questions.text(PREFIX + each)) for each in self._authors.domains]
        if self._signatures is not None and self._signatures.wants_body:
            self._asked.append(create_task(self._signatures.ask(questions)))
        if self._chain is not None and self._chain.instances:
            self._asked.append(create_task(self._chain.ask(questions)))

    # ---- The message

    def at_end(self, question: Question) -> Answer:
        if not self._head:
            self._read(b"".join(self._pieces))
        if self._believing and self._signatures is None and not self._authors.domains:
            # It carries no results that are believed.
            return self._inspector.without_forged(question, (self._inspector.authserv_id,))
        return self._concluded(question)

    async def _concluded(self, question: Question) -> Verdict:
        inspector = self._inspector
        checks = inspector.checks
        believed = self._believed()
        found: list[Found] = []
        marked: list[Found] = []

        def add(mode: CheckMode, *each: Found) -> None:
            found.extend(each)
            if mode is not _OFF:
                marked.extend(each)

        try:
            spf = None if self._spf is None else await self._spf
            name = None if self.name is None else await self.name
            for task in self._asked:
                await task
        except BaseException:  # the client has gone: nobody else gives up the others
            self.give_up()
            raise
        signatures, chain = self._verified()
        if spf is not None:
            add(checks.spf, spf.found())
        if believed is not None:
            found += believed.results
            if any(each.method == results.DKIM for each in believed.results):
                signatures = None
        if signatures is not None and inspector.wants_dkim:
            add(checks.dkim, *dkim_verify.found(signatures))
        verdict: DmarcVerdict | None = None
        if checks.dmarc is not _OFF:
            known = dmarc.identifiers(found, null_sender=self._sender is None)
            verdict = await dmarc.judge(self.questions, self._authors, known)
            add(checks.dmarc, verdict.decisive.found())
        if chain is not None:
            add(checks.arc, chain.found)
        if name is not None:
            add(checks.iprev, name.found())
        exempt = self._exempt_author()
        facts = MessageFacts(
            signatures or (), chain, verdict, f"mail of {exempt} is exempt from these checks" if exempt else ""
        )
        decision = of_message(checks, inspector.options, facts)
        told = self._evaluation(question.peer, found, verdict, decision, believed)
        if inspector.on_unaligned is not None and evaluation.fails_somewhere(told):
            sender = "" if self._sender is None else str(self._sender)
            inspector.on_unaligned(JudgedMessage(inspector.now_us(), told, self._section, sender))
        if decision.verdict is not ACCEPT:
            if decision.verdict.action is Action.REJECT:
                inspector.record((Evaluated(inspector.now_us(), 0, told),))
            return decision.verdict
        return self._marked(question, marked, spf, told)

    def _believed(self) -> authres_reading.Reading | None:
        """What hosts that are believed have found. Their other results are not ours to tell."""
        if not self._believing:
            return None
        readings = authres_reading.trusted(self._section, self._inspector.options.believed_authserv_ids)
        if not readings:
            return None
        kept = tuple(each for each in readings[0].results if each.method in _TAKEN_OVER)
        return authres_reading.Reading(readings[0].authserv_id, kept)

    def _verified(self) -> tuple[tuple[DkimResult, ...] | None, ArcResult | None]:
        if self._signatures is None:
            return None, None
        verified, bodies = self._signatures.conclude(self._inspector.now_us() // 1_000_000)
        return verified, None if self._chain is None else self._chain.conclude(bodies)

    def _evaluation(
        self, peer: Peer, found: Sequence[Found], verdict: DmarcVerdict | None, decision: Decision,
        believed: authres_reading.Reading | None,
    ) -> Evaluation:  # fmt: skip
        return Evaluation(
            peer.address, peer.hello, self._domain, tuple(map(_kept, found[:RESULTS_MAX])),
            () if verdict is None else _dmarc_facts(verdict),
            decision.disposition, decision.override, decision.comment,
            "" if believed is None else believed.authserv_id, self.questions.queries,
        )  # fmt: skip

    def _marked(
        self, question: Question, marked: Iterable[Found], spf: SpfResult | None, told: Evaluation
    ) -> Verdict:
        """The message is accepted: with these marks, perhaps in quarantine."""
        inspector = self._inspector
        checks, options = inspector.checks, inspector.options
        effects: list[Effect] = []
        ids = (inspector.authserv_id,) if self._believing else inspector.ours
        if authres_reading.forged(self._section, ids):
            effects.append(RemoveField(_AUTHRES, partial(inspector.claims, ids)))
        if spf is not None and options.received_spf and checks.spf is not _OFF:
            effects.append(Prepend(_RECEIVED_SPF, _value(received_spf.field(spf)), told=False))
        utf8 = question.peer.protocol.startswith("UTF8")
        payload = authres.payload(inspector.authserv_id, marked, utf8=utf8)
        effects += [Prepend(_AUTHRES, payload, told=False), Evaluate(told)]
        if told.disposition != evaluation.QUARANTINE:
            return Verdict(Action.ACCEPT, effects=tuple(effects))
        facts = told.dmarc[0]
        where = f"{facts.tag}= at {PREFIX}{facts.policy_domain}"
        why = f"DMARC failed, and the policy of {facts.author} is {facts.applied} ({where})"
        if checks.quarantine is Quarantine.HOLD:
            return Verdict(Action.HOLD, reason=why, effects=tuple(effects))
        name, _, value = checks.quarantine_field.partition(":")
        effects.append(Prepend(name, value.strip().encode()))
        if checks.quarantine is Quarantine.REDIRECT and inspector.quarantine_to is not None:
            effects.append(Redirect(inspector.quarantine_to))
        return Verdict(Action.ACCEPT, reason=why, effects=tuple(effects))


def _kept(found: Found) -> Found:
    """What the history keeps: strangers say how long some texts are."""
    if len(found.told) <= TEXT_MAX and len(found.reason) <= TEXT_MAX:
        return found
    return msgspec.structs.replace(found, told=found.told[:TEXT_MAX], reason=found.reason[:TEXT_MAX])


def _value(field: bytes) -> bytes:
    """What stands behind the name of a field."""
    return field.partition(b":")[2].strip()


def _dmarc_facts(verdict: DmarcVerdict) -> tuple[DmarcFacts, ...]:
    """Of each author domain, the decisive one first."""
    others = [each for each in verdict.all if each.author != verdict.decisive.author]
    return tuple(map(_facts, (verdict.decisive, *others)))


def _facts(judgement: Judgement) -> DmarcFacts:
    record = judgement.record
    return DmarcFacts(
        judgement.author, judgement.result, judgement.policy_domain, judgement.organizational,
        "" if record is None else record.text[: evaluation.RECORD_MAX], judgement.tag, judgement.asked.word,
        judgement.applied.word, judgement.spf_aligned, judgement.dkim_aligned,
    )  # fmt: skip
