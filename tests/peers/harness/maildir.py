"""Reading a Maildir, and waiting until something is in it."""

from __future__ import annotations

import email
import email.policy
from email.message import EmailMessage
from pathlib import Path

from tests.peers.harness.process import PATIENCE_S, until


def raw(path: Path) -> list[bytes]:
    """The octets of all messages in `new` and `cur`, in the order of their names."""
    while True:
        try:
            return [entry.read_bytes() for entry in _entries(path)]
        except FileNotFoundError:  # who reads the mailbox has moved it from `new` to `cur` just now
            continue


def _entries(path: Path) -> list[Path]:
    found = {}
    for part in ("new", "cur"):
        if (path / part).is_dir():
            found |= {entry.name.partition(":")[0]: entry for entry in (path / part).iterdir()}
    return sorted(found.values(), key=lambda entry: (entry.parent.name == "cur", entry.name))


def wait(path: Path, count: int = 1, *, within_s: float = PATIENCE_S, of: str = "") -> list[bytes]:
    """Waits until there are `count` messages (that contain `of`), and returns all of these."""
    def chosen() -> list[bytes]:
        return [octets for octets in raw(path) if of.encode() in octets]

    until(lambda: len(chosen()) >= count, f"{count} messages with {of!r} in {path}", within_s=within_s)
    return chosen()


def parse(octets: bytes) -> EmailMessage:
    """The message, read by Python's own parser with its modern policy."""
    return email.message_from_bytes(octets, _class=EmailMessage, policy=email.policy.default)
