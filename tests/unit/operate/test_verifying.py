"""`operate/verifying.py`: all checks of a message from a file, and what is wrong first."""

from __future__ import annotations

import asyncio
import io

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postroad.mail.address import Address
from postroad.operate.message_file import MessageFile, UnfitFileError
from postroad.operate.verifying import AskedSession, CheckFacts, VerifyFacts, verify
from postroad.trust.dkim_sign import DkimSigner, SigningOptions, public_record
from tests.unit.trust.dkim_parts import MESSAGE, NOW_S, keys
from tests.unit.trust.zones import ZoneResolver

RSA = keys()[:1]
RECORD = public_record(RSA[0].private)
ZONES: dict[str, dict[str, list[str]]] = {
    "example.org": {"TXT": ["v=spf1 ip4:192.0.2.1 -all"]},
    "r1._domainkey.example.org": {"TXT": [RECORD]},
    "_dmarc.example.org": {"TXT": ["v=DMARC1; p=reject"]},
    "1.2.0.192.in-addr.arpa": {"PTR": ["out.example.org"]},
    "out.example.org": {"A": ["192.0.2.1"]},
}
KNOWN = AskedSession("192.0.2.1", "out.example.org", Address("ada", "example.org"), "mx.example.net")
OUTGOING = msgspec.structs.replace(KNOWN, outgoing=True)
Zones = dict[str, dict[str, list[str]]]
SIGNED = DkimSigner(RSA, SigningOptions()).sign_content(MESSAGE, NOW_S) + MESSAGE


def look(message: bytes, asked: AskedSession = KNOWN, zones: Zones | None = None) -> VerifyFacts:
    """`zones`: names whose records differ from ZONES; no records: there is no such name."""
    file = MessageFile(io.BytesIO(message).read)
    all = {name: records for name, records in {**ZONES, **(zones or {})}.items() if records}
    return asyncio.run(verify(file, asked, ZoneResolver(all), NOW_S))


def results(facts: VerifyFacts) -> list[tuple[str, str]]:
    return [(each.method, each.result) for each in facts.checks]


def check(facts: VerifyFacts, method: str) -> CheckFacts:
    return [each for each in facts.checks if each.method == method][-1]


def test_all_is_right() -> None:
    facts = look(SIGNED)
    assert results(facts) == [
        ("iprev", "pass"), ("spf", "none"), ("spf", "pass"), ("dkim", "pass"), ("arc", "none"), ("dmarc", "pass"),
    ]  # fmt: skip
    assert (facts.first_wrong, facts.failed, facts.not_judged) == ("", False, False)
    asked = [(each.type, each.name) for each in check(facts, "dkim").dns]
    assert asked == [("TXT", "r1._domainkey.example.org")]
    assert check(facts, "dkim").dns[0].records == (RECORD,)
    assert check(facts, "spf").steps
    assert "mx.example.net" in facts.authentication_results


def test_from_the_message_alone() -> None:
    alone = AskedSession()
    facts = look(SIGNED, alone)
    assert results(facts) == [("spf", "unknown"), ("dkim", "pass"), ("arc", "none"), ("dmarc", "pass")]
    assert (facts.first_wrong, facts.not_judged) == ("", False)
    assert "--client" in check(facts, "spf").told and "--from" in check(facts, "spf").told
    facts = look(MESSAGE, alone)
    assert results(facts)[-1] == ("dmarc", "unknown")
    assert facts.failed and facts.not_judged and "no DKIM signature" in facts.first_wrong
    assert "if SPF passed" in check(facts, "dmarc").told


@pytest.mark.parametrize(
    ("asked", "missing"),
    [
        (AskedSession("192.0.2.1"), "--from"),
        (AskedSession(sender=Address("a", "example.org")), "--client"),
        (AskedSession("192.0.2.1", "", ""), "--helo"),
    ],
)
def test_what_is_missing_is_said(asked: AskedSession, missing: str) -> None:
    found = check(look(SIGNED, asked), "spf")
    assert (found.result, missing in found.told, found.counts) == ("unknown", True, False)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (SIGNED.replace(b"Subject: A", b"Subject: [list] A"), "A tag was put into the subject"),
        (SIGNED + b"-- \r\nA footer\r\n", "lines were added at the end of the body"),
        (SIGNED.replace(b"last", b"lost"), "The body has changed"),
    ],
)
def test_what_changed_since_signing(changed: bytes, words: str) -> None:
    facts = look(changed)
    assert (check(facts, "dkim").result, check(facts, "dmarc").result) == ("fail", "pass")  # SPF still passes
    assert words in facts.first_wrong


def test_a_key_that_is_not_there_and_one_that_cannot_be_asked() -> None:
    name = "r1._domainkey.example.org"
    assert f"{name} does not exist" in look(SIGNED, zones={name: {}}).first_wrong
    facts = look(SIGNED, zones={name: {"TXT": ["ERROR"]}})
    assert (facts.first_wrong, facts.not_judged, check(facts, "dkim").result) == ("", True, "temperror")


