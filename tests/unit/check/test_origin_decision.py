"""What follows from the results of SPF, DKIM, DMARC, ARC and iprev."""

from __future__ import annotations

import msgspec
import pytest

from postroad.check.origin_decision import Decision, MessageFacts, fits, of_client, of_message
from postroad.check.origin_options import CheckMode, OriginChecks, OriginOptions, TemporaryFailure
from postroad.mail import evaluation
from postroad.mail.policy import ACCEPT, Action, Verdict
from postroad.trust import results
from postroad.trust.arc import ArcResult, ArcVerification
from postroad.trust.dkim_head import SignedHead
from postroad.trust.dkim_verify import DkimResult
from postroad.trust.dmarc import DmarcVerdict, Judgement
from postroad.trust.dmarc_record import DmarcRecord, Policy
from postroad.trust.iprev import ReverseName
from postroad.trust.spf import MAIL_FROM, SpfClient, SpfResult

ENFORCE = CheckMode.ENFORCE
ALL = OriginChecks(spf=ENFORCE, dkim=ENFORCE, dmarc=ENFORCE, arc=ENFORCE, iprev=ENFORCE)
MARK = CheckMode.MARK
MARKED = OriginChecks(spf=MARK, dkim=MARK, dmarc=MARK, arc=MARK, iprev=MARK)
DEFERRING = OriginChecks(
    spf=ENFORCE, dkim=ENFORCE, dmarc=ENFORCE, arc=ENFORCE, iprev=ENFORCE, temporary_failure=TemporaryFailure.DEFER
)
NONE = OriginOptions()


def spf(result: str, **more: str) -> SpfResult:
    return SpfResult(result, MAIL_FROM, "a.test", "ada@a.test", SpfClient("192.0.2.1", "mx.a.test"), **more)


def name(result: str) -> ReverseName:
    return ReverseName(result, "192.0.2.1", "192.0.2.1 has no name")


def judged(result: str, asked: Policy = Policy.NONE, applied: Policy | None = None) -> DmarcVerdict:
    done = (asked if applied is None else applied) if result == results.FAIL else Policy.NONE
    judgement = Judgement(result, "a.test", "a.test", "", DmarcRecord(), "p", asked, done, told="It failed.")
    return DmarcVerdict(judgement, (judgement,))


def said(verdict: Verdict) -> str:
    return "" if verdict.reply is None else str(verdict.reply)


def signature(result: str) -> DkimResult:
    return DkimResult(result, "the body has changed", "a.test", "r1")


@pytest.mark.parametrize(
    ("domain", "patterns", "fit"),
    [
        ("a.test", ["a.test"], True), ("b.a.test", ["a.test"], False), ("b.a.test", [".a.test"], True),
        ("a.test", [".a.test"], False), ("xa.test", [".a.test"], False), ("a.test", ["*"], True), ("", ["*"], False),
        ("a.test", [], False),
    ],
)  # fmt: skip
def test_patterns(domain: str, patterns: list[str], fit: bool) -> None:
    assert fits(domain, patterns) is fit


# ---- At RCPT


@pytest.mark.parametrize("result", ["none", "pass", "neutral", "softfail", "permerror", "temperror"])
def test_only_a_fail_of_spf_is_refused(result: str) -> None:
    assert of_client(ALL, [spf(result)], None, False) is ACCEPT


def test_spf_fail() -> None:
    failed = spf("fail", mechanism="-all", explanation="ask\nus €")
    verdict = of_client(ALL, [spf("pass"), failed], None, False)
    assert verdict.reply is not None and verdict.reply.code == 550 and verdict.reply.status == "5.7.23"
    assert verdict.reply.lines == (
        "SPF validation failed: a.test does not permit 192.0.2.1: -all", "a.test explains: ask us ?",
    )  # fmt: skip
    assert of_client(MARKED, [failed], None, False) is ACCEPT
    assert of_client(ALL, [failed], None, True) is ACCEPT


@pytest.mark.parametrize("result", ["fail", "permerror"])
def test_iprev(result: str) -> None:
    refused = said(of_client(ALL, [], name(result), False))
    assert refused.startswith("550 5.7.25 Reverse DNS validation failed: 192.0.2.1")
    assert of_client(MARKED, [], name(result), False) is ACCEPT
    assert of_client(ALL, [], name("pass"), False) is ACCEPT


@pytest.mark.parametrize("checks", [ALL, DEFERRING])
def test_temporary_failures_of_the_client(checks: OriginChecks) -> None:
    failed = of_client(checks, [spf("temperror", problem="SERVFAIL")], None, False)
    nameless = of_client(checks, [], name("temperror"), False)
    if checks is ALL:
        assert failed is nameless is ACCEPT
    else:
        assert said(failed) == "451 4.7.24 SPF validation cannot be done now: SERVFAIL"
        assert said(nameless).startswith("451 4.7.25 ")


# ---- The message


