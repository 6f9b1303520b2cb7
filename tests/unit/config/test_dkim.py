"""What is said of [dkim] before a node starts: contradictions, files that cannot be used, doubts."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import pytest

from postroad.config.load import parse, warnings
from postroad.config.options import dkim_out_options
from postroad.config.settings import Settings
from postroad.trust import keyring
from postroad.trust.dkim_key import KeyKind
from postroad.trust.key_store import KeyStore
from postroad.trust.keyring import DomainKeys, KeyState
from tests.unit.trust.dkim_parts import ed25519, pem, rsa

HEAD = """\
hostname = "mail.example.org"
state_dir = "state"
user = "root"
postmaster = "ada@example.org"
[[listener]]
name = "mx"
[[domain]]
name = "example.org"
recipients = "any"
path = "mail/{domain}/{local_part}"
"""
KEY = '[[dkim.key]]\ndomain = "{domain}"\nselector = "{selector}"\nfile = "{file}"\n'
OWN = KEY.format(domain="example.org", selector="r", file="r.pem")
TABLES = '[dkim]\nkey_table = "keys"\nsigning_table = "refile:signers"\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, octets in (("r.pem", pem(rsa())), ("e.pem", pem(ed25519())), ("short.pem", pem(rsa(1024)))):
        (tmp_path / name).write_bytes(octets)
        (tmp_path / name).chmod(0o600)
    (tmp_path / "keys").write_text("one example.org:s:./e.pem\n")
    (tmp_path / "signers").write_text("*example.org one\n")
    return tmp_path


def problems(folder: Path, text: str) -> list[str]:
    (folder / "postroad.toml").write_text(HEAD + text)
    found = parse(HEAD + text, folder / "postroad.toml")
    return [str(each).replace(f"{folder}/", "") for each in found] if isinstance(found, list) else []


def doubts(folder: Path, text: str) -> list[str]:
    file = folder / "postroad.toml"
    file.write_text(HEAD + text)
    found = parse(HEAD + text, file)
    assert isinstance(found, Settings), [str(each) for each in found]
    return [str(each).replace(f"{folder}/", "") for each in warnings(file, found, time.time())]


@pytest.mark.parametrize("text", ["", OWN, TABLES, OWN + KEY.format(domain="example.org", selector="e", file="e.pem")])
def test_nothing_is_said_of_what_is_right(folder: Path, text: str) -> None:
    assert problems(folder, text) == []
    assert doubts(folder, text) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[dkim]\nkey_table = "keys"\n', "[dkim] has no signing_table"),
        ('[dkim]\nsigning_table = "signers"\n', "[dkim] has no key_table"),
        ("[dkim]\nall_matches = true\n", "The key all_matches is about a signing_table, and none is set"),
        (OWN + OWN.replace("r.pem", "e.pem"), "Two keys of example.org have the selector r"),
        ('[dkim]\nsigned_fields = ["Received"]\n', "The field Received must not be signed"),
        ('[dkim]\noversigned_fields = ["dkim-signature"]\n', "The field dkim-signature must not be signed"),
        ('[dkim]\nsigned_fields = ["Not a field"]\n', "'Not a field' is not the name of a header field"),
        (
            '[dkim]\norigins = ["strangers"]\n',
            "origins[1]: 'strangers' is not a possible value. Write 'accounts', 'trusted' or 'own'.",
        ),
        (OWN.replace('"r"', '"R._domainkey.example.org"'), 'Write the selector alone: "r".'),
        (OWN.replace('"r"', '"a b"'), "'a b' is not a selector. Write a name such as \"mail2026\"."),
        ('[dkim]\nkey_table = "mysql:x"\nsigning_table = "s"\n', "'mysql:x' is not a table: only files can be read"),
        (OWN.replace("r.pem", "none.pem"), "none.pem: there is no such file"),
        (OWN.replace("r.pem", "keys"), "keys: this is no private key in PEM"),
    ],
)
def test_what_cannot_work(folder: Path, text: str, said: str) -> None:
    (folder / "keys").chmod(0o600)
    (only,) = problems(folder, text)
    assert said in only


def test_a_key_that_all_users_may_read(folder: Path) -> None:
    (folder / "r.pem").chmod(0o644)
    (only,) = problems(folder, OWN)
    assert "r.pem: all users may read or write this private key. Run `chmod o-rw " in only


@pytest.mark.parametrize(
    ("keys", "signers", "said"),
    [
        ("one\n", "* one\n", "keys:1: dkim.key_table"),
        ("one example.org:s:./e.pem\n", "\n*@x\n", "signers:2: dkim.signing_table"),
        ("one example.org:s:./e.pem\n", "* two\n", "The key 'two' is not in the key table"),
    ],
)
def test_tables_that_are_wrong(folder: Path, keys: str, signers: str, said: str) -> None:
    (folder / "keys").write_text(keys)
    (folder / "signers").write_text(signers)
    (only,) = problems(folder, TABLES)
    assert said.lower() in only.lower(), only


def test_doubts_about_keys(folder: Path) -> None:
    short = OWN.replace("r.pem", "short.pem")
    (only,) = doubts(folder, short)
    assert "The key of example.org has 1024 bits" in only
    (folder / "e.pem").unlink()
    found = "\n".join(doubts(folder, TABLES))
    assert "mail that it should sign goes without this signature" in found
    assert "Mail from example.org is not signed" in found
    (folder / "keys").write_text("one example.org:s:./short.pem\n")
    assert "The key one has 1024 bits" in doubts(folder, TABLES)[0]


def test_domains_without_a_key(folder: Path) -> None:
    other = KEY.format(domain="example.net", selector="r", file="r.pem")
    found = "\n".join(doubts(folder, other))
    assert "Mail from example.org is not signed: there is no key for example.org" in found
    assert "Reports of the node, which come from mail.example.org, are not signed" in found
    assert doubts(folder, other + '[[dkim.sign_as]]\nauthors = "*"\ndomain = "example.net"\n') == []
    (only,) = doubts(folder, OWN + '[[dkim.sign_as]]\nauthors = "*"\ndomain = "example.net"\n')
    assert "cannot sign: example.net has no key that signs" in only
    (only,) = doubts(folder, '[[dkim.sign_as]]\nauthors = "*"\ndomain = "example.net"\n')
    assert "cannot sign: example.net has no key that signs" in only  # also if nothing else can be signed


def test_a_star_in_a_plain_signing_table(folder: Path) -> None:
    plain = TABLES.replace("refile:", "file:")
    (only,) = [each for each in doubts(folder, plain) if "fits no author" in each]
    assert only.startswith("signers:1: dkim.signing_table: *example.org fits no author")
    assert 'Write signing_table = "refile:' in only
    (folder / "signers").write_text("* one\nada@* one\nexample.org one\n")
    assert not any("fits no author" in each for each in doubts(folder, plain))


def test_sealing_that_cannot_work(folder: Path) -> None:
    seals = '[dkim]\narc_seal = "example.org"\n'
    assert doubts(folder, seals + OWN) == []
    assert "Nothing is sealed: there is no key for example.org" in doubts(folder, seals)[0]
    off = HEAD.replace('name = "mx"\n', 'name = "mx"\narc = "off"\n')
    (folder / "postroad.toml").write_text(off + seals + OWN)
    found = parse(off + seals + OWN, folder / "postroad.toml")
    assert isinstance(found, Settings)
    said = "\n".join(map(str, warnings(folder / "postroad.toml", found, time.time())))
    assert "Nothing is sealed: no listener checks ARC" in said


def test_keys_of_the_store_count(folder: Path) -> None:
    made = keyring.made("s", keyring.generate(KeyKind.ED25519, 0), 1)
    (folder / "state").mkdir()
    store = KeyStore(folder / "state" / "dkim", lambda: 1)
    with store.changing():
        store.write(DomainKeys("example.net", (msgspec.structs.replace(made, state=KeyState.SIGNING),)))
    assert len(doubts(folder, "")) == 2
    assert doubts(folder, "[dkim]\nsign = false\n") == []
    (folder / "state" / "dkim" / "example.net.json").chmod(0o644)
    assert "other users may read or write it" in doubts(folder, "")[0]


def test_keys_that_wait_for_their_records(folder: Path) -> None:
    """Not "there is no key": another one would not help."""
    (folder / "state").mkdir()
    store = KeyStore(folder / "state" / "dkim", lambda: 1)
    waiting = tuple(keyring.made(name, keyring.generate(KeyKind.ED25519, 0), 1) for name in ("s1", "s2"))
    with store.changing():
        store.write(DomainKeys("example.org", waiting))
    why = "the keys of example.org (s1, s2) wait until the node has seen their records in the DNS"
    text = '[dkim]\narc_seal = "example.org"\n[feedback]\norganization = "E"\ncontact = "r@example.org"\n'
    text += '[[dkim.sign_as]]\nauthors = "example.edu"\ndomain = "example.org"\n'
    found = doubts(folder, text)
    for what in ("Nothing is sealed", "Mail from example.org", "from mail.example.org", "cannot sign", "TLS reports"):
        (only,) = [each for each in found if what in each]
        assert f"{why}. Publish these records (`postroad dns show` prints them)" in only
    assert len(found) == 5


def test_all_settings_reach_the_options(folder: Path) -> None:
    text = (
        '[dkim]\norigins = ["own"]\nlifetime_s = "5d"\nkey_trouble = "wait"\nheader_canonicalization = "simple"\n'
        'signed_fields = []\noversigned_fields = ["From"]\n'
    )
    found = parse(HEAD + text + OWN, folder / "postroad.toml")
    assert isinstance(found, Settings)
    options = dkim_out_options(found)
    assert (options.fields.lifetime_s, options.fields.signed, options.fields.oversigned) == (432_000, (), ("From",))
    assert [each.value for each in options.origins] == ["own"]
    assert options.keys[0].file == str(folder / "r.pem")


def test_tls_reports_without_a_signature(folder: Path) -> None:
    """RFC 8460 §3."""
    wanted = '[feedback]\norganization = "Example"\ncontact = "reports@other.example"\n'
    signed = KEY.format(domain="other.example", selector="o", file="r.pem")
    for text, unsigned in (
        (wanted, True), (wanted + OWN, True), (wanted + OWN + signed, False), (wanted + "tls = false\n" + OWN, False),
        (wanted + signed + "[dkim]\nsign = false\n", True), (OWN, False),
    ):  # fmt: skip
        found = [each for each in doubts(folder, text) if "TLS reports" in each]
        assert bool(found) is unsigned, text
