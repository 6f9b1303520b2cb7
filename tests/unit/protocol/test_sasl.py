"""PLAIN, LOGIN, EXTERNAL: what they make of responses."""

from __future__ import annotations

import pytest

from postroad.protocol.sasl.plain import External, Login, Plain
from postroad.protocol.sasl.step import MALFORMED, CertificateClaim, Challenge, ExchangeRefused, Password, Step


def test_plain() -> None:
    assert Plain().begin(b"\0tim\0tanstaaftanstaaf") == Password("tim", "tanstaaftanstaaf")  # RFC 4616 §4
    assert Plain().begin(b"Ursel\0Kurt\0xipj3plmq") == Password("Kurt", "xipj3plmq", "Ursel")
    plain = Plain()
    assert plain.begin(None) == Challenge(b"")
    assert plain.respond("\0jörg\0pässword".encode()) == Password("jörg", "pässword")


@pytest.mark.parametrize(
    "response",
    [b"", b"\0", b"\0\0", b"\0a\0", b"\0\0b", b"a\0b", b"a\0b\0c\0d", b"\0\xff\0b", b"\0a\0\xff", b"\xff\0a\0b",
     b"\0" + b"a" * 1025 + b"\0b", b"\0a\0" + b"b" * 1_000_000],
)  # fmt: skip
def test_malformed_plain(response: bytes) -> None:
    assert Plain().begin(response) == ExchangeRefused(MALFORMED)


def test_login() -> None:
    login = Login()
    assert login.begin(None) == Challenge(b"Username:")
    assert login.respond(b"tim") == Challenge(b"Password:")
    assert login.respond(b"secret") == Password("tim", "secret")


def test_login_with_the_name_at_once() -> None:
    login = Login()
    assert login.begin(b"tim\0") == Challenge(b"Password:")
    assert login.respond(b"secret\0") == Password("tim", "secret")


@pytest.mark.parametrize("response", [b"", b"\0", b"a\0b", b"\xff", b"x" * 2000])
def test_malformed_login(response: bytes) -> None:
    assert Login().begin(response) == ExchangeRefused(MALFORMED)
    login = Login()
    login.begin(b"tim")
    assert login.respond(response) == ExchangeRefused(MALFORMED)


def test_a_password_is_not_shown() -> None:
    assert "secret" not in repr(Password("tim", "secret"))


@pytest.mark.parametrize(
    ("responses", "step"),
    [
        ([b""], CertificateClaim("")),  # RFC 4422 §A.1: an empty authorization identity
        (["ädä@example.org".encode()], CertificateClaim("ädä@example.org")),
        ([None, b"ada"], CertificateClaim("ada")),
        ([b"a\0b"], ExchangeRefused(MALFORMED)),
        ([b"\xff"], ExchangeRefused(MALFORMED)),
        ([b"x" * 1_000_000], ExchangeRefused(MALFORMED)),
    ],
)
def test_external(responses: list[bytes | None], step: Step) -> None:
    external = External()
    first, *rest = responses
    found = external.begin(first)
    for response in rest:
        assert found == Challenge(b"")
        assert response is not None
        found = external.respond(response)
    assert found == step
