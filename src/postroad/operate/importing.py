"""Takes mail from files into a spool that no node has open: with new queue ids, otherwise as it was exported.

What always holds: a message is taken with all its recipients in one commit, and its .json is marked only after that
commit; so it is not lost, and taken twice only if the command dies between the two. Held mail stays held; mail that
waits for a time (also by RFC 4865) waits until then; the rest is tried at the node's next start. The time of acceptance
stays, so no message lives longer than it may.

The spool is opened with the rights of its owner; the files are read and marked with the rights of the caller
(`rights`).

How it fails: `CannotOpen` if the spool cannot be opened; each message's line says what became of it.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import msgspec

from postroad.config import options
from postroad.mail import identifier, wishes
from postroad.mail.envelope import Recipient
from postroad.mail.event import Accepted, Event, Noted
from postroad.mail.message import Content, size
from postroad.mail.routing import DestinationOf, key_of
from postroad.operate import mailfiles
from postroad.operate.destinations import destination_of
from postroad.operate.offline import CannotOpen
from postroad.operate.rights import Rights
from postroad.store import content as contents
from postroad.store import engine
from postroad.store.face import Spool, SpoolError
from postroad.store.values import Failure, Stored, Waiting
from postroad.world.clock import SystemClock

if TYPE_CHECKING:
    from postroad.config.settings import Settings

# Destinations that an alias has named (`route.outlets`); those of domains hold neither a bar nor a slash.
_TARGET: Final = re.compile(r"(?:program|mbox|maildir):.*[|/]")


class Imported(msgspec.Struct, frozen=True):
    """What became of one message. `id`: its new queue id, "" if it was not taken."""

    path: str
    was: str
    id: str
    recipients: int
    done: bool
    text: str


def run(settings: Settings, directory: Path, mails: Sequence[mailfiles.ExportedMail]) -> list[Imported]:
    """Takes them all, one after the other. Raises CannotOpen."""
    try:
        rights = Rights(directory)
        with rights.as_owner():
            return asyncio.run(_run(settings, directory, mails, rights))
    except OSError as error:
        raise CannotOpen(f"{error.filename or directory}: {error.strerror or error}") from error


async def _run(
    settings: Settings, directory: Path, mails: Sequence[mailfiles.ExportedMail], rights: Rights
) -> list[Imported]:
    loop = asyncio.get_running_loop()
    # Without threads: the rights change while files are opened, and another thread would open the spool's with them.
    spool = engine.spool(directory, (0,), options.spool_options(settings), SystemClock(), loop, threads=False)
    try:
        spool.start()
    except SpoolError as error:
        raise CannotOpen(str(error)) from error
    found = destination_of(settings)
    try:
        return [await _one(spool, found, mail, rights) for mail in mails]
    finally:
        spool.close()


async def _one(spool: Spool, destinations: DestinationOf, mail: mailfiles.ExportedMail, rights: Rights) -> Imported:
    old, count = identifier.text(mail.envelope.id), len(mail.envelope.recipients)
    id = spool.new_id()
    try:
        with rights.as_caller():
            handle = os.open(mail.content.path, os.O_RDONLY | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            content = await _content(spool, id, file, mail.content.size)
    except OSError as error:
        return Imported(str(mail.path), old, "", count, False, f"its content cannot be read: {_why(error, mail)}")
    if isinstance(content, Failure):
        return Imported(str(mail.path), old, "", count, False, f"not stored: {content.text}")
    envelope = msgspec.structs.replace(
        mail.envelope, id=id, size=size(mail.envelope, content), recipients=_unrouted(mail.envelope.recipients)
    )
    rows = _rows(destinations, mail, SystemClock().now_us())
    failure = await _asked(spool.accept, Stored(envelope, content), _events(envelope, old), rows=rows)
    if failure is not None:
        return Imported(str(mail.path), old, "", count, False, f"not stored: {failure.text}")
    new = identifier.text(id)
    with rights.as_caller():
        return Imported(str(mail.path), old, new, count, True, _marked(mail.path, new))


def _why(error: OSError, mail: mailfiles.ExportedMail) -> str:
    return f"{error.filename or mail.content.path}: {error.strerror or error}"


def _marked(path: Path, new: str) -> str:
    """So that the same file is not imported twice."""
    done = Path(f"{path}{mailfiles.DONE}")
    try:
        done.write_text(f"{new}\n")
        contents.sync_directory(path.parent)
    except OSError as error:
        return f"imported, but {done} cannot be written ({error.strerror}): do not import the file again"
    return "imported"


def _unrouted(recipients: tuple[Recipient, ...]) -> tuple[Recipient, ...]:
    """The recipients without the destinations that another node may have stored: they go by the routes of this one."""
    return tuple(msgspec.structs.replace(each, destination=None) for each in recipients)


def _rows(destinations: DestinationOf, mail: mailfiles.ExportedMail, now_us: int) -> tuple[Waiting, ...]:
    """Where some are held, were released, or wait for a time to come: all recipients with their state, by the routes of
    this node."""
    least_us = max(now_us, wishes.release_us(mail.envelope))  # RFC 4865 §4: not before
    waiting = tuple([_without_target(each) for each in mail.waiting])
    if not any(each.held or each.released or max(each.due_us, least_us) > now_us for each in waiting):
        return ()
    rows = []
    for each, recipient in zip(waiting, _unrouted(mail.envelope.recipients), strict=True):
        key = key_of(destinations(mail.envelope, recipient))
        rows.append(msgspec.structs.replace(each, destination=key, due_us=max(each.due_us, least_us), last_us=0))
    return tuple(rows)


def _without_target(row: Waiting) -> Waiting:
    """A file must not name programs and paths to this node. So what an alias of the other node led to a program or a
    file is held, and an operator decides."""
    if not _TARGET.match(row.destination):
        return row
    text = f"an alias of the other node led it to {row.destination}; if released, it goes to the recipient's mailbox"
    return msgspec.structs.replace(row, held=True, released=False, text=text)


def _events(envelope: Any, old: str) -> tuple[Event, ...]:
    now_us = SystemClock().now_us()
    names = tuple(str(each.address) for each in envelope.recipients)
    accepted = Accepted(
        now_us, envelope.id, str(envelope.reverse_path or ""), names, envelope.size, envelope.message_id,
        envelope.peer, envelope.envid,
    )  # fmt: skip
    return accepted, Noted(now_us, envelope.id, "info", f"imported from files; its queue id was {old}")


async def _content(spool: Spool, id: int, file: BinaryIO, size: int) -> Content | Failure:
    """The content of `size` octets, in memory or as a file of the spool. Raises OSError if the file is shorter."""
    if size <= spool.options.inline_max:
        octets = file.read(size)
        _check_whole(len(octets), size)
        return octets
    incoming = spool.incoming(id)
    ready = asyncio.Event()
    incoming.resumed = ready.set
    copied = 0
    try:
        while piece := file.read(min(contents.PIECE, size - copied)):
            copied += len(piece)
            ready.clear()
            if not incoming.write(piece):
                await ready.wait()
        _check_whole(copied, size)
    except OSError:
        incoming.abort()
        raise
    answer: Content | Failure = await _asked(incoming.finish)
    return answer


def _check_whole(copied: int, size: int) -> None:
    if copied < size:
        raise OSError(errno.EIO, f"is shorter than its {size} octets")


async def _asked(call: Callable[..., None], *values: Any, rows: tuple[Waiting, ...] = ()) -> Any:
    answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    if rows:
        call(*values, answer.set_result, rows)
    else:
        call(*values, answer.set_result)
    return await answer


def imported_before(path: Path) -> str:
    """The queue id under which a file was imported before, "" for never."""
    try:
        return Path(f"{path}{mailfiles.DONE}").read_text().strip() or "unknown"
    except FileNotFoundError:
        return ""
