"""The disk: 250 only after the sync (strace), a full disk gives 452 and service resumes."""

from __future__ import annotations

import contextlib
import re
import smtplib
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers.harness import maildir, need, ports
from tests.peers.harness.postroad import Node, local_domain, next_hop, relay_listener
from tests.peers.harness.process import Program, folder, until
from tests.peers.harness.remote import Dialog, Remote

_CALLS = "read,readv,recvfrom,recvmsg,write,writev,sendto,sendmsg,fsync,fdatasync"
_SYNCED = re.compile(r"(?:fsync|fdatasync)\(\d+\) += 0|<\.\.\. (?:fsync|fdatasync) resumed>\) += 0")


@pytest.fixture
def home() -> Iterator[Path]:
    with folder("disk") as path:
        yield path


@contextlib.contextmanager
def _traced(pid: int, output: Path, calls: str = _CALLS) -> Iterator[None]:
    """The system calls of a process and its threads, in the order in which they happened."""
    need.root()
    strace = Program(
        [need.program("strace"), "-f", "-s", "400", "-e", f"trace={calls}", "-o", str(output), "-p", str(pid)],
        output.with_suffix(".log"),
    )
    strace.start()
    strace.ready(lambda: "attached" in strace.log(), "strace is attached")
    try:
        yield
    finally:
        strace.stop()


def _syncs_before_250(lines: list[str], marker: str) -> int:
    """How many syncs were done between the arrival of the octets `marker` and the 250 for them."""
    start = next(place for place, line in enumerate(lines) if marker in line and re.search(r"read|recv", line))
    end = next(place for place, line in enumerate(lines[start:], start)
               if re.search(r"(?:write|send)\w*\(.*\"250 2\.[\d.]+ .*queued", line))
    return sum(bool(_SYNCED.search(line)) for line in lines[start:end])


@pytest.mark.parametrize(("size", "syncs"), [(100, 1), (3_000_000, 2)], ids=["in the shard", "in a file of its own"])
@pytest.mark.parametrize("chunks", [0, 1, 3])  # 0: DATA
@pytest.mark.parametrize("protocol", ["smtp", "lmtp"])
def test_the_sync_comes_before_the_250(home: Path, protocol: str, chunks: int, size: int, syncs: int) -> None:
    listener = relay_listener(ports.port(), protocol=protocol)
    node = Node(home / "n", {"workers": 1, "listener": [listener], "domain": [local_domain("example.test")]})
    with node:
        (worker,) = node.workers()
        body = f"Subject: {protocol}\r\n\r\n".encode() + b"x" * 78 + b"\r\n" + (b"y" * 78 + b"\r\n") * (size // 80)
        with _traced(worker, home / "trace"), socket.create_connection(("127.0.0.1", node.port), 60) as client:
            replies = client.makefile("rb")
            _talk(client, replies, b"LHLO c.test" if protocol == "lmtp" else b"EHLO c.test")
            _talk(client, replies, b"MAIL FROM:<b@c.test>")
            _talk(client, replies, b"RCPT TO:<a@example.test>")
            ending = body + b"END-OF-IT\r\n"
            begun = len(ending) // chunks if chunks else 0
            for number in range(chunks - 1):
                piece = ending[number * begun : (number + 1) * begun]
                client.sendall(b"BDAT %d\r\n" % begun + piece)
                assert replies.readline().startswith(b"250 "), node.log()
            if chunks:
                last = ending[(chunks - 1) * begun :]
                client.sendall(b"BDAT %d LAST\r\n" % len(last) + last)
            else:
                _talk(client, replies, b"DATA")
                client.sendall(ending + b".\r\n")
            assert replies.readline().startswith(b"250 2."), node.log()
        lines = (home / "trace").read_text("utf-8", "replace").splitlines()
        marker = "MAIL FROM" if size > 400 else "END-OF-IT"
        assert _syncs_before_250(lines, marker) >= syncs, "\n".join(line[:120] for line in lines[-60:])


def test_a_maildir_is_synced_before_and_after_the_rename_and_before_the_outcome(home: Path) -> None:
    """The file, then its name in new, then that folder; only then the end of the message is committed."""
    node = Node(home / "n", {"workers": 1, "domain": [local_domain("example.test")]})
    with node:
        (worker,) = node.workers()
        with _traced(worker, home / "trace", "openat,fsync,fdatasync,rename,renameat,renameat2"):
            with smtplib.SMTP("127.0.0.1", node.port, timeout=30) as client:
                client.sendmail("b@c.test", ["a@example.test"], b"Subject: order\r\n\r\nbody\r\n")
            maildir.wait(node.maildir("a@example.test"), of="order")
            until(lambda: node.json("queue") == [], "its end is committed", pause_s=0.2)
        lines = (home / "trace").read_text("utf-8", "replace").splitlines()
        rename = next(place for place, line in enumerate(lines) if re.search(r"rename\w*\(", line))
        thread = lines[rename].split()[0]
        before = [line for line in lines[:rename] if line.split()[0] == thread]
        after = [line for line in lines[rename + 1 :] if line.split()[0] == thread]
        written = next(place for place, line in enumerate(before) if "O_CREAT" in line)
        assert any(_SYNCED.search(line) for line in before[written:]), "the file is synced before it is moved"
        synced = next((line for line in after if _SYNCED.search(line)), "")
        assert "fsync" in synced, "its new name is synced"
        at = lines.index(synced)
        assert any(_SYNCED.search(line) and "fdatasync" in line for line in lines[at + 1 :]), "then the outcome"


def _talk(client: socket.socket, replies: object, line: bytes) -> None:
    readline = replies.readline  # type: ignore[attr-defined]
    if b"HLO" in line:
        readline()
    client.sendall(line + b"\r\n")
    while (answer := readline())[3:4] == b"-":
        pass
    assert answer[:1] in b"23", answer


@contextlib.contextmanager
def _small_disk(path: Path, size: str) -> Iterator[None]:
    need.root()
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "postroad-test", str(path)],
                             capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        need.missing(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=False)


