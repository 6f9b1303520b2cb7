"""The examples of RFC 6376 (§3.4.5, appendix A) and RFC 8463 (appendix A)."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from postroad.trust.dkim_body import BodyForm, Canonicalization
from postroad.trust.dkim_head import SignedHead
from postroad.trust.dkim_sign import public_record
from tests.unit.trust.dkim_parts import Zone, canonical_body, verify

# The RFCs print two spaces behind the full stop; one was signed, as bh= of the simple form shows.
_BODY = b"\r\nHi.\r\n\r\nWe lost the game. Are you hungry yet?\r\n\r\nJoe.\r\n"
_FIELDS = (
    b"From: Joe SixPack <joe@football.example.com>\r\n"
    b"To: Suzie Q <suzie@shopping.example.net>\r\n"
    b"Subject: Is dinner ready?\r\n"
    b"Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)\r\n"
    b"Message-ID: <20030712040037.46341.5F8J@football.example.com>\r\n"
)
RFC_6376 = (
    b"DKIM-Signature: v=1; a=rsa-sha256; s=brisbane; d=example.com;\r\n"
    b"      c=simple/simple; q=dns/txt; i=joe@football.example.com;\r\n"
    b"      h=Received : From : To : Subject : Date : Message-ID;\r\n"
    b"      bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n"
    b"      b=AuUoFEfDxTDkHlLXSZEpZj79LICEps6eda7W3deTVFOk4yAUoqOB\r\n"
    b"      4nujc7YopdG5dWLSdNg6xNAZpOPr+kHxt1IrE+NahM6L/LbvaHut\r\n"
    b"      KVdkLLkpVaVVQPzeRDI009SO2Il5Lu7rDNH6mZckBdrIx0orEtZV\r\n"
    b"      4bmp/YzhwvcubU4=;\r\n"
    b"Received: from client1.football.example.com  [192.0.2.1]\r\n"
    b"      by submitserver.example.com with SUBMISSION;\r\n"
    b"      Fri, 11 Jul 2003 21:01:54 -0700 (PDT)\r\n" + _FIELDS + _BODY
)
RFC_6376_KEY = (
    "v=DKIM1; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDwIRP/UC3SBsEmGqZ9ZJW3/DkMoGeLnQg1fWn7/zYtIxN2SnFCjxOCKG9v3b4jYf"
    "cTNh5ijSsq631uBItLa7od+v/RtdC2UzJ1lWT947qR+Rcac2gbto/NMqJ0fzfVjH4OuKhitdY9tf6mcwGjaNBcWToIMmPSPDdQPNUYckcQ2QIDAQAB"
)
RFC_8463 = (
    b"DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;\r\n"
    b" d=football.example.com; i=@football.example.com;\r\n"
    b" q=dns/txt; s=brisbane; t=1528637909; h=from : to :\r\n"
    b" subject : date : message-id : from : subject : date;\r\n"
    b" bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n"
    b" b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus\r\n"
    b" Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==\r\n"
    b"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;\r\n"
    b" d=football.example.com; i=@football.example.com;\r\n"
    b" q=dns/txt; s=test; t=1528637909; h=from : to : subject :\r\n"
    b" date : message-id : from : subject : date;\r\n"
    b" bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n"
    b" b=F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3\r\n"
    b" DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz\r\n"
    b" dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=\r\n" + _FIELDS + _BODY
)
RFC_8463_KEYS = {
    "brisbane._domainkey.football.example.com": "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
    "test._domainkey.football.example.com": "v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWR"
    "iGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT"
    "5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB",
}


def test_rfc_6376_appendix_a() -> None:
    (result,) = verify(RFC_6376, Zone({"brisbane._domainkey.example.com": RFC_6376_KEY}))
    assert (result.result, result.reason) == ("pass", "")
    assert (result.domain, result.selector, result.identity) == (
        "example.com",
        "brisbane",
        "joe@football.example.com",
    )


def test_rfc_8463_appendix_a() -> None:
    zone = Zone(dict(RFC_8463_KEYS))
    first, second = verify(RFC_8463, zone)
    assert [first.result, second.result] == ["pass", "pass"]
    assert [first.algorithm, second.algorithm] == ["ed25519-sha256", "rsa-sha256"]
    assert zone.most == 2  # side by side


def test_rfc_8463_key_record() -> None:
    secret = base64.b64decode("nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=")
    record = public_record(Ed25519PrivateKey.from_private_bytes(secret))
    assert record == RFC_8463_KEYS["brisbane._domainkey.football.example.com"]


@pytest.mark.parametrize("change", [(b"Suzie Q", b"Suzie P"), (b"hungry", b"angry"), (b"Joe.\r\n", b"Joe .\r\n")])
def test_changes_of_the_examples_are_seen(change: tuple[bytes, bytes]) -> None:
    results = verify(RFC_6376.replace(*change), Zone({"brisbane._domainkey.example.com": RFC_6376_KEY}))
    results += verify(RFC_8463.replace(*change), Zone(dict(RFC_8463_KEYS)))
    assert [each.result for each in results] == ["fail"] * 3


def test_rfc_6376_canonicalization() -> None:
    """§3.4.5."""
    head = SignedHead(b"A: X\r\nB : Y\t\r\n\tZ  \r\n")
    names = [b"a", b"b"]
    assert head.taken(names, Canonicalization.RELAXED) == [b"a:X", b"b:Y Z"]
    assert head.taken(names, Canonicalization.SIMPLE) == [b"A: X", b"B : Y\t\r\n\tZ  "]
    body = b" C \r\nD \t E\r\n\r\n\r\n"
    assert canonical_body(body, BodyForm(Canonicalization.RELAXED)) == b" C\r\nD E\r\n"
    assert canonical_body(body, BodyForm(Canonicalization.SIMPLE)) == b" C \r\nD \t E\r\n"
