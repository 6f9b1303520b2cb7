"""KeyTable and SigningTable of OpenDKIM."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from postroad.trust.dkim_sign import PrivateKeyFault, parse_key_data
from postroad.trust.opendkim_tables import (
    KeyRow,
    KeyTable,
    SigningTable,
    SignRow,
    TableFault,
    dangling,
    parse_key_table,
    parse_signing_table,
    source_of,
)
from tests.unit.trust.dkim_parts import ed25519, pem, rsa


def keys(text: str, *, patterns: bool = False) -> KeyTable:
    found = parse_key_table(text, patterns=patterns)
    assert isinstance(found, KeyTable), found
    return found


def signers(text: str, *, patterns: bool = False) -> SigningTable:
    found = parse_signing_table(text, patterns=patterns)
    assert isinstance(found, SigningTable), found
    return found


def named(table: SigningTable, address: str) -> list[str]:
    local_part, _, domain = address.rpartition("@")
    return [row.name for row in table.matches(local_part, domain)]


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("/etc/opendkim/key.table", ("/etc/opendkim/key.table", False)),
        ("file:/a", ("/a", False)),
        ("refile:/a", ("/a", True)),
        ("table", ("table", False)),
        ("refile:", "there is no path behind it"),
        ("", "there is no path"),
        ("mysql://host", "only files can be read (a path, file: or refile:)"),
        ("csl:a,b", "only files can be read (a path, file: or refile:)"),
    ],
)
def test_how_a_table_is_named(written: str, found: tuple[str, bool] | str) -> None:
    assert source_of(written) == found


def test_a_key_table() -> None:
    table = keys(
        "# keys of all domains\n\n"
        "one._domainkey.example.org   example.org:one:/etc/keys/one.private # the first\n"
        "any\t%:mail:./%/mail.private\r\n"
        "inline example.net:x:MC4CAQ==\n"
    )
    assert table.find("ONE._domainkey.Example.org") == KeyRow(
        "one._domainkey.example.org", "example.org", "one", "/etc/keys/one.private", line=3
    )
    assert table.find("any") == KeyRow("any", "%", "mail", "./%/mail.private", line=4)
    assert table.find("inline") == KeyRow("inline", "example.net", "x", data="MC4CAQ==", line=5)
    assert "MC4" not in repr(table.find("inline"))
    assert table.find("none") is None


def test_a_key_table_with_patterns() -> None:
    table = keys("*.example.org example.org:a:/a\nb.example.org example.org:b:/b\n", patterns=True)
    assert [table.find(name).selector for name in ("x.example.org", "b.example.org")] == ["a", "b"]  # type: ignore[union-attr]
    assert table.find("example.org") is None


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("name", "there is no key behind the name 'name'"),
        ("name example.org", "the key 'name' is not written as DOMAIN:SELECTOR:KEY"),
        ("name example.org:s:", "the key 'name' is not written as DOMAIN:SELECTOR:KEY"),
        ("name exa mple.org:s:/k", "'exa mple.org' is no domain name, and not %"),
        ("name example.org:-:/k", "'-' is no selector"),
        ("name example.org:%:/k", "'%' is no selector"),
    ],
)
def test_a_key_table_that_is_wrong(line: str, text: str) -> None:
    assert parse_key_table(f"# x\n{line}\n", patterns=False) == (TableFault(2, text),)


def test_a_signing_table_goes_from_the_exact_to_the_general() -> None:
    table = signers(
        "* all\nada@* ada\n.org top\n.example.org below\nada@.example.org ada-below\nexample.org domain\n"
        "Ada@Example.ORG exact:%@signs\n"
    )
    assert named(table, "ada@example.org") == ["exact", "domain", "top", "ada", "all"]
    assert named(table, "ADA@sub.example.org") == ["ada-below", "below", "top", "ada", "all"]
    assert named(table, "bob@sub.sub.example.org") == ["below", "top", "all"]
    assert named(table, "bob@example.net") == ["all"]
    assert next(table.matches("ada", "example.org")) == SignRow("Ada@Example.ORG", "exact", "%@signs", 7)


def test_a_signing_table_with_patterns_goes_from_the_top() -> None:
    table = signers("*@example.org one\n*@*.example.org two\nbob@* three\na.c@example.net four\n", patterns=True)
    assert named(table, "bob@example.org") == ["one", "three"]
    assert named(table, "bob@SUB.example.org") == ["two", "three"]
    assert named(table, "abc@example.net") == []  # a dot is a dot
    assert named(table, "A.C@example.net") == ["four"]


def test_many_stars_take_no_time() -> None:
    table = signers("*a" * 200 + "*b name\n", patterns=True)
    assert named(table, "a" * 300 + "@example.org") == []


@pytest.mark.parametrize("line", ["*@example.org", "*@example.org  # nothing", "*@example.org :x"])
def test_a_signing_table_that_is_wrong(line: str) -> None:
    assert parse_signing_table(line, patterns=True) == (
        TableFault(1, "there is no name of a key behind '*@example.org'"),
    )


def test_names_that_lead_nowhere() -> None:
    found = dangling(keys("a example.org:s:/k\n"), signers("* A\n* b\n* %\n", patterns=True))
    assert found == (TableFault(2, "the key 'b' is not in the key table"),)


def test_keys_in_a_line() -> None:
    der = {kind: key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
           for kind, key in ((RSAPrivateKey, rsa()), (Ed25519PrivateKey, ed25519()))}  # fmt: skip
    for kind, octets in der.items():
        assert isinstance(parse_key_data(base64.b64encode(octets).decode()), kind)
    for written in (pem(rsa()).decode().replace("\n", ""), pem(rsa()).decode().replace("\n", "\\n")):
        assert isinstance(parse_key_data(written), RSAPrivateKey)
    old = rsa().private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()
    assert isinstance(parse_key_data(old.replace("\n", "")), RSAPrivateKey)
    for nonsense in ("x", "", "MC4CAQ==", "ä"):
        assert isinstance(parse_key_data(nonsense), PrivateKeyFault)
