"""The reference and the example say what the settings say."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
import trustme

from postroad.accounts.accounts import hash_password
from postroad.config import document, schema
from postroad.config.load import load, parse
from postroad.config.schema import Key, Table
from postroad.config.settings import Settings

ROOT = Path(__file__).parents[3]
TABLES = list(schema.tables(Settings))
KEYS = [(table, key) for table in TABLES for key in table.keys]
NAMES = [f"{table.header} {key.name}" for table, key in KEYS]


def test_the_reference_in_the_documentation_is_current() -> None:
    assert (ROOT / "docs/configuration.md").read_text("utf-8") == document.reference(), "run `make docs`"


def test_the_example_in_the_repository_is_current() -> None:
    assert (ROOT / "examples/postroad.toml").read_text("utf-8") == document.example(), "run `make docs`"


def test_the_example_is_valid_with_the_files_that_it_names(tmp_path: Path) -> None:
    (tmp_path / "postroad.toml").write_text(document.example())
    (tmp_path / "tls").mkdir()
    issued = trustme.CA().issue_cert("mail.example.org")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "tls/mail.pem")
    issued.private_key_pem.write_to_path(tmp_path / "tls/mail.key")
    (tmp_path / "users").write_text(f"alice@example.org:{hash_password('secret')}:\n")
    found = load(tmp_path / "postroad.toml")
    assert isinstance(found, Settings), [str(problem) for problem in found]
    assert [listener.name for listener in found.listener] == ["mx", "submission", "submissions"]


def test_every_commented_setting_of_the_example_may_be_taken_in_as_it_stands(tmp_path: Path) -> None:
    whole = re.sub(r"^#(?=[a-z\[])", "", document.example(), flags=re.MULTILINE)
    tomllib.loads(whole)
    found = parse(whole, tmp_path / "postroad.toml", files=False)
    # Taken in all at once they contradict each other (a listener of each role, a delivery of each kind), but no key is
    # unknown, no value of a wrong type or out of its bounds.
    wrong = [str(each) for each in found if re.search("no setting|wrong type|too|is not|none of its", each.text)]
    assert wrong == []


@pytest.mark.parametrize(("table", "key"), KEYS, ids=NAMES)
def test_every_setting_is_explained_in_reference_and_example(table: Table, key: Key) -> None:
    title = f"## `{table.header}`" if table.header else "## Before the first table"
    section = document.reference().split(f"{title}\n", 1)[1].split("\n## ", 1)[0]
    assert f"- **`{key.name}`** (" in section
    assert re.search(rf"^#?{key.name} = .+$", document.example(), flags=re.MULTILINE)
    assert len(key.description) > 5
    assert key.description.rstrip(')`"').endswith("."), key.description
    assert key.required or key.default or key.example, "an unset key needs an example"
    assert key.unit or key.many or key.kind != "number" or key.default.count("."), "a number needs a unit"


@pytest.mark.parametrize("table", TABLES, ids=[table.header or "top" for table in TABLES])
def test_every_table_is_explained(table: Table) -> None:
    assert table.description.endswith(".")


def test_the_records_for_programs_hold_every_setting() -> None:
    records = json.loads(json.dumps(document.records()))
    assert [(each["table"], each["key"]) for each in records] == [(".".join(t.path), k.name) for t, k in KEYS]


def test_passwords_are_not_printed(tmp_path: Path) -> None:
    text = (
        'hostname = "a.example"\nstate_dir = "s"\n[[next_hop]]\ndomain = "*"\nhost = "b.example"\n'
        'tls = "verify"\nusername = "u"\npassword = "geheim"\n'
    )
    found = parse(text, tmp_path / "postroad.toml", files=False)
    assert isinstance(found, Settings)
    assert "geheim" not in repr(found)
    assert "geheim" not in json.dumps(document.in_force(found))
    assert document.in_force(found)["next_hop"][0]["password"] == "(hidden)"
