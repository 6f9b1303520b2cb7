"""SPF: whether a host may send mail in the name of a domain (RFC 7208 with its errata, RFC 8616 §4).

What always holds: one check evaluates at most TERMS_MAX terms that ask the DNS, through the questions of the message,
which have limits of their own. A record with a fault anywhere is not evaluated. Nothing of a peer or a record raises.

How it fails: the result is `permerror` if a record is wrong or needs too much, `temperror` if the DNS could not be
asked; `problem` says in plain words what is wrong and in which record.

Decisions: a void look-up is counted once per term, as RFC 7208 §4.6.4 says; not counted are those of `ptr`, because
they are in the hands of the client. `mx` with more than MX_MAX hosts is a permerror wherever the match would be.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from postroad.mail.address import Address, canonical_domain, is_within
from postroad.trust import results
from postroad.trust.asking import NAME_MAX, DnsQuestions, client_address
from postroad.trust.results import Found
from postroad.trust.spf_macro import (
    MacroFault,
    MacroString,
    cut_name,
    expand_name,
    expand_text,
    explain_string,
    letters,
)
from postroad.trust.spf_record import (
    IP4_BITS,
    IP6_BITS,
    SpfDirective,
    SpfFault,
    SpfMechanism,
    SpfRecord,
    number_of,
    octet_not_ascii,
    parse,
    select,
)
from postroad.world.dns import DnsAnswer, DnsStatus

TERMS_MAX: Final = 10
VOIDS_MAX: Final = 2
MX_MAX: Final = 10
PTR_MAX: Final = 10
_STEPS_MAX: Final = 500
_PROBLEM_MAX: Final = 400

_WELL_FORMED: Final = re.compile(r"(?!\[)(?:[!-\-/-~]{1,63}\.)+[!-\-/-~]{1,63}", re.ASCII)
_LABELS: Final = re.compile(r"[ -\-/-~]{1,63}(?:\.[ -\-/-~]{1,63})*")
_TEXT: Final = re.compile(r"[\x20-\x7e]*")
_UNKNOWN: Final = "unknown"
_PERMITTING: Final = {"pass": "permits", "fail": "does not permit", "softfail": "probably does not permit"}

MAIL_FROM: Final = "mailfrom"
HELO: Final = "helo"


class SpfClient(msgspec.Struct, frozen=True):
    """Who sends to whom. `address`: the IP address of the client. `helo`: what it said in EHLO or HELO. `receiver`: our
    name. `now_s`: the time, for the macro t."""

    address: str
    helo: str
    receiver: str = ""
    now_s: int = 0


class SpfResult(msgspec.Struct, frozen=True):
    """What a check of one identity came to.

    `identity`: MAIL_FROM, or HELO, which also stands for the null reverse-path. `domain`: whose record counts first.
    `sender`: the mailbox that was checked. `mechanism`: the term that matched, with the includes that led to it; "" if
    none did. `problem`: what is wrong, for `none`, `permerror` and `temperror`. `explanation`: the text that the domain
    has for a `fail`: words of a stranger.
    """

    result: str
    identity: str
    domain: str
    sender: str
    client: SpfClient
    mechanism: str = ""
    problem: str = ""
    explanation: str = ""
    steps: tuple[str, ...] = ()

    @property
    def told(self) -> str:
        """The result in plain words."""
        if self.problem:
            return self.problem
        address = self.client.address
        permitting = _PERMITTING.get(self.result)
        if permitting is None:
            by = f": {self.mechanism}" if self.mechanism else ": no term of its record matches"
            return f"{self.domain} neither permits nor forbids {address}{by}"
        return f"{self.domain} {permitting} {address}: {self.mechanism}"

    def found(self) -> Found:
        """In the terms of Authentication-Results. The reverse-path is told as its domain (RFC 8601 §2.7.2)."""
        reason = self.problem if self.result in (results.PERMERROR, results.TEMPERROR) else ""
        properties = (("smtp", self.identity, self.domain),) if self.domain else ()
        return Found(results.SPF, self.result, reason, properties, self.told)


async def check_mail_from(
    client: SpfClient, sender: Address | None, questions: DnsQuestions, *, with_steps: bool = False
) -> SpfResult:
    """The MAIL FROM identity; for the null reverse-path, postmaster at the HELO name (RFC 7208 §2.4)."""
    if sender is None:
        return await check_helo(client, questions, with_steps=with_steps)
    return await _check(client, MAIL_FROM, sender.local_part, sender.domain, questions, with_steps)


async def check_helo(client: SpfClient, questions: DnsQuestions, *, with_steps: bool = False) -> SpfResult:
    """The HELO identity (RFC 7208 §2.3)."""
    return await _check(client, HELO, "", client.helo, questions, with_steps)


async def _check(
    client: SpfClient, identity: str, local_part: str, written: str, questions: DnsQuestions, with_steps: bool
) -> SpfResult:
    domain = _canonical(written)
    local_part = local_part or "postmaster"  # RFC 7208 §4.3
    if domain is None:
        what = "the name in HELO" if identity == HELO else "the domain of MAIL FROM"
        problem = f"{what} is no name of a domain that could have an SPF record: {_shown(written)}"
        return SpfResult(results.NONE, identity, "", "", client, problem=problem)
    sender = str(Address(local_part, domain))
    address = client_address(client.address)
    if address is None:
        problem = f"the client has no IP address: {_shown(client.address)}"
        return SpfResult(results.NONE, identity, domain, sender, client, problem=problem)
    evaluation = _Evaluation(client, address, local_part, domain, questions, [] if with_steps else None)
    end = await evaluation.host(domain, ())
    explanation = await evaluation.explain(end) if end.result == results.FAIL else ""
    return SpfResult(
        end.result, identity, domain, sender, client, end.mechanism, end.problem[:_PROBLEM_MAX], explanation,
        tuple(evaluation.steps or ()),
    )  # fmt: skip


class _End(msgspec.Struct, frozen=True):
    """How the evaluation of a record ended. `domain`, `record`: the last one, by redirects."""

    result: str
    mechanism: str = ""
    problem: str = ""
    domain: str = ""
    record: SpfRecord | None = None


class _Match(msgspec.Struct, frozen=True):
    """A mechanism matches. `inner`: what matched in the record of an include."""

    inner: str = ""


_NO_MATCH: Final = None
_MATCH: Final = _Match()
_Evaluated = _Match | _End | None


class _Evaluation:
    """check_host() of RFC 7208 §4, with the limits that hold for all records together."""

    def __init__(
        self, client: SpfClient, address: ipaddress.IPv4Address | ipaddress.IPv6Address, local_part: str, domain: str,
        questions: DnsQuestions, steps: list[str] | None,
    ) -> None:  # fmt: skip
        self.client = client
        self.address = address
        self.version = address.version
        self.is_ip6 = address.version == 6
        self.number = int(address)
        self.local_part = local_part
        self.sender_domain = domain
        self.questions = questions
        self.steps = steps
        self.terms = 0
        self.voids = 0
        self._names: list[str] | None = None

    async def host(self, domain: str, path: tuple[str, ...]) -> _End:
        """The result for a domain. `path`: the includes and redirects that led to it."""
        record = await self._look_up(domain)
        if isinstance(record, _End):
            self._step(path, f"{domain}: {record.problem}")
            return record
        for directive in record.directives:
            evaluated: _Evaluated
            if directive.version:
                same = directive.version == self.version and not (self.number ^ directive.network) >> directive.shift
                evaluated = _MATCH if same else _NO_MATCH
            elif directive.mechanism is SpfMechanism.ALL:
                evaluated = _MATCH
            else:
                evaluated = await self._evaluate(directive, domain, path)
            if evaluated is _NO_MATCH:
                self._step(path, f"{domain}: {directive.text} does not match")
            elif isinstance(evaluated, _Match):
                self._step(path, f"{domain}: {directive.text} matches: {directive.result}")
                mechanism = f"{directive.text}, there {evaluated.inner}" if evaluated.inner else directive.text
                return _End(directive.result, mechanism, "", domain, record)
            else:
                self._step(path, f"{domain}: {directive.text}: {evaluated.problem}")
                return evaluated
        if record.redirect is None:
            self._step(path, f"{domain}: no term matches: neutral")
            return _End(results.NEUTRAL, "", "", domain, record)
        return await self._redirect(record.redirect, record.redirect_text, domain, path)

    async def _redirect(self, redirect: MacroString, term: str, domain: str, path: tuple[str, ...]) -> _End:
        over = self._count(term, domain)
        if over is not None:
            return over
        target = await self._target(redirect, domain)
        self._step(path, f"{domain}: {term} leads to {_shown(target or '')}")
        if target is None or not _WELL_FORMED.fullmatch(target):
            return _permanent(f"{term} of {domain} leads to no domain: {_shown(target or '')}")
        end = await self.host(target, (*path, term))
        if end.result == results.NONE:
            return _permanent(f"{term} of {domain} leads to a domain without an SPF record: {end.problem}")
        mechanism = f"{term}, there {end.mechanism}" if end.mechanism else ""
        return msgspec.structs.replace(end, mechanism=mechanism)

    async def _look_up(self, domain: str) -> SpfRecord | _End:
        """RFC 7208 §4.4, §4.5."""
        answer = await self.questions.text(domain)
        if answer.status is DnsStatus.ERROR:
            return _temporary(f"the SPF record of {domain} could not be looked up: {answer.text}")
        texts = select(answer.records)
        if not texts:
            return _End(results.NONE, problem=f"{domain} has no SPF record")
        if len(texts) > 1:
            return _permanent(f"{domain} has {len(texts)} SPF records, but may have only one")
        record = parse(texts[0])
        if isinstance(record, SpfFault):
            return _permanent(f"the SPF record of {domain} is wrong: {record.text}")
        self._step((), f'{domain} has the SPF record "{texts[0]}"')
        return record

    async def _evaluate(self, directive: SpfDirective, domain: str, path: tuple[str, ...]) -> _Evaluated:
        over = self._count(directive.text, domain)
        if over is not None:
            return over
        target = domain if directive.domain is None else await self._target(directive.domain, domain)
        if directive.mechanism is SpfMechanism.INCLUDE:
            return await self._include(directive, target, domain, path)
        if target is None or not _LABELS.fullmatch(target):
            return _NO_MATCH  # RFC 7208 §4.8 leaves it open; nothing can have this name
        match directive.mechanism:
            case SpfMechanism.A:
                return await self._a(directive, target, domain)
            case SpfMechanism.MX:
                return await self._mx(directive, target, domain)
            case SpfMechanism.EXISTS:
                return await self._exists(directive, target, domain)
            case _:
                return await self._ptr(target)

    async def _include(
        self, directive: SpfDirective, target: str | None, domain: str, path: tuple[str, ...]
    ) -> _Evaluated:
        """RFC 7208 §5.2."""
        if target is None or not _WELL_FORMED.fullmatch(target):
            return _permanent(f"{directive.text} of {domain} leads to no domain: {_shown(target or '')}")
        end = await self.host(target, (*path, directive.text))
        if end.result == results.PASS:
            return _Match(end.mechanism)
        if end.result == results.NONE:
            return _permanent(f"{directive.text} of {domain} leads to a domain without an SPF record: {end.problem}")
        return end if end.result in (results.PERMERROR, results.TEMPERROR) else _NO_MATCH

    async def _a(self, directive: SpfDirective, target: str, domain: str) -> _Evaluated:
        answer = await self._addresses(target)
        if answer.status is DnsStatus.ERROR:
            return _not_answered(directive, domain, answer)
        if not answer.records:
            return self._void(directive, domain)
        return _MATCH if self._is_one_of(answer.records, directive) else _NO_MATCH

    async def _mx(self, directive: SpfDirective, target: str, domain: str) -> _Evaluated:
        found = await self.questions.mx(target)
        if found.status is DnsStatus.ERROR:
            return _not_answered(directive, domain, found)
        if not found.records:
            return self._void(directive, domain)
        if len(found.records) > MX_MAX:
            return _permanent(f"{directive.text} of {domain}: {target} has more than {MX_MAX} mail servers")
        hosts = [host for host in dict.fromkeys(record.exchange for record in found.records) if host]
        answers = await self._addresses_of_all(hosts)
        if any(self._is_one_of(answer.records, directive) for answer in answers):
            return _MATCH
        for answer in answers:
            if answer.status is DnsStatus.ERROR:
                return _not_answered(directive, domain, answer)
        return _NO_MATCH if any(answer.records for answer in answers) else self._void(directive, domain)

    async def _exists(self, directive: SpfDirective, target: str, domain: str) -> _Evaluated:
        answer = await self.questions.a(target)  # RFC 7208 §5.7: also for clients with IPv6
        if answer.status is DnsStatus.ERROR:
            return _not_answered(directive, domain, answer)
        return _MATCH if answer.records else self._void(directive, domain)

    async def _ptr(self, target: str) -> _Evaluated:
        """RFC 7208 §5.5, with erratum 5228: the name of the client is the target, or below it."""
        names = await self.client_names()
        return _MATCH if any(is_within(name, target) for name in names) else _NO_MATCH

    async def client_names(self) -> Sequence[str]:
        """The names of the client that lead back to its address (RFC 7208 §5.5)."""
        if self._names is None:
            found = await self.questions.reverse(str(self.address))
            names = list(dict.fromkeys(name.lower() for name in found.records[:PTR_MAX] if name))
            answers = await self._addresses_of_all(names)
            self._names = [
                name for name, answer in zip(names, answers, strict=True)
                if any(number_of(record) == self.number for record in answer.records)
            ]  # fmt: skip
        return self._names

    async def _addresses(self, host: str) -> DnsAnswer[str]:
        return await (self.questions.aaaa(host) if self.is_ip6 else self.questions.a(host))

    async def _addresses_of_all(self, hosts: Sequence[str]) -> Sequence[DnsAnswer[str]]:
        if len(hosts) == 1:
            return (await self._addresses(hosts[0]),)
        return await asyncio.gather(*map(self._addresses, hosts))

    def _is_one_of(self, records: Sequence[str], directive: SpfDirective) -> bool:
        shift = IP6_BITS - directive.ip6_length if self.is_ip6 else IP4_BITS - directive.ip4_length
        wanted = self.number >> shift
        return any((number_of(record) or 0) >> shift == wanted for record in records)

    def _count(self, term: str, domain: str) -> _End | None:
        """RFC 7208 §4.6.4: one more term that asks the DNS."""
        self.terms += 1
        if self.terms <= TERMS_MAX:
            return None
        return _permanent(f"the SPF record of {self.sender_domain} needs more than {TERMS_MAX} DNS look-ups: "
                          f"the one too many is {term} of {domain}")  # fmt: skip

    def _void(self, directive: SpfDirective, domain: str) -> _End | None:
        """RFC 7208 §4.6.4: one more term for which the DNS has nothing."""
        self.voids += 1
        if self.voids <= VOIDS_MAX:
            return _NO_MATCH
        return _permanent(f"the SPF record of {self.sender_domain} asks more than {VOIDS_MAX} times for what is not in "
                          f"the DNS: the one too many is {directive.text} of {domain}")  # fmt: skip

    # Macros and explanations.

    async def _target(self, string: MacroString, domain: str) -> str | None:
        """The name that a term asks for; None: nothing can have it."""
        if len(string) == 1 and isinstance(string[0], str):
            return cut_name(string[0].removesuffix(".")).lower()
        used = letters(string)
        if not self.local_part.isascii() and used & {"s", "l"}:
            return None  # RFC 8616 §4
        values = await self._values(used, domain)
        if not all(value.isascii() for value in values.values()):
            return None
        return expand_name(string, values.__getitem__).lower()

    async def _values(self, used: frozenset[str], domain: str) -> dict[str, str]:
        """The values of the letters that are used (RFC 7208 §7.2)."""
        values = {letter: self._value(letter, domain) for letter in used if letter != "p"}
        if "p" in used:
            values["p"] = await self._client_name(domain)
        return values

    def _value(self, letter: str, domain: str) -> str:
        match letter:
            case "s":
                return f"{self.local_part}@{self.sender_domain}"
            case "l":
                return self.local_part
            case "o":
                return self.sender_domain
            case "d":
                return domain
            case "i":
                return ".".join(f"{self.number:032X}") if self.is_ip6 else str(self.address)
            case "c":
                return str(self.address)
            case "v":
                return "ip6" if self.is_ip6 else "in-addr"
            case "h":
                return _canonical(self.client.helo) or self.client.helo
            case "r":
                return self.client.receiver or _UNKNOWN
            case _:
                return str(self.client.now_s)

    async def _client_name(self, domain: str) -> str:
        """RFC 7208 §7.3: best the domain itself, then one below it, then any."""
        names = await self.client_names()
        below = [name for name in names if is_within(name, domain)]
        return domain if domain in below else next(iter((*below, *names)), _UNKNOWN)

    async def explain(self, end: _End) -> str:
        """The text that the domain has for a fail; "" if there is none or it cannot be used (RFC 7208 §6.2)."""
        if end.record is None or end.record.explanation is None:
            return ""
        target = await self._target(end.record.explanation, end.domain)
        if target is None or not _LABELS.fullmatch(target):
            return ""
        answer = await self.questions.text(target)
        if len(answer.records) != 1 or octet_not_ascii(answer.records[0]):
            return ""
        string = explain_string(answer.records[0])
        if isinstance(string, MacroFault):
            return ""
        values = await self._values(letters(string), end.domain)
        text = expand_text(string, values.__getitem__)
        return text if _TEXT.fullmatch(text) else ""

    def _step(self, path: tuple[str, ...], text: str) -> None:
        if self.steps is not None and len(self.steps) < _STEPS_MAX:
            self.steps.append("".join(f"{term} > " for term in path) + text)


def _permanent(text: str) -> _End:
    return _End(results.PERMERROR, problem=text)


def _temporary(text: str) -> _End:
    return _End(results.TEMPERROR, problem=text)


def _not_answered(directive: SpfDirective, domain: str, answer: DnsAnswer[Any]) -> _End:
    return _temporary(f"{directive.text} of {domain} could not be looked up: {answer.text}")


def _canonical(domain: str) -> str | None:
    """A domain as check_host() takes it, or None if it is no domain with several labels (RFC 7208 §4.3)."""
    if not domain.isascii():
        try:
            domain = canonical_domain(domain)
        except ValueError:
            return None
    domain = domain.removesuffix(".").lower()
    if len(domain) > NAME_MAX or not _WELL_FORMED.fullmatch(domain) or domain.rpartition(".")[2].isdigit():
        return None
    return domain


def _shown(text: str) -> str:
    cut = text if len(text) <= NAME_MAX else f"{text[:NAME_MAX]}…"
    return ascii(cut) if not cut.isascii() or not cut.isprintable() else f'"{cut}"'
