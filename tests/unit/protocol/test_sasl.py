from __future__ import annotations

import pytest

from postroad.protocol.sasl import MALFORMED, Challenge, Login, Plain, Refused, Verify


def test_plain() -> None:
    assert Plain().begin(b"\0tim\0tanstaaftanstaaf") == Verify("tim", "tanstaaftanstaaf")  # RFC 4616 §4
    assert Plain().begin(b"Ursel\0Kurt\0xipj3plmq") == Verify("Kurt", "xipj3plmq", "Ursel")
    plain = Plain()
    assert plain.begin(None) == Challenge(b"")
    assert plain.respond("\0jörg\0pässword".encode()) == Verify("jörg", "pässword")


@pytest.mark.parametrize(
    "response",
    [b"", b"\0", b"\0\0", b"\0a\0", b"\0\0b", b"a\0b", b"a\0b\0c\0d", b"\0\xff\0b", b"\0a\0\xff", b"\xff\0a\0b",
     b"\0" + b"a" * 1025 + b"\0b", b"\0a\0" + b"b" * 1_000_000],
)  # fmt: skip
def test_malformed_plain(response: bytes) -> None:
    assert Plain().begin(response) == Refused(MALFORMED)


def test_login() -> None:
    login = Login()
    assert login.begin(None) == Challenge(b"Username:")
    assert login.respond(b"tim") == Challenge(b"Password:")
    assert login.respond(b"secret") == Verify("tim", "secret")


def test_login_with_the_name_at_once() -> None:
    login = Login()
    assert login.begin(b"tim\0") == Challenge(b"Password:")
    assert login.respond(b"secret\0") == Verify("tim", "secret")


@pytest.mark.parametrize("response", [b"", b"\0", b"a\0b", b"\xff", b"x" * 2000])
def test_malformed_login(response: bytes) -> None:
    assert Login().begin(response) == Refused(MALFORMED)
    login = Login()
    login.begin(b"tim")
    assert login.respond(response) == Refused(MALFORMED)


def test_a_password_is_not_shown() -> None:
    assert "secret" not in repr(Verify("tim", "secret"))
