"""OAUTHBEARER and XOAUTH2: what they make of responses, and how a refused token ends."""

from __future__ import annotations

import pytest

from postroad.protocol.sasl import clients
from postroad.protocol.sasl.bearer import Bearer
from postroad.protocol.sasl.step import MALFORMED, Challenge, ExchangeRefused, ProofFailed, Step, Token

TOKEN = "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg=="


def oauthbearer() -> Bearer:
    return Bearer(xoauth2=False)


def test_the_example_of_rfc_7628() -> None:
    """§4.1, with SMTP's port."""
    message = f"n,a=user@example.com,\x01host=server.example.com\x01port=587\x01auth=Bearer {TOKEN}\x01\x01"
    assert oauthbearer().begin(message.encode()) == Token(TOKEN, "user@example.com")
    assert clients.oauthbearer("user@example.com", TOKEN, "server.example.com", 587) == message.encode()


@pytest.mark.parametrize(
    ("message", "step"),
    [
        ("n,,\x01auth=Bearer abc\x01\x01", Token("abc")),
        ("y,,\x01auth=bearer  abc\x01\x01", Token("abc")),
        ("n,a==3D=2C'; DROP\t,\x01auth=Bearer abc\x01\x01", Token("abc", "=,'; DROP\t")),
        ("\x01", ExchangeRefused(MALFORMED)),
        ("", ExchangeRefused(MALFORMED)),
        ("p=tls-exporter,,\x01auth=Bearer abc\x01\x01", ExchangeRefused(MALFORMED)),
        ("n,,\x01auth=Bearer abc\x01", ExchangeRefused(MALFORMED)),
        ("n,,auth=Bearer abc\x01\x01", ExchangeRefused(MALFORMED)),
        ("n,,\x01auth=Basic abc\x01\x01", ExchangeRefused(MALFORMED)),
        ("n,,\x01auth=Bearer a b\x01\x01", ExchangeRefused(MALFORMED)),
        ("n,,\x01auth=Bearer a\nb\x01\x01", ExchangeRefused(MALFORMED)),
        ("n,,\x01auth=Bearer \x01\x01", ExchangeRefused(MALFORMED)),
        ("n,,\x01auth=Bearer abc\x01auth=Bearer def\x01\x01", ExchangeRefused(MALFORMED)),
        ("n,,\x01host=a\x01\x01", ExchangeRefused(MALFORMED)),
        ("n,,\x01=x\x01auth=Bearer abc\x01\x01", ExchangeRefused(MALFORMED)),
        ("n,a=x\0y,\x01auth=Bearer abc\x01\x01", ExchangeRefused(MALFORMED)),
    ],
)
def test_oauthbearer(message: str, step: Step) -> None:
    assert oauthbearer().begin(message.encode()) == step
    later = oauthbearer()
    assert later.begin(None) == Challenge(b"")
    assert later.respond(message.encode()) == step


@pytest.mark.parametrize(
    ("message", "step"),
    [
        ("user=ada@example.org\x01auth=Bearer abc\x01\x01", Token("abc", "ada@example.org")),
        ("user=\x01auth=Bearer abc\x01\x01", ExchangeRefused(MALFORMED)),
        ("auth=Bearer abc\x01user=a\x01\x01", ExchangeRefused(MALFORMED)),
        ("user=a\x01auth=Bearer abc", ExchangeRefused(MALFORMED)),
        ("user=" + "a" * 2000 + "\x01auth=Bearer abc\x01\x01", ExchangeRefused(MALFORMED)),
        ("", ExchangeRefused(MALFORMED)),
    ],
)
def test_xoauth2(message: str, step: Step) -> None:
    assert Bearer(xoauth2=True).begin(message.encode()) == step


def test_what_our_client_says_is_understood() -> None:
    assert Bearer(xoauth2=True).begin(clients.xoauth2("ada", "abc")) == Token("abc", "ada")
    assert oauthbearer().begin(clients.oauthbearer("a,b=c", "abc", "", 0)) == Token("abc", "a,b=c")


@pytest.mark.parametrize("response", [b"\x01", b"", b"n,,\x01auth=Bearer abc\x01\x01"])
def test_a_refused_token_ends_in_failure_whatever_is_said(response: bytes) -> None:
    """RFC 7628 §3.2.3."""
    bearer = Bearer(xoauth2=False, scope="smtp")
    bearer.begin(b"n,a=ada,\x01auth=Bearer abc\x01\x01")
    assert bearer.denied() == Challenge(b'{"status":"invalid_token","scope":"smtp"}')
    assert bearer.respond(response) == ProofFailed("ada")


def test_a_token_is_not_shown() -> None:
    assert "abc" not in repr(Token("abc", "ada"))


def test_octets_that_are_no_text() -> None:
    assert oauthbearer().begin(b"\xff" * 1_000_000) == ExchangeRefused(MALFORMED)
