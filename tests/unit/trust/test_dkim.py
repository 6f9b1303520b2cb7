"""Signs and verifies: each way to be wrong, in words, and what no change escapes (RFC 6376 §5, §6, RFC 8601 §2.7.1)."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from postroad.trust.dkim_body import BodyForm, Canonicalization
from postroad.trust.dkim_head import SignedHead, body_start, canonical
from postroad.trust.dkim_key import DkimKey, KeyFault, parse_key
from postroad.trust.dkim_sign import (
    DkimSigner,
    PrivateKeyFault,
    SigningKey,
    SigningOptions,
    parse_private_key,
    public_record,
)
from postroad.trust.dkim_verify import DkimOptions, DkimResult, found
from postroad.world.dns import DnsStatus
from tests.unit.trust.dkim_parts import MESSAGE, NOW_S, Zone, canonical_body, ed25519, keys, pem, rsa, verify, zone_of

SIMPLE, RELAXED = Canonicalization.SIMPLE, Canonicalization.RELAXED
ED_ONLY = keys()[1:]


def signed(
    message: bytes = MESSAGE, options: SigningOptions | None = None, with_: tuple[SigningKey, ...] = ()
) -> bytes:
    return DkimSigner(with_ or ED_ONLY, options or SigningOptions()).sign_content(message, NOW_S) + message


def one(message: bytes, zone: Zone | None = None, *, now_s: int = NOW_S) -> DkimResult:
    (result,) = verify(message, zone or zone_of(keys()), now_s=now_s)
    return result


@pytest.mark.parametrize("head", [SIMPLE, RELAXED])
@pytest.mark.parametrize("body", [SIMPLE, RELAXED])
def test_both_keys_side_by_side(head: Canonicalization, body: Canonicalization) -> None:
    message = signed(options=SigningOptions(head=head, body=body, lifetime_s=3600), with_=keys())
    zone = zone_of(keys())
    results = verify(message, zone)
    assert [(each.result, each.algorithm, each.selector, each.bits) for each in results] == [
        ("pass", "rsa-sha256", "r1", 2048),
        ("pass", "ed25519-sha256", "e1", 256),
    ]
    assert zone.asked == ["r1._domainkey.example.org", "e1._domainkey.example.org"] and zone.most == 2
    assert [each.result for each in verify(message, zone, now_s=NOW_S + 3600 + 301)] == ["permerror"] * 2
    assert max(map(len, message[: body_start(message)].split(b"\r\n"))) <= 78


def test_what_is_signed_by_default() -> None:
    names = re.search(rb"h=([^;]*);", signed())
    assert names is not None
    listed = re.sub(rb"\s", b"", names[1]).split(b":")
    assert listed[:2] == [b"from", b"from"]
    assert listed.count(b"reply-to") == 1 and listed.count(b"subject") == 2  # oversigned
    assert listed.count(b"list-unsubscribe") == 1 and listed.count(b"list-unsubscribe-post") == 1
    assert b"list-id" not in listed and b"received" not in listed


@pytest.mark.parametrize(
    "field", [b"From: m@example.com", b"Subject: x", b"Reply-To: m@example.com", b"Content-Type: x"]
)
def test_no_oversigned_field_can_be_added(field: bytes) -> None:
    whole = signed()
    end = whole.index(b"\r\n\r\n") + 2
    assert one(field + b"\r\n" + whole).result == "fail"
    assert one(whole[:end] + field + b"\r\n" + whole[end:]).result == "fail"
    assert one(b"X-Other: y\r\n" + whole).result == "pass"


def test_fields_of_one_name_are_taken_from_the_last_one_up() -> None:
    options = SigningOptions(oversigned=("From",), signed=("X-A",))
    whole = signed(b"X-A: 1\r\nFrom: a@example.org\r\nX-A: 2\r\n\r\nx\r\n", options)
    assert one(whole).result == "pass"
    assert one(b"X-A: 3\r\n" + whole).result == "pass"  # not oversigned
    assert one(whole.replace(b"X-A: 1", b"X-A: 3")).result == "fail"
    assert one(whole.replace(b"X-A: 1", b"X-A: 0").replace(b"X-A: 2", b"X-A: 1").replace(b"0", b"2")).result == "fail"


_FIELD_VALUES = st.text("ab  \t;:=é", min_size=0, max_size=30).map(lambda text: text.encode())
_NAMES = st.sampled_from([b"From", b"To", b"subject", b"X-Other", b"Content-Type", b"List-Unsubscribe"])
_HEADS = st.lists(st.tuples(_NAMES, _FIELD_VALUES), min_size=1, max_size=8)
_BODY_PARTS = st.lists(st.sampled_from([b"\r\n", b" ", b"\t", b"a", b"b=c;", b"\xc3\xa4", b"-- \r\n"]), max_size=30)
_FORMS = st.sampled_from([SIMPLE, RELAXED])


def _message(head: list[tuple[bytes, bytes]], body: list[bytes]) -> bytes:
    return b"".join(b"%s: x%s\r\n" % each for each in head) + b"\r\n" + b"".join(body)


@settings(max_examples=150, deadline=None)
@given(_HEADS, _BODY_PARTS, _FORMS, _FORMS, st.integers(1, 90))
def test_what_was_signed_verifies(
    head: list[tuple[bytes, bytes]], body: list[bytes], head_form: Canonicalization, form: Canonicalization, piece: int
) -> None:
    message = _message(head, body)
    whole = signed(message, SigningOptions(head=head_form, body=form))
    (result,) = verify(whole, zone_of(keys()), piece=piece)
    assert (result.result, result.reason) == ("pass", "")


@settings(max_examples=300, deadline=None)
@given(_HEADS, _BODY_PARTS, _FORMS, _FORMS, st.integers(0, 400), st.sampled_from([b"", b"z", b"\r\n", b" ", b"\t"]))
def test_no_change_that_is_not_allowed_passes(
    head: list[tuple[bytes, bytes]],
    body: list[bytes],
    head_form: Canonicalization,
    form: Canonicalization,
    at: int,
    instead: bytes,
) -> None:
    """One octet is taken away or replaced anywhere in the message. It passes if and only if the forms stay the same."""
    names = tuple({name.decode(): None for name, _ in head})
    message = _message(head, body)
    options = SigningOptions(oversigned=names, signed=(), head=head_form, body=form)
    fields = DkimSigner(ED_ONLY, options).sign_content(message, NOW_S)
    at %= len(message)
    changed = message[:at] + instead + message[at + 1 :]

    def forms(octets: bytes) -> tuple[dict[bytes, list[bytes]], bytes]:
        start = body_start(octets)
        kept: dict[bytes, list[bytes]] = {}
        for line in re.split(rb"\r\n(?![ \t])", octets[:start].removesuffix(b"\r\n").removesuffix(b"\r\n")):
            name = line.partition(b":")[0].rstrip(b" \t").lower()
            if name.decode() in {"from", *(each.lower() for each in names)}:
                kept.setdefault(name, []).append(canonical(line, head_form))
        return kept, canonical_body(octets[start:], BodyForm(form))

    (result,) = verify(fields + changed, zone_of(keys()))
    if body_start(changed) and b"\r\n\r\n" in changed and changed.index(b"\r\n\r\n") + 4 == body_start(changed):
        assert (result.result == "pass") == (forms(message) == forms(changed)), changed


def refield(**changes: str | None) -> bytes:
    """A signed message whose signature has other tags, signed anew by the letter; None: without the tag."""
    tags: dict[str, str | None] = {
        "v": "1", "a": "ed25519-sha256", "c": "relaxed/relaxed", "d": "example.org", "s": "e1", "h": "from:subject",
    }  # fmt: skip
    body = canonical_body(MESSAGE[body_start(MESSAGE) :], BodyForm(RELAXED))
    length = changes.get("l")
    end = int(length) if length is not None and length.isdigit() else len(body)
    tags |= {"bh": base64.b64encode(hashlib.sha256(body[:end]).digest()).decode(), **changes}
    written = "; ".join(f"{name}={value}" for name, value in tags.items() if value is not None)
    field = f"DKIM-Signature: {written}; b=".encode()
    names = [each.strip().lower().encode() for each in (tags["h"] or "").split(":")]
    data = SignedHead(MESSAGE[: body_start(MESSAGE) - 2]).data(names, field, RELAXED)
    return field + base64.b64encode(ed25519().sign(hashlib.sha256(data).digest())) + b"\r\n" + MESSAGE


def test_signed_anew_by_the_letter() -> None:
    assert one(refield()).result == "pass"


@pytest.mark.parametrize(
    ("changes", "result", "reason"),
    [
        ({"v": None}, "permerror", "the tag v= is missing"),
        ({"v": "2"}, "neutral", "its version is not known (v=2)"),
        ({"a": ""}, "permerror", "the tag a= is empty"),
        ({"a": "rsa-sha1"}, "policy", "it was made with SHA-1, which nobody may trust any more (RFC 8301)"),
        ({"a": "rsa-md5"}, "neutral", "its algorithm is not known (a=rsa-md5)"),
        ({"a": "rsa-sha256"}, "permerror", "the key is not of the kind that the signature says (rsa)"),
        ({"d": None}, "permerror", "the tag d= is missing"),
        ({"d": "a b"}, "neutral", "the tag d= is no domain name: a b"),
        ({"s": "-x"}, "neutral", "the tag s= is no domain name: -x"),
        ({"s": "x"}, "permerror", "the key x._domainkey.example.org does not exist in the DNS"),
        ({"d": ".".join(["x" * 60] * 4)}, "permerror", "the name of its key is longer than a name in the DNS (d=, s=)"),
        ({"h": "subject"}, "permerror", "it does not sign the field From (h=)"),
        ({"h": "from;"}, "neutral", "tag 7 is empty"),
        ({"h": "from::to"}, "neutral", "the list of signed fields cannot be read (h=)"),
        ({"h": "from" + ":x" * 1000}, "permerror", "it names more than 1000 fields (h=)"),
        ({"h": " From : Subject\r\n : DATE"}, "pass", ""),
        ({"c": "nowsp"}, "neutral", "its canonicalization is not known (c=nowsp)"),
        ({"c": "relaxed/nofws"}, "neutral", "its canonicalization is not known (c=relaxed/nofws)"),
        ({"q": "dns/txt"}, "pass", ""),
        ({"q": "http:dns/txt"}, "pass", ""),
        ({"q": "http"}, "neutral", "its key cannot be asked for in this way (q=http)"),
        ({"l": "0"}, "pass", ""),
        ({"l": "10"}, "pass", ""),
        ({"l": "-1"}, "neutral", "the length of the body is no number (l=-1)"),
        ({"l": "999"}, "fail", "the body was cut: 999 octets are signed (l=), 62 are there"),
        ({"t": "x"}, "neutral", "the time is no number of up to 12 digits (t=x)"),
        ({"t": str(NOW_S), "x": str(NOW_S)}, "permerror", "it ends before it was made (x= is not behind t=)"),
        ({"x": str(NOW_S - 301)}, "permerror", "the signature has expired (x=)"),
        ({"x": str(NOW_S - 299)}, "pass", ""),
        ({"x": "9" * 12}, "pass", ""),
        ({"i": "ada@example.org"}, "pass", ""),
        ({"i": "ada=3Bx@mail.EXAMPLE.org"}, "pass", ""),
        ({"i": "example.org"}, "neutral", "the identity is no address (i=example.org)"),
        ({"i": "@notexample.org"}, "permerror", "the identity is not in its domain (i=@notexample.org, d=example.org)"),
        ({"bh": "YQ=="}, "permerror", "the hash of the body has 1 octets, not 32 (bh=)"),
        ({"bh": "=YQ"}, "neutral", "the tag bh= is no base64"),
        ({"bh": "A" * 43 + "="}, "fail", "the body has changed since it was signed (its hash is not bh=)"),
        ({"z": "From:a|To:b", "new": "x"}, "pass", ""),
        ({"z": "x" * 17_000}, "permerror", "the field has 17210 octets, more than 16384"),
        ({"z": "\0"}, "neutral", "the value of the tag 'z' has a control character"),
    ],
)
def test_tags_of_a_signature(changes: dict[str, str | None], result: str, reason: str) -> None:
    became = one(refield(**changes))
    assert (became.result, re.sub(r"\d{5} octets", "17210 octets", became.reason)) == (result, reason)


def test_identity_and_unsigned_rest() -> None:
    assert one(refield(i="ada=3Bx@mail.EXAMPLE.org")).identity == "ada;x@mail.example.org"
    assert one(refield()).identity == "@example.org"
    assert one(refield(l="10")).unsigned == 52
    assert one(refield(l="10") + b"More\r\n").unsigned == 52 + 10


KEY = public_record(ed25519())


@pytest.mark.parametrize(
    ("record", "result", "reason"),
    [
        (KEY, "pass", ""),
        (KEY + "; t=y:s; n=hello; g=*; unknown=x", "pass", ""),
        (KEY.removeprefix("v=DKIM1; "), "pass", ""),
        (KEY.replace("v=DKIM1", "v=DKIM2"), "permerror", "the key record has v= but does not begin with v=DKIM1"),
        ("k=ed25519; v=DKIM1; p=x", "permerror", "the key record has v= but does not begin with v=DKIM1"),
        ("v=DKIM1; k=ed25519", "permerror", "the key record has no key (p= is missing)"),
        ("v=DKIM1; p=", "permerror", "the key was revoked (p= is empty)"),
        (KEY + "; h=sha1", "permerror", "the key record allows only the hash sha1 (h=), not sha256"),
        (KEY + "; h= sha1 : SHA256", "pass", ""),
        (KEY + "; s=tlsrpt", "permerror", "the key record is not for mail (s=)"),
        (KEY + "; s=tlsrpt:email", "pass", ""),
        (KEY.replace("k=ed25519", "k=new"), "neutral", "the key is of a kind that is not known (k=new)"),
        (KEY + "; p=x", "permerror", "the key record cannot be read: the tag 'p' is there twice"),
        ("v=DKIM1; k=ed25519; p=!!", "permerror", "the key (p=) is no base64"),
        ("v=DKIM1; k=ed25519; p=YQ==", "permerror", "the Ed25519 key has 1 octets, not 32"),
        ("v=DKIM1; p=YQ==", "permerror", "the RSA key (p=) cannot be read"),
        (public_record(rsa()), "permerror", "the key is not of the kind that the signature says (ed25519)"),
        (KEY + ";" + " " * 5000, "permerror", "the key record has 5067 characters, more than 4096"),
        ("hello", "permerror", "the key record cannot be read: tag 1 has no \"=\": 'hello'"),
        (("v=spf1 -all", KEY), "pass", ""),
        ((public_record(rsa()), KEY), "pass", ""),
        (DnsStatus.NODATA, "permerror", "the name e1._domainkey.example.org has no TXT record in the DNS"),
        (
            DnsStatus.ERROR,
            "temperror",
            "the key e1._domainkey.example.org cannot be looked up now: error for e1._domainkey.example.org",
        ),
    ],
)
def test_keys(record: str | tuple[str, ...] | DnsStatus, result: str, reason: str) -> None:
    became = one(refield(), Zone({"e1._domainkey.example.org": record}))
    assert (became.result, became.reason) == (result, reason)


def test_flags_of_a_key() -> None:
    strict = Zone({"e1._domainkey.example.org": KEY + "; t=s"})
    assert one(refield(), strict).result == "pass"
    below = one(refield(i="@mail.example.org"), strict)
    assert below.result == "permerror" and below.reason.startswith("the key does not speak for domains below")
    testing = Zone({"e1._domainkey.example.org": KEY + "; t=y"})
    assert one(refield(), testing).testing
    failed = one(refield() + b"more\r\n", testing)
    assert failed.result == "neutral" and failed.reason.endswith("; the domain only tests DKIM (t=y)")


@pytest.mark.parametrize(("bits", "result"), [(1024, "pass"), (4096, "pass")])
def test_sizes_of_rsa_keys(bits: int, result: str) -> None:
    key = (SigningKey("example.org", "r", rsa(bits)),)
    assert one(signed(with_=key), zone_of(key)).result == result


def test_the_domain_may_be_written_as_people_read_it() -> None:
    """RFC 8616 §5."""
    key = SigningKey("xn--bcher-kva.example", "e1", ed25519())
    zone = zone_of([key])
    whole = signed(with_=(key,))
    assert one(whole, zone).domain == "xn--bcher-kva.example"
    unread = one(whole.replace(b"d=xn--bcher-kva.example", "d=bücher.example".encode()), zone)
    assert (unread.result, unread.domain) == ("fail", "xn--bcher-kva.example")  # the key was found; the field changed


def test_more_signatures_than_are_verified() -> None:
    whole = signed() * 1
    field = whole[: whole.index(b"\r\nReceived") + 2]
    results = verify(field * 4 + MESSAGE, zone_of(keys()), options=DkimOptions(signatures_max=3))
    assert [each.result for each in results] == ["pass"] * 3 + ["permerror"]
    assert results[3].reason == "the message has 4 signatures, more than 3"


def test_equal_keys_are_asked_for_once_and_equal_bodies_hashed_once() -> None:
    zone = zone_of(keys())
    field = signed()[: -len(MESSAGE)]
    assert [each.result for each in verify(field * 3 + MESSAGE, zone)] == ["pass"] * 3
    assert zone.asked == ["e1._domainkey.example.org"]


def test_a_message_without_a_signature() -> None:
    zone = zone_of(keys())
    assert verify(MESSAGE, zone) == () and zone.asked == []


@pytest.mark.parametrize("octets", [b"", b"\r\n", b"no header\r\n", b"From: a@example.org", b"From: a@example.org\r\n"])
def test_odd_messages_are_signed(octets: bytes) -> None:
    whole = signed(octets if octets.startswith(b"From") else b"\r\n" + octets.removeprefix(b"\r\n"))
    assert one(whole).result == "pass"


def test_private_keys() -> None:
    for key in (rsa(1024), ed25519()):
        read = parse_private_key(pem(key))
        assert not isinstance(read, PrivateKeyFault) and public_record(read) == public_record(key)
    locked = ed25519().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    assert parse_private_key(locked) == PrivateKeyFault("the key is encrypted with a password")
    assert parse_private_key(b"x") == PrivateKeyFault("this is no private key in PEM")
    other = ec.generate_private_key(ec.SECP256R1())
    assert parse_private_key(pem(other)) == PrivateKeyFault("the key is neither an RSA nor an Ed25519 key")


def test_results_for_fields_and_people() -> None:
    whole = refield(i="ada@example.org", l="10")
    (good,) = found((one(whole),))
    assert (good.method, good.result, good.reason) == ("dkim", "pass", "")
    data = re.search(rb"b=([^;]{8})[^;]*\r\nReceived", whole)
    assert data is not None
    assert good.properties == (
        ("header", "d", "example.org"),
        ("header", "i", "ada@example.org"),
        ("header", "s", "e1"),
        ("header", "a", "ed25519-sha256"),
        ("header", "b", data[1].decode()),
    )
    assert good.told == (
        "The DKIM signature of example.org (selector e1) is right: ed25519-sha256, a key of 256 bits; "
        "the last 52 octets of the body are not signed (l=)."
    )
    (bad,) = found((one(refield(d=None)),))
    assert (bad.result, bad.value("header", "s"), bad.value("header", "d")) == ("permerror", "e1", "")
    assert bad.told == "The DKIM signature of an unknown domain does not count: the tag d= is missing."
    assert [each.result for each in found(())] == ["none"]


@pytest.mark.parametrize(
    ("bits", "reason"),
    [
        (768, "the RSA key has 768 bits, fewer than 1024"),
        (1023, "the RSA key has 1023 bits, fewer than 1024"),
        (4104, "the RSA key has 4104 bits, more than 4096"),
    ],
)
def test_rsa_keys_that_are_too_small_or_large(bits: int, reason: str) -> None:
    """RFC 8301 §3.2. The number need not be a product of primes: nothing is verified with it."""
    octets = RSAPublicNumbers(65_537, (1 << bits) - 1).public_key().public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )  # fmt: skip
    assert parse_key(f"v=DKIM1; p={base64.b64encode(octets).decode()}") == KeyFault("policy", reason)


def test_rsa_keys_with_a_long_exponent_are_not_used() -> None:
    """A message with a hundred seals by such a key would keep the loop busy for a second."""
    for bits, usable in ((2, True), (17, True), (64, True), (65, False), (2_047, False)):
        octets = RSAPublicNumbers((1 << bits) - 1, (1 << 2_048) - 1).public_key().public_bytes(
            Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        )  # fmt: skip
        found = parse_key(f"v=DKIM1; p={base64.b64encode(octets).decode()}")
        reason = f"the exponent of the RSA key has {bits} bits, more than 64"
        assert isinstance(found, DkimKey) if usable else found == KeyFault("policy", reason)
