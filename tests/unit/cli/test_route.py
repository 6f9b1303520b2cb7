"""`postroad route`: the next hop for a sender or an account."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from postroad.cli.route import route

CONFIG = """\
hostname = "mail.example.org"
state_dir = "state"
[dns]
servers = ["127.0.0.1:1"]
[[next_hop]]
domain = "*"
host = "192.0.2.1"
[[next_hop]]
senders = ["alpha.example"]
host = "192.0.2.2"
[[next_hop]]
senders = ["<>"]
host = "192.0.2.3"
[[next_hop]]
accounts = ["ada"]
host = "192.0.2.4"
[[next_hop]]
recipients = ["desk@far.example"]
host = "192.0.2.5"
"""


def test_the_way_depends_on_sender_account_and_recipient(tmp_path: Path) -> None:
    file = tmp_path / "postroad.toml"
    file.write_text(CONFIG)

    def way(*arguments: str) -> Any:
        ended = CliRunner().invoke(route, [*arguments, "-c", str(file), "--json"])
        return json.loads(ended.stdout)[0]

    for arguments, host in (
        ((), "192.0.2.1"),
        (("--from", "x@alpha.example"), "192.0.2.2"),
        (("--from", "x@beta.example"), "192.0.2.1"),
        (("--from", "<>"), "192.0.2.3"),
        (("--from", "x@alpha.example", "--account", "ada"), "192.0.2.4"),
    ):
        assert way("a@far.example", *arguments)["destination"] == f"[{host}]:25", arguments
    assert way("desk+q@far.example", "--from", "x@alpha.example")["destination"] == "[192.0.2.5]:25"
    assert "not a mail address" in way("a@far.example", "--from", "x@")["problem"]


REWRITING = """\
[rewrite]
canonical_maps = ["canonical"]
masquerade_domains = ["example.org"]
[[map]]
name = "canonical"
kind = "inline"
entries = ["ada@far.example  lovelace@other.example", "broken@far.example  no address"]
[[map]]
name = "generic"
kind = "inline"
entries = ["@example.org  @example.net"]
[[next_hop]]
domain = "other.example"
host = "192.0.2.9"
generic_maps = "generic"
"""


def test_other_addresses_of_sender_and_recipient(tmp_path: Path) -> None:
    file = tmp_path / "postroad.toml"
    file.write_text(CONFIG + REWRITING)
    ended = CliRunner().invoke(
        route, ["ada+x@far.example", "--from", "bob@host.example.org", "-c", str(file), "--json"]
    )
    (way,) = json.loads(ended.stdout)
    assert way["destination"] == "[192.0.2.9]:25"
    assert way["changes"] == [
        "the sender <bob@host.example.org> became <bob@example.org>",
        "the recipient <ada+x@far.example> became <lovelace+x@other.example>",
        "sent from <bob@example.net>",
    ]
    text = CliRunner().invoke(route, ["ada@far.example", "-c", str(file)]).stdout
    assert "the recipient <ada@far.example> became <lovelace@other.example>\n" in text
    ended = CliRunner().invoke(route, ["broken@far.example", "-c", str(file), "--json"])
    assert ended.exit_code == 1
    assert "not a single address" in json.loads(ended.stdout)[0]["problem"]


ALIASES = """\
aliases = "aliases"
alias_maps = ["virtual"]
postmaster = "ada@a.test"
"""
LOCAL = """\
[alias_targets]
programs = ["aliases"]
[rewrite]
relocated_maps = ["moved"]
[[map]]
name = "virtual"
kind = "inline"
entries = ["sales@a.test team, x@far.example", "gone@a.test moved@far.example", "@b.test @a.test"]
[[map]]
name = "moved"
kind = "inline"
entries = ["moved@far.example new@other.example"]
[[domain]]
name = "a.test"
recipients = ["ada", "bob"]
path = "/var/mail/{local_part}"
[[domain]]
name = "b.test"
deliver = "aliases"
"""


def test_aliases_are_followed(tmp_path: Path) -> None:
    file = tmp_path / "postroad.toml"
    file.write_text(ALIASES + CONFIG + LOCAL)
    (tmp_path / "aliases").write_text('team: ada, bob\nrun: "|/bin/true x", ada\n')

    def way(address: str, code: int = 0) -> Any:
        ended = CliRunner().invoke(route, [address, "-c", str(file), "--json"])
        assert ended.exit_code == code, ended.output
        return json.loads(ended.stdout)[0]

    sales = way("sales@a.test")
    assert sales["steps"] == [
        "sales@a.test leads to team@a.test, x@far.example", "team@a.test leads to ada@a.test, bob@a.test",
    ]  # fmt: skip
    ways = {each["address"]: each["destination"] for each in sales["targets"]}
    assert ways == {
        "ada@a.test": "maildir:a.test", "bob@a.test": "maildir:a.test", "x@far.example": "[192.0.2.1]:25",
    }  # fmt: skip
    assert [each["transport"] for each in way("run+y@a.test")["targets"]] == ["program", "maildir"]
    assert way("sales@b.test")["steps"][0] == "sales@b.test leads to sales@a.test"
    gone = way("gone@a.test", 1)
    assert gone["targets"][0]["problem"] == "User has moved to new@other.example" and "1 of its 1" in gone["problem"]
    assert way("ada@a.test")["steps"] == [] and way("ada@a.test")["destination"] == "maildir:a.test"
    assert "no mailbox and no alias" in way("nobody@a.test")["warnings"][0]
    text = CliRunner().invoke(route, ["sales@a.test", "-c", str(file)]).output
    assert text.startswith("sales@a.test is an alias\nsales@a.test leads to team@a.test, x@far.example\n")
    assert "ada@a.test goes to maildir:a.test (maildir)" in text


def test_an_alias_that_leads_to_nobody(tmp_path: Path) -> None:
    file = tmp_path / "postroad.toml"
    entries = '"round@a.test again", "again@a.test round", "lost@a.test nobody", "ada@a.test ada"'
    file.write_text(ALIASES + CONFIG + LOCAL.replace('"sales@a.test team, x@far.example"', entries))
    (tmp_path / "aliases").write_text("team: ada, bob\n")
    for address, problem in (("round@a.test", "lead in a circle"), ("lost@a.test", "no target of the alias exists")):
        ended = CliRunner().invoke(route, [address, "-c", str(file)])
        assert ended.exit_code == 1 and f"{address} is an alias\n" in ended.output and problem in ended.output
    assert CliRunner().invoke(route, ["ada@a.test", "-c", str(file)]).exit_code == 0


def test_an_alias_file_that_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "postroad.toml"
    file.write_text(ALIASES + CONFIG + LOCAL)
    (tmp_path / "aliases").write_text("team: nobody\n")
    ended = CliRunner().invoke(route, ["team@a.test", "-c", str(file)])
    assert ended.exit_code == 1 and "no such alias" in ended.output


def test_a_report_mailbox(tmp_path: Path) -> None:
    """It exists without being named, and its mail is read first."""
    file = tmp_path / "postroad.toml"
    file.write_text(
        f'hostname = "mx.a.test"\nstate_dir = "state"\naliases = "{tmp_path}/aliases"\n[[domain]]\nname = "a.test"\n'
        'recipients = ["ada"]\npath = "mail/{local_part}"\n[report_mailboxes]\n'
        'addresses = ["dmarc@a.test", "tls@a.test"]\n'
    )
    (tmp_path / "aliases").write_text("tls@a.test: dmarc@a.test, ada@a.test\n")
    found = {}
    for name in ("dmarc@a.test", "tls@a.test"):
        ended = CliRunner().invoke(route, [name, "-c", str(file), "--json"])
        found[name] = json.loads(ended.stdout)[0]
    assert found["dmarc@a.test"]["destination"] == "maildir:a.test/reports" and not found["dmarc@a.test"]["warnings"]
    assert "read and kept first" in found["dmarc@a.test"]["changes"][0]
    assert {each["destination"] for each in found["tls@a.test"]["targets"]} == {"maildir:a.test/reports"}
