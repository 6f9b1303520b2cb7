"""Chains of ARC sets (RFC 8617): sealed by us and by dkimpy, validated by both, and each way to break one."""

from __future__ import annotations

import asyncio
import re

import pytest

from postroad.trust.arc import SETS_MAX, ArcResult, ArcVerification
from postroad.trust.arc_seal import ArcSealer
from postroad.trust.dkim_body import BodyHashes
from postroad.trust.dkim_head import SignedHead, body_start
from postroad.trust.dkim_sign import DkimSigner, SigningKey, SigningOptions, public_record
from postroad.world.dns import DnsStatus
from tests.unit.trust.dkim_parts import MESSAGE, NOW_S, Zone, ed25519, keys, rsa

KEYS = tuple(SigningKey(domain, "arc", rsa()) for domain in ("one.example", "two.example", "three.example"))
PAYLOAD = b"mx.example;\r\n spf=pass smtp.mailfrom=example.org; dkim=pass header.d=example.org"


def zone() -> Zone:
    return Zone({f"{each.selector}._domainkey.{each.domain}": public_record(each.private) for each in KEYS})


def validate(message: bytes, dns: Zone | None = None) -> ArcResult:
    start = body_start(message)
    verification = ArcVerification(SignedHead(message[: start - 2]))
    bodies = BodyHashes(verification.forms)
    bodies.feed(message[start:])
    asyncio.run(verification.ask(dns or zone()))
    return verification.conclude(bodies.results())


def seal(message: bytes, key: SigningKey, options: SigningOptions = SigningOptions()) -> bytes:  # noqa: B008  # frozen
    sealer = ArcSealer(key, options)
    start = body_start(message)
    bodies = BodyHashes([sealer.form])
    bodies.feed(message[start:])
    digest = bodies.results()[sealer.form].digest
    return sealer.seal(message[: start - 2], digest, PAYLOAD, validate(message), NOW_S) + message


def sealed(count: int, message: bytes = MESSAGE) -> bytes:
    for number in range(count):
        message = seal(message, KEYS[number % len(KEYS)])
    return message


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_a_chain_passes(count: int) -> None:
    dns = zone()
    found = validate(sealed(count), dns)
    assert (found.result, found.reason, found.oldest_pass, found.instances) == ("pass", "", 0, count)
    assert found.domains == tuple(KEYS[number % 3].domain for number in range(count))
    assert all(each.payload.strip() == PAYLOAD for each in found.sets)
    assert len(dns.asked) == min(count, 3) == dns.most  # each key once, side by side
    assert found.found.properties == (("header", "oldest-pass", "0"),)
    assert found.found.told.startswith("The ARC chain is whole: sealed by one.example")


def test_no_chain() -> None:
    dns = zone()
    found = validate(MESSAGE, dns)
    assert found.result == "none" and dns.asked == [] and found.found.result == "none"


def test_a_list_changes_the_body_between_two_sets() -> None:
    changed = sealed(1).replace(b"Subject: A", b"Subject: [list] A") + b"-- \r\nfooter\r\n"
    assert validate(changed).result == "fail"
    found = validate(seal_as_passed(changed))
    assert (found.result, found.oldest_pass, found.domains) == ("pass", 2, ("one.example", "two.example"))
    assert validate(seal(seal_as_passed(changed), KEYS[2])).oldest_pass == 2
    assert "not changed since set 2" in found.found.told


def seal_as_passed(message: bytes) -> bytes:
    """A host validates, changes the message, then seals what it found before it changed it."""
    chain = validate(sealed(1))
    sealer = ArcSealer(KEYS[1], SigningOptions())
    start = body_start(message)
    bodies = BodyHashes([sealer.form])
    bodies.feed(message[start:])
    return sealer.seal(message[: start - 2], bodies.results()[sealer.form].digest, PAYLOAD, chain, NOW_S) + message


def without(message: bytes, name: bytes, instance: int) -> bytes:
    rule = rb"(?m)^" + name + rb": i=" + str(instance).encode() + rb";[^\r]*\r\n(?:[ \t][^\r]*\r\n)*"
    changed, count = re.subn(rule, b"", message)
    assert count == 1
    return changed


