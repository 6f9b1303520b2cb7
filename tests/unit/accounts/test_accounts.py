"""The users file: reading, writing, faults, ownership, reload."""

from __future__ import annotations

import os
from pathlib import Path

import argon2
import pytest

from postroad.accounts import accounts
from postroad.accounts.accounts import Account, Accounts, UsersFileFault
from postroad.mail.address import Address
from postroad.protocol.sasl import scram_keys
from postroad.protocol.sasl.step import Hash

# The cheapest parameters, so that tests are quick
HASHER = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
HASH = HASHER.hash("secret", salt=b"0123456789abcdef")  # the same in each process, since tests are named by it

KEYS = scram_keys.derive(Hash.SHA_256, "secret", b"0123456789abcdef", 4096)
WRITTEN = scram_keys.format_keys(KEYS)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (f"ann:{HASH}:ann@local.test", Account("ann", HASH, ("ann@local.test",))),
        (f"ann:{HASH}", Account("ann", HASH)),
        (f"ann:{HASH}:", Account("ann", HASH)),
        (f"a@l.test:{HASH}:*@Bücher.example, *", Account("a@l.test", HASH, ("*@xn--bcher-kva.example", "*"))),
        (f"ann:{HASH}:Ann.Smith@LOCAL.test", Account("ann", HASH, ("ann.smith@local.test",))),
        ("ann::ann@local.test", Account("ann", "", ("ann@local.test",))),
        (f"ann:{HASH}::{WRITTEN}", Account("ann", HASH, (), (KEYS,))),
        (f"ann:{HASH}:*: {WRITTEN} ", Account("ann", HASH, ("*",), (KEYS,))),
    ],
)  # fmt: skip
def test_lines(line: str, expected: Account) -> None:
    parsed = accounts.parse_line(line)
    assert parsed == expected
    assert accounts.parse_line(accounts.format_line(expected)) == expected


@pytest.mark.parametrize(
    "line",
    [
        f"ann:{HASH}:a@b.test:more", f"ann:{HASH}:::", f"ann:{HASH}::SCRAM-SHA-256$1$a$b$c",
        "ann", f":{HASH}:", "ann:secret:", "ann:$argon2id$v=19$m=1,t=1,p=1$x$y:",
        f"ann:{HASH}:not an address", f"ann:{HASH}:ann@", f"ann:{HASH}:*@", f"ann:{HASH}:a@b.test,,c@d.test",
        f"a\x07nn:{HASH}", f"ann:{HASH.replace('m=8', 'm=9999999')}", f"{'n' * 256}:{HASH}",
    ],
)  # fmt: skip
def test_faulty_lines(line: str) -> None:
    assert isinstance(accounts.parse_line(line), str)


def test_faults_name_their_lines_all_at_once() -> None:
    text = f"# users\n\nann:{HASH}\nbad\nann:{HASH}\n  bob:{HASH}\n"
    found, faults = accounts.parse(text)
    assert list(found) == ["ann", "bob"]
    assert [fault.line for fault in faults] == [4, 5]


@pytest.mark.parametrize(
    ("addresses", "name", "sender", "expected"),
    [
        (("ann@local.test",), "ann", "ann@local.test", True),
        (("ann@local.test",), "ann", "Ann@local.test", True),
        (("ann@local.test",), "ann", "bob@local.test", False),
        (("*@local.test",), "ann", "bob@local.test", True),
        (("*@local.test",), "ann", "bob@sub.local.test", False),
        (("*",), "ann", "x@y.test", True),
        ((), "ann", "ann@local.test", False),
        ((), "ann@local.test", "ann@local.test", True),
        ((), "ann@local.test", "bob@local.test", False),
        ((), "Ann@Local.Test", "ann@local.test", True),
        (("ann@local.test",), "ann", "ann+news@local.test", True),
        (("ann@local.test",), "ann", "ANN+a+b@local.test", True),
        ((), "ann@local.test", "ann+news@local.test", True),
        (("ann+news@local.test",), "ann", "ann@local.test", False),
        (("ann+news@local.test",), "ann", "ann+news@local.test", True),
        (("ann@local.test",), "ann", "+ann@local.test", False),
        (("ann@local.test",), "ann", "bob+ann@local.test", False),
        (("ann@local.test",), "ann", "ann-news@local.test", False),
    ],
)
def test_ownership(addresses: tuple[str, ...], name: str, sender: str, expected: bool) -> None:
    local_part, _, domain = sender.rpartition("@")
    assert accounts.owns(Account(name, HASH, addresses), Address(local_part, domain)) is expected


def test_passwords() -> None:
    encoded = accounts.hash_password("pässword")
    assert accounts.hash_fault(encoded) == ""
    assert accounts.matches(encoded, "pässword")
    assert not accounts.matches(encoded, "password")
    for bad in ("", "a\nb", "x" * 1025):
        with pytest.raises(ValueError):
            accounts.hash_password(bad)


@pytest.mark.parametrize(
    ("written", "prepared"),
    [
        ("plain", "plain"), ("a\u0308", "ä"), ("a\u2003b", "a b"), ("a\x00b", None), ("\u0378", None), ("a b", "a b"),
    ],
)  # fmt: skip
def test_preparation(written: str, prepared: str | None) -> None:
    assert accounts.prepare(written) == prepared


def test_a_decoy_costs_what_the_accounts_cost_and_matches_nothing() -> None:
    encoded = accounts.decoy({"ann": Account("ann", HASH)})
    assert accounts.hash_fault(encoded) == ""
    assert argon2.extract_parameters(encoded) == argon2.extract_parameters(HASH)
    assert not accounts.matches(encoded, "secret") and not accounts.matches(encoded, "")
    assert accounts.hash_fault(accounts.decoy({})) == ""


def change(path: Path, text: str, moment: int) -> None:
    path.write_text(text)
    os.utime(path, ns=(moment, moment))


def test_the_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "users"
    told: list[tuple[UsersFileFault, ...]] = []
    change(path, f"ann:{HASH}\n", 1)
    known = Accounts(path, told.append)
    assert known.find("ann") is not None and known.hash_of("ann") == HASH != known.hash_of("bob")
    change(path, f"bob:{HASH}:bob@local.test\n", 2)
    known.refresh()
    assert known.find("ann") is None
    assert known.owns("bob", Address("bob", "local.test")) and not known.owns("ann", Address("bob", "local.test"))
    change(path, "rubbish\n", 3)
    known.refresh()
    known.refresh()
    assert known.find("bob") is not None, "a faulty file is not taken"
    assert [[fault.line for fault in faults] for faults in told] == [[1]]
    path.unlink()
    known.refresh()
    known.refresh()
    assert known.find("bob") is not None and len(told) == 2 and told[1][0].line == 0
    change(path, f"carl:{HASH}\n", 4)
    known.refresh()
    assert known.find("carl") is not None


def test_another_delimiter_or_none() -> None:
    account = Account("ann", HASH, ("ann@local.test",))
    assert accounts.owns(account, Address("ann-news", "local.test"), "-")
    assert not accounts.owns(account, Address("ann+news", "local.test"), "-")
    assert not accounts.owns(account, Address("ann+news", "local.test"), "")


def test_one_address_written_twice_is_a_fault() -> None:
    _, faults = accounts.parse(f"Ann@local.test:{HASH}\nann@LOCAL.test:{HASH}\n")
    assert [(fault.line, "also as 'Ann@local.test'" in fault.text) for fault in faults] == [(2, True)]
