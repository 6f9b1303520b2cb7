"""All checks of one message that lies in a file, step by step: for people who ask why it fails.

The checks themselves are those of the room `trust`. Here they are put together, with the DNS answers that each used,
and with what `dkim_diagnosis` can tell. The resolver and the time are handed in.

What always holds: what cannot be known from the message alone (who sent it, with which reverse-path) is taken from
nowhere but from what was asked. What the message says of it itself is a hint, and it is told as one.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from postroad.mail.address import Address
from postroad.mail.message import first, raw_fields
from postroad.operate.demands import Demand, OutgoingMail, demands
from postroad.operate.message_file import MessageFile
from postroad.trust import authres, authres_reading, dkim_verify, dmarc, iprev, results
from postroad.trust.arc import ArcVerification
from postroad.trust.asking import DnsQuestion, DnsQuestions
from postroad.trust.author import authors
from postroad.trust.dkim_diagnosis import BODY_MAX, diagnose
from postroad.trust.dkim_head import SignedHead
from postroad.trust.dkim_verify import DkimOptions, DkimResult, DkimVerification
from postroad.trust.results import Found
from postroad.trust.spf import SpfClient, check_helo, check_mail_from
from postroad.world.dns import MxRecord, Resolver

UNKNOWN: Final = "unknown"
"""The result of a check that cannot be made, or not be made to its end, with what is known."""

_WITHOUT_RESULT: Final = (UNKNOWN, results.TEMPERROR)
_FROM_PART: Final = re.compile(r"from\s+(\S{1,255})")
_BRACKETED: Final = re.compile(r"\[(?:IPv6:)?([0-9A-Fa-f:.]{2,45})\]")
_SHOWN_NAMES: Final = 40
_DIAGNOSED_MAX: Final = 4  # signatures for whose failure a cause is searched
_SAID: Final = b"authentication-results"
_SAID_RESULTS_MAX: Final = 20
_SAID_MAX: Final = 5  # Authentication-Results fields that are shown
_RECEIVED_MAX: Final = 2_000  # characters of a Received field that are looked at


class AskedSession(msgspec.Struct, frozen=True):
    """What is known of the session by which the message came. "": not known. `sender`: "" for the null reverse-path,
    None if it is not known. `receiver`: the name of the host that judges."""

    client: str = ""
    helo: str = ""
    sender: Address | str | None = None
    receiver: str = "localhost"
    outgoing: bool = False


class DnsFacts(msgspec.Struct, frozen=True):
    """One question to the DNS and what was answered. `text`: why there are no records."""

    type: str
    name: str
    status: str
    records: tuple[str, ...] = ()
    text: str = ""


class CheckFacts(msgspec.Struct, frozen=True):
    """One check. `result`: a word of RFC 8601, or `unknown`. `counts`: whether anything but a pass is a fault.
    `causes`: what can be told of a failure."""

    method: str
    result: str
    told: str
    counts: bool = True
    steps: tuple[str, ...] = ()
    causes: tuple[str, ...] = ()
    dns: tuple[DnsFacts, ...] = ()

    @property
    def passes(self) -> bool:
        return self.result == results.PASS or not self.counts

    @property
    def has_no_result(self) -> bool:
        return self.counts and self.result in _WITHOUT_RESULT


class VerifyFacts(msgspec.Struct, frozen=True):
    """All that was found. `first_wrong`: the first thing that is wrong, in words; "": nothing. `not_judged`: whether a
    check has no result for now. `authentication_results`: the field that a host with these results would write."""

    checks: tuple[CheckFacts, ...]
    first_wrong: str
    not_judged: bool
    notes: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()
    demands: tuple[Demand, ...] = ()
    authentication_results: str = ""

    @property
    def failed(self) -> bool:
        return bool(self.first_wrong)


class _Case:
    """One message while its checks are made, in the order in which they need each other."""

    def __init__(self, section: bytes, asked: AskedSession, resolver: Resolver, now_s: int) -> None:
        self.section = section
        self.asked = asked
        self.now_s = now_s
        self.questions = DnsQuestions(resolver)
        self.checks: list[CheckFacts] = []
        self.found: list[Found] = []
        self._shown = 0

    def add(self, found: Found, **further: Any) -> None:
        self.found.append(found)
        self.checks.append(CheckFacts(found.method, found.result, found.told, dns=self._answers(), **further))

    def add_unknown(self, method: str, told: str, counts: bool) -> None:
        self.checks.append(CheckFacts(method, UNKNOWN, told, counts, dns=self._answers()))

    def _answers(self) -> tuple[DnsFacts, ...]:
        new = self.questions.log[self._shown :]
        self._shown += len(new)
        return tuple(map(_dns_facts, new))

    async def client(self) -> None:
        if self.asked.client:
            self.add((await iprev.check(self.asked.client, self.questions)).found(), counts=False)

    async def spf(self) -> None:
        asked = self.asked
        client = SpfClient(asked.client, asked.helo, asked.receiver, self.now_s)
        if asked.client and asked.helo and asked.sender != "":
            helo = await check_helo(client, self.questions, with_steps=True)
            self.add(helo.found(), counts=False, steps=helo.steps)
        missing = self._missing()
        if missing:
            self.add_unknown(results.SPF, f"SPF cannot be judged: {' and '.join(missing)} missing.", False)
            return
        sender = asked.sender if isinstance(asked.sender, Address) else None
        result = await check_mail_from(client, sender, self.questions, with_steps=True)
        causes = (f"The domain explains: {result.explanation}",) if result.explanation else ()
        self.add(result.found(), steps=result.steps, causes=causes)

    def _missing(self) -> list[str]:
        asked = self.asked
        missing = [] if asked.client else ["the address of the client (--client)"]
        if asked.sender is None:
            missing.append("the sender of the envelope (--from)")
        elif asked.sender == "" and not asked.helo:
            missing.append("the name in HELO, which counts for the null sender (--helo)")
        return [*missing[:-1], f"{missing[-1]} {'are' if len(missing) > 1 else 'is'}"] if missing else []

    async def signatures(self, pieces: Iterable[bytes]) -> tuple[DkimResult, ...]:
        head = SignedHead(self.section)
        chain = ArcVerification(head)
        verification = DkimVerification(head, DkimOptions(), further=chain.forms)
        body: bytearray | None = bytearray()
        for piece in pieces:
            verification.feed(piece)
            if body is not None:
                body += piece
                if len(body) > BODY_MAX:
                    body = None
        await verification.ask(self.questions)
        verified, hashes = verification.conclude(self.now_s)
        if not verified:
            self.add(dkim_verify.NO_SIGNATURE)
        kept = None if body is None else bytes(body)
        searched = 0
        for each in verified:
            searched += not each.passes
            causes = diagnose(each, self.section, kept) if searched <= _DIAGNOSED_MAX else ()
            self.add(each.found, steps=_steps(each), causes=causes)
        await chain.ask(self.questions)
        sealed = chain.conclude(hashes)
        self.add(sealed.found, counts=sealed.result != results.NONE)
        return verified

    async def policy(self) -> dmarc.DmarcVerdict:
        asked = self.asked
        by = authors(self.section)
        known = dmarc.identifiers(self.found, null_sender=asked.sender == "")
        verdict = await dmarc.judge(self.questions, by, known)
        decisive = verdict.decisive
        steps = []
        if decisive.organizational:
            steps.append(f"the organizational domain of {decisive.author} is {decisive.organizational}")
        if decisive.record is not None:
            steps.append(f"the record of {decisive.policy_domain} applies")
            steps += [f"fault in it: {fault}" for fault in decisive.record.faults]
        if decisive.result == results.FAIL and self._missing():
            told = f"{decisive.told} It would pass if SPF passed for an aligned domain, but SPF could not be judged."
            self.checks.append(CheckFacts(results.DMARC, UNKNOWN, told, steps=tuple(steps), dns=self._answers()))
        else:
            self.add(decisive.found(), steps=tuple(steps))
        return verdict


async def verify(message: MessageFile, asked: AskedSession, resolver: Resolver, now_s: int) -> VerifyFacts:
    """All checks that can be made. `now_s`: the time, in seconds since 1970."""
    case = _Case(message.section, asked, resolver, now_s)
    await case.client()
    await case.spf()
    signatures = await case.signatures(message.body())
    verdict = await case.policy()
    pointed: tuple[Demand, ...] = ()
    if asked.outgoing:
        pointed = demands(OutgoingMail(message.section, bool(asked.client), tuple(case.found), signatures, verdict))
    faults = [" ".join((each.told, *each.causes)) for each in case.checks if not each.passes and not each.has_no_result]
    faults += [each.told for each in pointed if each.met is False]
    return VerifyFacts(
        tuple(case.checks),
        faults[0] if faults else "",
        any(each.has_no_result for each in case.checks),
        tuple(message.notes),
        _hints(message.section, asked),
        pointed,
        authres.field(asked.receiver, case.found).decode("utf-8", "backslashreplace"),
    )


def _dns_facts(asked: DnsQuestion) -> DnsFacts:
    answer = asked.answer
    records = tuple(
        f"{each.preference} {each.exchange or '.'}" if isinstance(each, MxRecord) else str(each)
        for each in answer.records
    )
    return DnsFacts(asked.type.value, asked.name, answer.status.value, records, answer.text)


def _steps(result: DkimResult) -> tuple[str, ...]:
    signature = result.signature
    if signature is None:
        return ()
    names = [name.decode("ascii", "replace") for name in signature.names]
    more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
    length = "" if signature.body.length is None else f", the first {signature.body.length} octets (l=)"
    return (
        f"signed fields: {', '.join(names[:_SHOWN_NAMES])}{more}",
        f"canonicalization: {signature.head.value} for fields, {signature.body.canonicalization.value} for the body"
        + length,
    )


def _hints(section: bytes, asked: AskedSession) -> tuple[str, ...]:
    """What the message itself says of its session. Anybody can write these fields."""
    hints = []
    received = (first(section, b"received") or "")[:_RECEIVED_MAX]
    helo = _FROM_PART.match(received.strip())
    client = next((found[1] for found in _BRACKETED.finditer(received) if _is_address(found[1])), "")
    if not asked.client and client:
        named = f", which said it was {helo[1]}" if helo else ""
        hints.append(f"The top Received field names the client {client}{named}.")
    path = first(section, b"return-path")
    if asked.sender is None and path is not None:
        hints.append(f"Return-Path names the sender {path.strip()[:320] or '<>'}.")
    if hints:
        hints.append("Anybody can write these fields. If you believe them, ask with --client, --helo and --from.")
    return (*hints, *_said(section))


def _said(section: bytes) -> list[str]:
    """What others have found, if these fields are theirs."""
    values = [section[begins:ends] for name, _, begins, ends in raw_fields(section) if name == _SAID]
    told = []
    for value in values[:_SAID_MAX]:
        read = authres_reading.read(value)
        found = ", ".join(f"{each.method}={each.result}" for each in read.results[:_SAID_RESULTS_MAX])
        told.append(f"Authentication-Results of {read.authserv_id or 'nobody'} says: {found or 'nothing'}.")
    if len(values) > _SAID_MAX:
        told.append(f"There are {len(values) - _SAID_MAX} more such fields.")
    return told


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
