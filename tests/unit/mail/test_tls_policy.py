"""What attempts tell of TLS policies, in words and as they are stored, and which hosts an MTA-STS policy names."""

from __future__ import annotations

import pytest

from postroad.mail.attempt import Attempt, Outcome, Reach, Try
from postroad.mail.event import Attempted
from postroad.mail.route import HostProof, TlsDemand, plain_demand, proof_of
from postroad.mail.tls_policy import (
    HostPolicy,
    PolicyKind,
    StsMode,
    StsPolicy,
    TlsFailure,
    TlsOutcome,
    outcome_of,
)
from postroad.report.words import SAYS
from postroad.store.sqlite import codec

POLICY = HostPolicy("sts", PolicyKind.STS, "MTA-STS of b.example", "b.example", lines=("version: STSv1",), mx=("*.b",))


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (outcome_of(POLICY, TlsFailure.NO_FAILURE, "", held=True), "TLS policy sts (MTA-STS of b.example) held"),
        (outcome_of(POLICY, TlsFailure.STS_POLICY_FETCH_ERROR, "404", held=True),
         "TLS policy sts (MTA-STS of b.example) held, but sts-policy-fetch-error: 404"),
        (outcome_of(POLICY, TlsFailure.CERTIFICATE_EXPIRED, "x", held=False),
         "TLS policy sts (MTA-STS of b.example) did not hold: certificate-expired"),
        (TlsOutcome("sts", held=False, failure=TlsFailure.VALIDATION_FAILURE, testing=True),
         "TLS policy sts did not hold, and the mail went on (testing): validation-failure"),
    ],
)  # fmt: skip
def test_words(outcome: TlsOutcome, said: str) -> None:
    assert outcome.in_words == said
    attempt = Attempt(Outcome.RELAYED, Reach.RECIPIENT, "2.0.0", policy=outcome)
    assert said in SAYS[Attempted](Attempted(1, 7, ("a@b.example",), "b.example", attempt))


def test_events_keep_it() -> None:
    outcome = outcome_of(POLICY, TlsFailure.CERTIFICATE_EXPIRED, "x", held=False, session_us=5, own_address="192.0.2.1")
    tried = Try("mx", "192.0.2.2", 25, Outcome.DEFERRED, "4.7.5", policy=outcome)
    attempt = Attempt(Outcome.RELAYED, Reach.RECIPIENT, "2.0.0", tries=(tried,), policy=outcome)
    event = Attempted(1, 7, ("a@b.example",), "b.example", attempt)
    assert codec.decode_journal(codec.join_events((codec.encode_events((event,)),))) == [event]
    assert (outcome.lines, outcome.mx, outcome.session_us) == (("version: STSv1",), ("*.b",), 5)


@pytest.mark.parametrize(
    ("pattern", "host", "named"),
    [
        ("mx.b.example", "mx.b.example", True), ("*.b.example", "mx.b.example", True),
        ("*.b.example", "b.example", False), ("*.b.example", "a.mx.b.example", False),
        ("mx.b.example", "mx.c.example", False), ("*.example", "mx.b.example", False),
    ],
)  # fmt: skip
def test_hosts_that_a_policy_names(pattern: str, host: str, named: bool) -> None:
    """RFC 8461 §4.1."""
    assert StsPolicy("b.example", "1", StsMode.ENFORCE, ("else.example", pattern), 1).names(host) is named


def test_words_of_the_settings() -> None:
    assert TlsDemand("never") is TlsDemand.NONE, "the word of older versions"
    with pytest.raises(ValueError, match="sure"):
        TlsDemand("sure")
    least = {each: plain_demand(each) for each in TlsDemand}
    assert least[TlsDemand.STS] is least[TlsDemand.DANE] is TlsDemand.MAY
    assert least[TlsDemand.DANE_ONLY] is least[TlsDemand.FINGERPRINT] is TlsDemand.ENCRYPT
    assert proof_of(TlsDemand.IMPLICIT) is HostProof.NAME and proof_of(TlsDemand.DANE) is HostProof.NOTHING