def test_passed_but_not_aligned() -> None:
    other = SIGNED.replace(b"From: Ada <ada@example.org>", b"From: Ada <ada@example.com>")
    facts = look(other, zones={"_dmarc.example.com": {"TXT": ["v=DMARC1; p=reject"]}})
    assert check(facts, "dmarc").result == "fail"
    assert "SPF for example.org passed, but not aligned" in check(facts, "dmarc").told


def test_the_own_words_of_the_message_are_only_hints() -> None:
    trace = (
        b"Return-Path: <ada@example.org>\r\n"
        b"Received: from out.example.org (x [192.0.2.1]) by mx; Mon, 1 Dec 2025 14:40:00 +0000\r\n"
        b"Authentication-Results: mx; spf=pass\r\n"
    )
    facts = look(trace + SIGNED, AskedSession())
    assert ("spf", "unknown") in results(facts)
    told = " ".join(facts.hints)
    assert "192.0.2.1, which said it was out.example.org" in told and "<ada@example.org>" in told
    assert "Anybody can write these fields" in told
    assert "Authentication-Results of mx says: spf=pass." in facts.hints


def test_a_body_that_is_made_to_be_searched_for_ever() -> None:
    """Without bounds each of these takes hours."""
    spaces = look(SIGNED.replace(b"last", b"lost") + b" " * 4_000_000 + b"x\r\n")
    assert check(spaces, "dkim").result == "fail"
    lines = look(SIGNED + b"x\r\n" * 600_000)
    assert "was not searched" in lines.first_wrong
    large = look(SIGNED + b"x" * 17_000_000)
    assert "was not searched" in large.first_wrong


def test_a_list_of_addresses_that_never_end() -> None:
    field = b"List-Unsubscribe: " + b"<https://" * 25_000 + b"\r\n"
    assert demand(look(field + SIGNED, OUTGOING), "one click") is False


def test_causes_are_searched_for_a_few_signatures() -> None:
    signature = SIGNED[: len(SIGNED) - len(MESSAGE)]
    facts = look(signature * 8 + MESSAGE + b"footer\r\n")
    assert [bool(each.causes) for each in facts.checks if each.method == "dkim"] == [True] * 4 + [False] * 4


def demand(facts: VerifyFacts, word: str) -> bool | None:
    return next(each.met for each in facts.demands if word in each.what)


def test_what_large_providers_demand() -> None:
    facts = look(SIGNED, OUTGOING)
    assert [each.met for each in facts.demands] == [True, True, True, True, True, True, None, True], facts.demands
    without = look(SIGNED.replace(b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n", b""), OUTGOING)
    assert demand(without, "one click") is False and without.failed
    bare = DkimSigner(RSA, SigningOptions()).sign_content(b"From: ada@example.org\r\n\r\nx\r\n", NOW_S)
    facts = look(bare + b"From: ada@example.org\r\n\r\nx\r\n", msgspec.structs.replace(OUTGOING, client=""))
    assert (demand(facts, "one click"), demand(facts, "PTR"), demand(facts, "SPF passes")) == (None, None, None)
    assert demand(facts, "one From") is False
    assert "has no Date field" in facts.first_wrong
    mute = look(SIGNED, OUTGOING, {"1.2.0.192.in-addr.arpa": {}})
    assert demand(mute, "PTR") is False
    unlisted = look(SIGNED, OUTGOING, {"_dmarc.example.org": {}})
    assert demand(unlisted, "DMARC record") is False


def test_one_click_fields_that_are_not_signed() -> None:
    unsigned = MESSAGE.replace(b"List-Unsubscribe: <https://example.org/u>\r\n", b"").replace(
        b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n", b""
    )
    plain = SigningOptions(signed=("From", "Subject"), oversigned=())
    facts = look(DkimSigner(RSA, plain).sign_content(unsigned, NOW_S) + MESSAGE, OUTGOING)
    assert check(facts, "dkim").result == "pass"
    assert demand(facts, "one click") is False
    assert any("o DKIM signature that passes has both fields in h=" in each.told for each in facts.demands)


TRACE = b"Received: from x ([192.0.2.1]) by y\r\nReturn-Path: <a@b>\r\nAuthentication-Results: mx; spf=pass\r\n"


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 2_000), st.integers(0, 60), st.binary(max_size=8)), min_size=1, max_size=5))
def test_whatever_octets_come_there_is_a_result(cuts: list[tuple[int, int, bytes]]) -> None:
    octets = TRACE + SIGNED
    for at, length, put in cuts:
        octets = octets[:at] + put + octets[at + length :]
    try:
        facts = look(octets, OUTGOING)
    except UnfitFileError:
        return
    assert {each.method for each in facts.checks} == {"iprev", "spf", "dkim", "arc", "dmarc"}
    assert len(facts.demands) == 8
