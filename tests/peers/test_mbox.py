"""Mail in mbox files, beside Debian's own programs: who reads them, who else delivers, who holds the locks."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import smtplib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers.harness import need
from tests.peers.harness.dovecot import Dovecot
from tests.peers.harness.postroad import Node
from tests.peers.harness.process import own_to, until

DOMAIN = "example.test"
BODY = b"From the top\r\n\r\nFrom the middle\r\n>From quoted\r\nthe end\r\n"


@pytest.fixture(scope="module")
def node(place: Path) -> Iterator[Node]:
    spool = place / "spool"
    spool.mkdir()
    spool.chmod(0o755)
    domain = {"name": DOMAIN, "recipients": "any", "deliver": "mbox", "path": str(spool / "{local_part}")}
    with Node(place / "node", {"domain": [domain], "mbox": {"lock_s": 2}}) as made:
        yield made


def box(node: Node, name: str) -> Path:
    return node.directory.parent / "spool" / name


def send(node: Node, name: str, *subjects: str, body: bytes = BODY) -> None:
    with smtplib.SMTP("127.0.0.1", node.port, timeout=20) as client:
        for subject in subjects:
            fields = f"From: a@b.test\r\nStatus: RO\r\nX-Status: D\r\nSubject: {subject}\r\n\r\n".encode()
            client.sendmail("a@b.test", [f"{name}@{DOMAIN}"], fields + body)


def wait(node: Node, name: str, *subjects: str) -> bytes:
    file = box(node, name)
    until(
        lambda: file.exists() and all(f"\nSubject: {each}\n".encode() in file.read_bytes() for each in subjects),
        f"{subjects} in {file}",
    )
    until(lambda: not file.with_name(f"{name}.lock").exists(), "the lock is gone")
    return file.read_bytes()


def run(*command: str, text: bytes = b"") -> bytes:
    ended = subprocess.run(command, input=text, capture_output=True, check=False, timeout=60)
    assert ended.returncode == 0, f"{command}: {ended}"
    return ended.stdout


def on_a_terminal(*command: str) -> None:
    """Runs a program that wants a screen."""
    ours, theirs = pty.openpty()
    environment = {"PATH": os.environ["PATH"], "TERM": "vt100", "HOME": "/nonexistent"}
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as program:
        os.close(theirs)
        shown = b""
        end = time.monotonic() + 60
        while program.poll() is None and time.monotonic() < end:
            if select.select([ours], [], [], 0.1)[0]:
                with contextlib.suppress(OSError):  # it has ended
                    shown += os.read(ours, 65_536)
        program.kill()
    os.close(ours)
    assert program.returncode == 0, shown


def test_s_nail_lists_them(node: Node) -> None:
    need.program("s-nail")
    send(node, "nail", "one", "two")
    wait(node, "nail", "one", "two")
    listed = run("s-nail", "-n", "-H", "-f", str(box(node, "nail"))).decode()
    assert re.findall(r"N +\d a@b.test .* (\w+) *\n", listed) == ["one", "two"], listed


def test_mutt_counts_and_removes_them(node: Node) -> None:
    """mutt reads two messages that nobody has read, deletes one under its locks, and the next one comes behind."""
    need.program("mutt")
    send(node, "mutt", "one", "two")
    wait(node, "mutt", "one", "two")
    keys = "<delete-message><sync-mailbox><exit>"
    commands = ["set delete=yes", "set move=no", f"set folder={node.directory}", f"push '{keys}'"]
    on_a_terminal("mutt", "-n", "-F", "/dev/null", *(part for each in commands for part in ("-e", each)),
                  "-f", str(box(node, "mutt")))
    octets = box(node, "mutt").read_bytes()
    assert b"\nSubject: one\n" not in octets and b"\nSubject: two\n" in octets
    send(node, "mutt", "three")
    octets = wait(node, "mutt", "two", "three")
    assert len(re.findall(rb"(?m)^From ", octets)) == 2


def test_procmail_writes_the_same(node: Node, tmp_path: Path) -> None:
    """The same message, delivered by procmail: line by line the same, but for the time and the fields on top."""
    procmail = need.program("procmail")
    send(node, "proc", "one")
    ours = wait(node, "proc", "one")
    rules = tmp_path / "rc"
    rules.write_text(f":0:\n{tmp_path}/box\n")
    message = re.sub(rb"^From .*\n", b"", ours).replace(b"\n>From ", b"\nFrom ")
    run(procmail, "-m", "-f", "a@b.test", str(rules), text=message)
    theirs = (tmp_path / "box").read_bytes()

    def below(octets: bytes) -> bytes:
        return octets.partition(b"\n")[2]

    assert re.match(rb"From a@b.test +\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4}\n", theirs)
    assert re.match(rb"From a@b.test +\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4}\n", ours)
    assert b"\n>From quoted\n" in ours
    assert below(theirs).replace(b">>From quoted", b">From quoted") == below(ours)


def test_procmail_and_we_beside_each_other(node: Node, tmp_path: Path) -> None:
    """Two programs that deliver at the same time, each under both locks: no message is torn."""
    procmail = need.program("procmail")
    rules = tmp_path / "rc"
    rules.write_text(f":0:\n{box(node, 'both')}\n")
    message = "printf 'Subject: p%s\\n\\nfrom procmail\\n' $i"
    loop = f"for i in 1 2 3 4 5 6 7 8 9 10; do {message} | {procmail} -m -f p@b.test {rules}; done"
    theirs = [subprocess.Popen(["sh", "-c", loop]) for _ in range(2)]
    send(node, "both", *(f"o{number}" for number in range(20)), body=b"from us\r\n")
    for each in theirs:
        assert each.wait(120) == 0
    octets = wait(node, "both", *(f"o{number}" for number in range(20)))
    messages = re.split(rb"(?m)^From .*\n", octets)[1:]
    assert len(messages) == 40
    for message in messages:
        assert message.count(b"Subject: ") == 1 and message.count(b"from procmail\n") + message.count(b"from us\n") == 1


def test_the_lock_of_dotlockfile(node: Node) -> None:
    """Debian's own lock (liblockfile): while it is held the mail waits, and its reason is told."""
    dotlockfile = need.program("dotlockfile")
    lock = str(box(node, "held")) + ".lock"
    run(dotlockfile, "-l", lock)
    send(node, "held", "one")
    node.wait_log("the mailbox is locked: the file held.lock")
    assert box(node, "held").read_bytes() == b""
    run(dotlockfile, "-u", lock)
    wait(node, "held", "one")


def test_dovecot_reads_them_while_more_comes(place: Path) -> None:
    """Dovecot's IMAP server on the same files: it sees each message, and as one that nobody has read."""
    users = [f"ada@{DOMAIN}"]
    dovecot = Dovecot(place / "dovecot", users=users, added=(
        f"mail_location = mbox:~/x:INBOX={place}/spool2/%n\nmbox_read_locks = fcntl dotlock\n"
        "mbox_write_locks = fcntl dotlock\nmail_privileged_group = mail\n"
    ))
    spool = place / "spool2"
    spool.mkdir()
    own_to(spool, "mail")
    path = str(spool / "{local_part}")
    domain = {"name": DOMAIN, "recipients": "any", "deliver": "mbox", "path": path}
    with dovecot, Node(place / "node2", {"domain": [domain]}) as node:
        (spool / "ada").write_bytes(b"")
        own_to(spool / "ada", "mail")
        send(node, "ada", *(f"m{number}" for number in range(10)))
        found = dovecot.wait(users[0], count=10)
    assert sorted(re.findall(r"Subject: (\S+)", b"".join(found).decode())) == sorted(f"m{n}" for n in range(10))
    assert all(b"\r\n>From the middle\r\n" in each for each in found)
