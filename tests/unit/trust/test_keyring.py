"""Keys as values: states, names, what a file of keys may hold."""

from __future__ import annotations

import msgspec
import pytest

from postroad.trust import keyring
from postroad.trust.dkim_key import DkimKey, KeyKind, parse_key
from postroad.trust.keyring import DomainKeys, KeyringFault, KeyState, StoredKey

_RSA = keyring.made("r1", keyring.generate(KeyKind.RSA, 1_024), 5)
_ED = keyring.made("e1", keyring.generate(KeyKind.ED25519, 0), 7)


def _state(key: StoredKey, state: KeyState) -> StoredKey:
    return msgspec.structs.replace(key, state=state)


def test_a_new_key_waits_and_its_record_is_a_key() -> None:
    for key, kind in ((_RSA, KeyKind.RSA), (_ED, KeyKind.ED25519)):
        assert (key.kind, key.state) == (kind, KeyState.WAITING)
        text = keyring.record_text(key)
        assert isinstance(text, str)
        read = parse_key(text)
        assert isinstance(read, DkimKey)
        assert read.kind is kind


def test_no_text_of_keys_has_their_private_part() -> None:
    for key in (_RSA, _ED):
        shown = f"{key!r} {key} {DomainKeys('example.org', (key,))!r}"
        assert key.selector in shown and "PRIVATE" not in shown


def test_what_was_written_is_read() -> None:
    keys = DomainKeys("example.org", (_RSA, _state(_ED, KeyState.SIGNING)))
    assert keyring.decode(keyring.encode(keys)) == keys


def test_only_keys_that_sign_sign_rsa_first() -> None:
    every = [
        msgspec.structs.replace(key, selector=f"{key.selector}-{state.value}", state=state)
        for key in (_ED, _RSA)
        for state in KeyState
    ]
    found = keyring.signing_keys(DomainKeys("example.org", tuple(every)))
    assert isinstance(found, tuple)
    assert [(key.domain, key.selector, key.kind) for key in found] == [
        ("example.org", "r1-signing", KeyKind.RSA),
        ("example.org", "e1-signing", KeyKind.ED25519),
    ]


@pytest.mark.parametrize(
    ("octets", "text"),
    [
        (b"", "is no file of keys"),
        (b"[]", "is no file of keys"),
        (b"{" * 100_000, "is no file of keys"),
        (b'{"domain": "example.org", "format": 2}', "later version"),
        (b'{"domain": "Example.org"}', "canonical form"),
        (b'{"domain": "../x"}', "canonical form"),
        (keyring.encode(DomainKeys("example.org", (_RSA, _RSA))), "two keys of one selector"),
        (keyring.encode(DomainKeys("example.org", (msgspec.structs.replace(_RSA, selector="a/b"),))), "no selector"),
        (
            keyring.encode(
                DomainKeys(
                    "example.org",
                    tuple(msgspec.structs.replace(_ED, selector=f"s{n}") for n in range(keyring.KEYS_MAX + 1)),
                )
            ),
            "more than",
        ),
    ],
)
def test_octets_that_are_no_keys_are_a_fault(octets: bytes, text: str) -> None:
    found = keyring.decode(octets)
    assert isinstance(found, KeyringFault)
    assert text in found.text


@pytest.mark.parametrize("selector", ["", "A", "a_b", "-a", "a-", "a..b", ".a", "a.", "a" * 64, "ä", "a\n", "a/b", "*"])
def test_a_selector_that_the_dns_cannot_hold_is_refused(selector: str) -> None:
    assert keyring.selector_fault(selector, "example.org") is not None


@pytest.mark.parametrize("selector", ["a", "2026", "s1.mail", "a-b", "a" * 63])
def test_a_selector_is_labels(selector: str) -> None:
    assert keyring.selector_fault(selector, "example.org") is None


def test_a_name_that_would_be_too_long_is_refused() -> None:
    domain = ".".join(["a" * 60] * 4)[:238]
    assert keyring.selector_fault("a", domain) is None
    fault = keyring.selector_fault("a" * 30, domain)
    assert fault is not None
    assert "more than 253" in fault.text


def test_a_private_part_of_another_kind_or_none_at_all_does_not_sign() -> None:
    for private in (_ED.private, "", "-----BEGIN PRIVATE KEY-----"):
        broken = msgspec.structs.replace(_RSA, private=private, state=KeyState.SIGNING)
        found = keyring.signing_keys(DomainKeys("example.org", (broken,)))
        assert isinstance(found, KeyringFault)
        assert "r1" in found.text
        assert "PRIVATE" not in found.text
