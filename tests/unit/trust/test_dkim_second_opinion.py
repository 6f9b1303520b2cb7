"""dkimpy as a second opinion: what we sign it verifies, what it signs we verify, and both see what was changed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postroad.trust.dkim_body import Canonicalization
from postroad.trust.dkim_sign import DkimSigner, SigningKey, SigningOptions, public_record
from tests.unit.trust.dkim_parts import MESSAGE, NOW_S, keys, secret, verify, zone_of

dkim: Any = pytest.importorskip("dkim", reason="dkimpy is not installed")

_FORMS = st.sampled_from([Canonicalization.SIMPLE, Canonicalization.RELAXED])
_FIELDS = st.lists(
    st.tuples(
        st.sampled_from([b"From", b"To", b"subject", b"DATE", b"List-Unsubscribe"]),
        st.text("ab \t;:=é", max_size=20).map(str.encode),
        st.sampled_from([b"", b"\r\n\tmore", b"\r\n  b=x; "]),
    ),
    max_size=6,
)
_BODIES = st.lists(st.sampled_from([b"\r\n", b" ", b"\t", b"a", b"b=c;", b"\xc3\xa4"]), max_size=25).map(b"".join)


def message(fields: list[tuple[bytes, bytes, bytes]], body: bytes) -> bytes:
    """dkimpy keeps white space at the end of a last line that has no CRLF: such a line is ended here."""
    head = b"".join(b"%s: x%s%sy\r\n" % each for each in fields)
    body += b"\r\n" if body.endswith((b" ", b"\t")) else b""
    return head + b"From: ada@example.org\r\n\r\n" + body


def their_opinion(octets: bytes, signing: tuple[SigningKey, ...]) -> list[bool]:
    records = {f"{k.selector}._domainkey.{k.domain}.".encode(): public_record(k.private).encode() for k in signing}
    verifier = dkim.DKIM(octets)
    count = sum(name.lower() == b"dkim-signature" for name, _ in verifier.headers)
    found = []
    for index in range(count):
        try:
            found.append(verifier.verify(index, dnsfunc=lambda name, timeout=5: records.get(name, b"")))
        except dkim.DKIMException:
            found.append(False)
    return found


@settings(max_examples=60, deadline=None)
@given(_FIELDS, _BODIES, _FORMS, _FORMS)
def test_it_verifies_what_we_sign(
    fields: list[tuple[bytes, bytes, bytes]], body: bytes, head: Canonicalization, form: Canonicalization
) -> None:
    octets = message(fields, body)
    options = SigningOptions(head=head, body=form, oversigned=("From", "To", "Subject"))
    signed = DkimSigner(keys(), options).sign_content(octets, NOW_S) + octets
    assert their_opinion(signed, keys()) == [True, True]
    assert their_opinion(signed + b"z\r\n", keys()) == [False, False]


@settings(max_examples=60, deadline=None)
@given(_FIELDS, _BODIES, _FORMS, _FORMS, st.sampled_from(keys()), st.booleans())
def test_we_verify_what_it_signs(
    fields: list[tuple[bytes, bytes, bytes]],
    body: bytes,
    head: Canonicalization,
    form: Canonicalization,
    key: SigningKey,
    length: bool,
) -> None:
    octets = message(fields, body)
    field = dkim.sign(
        octets,
        key.selector.encode(),
        key.domain.encode(),
        secret(key),
        identity=b"ada@example.org",
        canonicalize=(head.value.encode(), form.value.encode()),
        signature_algorithm=f"{key.kind.value}-sha256".encode(),
        length=length,
    )
    (result,) = verify(field + octets, zone_of(keys()), now_s=2_000_000_000)
    assert (result.result, result.reason, result.identity) == ("pass", "", "ada@example.org")
    (changed,) = verify(field + octets.replace(b"ada@", b"eve@"), zone_of(keys()))
    assert changed.result == "fail"


def test_both_see_a_change() -> None:
    signed = DkimSigner(keys(), SigningOptions()).sign_content(MESSAGE, NOW_S) + MESSAGE
    for old, new in ((b"A  message", b"B  message"), (b"the last", b"no last"), (b"bob@", b"eve@")):
        changed = signed.replace(old, new)
        assert their_opinion(changed, keys()) == [False, False]
        assert [each.result for each in verify(changed, zone_of(keys()))] == ["fail", "fail"]
    allowed = (
        signed.replace(b"A  message", b"A message").replace(b"Subject:", b"SUBJECT:").replace(b"\t white", b" white")
    )
    assert their_opinion(allowed, keys()) == [True, True]
    assert [each.result for each in verify(allowed, zone_of(keys()))] == ["pass", "pass"]
