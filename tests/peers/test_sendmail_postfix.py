"""The same command lines for Postfix's sendmail and ours: same exit code, envelope, fields and body.

Both nodes send everything to one remote, and call themselves by the same name.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.peers.harness import need
from tests.peers.harness.postfix import Postfix
from tests.peers.harness.postroad import Node, next_hop
from tests.peers.harness.process import folder, until
from tests.peers.harness.remote import Remote
from tests.peers.harness.sendmail import Ended, Sendmail

HOST = "host.test"
# Fields whose values each node makes by itself.
MADE = ("received", "date", "message-id", "resent-date", "resent-message-id")
PLAIN = "Subject: {}\nFrom: me@host.test\n\nbody\n"


@dataclass
class Site:
    postfix: Postfix
    node: Node
    sendmail: Sendmail
    remote: Remote

    def run_postfix(self, arguments: list[str], message: bytes) -> Ended:
        command = [need.program("sendmail"), "-C", str(self.postfix.directory / "etc"), *arguments]
        return subprocess.run(command, input=message, capture_output=True, check=False, timeout=60)


@dataclass(frozen=True)
class Came:
    """What the remote got of one message."""

    mail: frozenset[str]
    rcpt: tuple[str, ...]
    fields: tuple[str, ...]
    body: bytes


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    need.root()
    with folder("smp") as home, Remote() as remote:
        sendmail = Sendmail(home)
        postfix = Postfix(home / "p", hostname=HOST, settings={"relayhost": f"[127.0.0.1]:{remote.port}"})
        settings = {
            "hostname": HOST, "next_hop": [next_hop("*", remote.port)], "sendmail": {"folder": str(sendmail.folder)},
        }
        with postfix, Node(home / "n", settings) as node:
            yield Site(postfix, node, sendmail, remote)


def _came(site: Site, subject: str, count: int) -> Came:
    """Once `count` recipients have their message."""

    def found() -> Came | None:
        mine = [each for each in site.remote.transactions if f"Subject: {subject}\r\n".encode() in each.content]
        rcpt = tuple(sorted(_address(argument) for each in mine for argument in each.rcpt))
        if len(rcpt) < count:
            return None
        head, _, body = mine[0].content.partition(b"\r\n\r\n")
        lines = re.sub(r"\r\n[ \t]+", " ", head.decode("utf-8", "replace")).split("\r\n")
        fields = tuple(sorted(_field(line) for line in lines if not line.startswith("Subject:")))
        if any(field.startswith("Resent-") for field in fields):  # Postfix adds no Date then; ours must be there
            fields = tuple(field for field in fields if field not in ("date", "message-id"))
        return Came(frozenset(_parameters(each.mail) for each in mine), rcpt, fields, body)

    came = until(found, f"{count} recipients of {subject}")
    assert isinstance(came, Came)
    return came


def _field(line: str) -> str:
    name, _, value = line.partition(":")
    return name.lower() if name.lower() in MADE else f"{name}:{' '.join(value.split())}"


def _address(argument: str) -> str:
    """A recipient with what was asked of DSN."""
    return re.sub(r" ORCPT=\S+", "", argument.removeprefix("TO:"))


def _parameters(argument: str) -> str:
    """Without what depends on the content alone."""
    words = re.sub(r" (SIZE=\d+|SMTPUTF8|BODY=\w+)", "", argument.removeprefix("FROM:")).split()
    return " ".join(sorted(words))


# With a wrong command line Postfix ends with 75, so that callers try it again and again; we end with 64 (EX_USAGE).
USAGE = {75: 64}

# Name: arguments, message with {} for the subject, Postfix's exit code, recipients.
CASES: dict[str, tuple[list[str], str, int, int]] = {
    "plain": (["-i", "-f", "e@x.test", "a@b.test"], PLAIN, 0, 1),
    "no-sender": (["a@b.test"], PLAIN, 0, 1),
    "null-sender": (["-f", "<>", "a@b.test"], PLAIN, 0, 1),
    "null-sender-empty": (["-f", "", "a@b.test"], PLAIN, 0, 1),
    "sender-without-domain": (["-f", "web", "a@b.test"], PLAIN, 0, 1),
    "recipient-without-domain": (["root"], PLAIN, 0, 1),
    "angle": (["<a@b.test>"], PLAIN, 0, 1),
    "list-in-one-argument": (["a@b.test, c@d.test,e@f.test"], PLAIN, 0, 3),
    "name-in-an-argument": (["Ann Example <a@b.test>", '"x, y" <c@d.test> (work)'], PLAIN, 0, 2),
    "name-in-the-sender": (["-f", "Ann Example <e@x.test>", "a@b.test"], PLAIN, 0, 1),
    "several": (["a@b.test", "c@d.test", "a@b.test"], PLAIN, 0, 2),
    "dashes": (["-oem", "-oi", "-f", "e@x.test", "--", "a@b.test"], PLAIN, 0, 1),
    "cron": (["-FCronDaemon", "-i", "-B8BITMIME", "-oem", "root"],
             "From: root (Cron Daemon)\nTo: root\nSubject: {}\n\nx\n", 0, 1),
    "full-name": (["-F", "Ann Example", "a@b.test"], "Subject: {}\n\nx\n", 0, 1),
    "t": (["-t"], "To: a@b.test,\n c@d.test (comment, x)\nCc: \"x, y\" <e@f.test>\nBcc: g@h.test\n" + PLAIN, 0, 4),
    "t-and-arguments": (["-t", "z@b.test"], "To: a@b.test\n" + PLAIN, 0, 2),
    "t-group": (["-t"], "To: friends: a@b.test, c@d.test;, e@f.test\n" + PLAIN, 0, 3),
    "t-encoded": (["-t"], "To: =?utf-8?q?J=C3=BCrgen?= <a@b.test>\n" + PLAIN, 0, 1),
    "t-without-domain": (["-t"], "To: root, Ann <ann>\n" + PLAIN, 0, 2),
    "t-resent": (["-t"], "To: a@b.test\nResent-To: c@d.test\nResent-Bcc: e@f.test\nResent-From: me@host.test\n" + PLAIN,
                 0, 2),
    "t-nobody": (["-t"], PLAIN, 75, 0),
    "nobody": ([], PLAIN, 75, 0),
    "bcc-without-t": (["a@b.test"], "To: a@b.test\nBcc: c@d.test\n" + PLAIN, 0, 1),
    "return-path": (["a@b.test"], "Return-Path: <x@y.test>\nContent-Length: 3\n" + PLAIN, 0, 1),
    "dot-ends": (["a@b.test"], PLAIN + ".\nnot here\n", 0, 1),
    "dot-stays": (["-i", "a@b.test"], PLAIN + ".\nhere\n", 0, 1),
    "dot-stays-oi": (["-oi", "a@b.test"], PLAIN + ".\nhere\n", 0, 1),
    "dots": (["a@b.test"], PLAIN + "..\n.x\n", 0, 1),
    "crlf": (["a@b.test"], PLAIN.replace("\n", "\r\n"), 0, 1),
    "no-header": (["a@b.test"], "Subject: {}\nno field\nmore\n", 0, 1),
    "mbox": (["a@b.test"], "From me Mon Dec  1 03:00:00 2026\n" + PLAIN, 0, 1),
    "notify": (["-N", "failure,delay", "-R", "hdrs", "-V", "id-7", "a@b.test"], PLAIN, 0, 1),
    "never": (["-N", "never", "a@b.test"], PLAIN, 0, 1),
    "old-options": (["-Am", "-h", "3", "-L", "tag", "-m", "-o7", "-U", "-x", "-p", "x", "a@b.test"],
                    PLAIN, 0, 1),
    "unknown-mode": (["-bx", "a@b.test"], PLAIN, 75, 0),
    "f-without-value": (["-f"], PLAIN, 75, 0),
    "extension": (["-f", "list+x@d.test", "a+b@c.test"], PLAIN, 0, 1),
    "eight-bit": (["-B", "8BITMIME", "a@b.test"], PLAIN + "Grüße\n", 0, 1),
    "quoted": (['"a b"@c.test'], PLAIN, 0, 1),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_same_command_line_does_the_same(site: Site, name: str) -> None:
    arguments, text, code, count = CASES[name]
    theirs = site.run_postfix(arguments, text.replace("{}", f"theirs-{name}").encode())
    ours = site.sendmail(*arguments, message=text.replace("{}", f"ours-{name}").encode())
    expected = USAGE.get(code, code) if "-t" not in arguments else code
    assert (theirs.returncode, ours.returncode) == (code, expected), (theirs.stderr, ours.stderr)
    if count:
        assert _came(site, f"ours-{name}", count) == _came(site, f"theirs-{name}", count)