@pytest.mark.parametrize("name", [b"ARC-Seal", b"ARC-Message-Signature", b"ARC-Authentication-Results"])
@pytest.mark.parametrize("instance", [1, 2, 3])
def test_each_field_of_each_set_is_needed_once(name: bytes, instance: int) -> None:
    whole = sealed(3)
    less = without(whole, name, instance)
    found = validate(less)
    assert (found.result, found.reason) == ("fail", f"set {instance} has no {name.decode()}")
    field = next(
        each for each in SignedHead(whole[: body_start(whole) - 2]).fields(name.lower()) if b"i=%d;" % instance in each
    )
    twice = validate(field + b"\r\n" + whole)
    assert twice.reason == f"set {instance} has more than one {name.decode()}"


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b"the last one", b"the first one", "the ARC-Message-Signature of set 2: the body has changed since it was"),
        (b"Subject: A", b"Subject: B", "the ARC-Message-Signature of set 2 does not match"),
        (b"cv=pass", b"cv=none", "the seal of set 2 says cv=none instead of cv=pass"),
        (b"cv=none", b"cv=pass", "the seal of set 1 says cv=pass instead of cv=none"),
        (b"cv=pass", b"cv=fail", "the host of set 2 found that it fails (two.example)"),
        (b"cv=pass", b"cv=good", "the ARC-Seal of set 2 has a cv= that is not known"),
        (b"i=1; mx.example", b"i=1; my.example", "the ARC-Seal of set 2 does not match"),
        (b"i=2; mx.example", b"i=2; my.example", "the ARC-Seal of set 2 does not match"),
        (b"i=1; mx.example", b"mx.example", "an ARC-Authentication-Results does not begin with the number of its set"),
        (b"i=2; mx.example", b"i=3; mx.example", "set 2 has no ARC-Authentication-Results"),
        (b"i=2; mx.example", b"i=51; mx.example", "the number of a set (i=) in ARC-Authentication-Results is not 1"),
        (b"i=2; mx.example", b"i=0; mx.example", "the number of a set (i=) in ARC-Authentication-Results is not 1"),
        (b"cv=pass;", b"cv=pass; h=from;", "the ARC-Seal of set 2 has a list of fields (h=), which is not allowed"),
        (b"cv=pass;", b"", "an ARC-Seal cannot be used: the tag cv= is missing"),
        (b"cv=pass;", b"cv=pass; cv=pass;", "an ARC-Seal cannot be used: the tag 'cv' is there twice"),
        (b"rsa-sha256; t", b"rsa-sha1; t", "an ARC-Seal cannot be used: it was made with SHA-1"),
        (b"h=from:", b"h=arc-seal:from:", "the ARC-Message-Signature of set 2 signs ARC-Seal, which is not allowed"),
        (b"h=from:", b"h=;x=", "an ARC-Message-Signature cannot be used: the tag h= is empty"),
        (b"bh=", b"ah=", "an ARC-Message-Signature cannot be used: the tag bh= is missing"),
    ],
)
def test_what_breaks_a_chain(old: bytes, new: bytes, reason: str) -> None:
    whole = sealed(2)
    assert old in whole
    found = validate(whole.replace(old, new, 1))
    assert found.result == "fail" and found.reason.startswith(reason)
    assert found.found.told == f"The ARC chain does not count: {found.reason}."
    assert not found.sets


def test_older_seals_and_signatures() -> None:
    whole = sealed(3)
    seals = [found.start() for found in re.finditer(rb"ARC-Seal: i=", whole)]
    oldest = whole.index(b"b=", seals[2] + 60) + 20
    broken = whole[:oldest] + (b"A" if whole[oldest : oldest + 1] != b"A" else b"B") + whole[oldest + 1 :]
    assert validate(broken).reason.startswith("the ARC-Seal of set 3 does not match")


def test_a_failed_chain_is_sealed_once() -> None:
    broken = sealed(2).replace(b"Subject: A", b"Subject: B")
    again = seal(broken, KEYS[2])
    assert b"ARC-Seal: i=3; a=rsa-sha256; t=%d; cv=fail;" % NOW_S in again
    found = validate(again)
    assert found.reason == "the host of set 3 found that it fails (three.example)" and found.sealed_as_failed
    assert seal(again, KEYS[0]) == again


def test_as_many_sets_as_may_be() -> None:
    most = sealed(SETS_MAX)
    assert validate(most).result == "pass"
    assert sealed(1, most) == most
    many = most.replace(b"ARC-Seal: i=1;", b"ARC-Seal: i=1; x=1\r\nARC-Seal: i=1;")
    assert validate(many).reason == "there are 51 fields ARC-Seal, more than 50"


@pytest.mark.parametrize(
    ("record", "reason", "temporary"),
    [
        (DnsStatus.ERROR, "cannot be looked up now", True),
        (DnsStatus.NXDOMAIN, "does not exist in the DNS", False),
        (public_record(rsa(1024)), "does not match", False),
        (public_record(ed25519()), "not of the kind", False),
    ],
)
def test_keys_of_a_chain(record: str | DnsStatus, reason: str, temporary: bool) -> None:
    dns = zone()
    dns.records["arc._domainkey.one.example"] = record
    found = validate(sealed(2), dns)
    assert found.result == "fail" and reason in found.reason and found.temporary is temporary


def test_the_signature_covers_dkim_signatures() -> None:
    message = DkimSigner(keys(), SigningOptions()).sign_content(MESSAGE, NOW_S) + MESSAGE
    whole = sealed(1, message)
    assert b":dkim-signature:dkim-signature" in re.sub(rb"\s", b"", whole)
    assert validate(whole.replace(b"s=r1;", b"s=r2;")).result == "fail"
