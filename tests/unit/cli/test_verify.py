"""`postroad verify`: what it prints, and with which code it ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from postroad.cli.verify import verify
from tests.unit.trust.dkim_parts import MESSAGE

CONFIG = """\
hostname = "mx.example.net"
state_dir = "state"
[dns]
servers = ["127.0.0.1:1"]
timeout_s = 0.2
total_s = 0.5
"""

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    (tmp_path / "postroad.toml").write_text(CONFIG)
    (tmp_path / "mail").write_bytes(MESSAGE)

    def run(*arguments: str, octets: bytes = b"") -> Result:
        return CliRunner().invoke(verify, ["-c", str(tmp_path / "postroad.toml"), *arguments], input=octets)

    return run


def test_a_message_without_a_signature_fails(run: Run, tmp_path: Path) -> None:
    for ended in (run(str(tmp_path / "mail")), run("-", octets=MESSAGE)):
        assert ended.exit_code == 1, ended.output
        assert "The first thing that is wrong: The message has no DKIM signature." in ended.stdout
        assert "SPF    unknown" in ended.stdout


def test_json(run: Run) -> None:
    found = json.loads(run("-", "--json", "--outgoing", octets=MESSAGE).stdout)
    assert [each["method"] for each in found["checks"]] == ["spf", "dkim", "arc", "dmarc"]
    assert found["first_wrong"].startswith("The message has no DKIM signature")
    assert len(found["demands"]) == 8


@pytest.mark.parametrize(
    ("arguments", "octets", "text"),
    [
        (("-",), b"", "standard input: it is empty"),
        (("-",), b"\0\0\0", "no message"),
        (("/does/not/exist",), b"", "/does/not/exist cannot be read: No such file"),
        (("/",), b"", "/ cannot be read: Is a directory"),
        (("-", "--client", "mx.example"), MESSAGE, "not an IP address"),
        (("-", "--from", "nobody"), MESSAGE, "not a mail address"),
    ],
)
def test_wrong_use(run: Run, arguments: tuple[str, ...], octets: bytes, text: str) -> None:
    ended = run(*arguments, octets=octets)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert text in ended.stderr


def test_what_strangers_write_does_not_reach_the_terminal_raw(run: Run) -> None:
    octets = b"Received: from \x1b[31mred ([192.0.2.1])\r\n" + MESSAGE
    assert "\x1b" not in run("-", octets=octets).stdout
