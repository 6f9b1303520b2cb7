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