def test_dmarc_reject_names_domain_and_policy() -> None:
    decision = of_message(ALL, NONE, MessageFacts(dmarc=judged("fail", Policy.REJECT)))
    assert said(decision.verdict) == (
        "550 5.7.1 DMARC: mail of a.test failed authentication, and its policy is reject (p= at _dmarc.a.test)"
    )
    assert (decision.disposition, decision.override) == (evaluation.REJECT, "")


def test_dmarc_quarantine() -> None:
    decision = of_message(ALL, NONE, MessageFacts(dmarc=judged("fail", Policy.QUARANTINE)))
    assert decision == Decision(ACCEPT, evaluation.QUARANTINE)


@pytest.mark.parametrize("result", ["pass", "none", "permerror", "temperror"])
def test_dmarc_without_a_policy_to_apply(result: str) -> None:
    assert of_message(ALL, NONE, MessageFacts(dmarc=judged(result, Policy.REJECT))) == Decision()


@pytest.mark.parametrize(("result", "asked"), [("permerror", Policy.NONE), ("fail", Policy.QUARANTINE)])
def test_authors_that_nobody_has_judged_are_refused_where_dmarc_is_enforced(result: str, asked: Policy) -> None:
    """RFC 9989 §11.5: one of them may be forged."""
    facts = MessageFacts(dmarc=msgspec.structs.replace(judged(result, asked), incomplete=True))
    decision = of_message(ALL, NONE, facts)
    assert said(decision.verdict) == "550 5.7.1 DMARC: the From field is too long, or names more than 4 domains"
    assert (decision.disposition, decision.override) == (evaluation.REJECT, "local_policy")
    assert of_message(MARKED, NONE, facts).verdict is ACCEPT


def test_why_a_policy_is_not_applied() -> None:
    failed = judged("fail", Policy.REJECT)
    only_marked = of_message(MARKED, NONE, MessageFacts(dmarc=failed))
    assert (only_marked.verdict, only_marked.disposition, only_marked.override) == (ACCEPT, "none", "local_policy")
    exempt = of_message(ALL, NONE, MessageFacts((signature("fail"),), dmarc=failed, exempt="mail of a.test is exempt"))
    assert exempt == Decision(override="local_policy", comment="mail of a.test is exempt")
    tested = of_message(ALL, NONE, MessageFacts(dmarc=judged("fail", Policy.QUARANTINE, Policy.NONE)))
    assert (tested.verdict, tested.override) == (ACCEPT, "policy_test_mode")
    lowered = of_message(ALL, NONE, MessageFacts(dmarc=judged("fail", Policy.REJECT, Policy.QUARANTINE)))
    assert (lowered.disposition, lowered.override) == ("quarantine", "policy_test_mode")


@pytest.mark.parametrize(
    ("found", "refused"),
    [
        ([], False), (["fail"], True), (["fail", "pass"], False), (["permerror"], True), (["neutral"], False),
        (["policy"], True), (["temperror", "fail"], False),
    ],
)  # fmt: skip
def test_dkim(found: list[str], refused: bool) -> None:
    facts = MessageFacts(tuple(map(signature, found)))
    decision = of_message(ALL, NONE, facts)
    assert said(decision.verdict).startswith("550 5.7.20 DKIM validation failed: ") is refused
    assert (decision.verdict is ACCEPT) is not refused
    assert of_message(MARKED, NONE, facts).verdict is ACCEPT


def test_arc() -> None:
    broken = MessageFacts(chain=ArcResult("fail", "set 1 has no seal"))
    assert said(of_message(ALL, NONE, broken).verdict).startswith("550 5.7.29 ARC validation failed: The ARC chain")
    assert of_message(MARKED, NONE, broken).verdict is ACCEPT
    assert of_message(ALL, NONE, MessageFacts(chain=ArcResult("none"))).verdict is ACCEPT


@pytest.mark.parametrize(
    ("facts", "status"),
    [
        (MessageFacts((signature("temperror"), signature("fail"))), "4.7.20"),
        (MessageFacts(chain=ArcResult("fail", "no key", temporary=True)), "4.7.29"),
        (MessageFacts(dmarc=judged("temperror")), "4.7.1"),
    ],
)
def test_temporary_failures_of_the_message(facts: MessageFacts, status: str) -> None:
    assert of_message(ALL, NONE, facts).verdict is ACCEPT
    verdict = of_message(DEFERRING, NONE, facts).verdict
    assert verdict.action is Action.DEFER and said(verdict).startswith(f"451 {status} ")
    assert of_message(MARKED, NONE, facts).verdict is ACCEPT


def test_no_chain_helps_without_named_forwarders() -> None:
    chain = ArcVerification(SignedHead(b"From: a@a.test\r\n")).conclude({})
    facts = MessageFacts(chain=chain, dmarc=judged("fail", Policy.REJECT))
    assert of_message(ALL, OriginOptions(arc_forwarders=("*",)), facts).disposition == evaluation.REJECT