@pytest.mark.parametrize(("body_size", "free_min"), [
    (20_000, "8M"),  # some space is kept free, so that the queue can drain
    (20_000, 0),  # small messages fill the shards to the last octet
    (3_000_000, 0),  # large ones the folder of their own files
])
def test_a_full_disk_gives_452_and_service_resumes(home: Path, body_size: int, free_min: object) -> None:
    def rule(dialog: Dialog, verb: str, argument: str) -> str | None:
        return "450 4.2.0 later" if verb == "RCPT" else None

    with _small_disk(home / "disk", "24M"), Remote(rule) as remote:
        node = Node(home / "n", {
            "state_dir": str(home / "disk" / "state"), "next_hop": [next_hop("*", remote.port)],
            "store": {"free_min": free_min},
        })
        body = (b"z" * 78 + b"\r\n") * (body_size // 80)
        with node:
            accepted, refusal = _fill(node, body)
            assert refusal[0] == 452 and b"4.3.1" in refusal[1], refusal
            assert len(accepted) > 3, "some fitted"
            # It goes on refusing, politely, and does not fall over. What SQLite gives back in between may let a few in.
            more, refusal = _fill(node, body, first=100_000)
            assert refusal[0] == 452 and len(more) < 200, (refusal, len(more))
            accepted += more
            more, refusal = _fill(node, body, first=300_000, sender="refused@c.test")
            accepted += more
            assert node.program.running and len(node.workers()) == 2, node.log()
            if free_min:  # without it SQLite may find a page that is free now and then
                until(lambda: "new mail is refused (452): " in node.command("status"), "status says so")
            subprocess.run(["mount", "-o", "remount,size=96M", str(home / "disk")], check=True)
            until(lambda: _try(node, 200_000, body)[0] == 250, f"mail is accepted again\n{node.log()}", within_s=30)
            until(lambda: "was told: 452 4.3.1" in node.command("trace", "refused@c.test", code=None), "it is in trace")
            remote.rule = lambda dialog, verb, argument: None
            wanted = {b"Subject: full %d." % number for number in accepted}
            until(lambda: not _missing(remote, wanted), "all that got its 250 arrives", within_s=60)


def _fill(node: Node, body: bytes, first: int = 0, sender: str = "b@c.test") -> tuple[list[int], tuple[int, bytes]]:
    """Sends until the first refusal: what was accepted, and the refusal."""
    accepted: list[int] = []
    for number in range(first, first + 5_000):
        code, text = _try(node, number, body, sender)
        if code != 250:
            return accepted, (code, text)
        accepted.append(number)
    raise AssertionError("the disk was never full")


def _try(node: Node, number: int, body: bytes, sender: str = "b@c.test") -> tuple[int, bytes]:
    with smtplib.SMTP("127.0.0.1", node.port, timeout=30) as client:
        try:
            client.sendmail(sender, ["x@else.example"], b"Subject: full %d.\r\n\r\n" % number + body)
        except smtplib.SMTPSenderRefused as error:
            return error.smtp_code, _octets(error.smtp_error)
        except smtplib.SMTPDataError as error:
            return error.smtp_code, _octets(error.smtp_error)
        except smtplib.SMTPRecipientsRefused as error:
            return next(iter(error.recipients.values()))
    return 250, b""


def _octets(text: bytes | str) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


def _missing(remote: Remote, wanted: set[bytes]) -> set[bytes]:
    there = {re.search(rb"Subject: full \d+\.", each.content)[0] for each in list(remote.transactions)}  # type: ignore[index]
    return wanted - there


def test_a_full_disk_of_the_maildir_defers(home: Path) -> None:
    """4.2.2 or 4.3.1, and never lost: the message is there when there is room."""
    with _small_disk(home / "mail", "1M"):
        domain = {"name": "example.test", "recipients": "any", "deliver": "maildir",
                  "path": f"{home}/mail/{{local_part}}"}
        node = Node(home / "n", {"domain": [domain]})
        with node:
            with smtplib.SMTP("127.0.0.1", node.port, timeout=30) as client:
                client.sendmail("b@c.test", ["a@example.test"],
                                b"Subject: too much\r\n\r\n" + (b"z" * 78 + b"\r\n") * 40_000)
            node.wait_log("deferred")
            assert "4.3.1" in node.log() or "4.2.2" in node.log(), node.log()
            assert not maildir.raw(home / "mail" / "a")
            subprocess.run(["mount", "-o", "remount,size=16M", str(home / "mail")], check=True)
            assert len(maildir.wait(home / "mail" / "a", of="too much")[0]) > 3_000_000
            assert not list((home / "mail" / "a" / "tmp").iterdir()), "nothing half is left"
