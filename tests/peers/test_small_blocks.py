"""A full file system of 1 KB blocks: a part of a page that is mapped into memory may have no space on the disk, and to
write there is SIGBUS. The node drains, dies, starts and is read on such a disk, and takes mail when there is room.
"""

from __future__ import annotations

import contextlib
import smtplib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers.harness import need
from tests.peers.harness.postroad import Node, next_hop
from tests.peers.harness.process import folder, until
from tests.peers.harness.remote import Dialog, Remote

_COUNT = 20


@pytest.fixture
def home() -> Iterator[Path]:
    with folder("blocks") as path:
        yield path


@contextlib.contextmanager
def _small_disk(path: Path, size: int) -> Iterator[Path]:
    """A real file system in a file, with blocks of 1 KB."""
    need.root()
    image = path.with_suffix(".img")
    with open(image, "wb") as file:
        file.truncate(size)
    subprocess.run([need.program("mkfs.ext4"), "-q", "-b", "1024", "-m", "0", str(image)], check=True)
    path.mkdir()
    command = ["mount", "-o", "loop", str(image), str(path)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        need.missing(f"a file cannot be mounted as a file system here: {mounted.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=False)


def _fill(path: Path) -> None:
    """Takes all space that is left, to the last block."""
    with open(path, "ab", buffering=0) as file:
        for size in (1 << 20, 1 << 16, 1024):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"x" * size)


def _send(node: Node, number: int) -> int:
    with smtplib.SMTP("127.0.0.1", node.port, timeout=30) as client:
        body = b"Subject: block %d.\r\n\r\n" % number + (b"z" * 78 + b"\r\n") * 50
        try:
            client.sendmail("b@c.test", ["x@else.example"], body)
        except (smtplib.SMTPSenderRefused, smtplib.SMTPDataError) as error:
            return error.smtp_code
    return 250


def _waits(node: Node) -> int:
    """What the command line reads of the queue and of the history of a message, whether or not a node runs."""
    (first, *_) = listed = node.json("queue", "--messages")
    assert node.json("trace", first["id"])
    return len(listed)


def test_a_full_disk_of_small_blocks(home: Path) -> None:
    def later(dialog: Dialog, verb: str, argument: str) -> str | None:
        return "450 4.2.0 later" if verb == "RCPT" else None

    with _small_disk(home / "disk", 32 << 20) as disk, Remote(later) as remote:
        node = Node(home / "n", {
            "state_dir": str(disk / "state"), "next_hop": [next_hop("*", remote.port)],
            "store": {"free_min": "2M", "reserve": "1M"},
            # Each attempt takes space of the reserve: nobody tries before the test says so, also on a slow machine.
            "queue": {"retry_first_s": 3600, "backoff_max_s": 2},
        })
        with node:
            assert [_send(node, number) for number in range(_COUNT)] == [250] * _COUNT
            _fill(disk / "filler")
            assert _waits(node) == _COUNT
            assert _send(node, 100) == 452
            node.kill()
            _fill(disk / "filler")
            assert _waits(node) == _COUNT
            _fill(disk / "filler")
            node.start()
            assert _waits(node) == _COUNT
            assert _send(node, 101) == 452
            node.restart()
            assert _waits(node) == _COUNT
            remote.rule = lambda dialog, verb, argument: None
            node.command("queue", "retry", "--all")
            remote.wait(_COUNT, within_s=40)
            until(lambda: not node.json("queue", "--messages"), f"the queue is empty on a full disk\n{node.log()}")
            node.restart()
            assert len(remote.transactions) == _COUNT, "each arrives once: its outcome could be written"
            (disk / "filler").unlink()
            until(lambda: _send(node, 200) == 250, f"mail is accepted again\n{node.log()}")
            remote.wait(_COUNT + 1)
        assert node.log_path.read_text().count("commit failed") <= 4, node.log()


@pytest.mark.parametrize("left_kb", [0, 4, 10, 16, 24, 40])
def test_little_space_is_no_sigbus(home: Path, left_kb: int) -> None:
    """After a power cut, without the index's file: what opens the spool has room for all of it, or says so."""
    with _small_disk(home / "disk", 32 << 20) as disk:
        node = Node(home / "n", {
            "state_dir": str(disk / "state"), "next_hop": [next_hop("*", 9)], "workers": 1,
            "store": {"free_min": "2M", "reserve": "1M"},
        })
        with node:
            assert [_send(node, number) for number in range(_COUNT)] == [250] * _COUNT
            node.kill()
        for index in disk.rglob("*-shm"):
            index.unlink()
        _fill(disk / "filler")
        with open(disk / "filler", "r+b") as filler:
            filler.truncate(filler.seek(0, 2) - left_kb * 1024)
        said = node.command("queue", "--messages", code=None)
        assert "no space for its WAL index" in said or said.count("else.example") >= _COUNT, said
        with node:
            assert _waits(node) == _COUNT
            assert "signal 7" not in node.log()
