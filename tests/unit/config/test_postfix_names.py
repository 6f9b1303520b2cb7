"""Advice for parameters of Postfix in the configuration."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from postroad.config import opendkim_names, postfix_names, schema
from postroad.config.load import parse
from postroad.config.settings import Settings

HEAD = 'hostname = "mail.example.org"\nstate_dir = "state"\n'


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("mynetworks", 'trusted_networks of a [[listener]] with role = "relay"'),
        ("relayhost", 'a [[next_hop]] with domain = "*" and host'),
        ("mydestination", "a [[domain]] for each domain"),
        ("message_size_limit", "size_max under [limits]"),
    ],
)
def test_a_parameter_of_postfix_is_answered_with_ours(tmp_path: Path, name: str, ours: str) -> None:
    found = parse(f'{HEAD}{name} = "x"\n', tmp_path / "postroad.toml")
    assert isinstance(found, list)
    assert [(each.key, each.remedy) for each in found if each.key == name] == [
        (name, f"This is a setting of Postfix. In Postroad it is {ours}")
    ]


def test_a_parameter_that_needs_no_setting_here() -> None:
    advice = "This is a setting of Postfix. Remove it: Postroad does not notify users of new mail"
    assert postfix_names.ours("biff") == advice
    assert postfix_names.ours("hostnam") == ""


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("smtpd_milters", "Postroad has no milters. In the place of opendkim and opendmarc stand dkim and dmarc"),
        ("smtpd_client_restrictions", "Postroad has no lists of restrictions: the role of a [[listener]]"),
    ],
)
def test_a_parameter_for_which_there_is_nothing_says_so(tmp_path: Path, name: str, advice: str) -> None:
    found = parse(f'{HEAD}{name} = "x"\n', tmp_path / "postroad.toml")
    assert isinstance(found, list)
    assert next(each.remedy for each in found).startswith(f"This is a setting of Postfix. {advice}")


def test_parameters_of_tables_of_postfix(tmp_path: Path) -> None:
    text = f'{HEAD}[[map]]\nname = "v"\nkind = "mysql"\nhosts = "db"\npassword = "x"\n[dns]\nhosts = "x"\n'
    found = parse(text, tmp_path / "postroad.toml", files=False)
    assert isinstance(found, list)
    remedies = {each.key: each.remedy for each in found}
    assert remedies["map[1].hosts"].endswith("In Postroad it is a part of url: mysql://user@host:port/database")
    assert "it is password_file" in remedies["map[1].password"]
    assert "table of Postfix" not in remedies["dns.hosts"]


def test_each_name_of_ours_is_a_setting_that_there_is() -> None:
    tables = {table.header: {key.name for key in table.keys} for table in schema.tables(Settings)}
    for name, ours in postfix_names.named():
        headers = re.findall(r"\[+[\w.]+\]+", ours)
        assert set(headers) <= set(tables), name
        if ours.startswith(("a [[", "the ")):
            continue
        keys = re.findall(r"[a-z][a-z0-9_]+(?: = \S+)?(?=,| and| or| under| of|$)", ours)
        within = set().union(*(tables[header] for header in headers or [""]))
        assert keys and {key.split(" = ")[0] for key in keys} - {"or"} <= within, (name, keys)


@pytest.mark.parametrize(("kind", "ours"), [("hash", 'kind = "text"'), ("unix", 'kind = "users"'), ("proxy", "behind")])
def test_a_type_of_tables_of_postfix_is_answered_with_our_kind(tmp_path: Path, kind: str, ours: str) -> None:
    text = f'hostname = "mail.example.org"\nstate_dir = "state"\n[[map]]\nname = "v"\nkind = "{kind}"\n'
    found = parse(text, tmp_path / "postroad.toml", files=False)
    assert isinstance(found, list)
    assert ours in str(found[0])


def test_a_setting_of_opendkim_is_answered_with_ours(tmp_path: Path) -> None:
    keys = {key.name for table in schema.tables(Settings) for key in table.keys}
    for name, ours in opendkim_names.named():
        assert set(re.findall(r"[a-z]+_[a-z_]+", ours)) <= keys, name
        text = f'hostname = "mail.example.org"\nstate_dir = "state"\n[dkim]\n{name} = "x"\n'
        found = parse(text, tmp_path / "postroad.toml", files=False)
        assert isinstance(found, list)
        assert f"This is a setting of OpenDKIM. In Postroad it is {ours}." in str(found[0])
