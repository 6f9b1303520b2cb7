"""DMARC: whether a message is from the domain that its From field names (RFC 9989 §5.3).

The results of SPF and DKIM come in, and a value goes out that says what the domain asks for and why. Whether a listener
does what it asks for is decided elsewhere. What always holds: a message with several author domains is judged by each
of them, and the worst counts (§11.5). Nothing is asked of the DNS that cannot change the result: a message whose
domains are the same costs one query. Never raises but for cancellation.

How it fails: `temperror` if the DNS did not say what was needed to pass or fail (§5.3.6), `permerror` if there is no
author domain, or its record is none that can be used. Neither has a policy to apply; `Judgement.asked` still says what
the domain would ask for, if that is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from postroad.mail.address import canonical_domain, is_within, readable_domain
from postroad.trust.author import Authors
from postroad.trust.dmarc_record import PREFIX, DmarcRecord, Policy
from postroad.trust.dmarc_walk import AskedDomain, Names, Walk, Walker
from postroad.trust.results import DKIM, DMARC, FAIL, NONE, PASS, PERMERROR, SPF, TEMPERROR, Found

_WEIGHT: Final = {PASS: 0, NONE: 1, PERMERROR: 2, TEMPERROR: 3, FAIL: 4}
_NAMES_SHOWN_MAX: Final = 5


class Identifier(msgspec.Struct, frozen=True):
    """A domain that SPF or DKIM said something about. `result`: as RFC 8601 names it."""

    method: str
    domain: str
    result: str


class Judgement(msgspec.Struct, frozen=True):
    """What DMARC found for one author domain.

    `policy_domain`: where the record was found; "": nowhere. `organizational`: of the author domain; "": it was not
    needed. `tag`: which of p=, sp= and np= applies; `asked`: its value; `applied`: what is to be done, after t= and
    only if the result is fail. `aligned`: the identifiers that passed and are aligned. `problem`: what is wrong with
    the message's From. `told`: all of it in plain words.
    """

    result: str
    author: str = ""
    policy_domain: str = ""
    organizational: str = ""
    record: DmarcRecord | None = None
    tag: str = ""
    asked: Policy = Policy.NONE
    applied: Policy = Policy.NONE
    aligned: tuple[Identifier, ...] = ()
    reason: str = ""
    problem: str = ""
    told: str = ""

    @property
    def spf_aligned(self) -> bool:
        return any(each.method == SPF for each in self.aligned)

    @property
    def dkim_aligned(self) -> bool:
        return any(each.method == DKIM for each in self.aligned)

    def found(self) -> Found:
        """The result for Authentication-Results (RFC 9989 §9.1)."""
        properties = [("header", "from", self.author)] if self.author else []
        if self.result == FAIL:
            properties.append(("policy", "dmarc", self.applied.word))
        return Found(DMARC, self.result, self.reason, tuple(properties), self.told)


class DmarcVerdict(msgspec.Struct, frozen=True):
    """`decisive`: the judgement that counts. `all`: one for each author domain, for reports. `incomplete`: there are
    more author domains, or there may be, which nobody has judged (RFC 9989 §11.5)."""

    decisive: Judgement
    all: tuple[Judgement, ...]
    incomplete: bool = False


def identifiers(results: Iterable[Found], *, null_sender: bool = False) -> list[Identifier]:
    """The identifiers in the results of SPF and DKIM. `null_sender`: MAIL FROM was <>, so SPF checked the name of HELO
    as its domain (RFC 7208 §2.4); else what SPF says of HELO does not count (RFC 9989 §4.4.2)."""
    found: list[Identifier] = []
    for each in results:
        if each.method == DKIM:
            named = each.value("header", "d")
        elif each.method == SPF:
            named = each.value("smtp", "mailfrom").rpartition("@")[2]
            if not named and null_sender:
                named = each.value("smtp", "helo")
        else:
            continue
        try:
            found.append(Identifier(each.method, canonical_domain(named), each.result))
        except ValueError:
            continue
    return list(dict.fromkeys(found))


async def judge(dns: Names, authors: Authors, results: Sequence[Identifier]) -> DmarcVerdict:
    """The verdict on a message with these authors."""
    if not authors.domains:
        problem = authors.problem or "the message has no author domain"
        told = f"DMARC cannot be applied: {problem}."
        judgement = Judgement(PERMERROR, reason=problem, problem=problem, told=told)
        return DmarcVerdict(judgement, (judgement,), authors.more)
    walker = Walker(dns)
    every = tuple([await _judged(walker, domain, results, authors.problem) for domain in authors.domains])
    decisive = max(every, key=lambda each: (_WEIGHT[each.result], each.applied))
    if authors.more and decisive.result != FAIL:
        # RFC 9989 §11.5: not all of them were looked at, so nothing can pass.
        reason = f"more than {len(authors.domains)} author domains"
        told = f"The message has {reason}, so DMARC cannot be applied to all of them. {decisive.told}"
        decisive = msgspec.structs.replace(decisive, result=PERMERROR, reason=reason, told=told)
    return DmarcVerdict(decisive, every, authors.more)


async def _judged(walker: Walker, author: str, results: Sequence[Identifier], problem: str) -> Judgement:
    case = _Case(walker, author, results)
    judgement = await case.judgement()
    if not problem:
        return judgement
    return msgspec.structs.replace(judgement, problem=problem, told=f"{judgement.told} Note: {problem}.")


class _Case:
    """One author domain."""

    __slots__ = ("_at", "_author", "_organizational", "_record", "_results", "_walker")

    def __init__(self, walker: Walker, author: str, results: Sequence[Identifier]) -> None:
        self._walker = walker
        self._author = author
        self._results = results
        self._record = DmarcRecord()
        self._at = ""  # the policy domain
        self._organizational = ""

    async def judgement(self) -> Judgement:
        # RFC 9989 §4.10.1
        own = await self._walker.asked(self._author)
        if own.failed:
            return self._unknown(own.why)
        policy = own
        if own.record is None:
            walk = await self._walker.walk(self._author)
            if walk.failed:
                return self._unknown(walk.failed)
            self._organizational = walk.organizational
            policy = _policy_above(walk)
        if policy.record is None:
            told = f"DMARC does not apply: neither {self._name} nor a domain above it has a DMARC record."
            return Judgement(NONE, self._author, organizational=self._organizational, told=told)
        self._record, self._at = policy.record, policy.domain
        if not self._record.usable:
            reason = f"the DMARC record of {readable_domain(self._at)} has no policy that can be used"
            faults = "; ".join(self._record.faults[:_NAMES_SHOWN_MAX])
            return self._made(PERMERROR, reason=reason, told=f"DMARC cannot be applied: {reason}: {faults}.")
        return await self._compared()

    async def _compared(self) -> Judgement:
        """§4.10.2, §5.3.4 to §5.3.6."""
        aligned: list[Identifier] = []
        doubts: list[str] = []
        for each in self._results:
            if each.result not in (PASS, TEMPERROR):
                continue
            alike = await self._aligns(each)
            if isinstance(alike, str):
                doubts.append(alike)
            elif alike and each.result == PASS:
                aligned.append(each)
            elif alike:
                doubts.append(f"{each.method.upper()} of {readable_domain(each.domain)} had a temporary error")
        if aligned:
            return self._passed(tuple(aligned))
        tag, asked, doubt = await self._policy()
        if doubt:
            doubts.append(doubt)
        if doubts:
            return msgspec.structs.replace(self._unknown(doubts[0]), tag=tag, asked=asked)
        return self._failed(tag, asked)

    async def _aligns(self, identifier: Identifier) -> bool | str:
        """Whether the domain is aligned with the author domain; or why nobody knows."""
        if identifier.domain == self._author:
            return True
        strict = self._record.spf_strict if identifier.method == SPF else self._record.dkim_strict
        if strict or not _related(identifier.domain, self._author):
            return False
        if not self._organizational:
            walk = await self._walker.walk(self._author)
            if walk.failed:
                return walk.failed
            self._organizational = walk.organizational
        if not is_within(identifier.domain, self._organizational):
            return False
        walk = await self._walker.walk(identifier.domain)
        return walk.failed or walk.organizational == self._organizational

    async def _policy(self) -> tuple[str, Policy, str]:
        """The tag that applies, its value, and why nobody knows it (§4.7)."""
        record = self._record
        if self._at == self._author:
            return "p", record.policy, ""
        usual = ("p", record.policy) if record.subdomains is None else ("sp", record.subdomains)
        if record.nonexistent is None:
            return *usual, ""
        exists = await self._walker.exists(self._author)
        if isinstance(exists, str):
            if record.nonexistent == usual[1]:
                return *usual, ""
            return "np", max(record.nonexistent, usual[1]), exists
        return (*usual, "") if exists else ("np", record.nonexistent, "")

    def _passed(self, aligned: tuple[Identifier, ...]) -> Judgement:
        names = f"{_listed(aligned)} {'is' if len(aligned) == 1 else 'are'}"
        told = f"DMARC passed: {names} aligned with the author domain {self._name}."
        return self._made(PASS, aligned=aligned, told=told)

    def _failed(self, tag: str, asked: Policy) -> Judgement:
        applied = Policy(max(asked - 1, 0)) if self._record.testing else asked
        passed = [each for each in self._results if each.result == PASS]
        why = f"{_listed(passed)} passed, but not aligned with it" if passed else "neither SPF nor DKIM passed"
        where = f"{tag}= at {PREFIX}{self._at}"
        told = f"DMARC failed for the author domain {self._name}: {why}. Its policy is {asked.word} ({where})"
        if applied != asked:
            told += f"; the domain is testing it (t=y), so {applied.word} applies"
        if tag == "np":
            told += f"; {self._name} does not exist"
        return self._made(FAIL, tag=tag, asked=asked, applied=applied, told=f"{told}.")

    def _unknown(self, why: str) -> Judgement:
        told = f"DMARC has no result for the author domain {self._name}, for now: {why}."
        return self._made(TEMPERROR, reason="the DNS did not answer", told=told)

    def _made(
        self,
        result: str,
        *,
        tag: str = "",
        asked: Policy = Policy.NONE,
        applied: Policy = Policy.NONE,
        aligned: tuple[Identifier, ...] = (),
        reason: str = "",
        told: str = "",
    ) -> Judgement:
        record = self._record if self._at else None
        return Judgement(
            result, self._author, self._at, self._organizational, record, tag, asked, applied, aligned, reason, "", told
        )

    @property
    def _name(self) -> str:
        return readable_domain(self._author)


def _policy_above(walk: Walk) -> AskedDomain:
    """The record of the organizational domain, else of the public suffix domain."""
    for each in walk.asked:
        if each.domain == walk.organizational and each.record is not None:
            return each
    return walk.suffix or walk.asked[0]


def _related(one: str, other: str) -> bool:
    """Whether two domains can have one organizational domain: they end in the same label."""
    return one.rpartition(".")[2] == other.rpartition(".")[2]


def _listed(identifiers: Sequence[Identifier]) -> str:
    shown = [f"{each.method.upper()} for {readable_domain(each.domain)}" for each in identifiers[:_NAMES_SHOWN_MAX]]
    if len(identifiers) > _NAMES_SHOWN_MAX:
        shown.append("others")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
