"""What follows from what the checks have found: accept, refuse, defer or quarantine. Pure.

What always holds: nothing is refused by a check that is not set to `enforce`. How it fails: a check without a result
for now is passed over, or defers the message, as the settings say.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from postroad.check.origin_options import CheckMode, OriginChecks, OriginOptions, TemporaryFailure
from postroad.mail import evaluation
from postroad.mail.policy import ACCEPT, Verdict, defer, reject
from postroad.trust import authres_reading, results
from postroad.trust.arc import ArcResult
from postroad.trust.author import AUTHORS_MAX
from postroad.trust.dkim_verify import DkimResult
from postroad.trust.dmarc import DmarcVerdict, Judgement
from postroad.trust.dmarc_record import PREFIX, Policy
from postroad.trust.iprev import ReverseName
from postroad.trust.spf import SpfResult

_ENFORCE = CheckMode.ENFORCE
_TEXT_MAX = 400  # characters of a text of a reply that strangers had a say in
_FORWARDERS_MAX = 10  # seals that a comment names


class Decision(msgspec.Struct, frozen=True):
    """`verdict`: ACCEPT, or a refusal. `disposition`, `override`, `comment`: as `mail.evaluation.Evaluation` has
    them."""

    verdict: Verdict = ACCEPT
    disposition: str = evaluation.NONE
    override: str = ""
    comment: str = ""


class MessageFacts(msgspec.Struct, frozen=True):
    """What the checks of one message have found. `exempt`: why the message may not be refused, "" if it may.
    `signatures`: of DKIM, none if another host has judged them."""

    signatures: tuple[DkimResult, ...] = ()
    chain: ArcResult | None = None
    dmarc: DmarcVerdict | None = None
    exempt: str = ""


def fits(domain: str, patterns: Iterable[str]) -> bool:
    """Whether a domain is one of these: a domain itself, `.example.org` for all below it, `*` for all."""
    if not domain:
        return False
    below = f".{domain}"
    return any(
        pattern in ("*", domain) or (pattern.startswith(".") and below.endswith(pattern) and below != pattern)
        for pattern in patterns
    )


# ---- At RCPT


def of_client(
    checks: OriginChecks, spf: Sequence[SpfResult], name: ReverseName | None, author_exempt: bool
) -> Verdict:
    """The verdict on a client and its sender, before there is a message. `author_exempt`: the domain of the sender
    is exempt."""
    if author_exempt:
        return ACCEPT
    if checks.iprev is _ENFORCE and name is not None:
        verdict = _of_name(checks, name)
        if verdict is not ACCEPT:
            return verdict
    if checks.spf is _ENFORCE:
        for each in spf:
            verdict = _of_spf(checks, each)
            if verdict is not ACCEPT:
                return verdict
    return ACCEPT


def _of_name(checks: OriginChecks, name: ReverseName) -> Verdict:
    if name.result == results.TEMPERROR:
        return _temporary(checks, "4.7.25", "Reverse DNS validation", name.told)
    if name.result in (results.FAIL, results.PERMERROR):
        return _refused("5.7.25", "Reverse DNS validation", name.told)
    return ACCEPT


def _of_spf(checks: OriginChecks, spf: SpfResult) -> Verdict:
    if spf.result == results.TEMPERROR:
        return _temporary(checks, "4.7.24", "SPF validation", spf.told)
    if spf.result != results.FAIL:
        return ACCEPT
    # RFC 7208 §6.2: it must be clear who says it.
    said = f"{spf.domain} explains: {spf.explanation}" if spf.explanation else ""
    return _refused("5.7.23", "SPF validation", spf.told, said)


# ---- When the message is there


def of_message(checks: OriginChecks, options: OriginOptions, facts: MessageFacts) -> Decision:
    """What to do with a message."""
    policy = Policy.NONE if facts.dmarc is None else facts.dmarc.decisive.applied
    if facts.exempt:
        override = evaluation.LOCAL_POLICY if policy is not Policy.NONE else ""
        return Decision(override=override, comment=facts.exempt if override else "")
    forwarders = _believed_seals(options, facts)
    if not forwarders:
        verdict = _of_signatures(checks, facts.signatures)
        if verdict is not ACCEPT:
            return Decision(verdict, evaluation.REJECT, evaluation.LOCAL_POLICY, "refused for its DKIM signatures")
    verdict = _of_chain(checks, facts.chain)
    if verdict is not ACCEPT:
        return Decision(verdict, evaluation.REJECT, evaluation.LOCAL_POLICY, "refused for its ARC chain")
    if facts.dmarc is None:
        return Decision()
    decision = _of_policy(checks, facts.dmarc.decisive, forwarders)
    if decision.verdict is ACCEPT and facts.dmarc.incomplete and checks.dmarc is _ENFORCE and not forwarders:
        # RFC 9989 §11.5: else any domain could be forged among many others.
        text = f"DMARC: the From field is too long, or names more than {AUTHORS_MAX} domains"
        told = "not all author domains were looked at"
        return Decision(reject(550, "5.7.1", text, told), evaluation.REJECT, evaluation.LOCAL_POLICY, told)
    return decision


def _of_signatures(checks: OriginChecks, signatures: Sequence[DkimResult]) -> Verdict:
    """RFC 7372 §3.1: none of the signatures passes."""
    if checks.dkim is not _ENFORCE or not signatures or any(each.passes for each in signatures):
        return ACCEPT
    for each in signatures:
        if each.result == results.TEMPERROR:
            return _temporary(checks, "4.7.20", "DKIM validation", each.found.told)
    failed = [each for each in signatures if each.result != results.NEUTRAL]
    if not failed:  # domains that only try DKIM, and keys of a kind that nobody knows
        return ACCEPT
    return _refused("5.7.20", "DKIM validation", failed[0].found.told)


def _of_chain(checks: OriginChecks, chain: ArcResult | None) -> Verdict:
    if checks.arc is not _ENFORCE or chain is None or chain.result != results.FAIL:
        return ACCEPT
    if chain.temporary:
        return _temporary(checks, "4.7.29", "ARC validation", chain.found.told)
    return _refused("5.7.29", "ARC validation", chain.found.told)


def _of_policy(checks: OriginChecks, judgement: Judgement, forwarders: str) -> Decision:
    """DMARC (RFC 9989 §5.3.6, §5.4)."""
    if judgement.result == results.TEMPERROR and checks.dmarc is _ENFORCE and not forwarders:
        verdict = _temporary(checks, "4.7.1", "DMARC", judgement.told)
        return Decision(verdict)
    if judgement.result != results.FAIL:
        return Decision()
    if judgement.applied is Policy.NONE:
        if judgement.asked is Policy.NONE:
            return Decision()
        return Decision(override=evaluation.TEST_MODE, comment="the domain only tests its policy (t=y)")
    if forwarders:
        return Decision(override=evaluation.TRUSTED_FORWARDER, comment=forwarders)
    if checks.dmarc is not _ENFORCE:
        return Decision(override=evaluation.LOCAL_POLICY, comment="the results are only marked here")
    override = evaluation.TEST_MODE if judgement.asked is not judgement.applied else ""
    if judgement.applied is Policy.QUARANTINE:
        return Decision(disposition=evaluation.QUARANTINE, override=override)
    text = (
        f"DMARC: mail of {judgement.author} failed authentication, and its policy is "
        f"{judgement.applied.word} ({judgement.tag}= at {PREFIX}{judgement.policy_domain})"
    )
    return Decision(reject(550, "5.7.1", _tame(text), judgement.told), evaluation.REJECT, override)


def _believed_seals(options: OriginOptions, facts: MessageFacts) -> str:
    """Who has sealed that the message passed DMARC, if each who sealed it after that is believed; "" if nobody has
    (RFC 8617 §7.2)."""
    chain = facts.chain
    if chain is None or not options.arc_forwarders or facts.dmarc is None:
        return ""
    author = facts.dmarc.decisive.author
    sealed: list[str] = []
    for each in reversed(chain.sets):  # empty unless the chain passes
        if not fits(each.seal.domain, options.arc_forwarders):
            return ""
        sealed.append(f"as[{each.instance}].d={each.seal.domain} as[{each.instance}].s={each.seal.selector}")
        for found in authres_reading.read(each.payload).results:
            if found.method == results.DMARC and found.result == results.PASS and _is_of(found, author):
                return f"arc=pass {' '.join(sealed[:_FORWARDERS_MAX])}"
    return ""


def _is_of(found: evaluation.Found, author: str) -> bool:
    named = found.value("header", "from").rpartition("@")[2]
    return not named or named.lower() == author


def _refused(status: str, what: str, told: str, said: str = "") -> Verdict:
    text = f"{what} failed: {_tame(told)}"
    return reject(550, status, f"{text}\n{_tame(said)}" if said else text, f"{what} failed: {told}")


def _temporary(checks: OriginChecks, status: str, what: str, told: str) -> Verdict:
    if checks.temporary_failure is TemporaryFailure.ACCEPT:
        return ACCEPT
    return defer(451, status, f"{what} cannot be done now: {_tame(told)}", f"{what} cannot be done now: {told}")


def _tame(text: str) -> str:
    """ASCII, as clients understand it that did not ask for SMTPUTF8 (RFC 6531 §3.7.4.2)."""
    return text[:_TEXT_MAX].replace("\n", " ").encode("ascii", "replace").decode()
