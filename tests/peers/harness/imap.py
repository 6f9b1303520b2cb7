"""Reads the mailboxes of a server's users by IMAP."""

from __future__ import annotations

import contextlib
import imaplib
from collections.abc import Iterator

from tests.peers.harness.process import PATIENCE_S


@contextlib.contextmanager
def session(port: int, user: str, password: str) -> Iterator[imaplib.IMAP4]:
    """A connection on which the user has logged in."""
    imap = imaplib.IMAP4("127.0.0.1", port, timeout=PATIENCE_S)
    try:
        imap.login(user, password)
        yield imap
    finally:
        imap.logout()


def messages(imap: imaplib.IMAP4, folder: str) -> list[bytes]:
    """All messages of a folder."""
    done(imap.select(folder, readonly=True))
    _, found = imap.search(None, "ALL")
    all_of_them = []
    for number in found[0].split():
        _, parts = imap.fetch(number.decode(), "(BODY.PEEK[])")
        part = parts[0]
        assert isinstance(part, tuple)
        all_of_them.append(part[1])
    return all_of_them


def done(answer: tuple[str, object]) -> None:
    assert answer[0] == "OK", answer
