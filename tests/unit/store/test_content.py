"""Content in files: written as it arrives, with a bounded backlog; read in pieces; faults of the disk."""

from __future__ import annotations

import asyncio
import errno
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from postroad.mail import identifier
from postroad.mail.envelope import Envelope
from postroad.mail.message import ContentFile
from postroad.mail.message import size as message_size
from postroad.store import content
from postroad.store.content import BACKLOG_MAX, SECOND, Incoming, head, pieces, read
from postroad.store.values import Failure, FailureKind, NewContent
from postroad.world.files import Posix
from tests.unit.store.sqlite.material import START_US, message, open_spool

ID = identifier.make(START_US, 5, 0)
PLAIN = Envelope(ID, None, (), 0, START_US)


def envelope_with(prefix: bytes) -> Envelope:
    return msgspec.structs.replace(PLAIN, prefix=prefix)


class Hands:
    """The thread and the loop, both by hand."""

    def __init__(self) -> None:
        self.work: deque[Callable[[], None]] = deque()
        self.calls: deque[Callable[[], None]] = deque()

    def disk(self) -> None:
        while self.work:
            self.work.popleft()()

    def run(self) -> None:
        while self.work or self.calls:
            self.disk()
            while self.calls:
                self.calls.popleft()()

    def incoming(self, directory: Path, **fields: Any) -> Incoming:
        return Incoming(directory, ID, self.work.append, self.calls.append, **fields)


def _finish(hands: Hands, incoming: Incoming, new: NewContent | None = None) -> ContentFile | Failure:
    answers: list[ContentFile | Failure] = []
    incoming.finish(answers.append, new)
    hands.run()
    [answer] = answers
    return answer


def test_octets_stand_in_the_file_as_they_came(tmp_path: Path) -> None:
    hands = Hands()
    incoming = hands.incoming(tmp_path)
    given = [os.urandom(size) for size in (1, 70_000, 0, 300_000, 5)]
    for number, piece in enumerate(given):
        incoming.write(piece)
        if number % 2:
            hands.run()
    answer = _finish(hands, incoming)
    assert answer == ContentFile(str(content.file_path(tmp_path, ID)), sum(map(len, given)))
    assert read(PLAIN, answer) == b"".join(given)
    path = Path(answer.path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert path.parent.parent == tmp_path / "05"
    assert content.content_file(tmp_path, ID) == answer


@pytest.mark.parametrize("body", [None, b"\r\nother\r\n"])
def test_new_content_takes_the_place_of_what_came(tmp_path: Path, body: bytes | None) -> None:
    hands = Hands()
    incoming = hands.incoming(tmp_path)
    rest = b"\r\n" + os.urandom(700_000)
    incoming.write(b"A: 1\r\n" + rest)
    answer = _finish(hands, incoming, NewContent(b"B: 22\r\n", 6, body))
    wanted = b"B: 22\r\n" + (rest if body is None else body)
    assert isinstance(answer, ContentFile) and answer.size == len(wanted)
    assert read(PLAIN, answer) == wanted and _names(tmp_path) == [Path(answer.path).name]


@pytest.mark.parametrize("call", ["open", "write", "fdatasync", "rename"])
def test_new_content_that_cannot_be_written_leaves_nothing(tmp_path: Path, call: str) -> None:
    real = getattr(os, call)

    def failing(*given: Any, **named: Any) -> Any:
        if call in ("rename", "fdatasync") or (call == "open" and str(given[0]).endswith(SECOND)):
            raise OSError(errno.EIO, "Input/output error")
        if call == "write" and bytes(given[1]).startswith(b"B:"):
            raise OSError(errno.EIO, "Input/output error")
        return real(*given, **named)

    hands = Hands()
    incoming = hands.incoming(tmp_path, posix=Posix(**{call: failing}))
    incoming.write(b"A: 1\r\n\r\nbody\r\n")
    answer = _finish(hands, incoming, NewContent(b"B: 2\r\n", 6))
    assert isinstance(answer, Failure) and answer.kind is FailureKind.IO
    incoming.abort()
    hands.run()
    assert _names(tmp_path) == []


def _names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("*/*/*"))


async def _left_by_a_crash(directory: Path) -> Path:
    left = content.file_path(directory, identifier.make(START_US, 0, 0))
    left = left.with_name(left.name + SECOND)
    with open_spool(directory, threads=False):
        left.parent.mkdir(parents=True, exist_ok=True)
        left.write_bytes(b"half")
    with open_spool(directory, threads=False):
        return left


def test_a_second_file_that_a_crash_left_is_removed_at_the_next_start(tmp_path: Path) -> None:
    assert not asyncio.run(_left_by_a_crash(tmp_path)).exists()


def test_content_of_no_octets_is_a_file_too(tmp_path: Path) -> None:
    hands = Hands()
    answer = _finish(hands, hands.incoming(tmp_path))
    assert isinstance(answer, ContentFile)
    assert read(PLAIN, answer) == b""


def test_the_producer_is_paused_and_resumed(tmp_path: Path) -> None:
    hands = Hands()
    resumed: list[int] = []
    incoming = hands.incoming(tmp_path)
    incoming.resumed = lambda: resumed.append(1)
    assert incoming.write(b"x" * BACKLOG_MAX)
    assert not incoming.write(b"x")
    assert not incoming.write(b"x")
    assert not resumed
    hands.run()
    assert resumed == [1]
    assert incoming.write(b"x")
    hands.run()
    assert resumed == [1]


@pytest.mark.parametrize("before", ["nothing", "write", "finish"])
def test_abort_leaves_nothing(tmp_path: Path, before: str) -> None:
    hands = Hands()
    incoming = hands.incoming(tmp_path)
    if before != "nothing":
        incoming.write(b"x")
        hands.run()
    if before == "finish":
        assert isinstance(_finish(hands, incoming), ContentFile)
    incoming.write(b"y")
    incoming.abort()
    hands.run()
    assert not content.file_path(tmp_path, ID).exists()
    assert not hands.work


@pytest.mark.parametrize("where", ["open", "write", "fdatasync", "fsync", "close"])
@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, FailureKind.FULL), (errno.EIO, FailureKind.IO)])
def test_an_error_is_answered_at_the_end_and_leaves_nothing(
    tmp_path: Path, where: str, number: int, kind: FailureKind
) -> None:
    def fail(*arguments: Any) -> Any:
        raise OSError(number, os.strerror(number))

    hands = Hands()
    content.make_directory(tmp_path / "05")
    content.make_directory(content.file_path(tmp_path, ID).parent)
    incoming = hands.incoming(tmp_path, posix=Posix(**{where: fail}))
    incoming.write(b"x" * BACKLOG_MAX)
    incoming.write(b"y")
    hands.run()
    if where in ("open", "write"):
        assert incoming.failure is not None
        assert incoming.write(b"z" * BACKLOG_MAX * 2), "what comes is swallowed"
    answer = _finish(hands, incoming)
    assert isinstance(answer, Failure)
    assert answer.kind is kind
    assert identifier.text(ID) in answer.text or where == "fsync"
    assert not content.file_path(tmp_path, ID).exists()


def test_a_folder_whose_name_could_not_be_synced_is_not_taken_for_durable(tmp_path: Path) -> None:
    def fail(handle: int) -> None:
        raise OSError(errno.EIO, "made by the test")

    with pytest.raises(OSError, match="made by the test"):
        content.make_directory(tmp_path / "05", Posix(fsync=fail))
    assert not (tmp_path / "05").exists(), "the next one makes it, and syncs, again"


def test_a_short_write_is_continued(tmp_path: Path) -> None:
    hands = Hands()
    incoming = hands.incoming(tmp_path, posix=Posix(write=lambda handle, octets: os.write(handle, octets[:1000])))
    octets = os.urandom(10_500)
    incoming.write(octets)
    answer = _finish(hands, incoming)
    assert read(PLAIN, answer) == octets  # type: ignore[arg-type]


def test_a_file_that_stands_there_is_neither_used_nor_removed(tmp_path: Path) -> None:
    hands = Hands()
    path = content.file_path(tmp_path, ID)
    path.parent.mkdir(parents=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"secret")
    path.symlink_to(elsewhere)
    assert content.content_file(tmp_path, ID) is None, "a link is no content"
    incoming = hands.incoming(tmp_path)
    incoming.write(b"x")
    assert isinstance(_finish(hands, incoming), Failure)
    incoming.abort()
    hands.run()
    assert path.is_symlink()
    assert elsewhere.read_bytes() == b"secret"


@pytest.mark.parametrize("kind", ["link", "file"])
def test_folders_that_are_none_are_refused(tmp_path: Path, kind: str) -> None:
    hands = Hands()
    if kind == "link":
        (tmp_path / "away").mkdir()
        (tmp_path / "05").symlink_to(tmp_path / "away")
    else:
        (tmp_path / "05").write_bytes(b"")
    incoming = hands.incoming(tmp_path)
    incoming.write(b"x")
    assert isinstance(_finish(hands, incoming), Failure)


@pytest.mark.parametrize("size", [1, 3, 7, 8, 9, 100])
@pytest.mark.parametrize("prefix", [b"", b"a", b"abcdefgh"])
def test_pieces_together_are_prefix_and_content(tmp_path: Path, size: int, prefix: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"01234567")
    envelope = envelope_with(prefix)
    for stored in (b"01234567", ContentFile(str(path), 8)):
        found = list(pieces(envelope, stored, size))
        assert b"".join(found) == prefix + b"01234567"
        assert all(0 < len(piece) <= size for piece in found)
        assert read(envelope, stored) == prefix + b"01234567"
        assert message_size(envelope, stored) == len(prefix) + 8


@pytest.mark.parametrize("prefix", [b"", b"a", b"abcdefgh"])
def test_the_head_of_a_message(tmp_path: Path, prefix: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"01234567")
    envelope, whole = envelope_with(prefix), prefix + b"01234567"
    for stored in (b"01234567", ContentFile(str(path), 8)):
        for limit in (*range(18), 100):
            assert head(envelope, stored, limit) == whole[:limit]
    path.write_bytes(b"")
    assert head(envelope, ContentFile(str(path), 0), 5) == prefix[:5]


def test_a_file_that_has_become_shorter_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"0123")
    with pytest.raises(OSError, match="shorter"):
        read(PLAIN, ContentFile(str(path), 8))
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(OSError):
        read(PLAIN, ContentFile(str(link), 4))


async def test_large_content_goes_with_its_message(tmp_path: Path) -> None:
    with open_spool(tmp_path) as desk:
        octets = os.urandom(3_000_000)
        incoming = desk.spool.incoming(id := desk.new_id())
        incoming.write(octets)
        file = await desk.ask(incoming.finish)
        assert await desk.try_accept(message(id, content=file)) is None
        found = await desk.ask(desk.spool.content, id)
        assert found == file
        assert read(PLAIN, found) == octets
        await desk.settle(id, 0)
    assert not content.file_path(tmp_path, id).exists()


async def test_without_threads_the_same(tmp_path: Path) -> None:
    with open_spool(tmp_path, threads=False) as desk:
        incoming = desk.spool.incoming(id := desk.new_id())
        incoming.write(b"abc")
        file = await desk.ask(incoming.finish)
        assert await desk.try_accept(message(id, content=file)) is None
        await desk.settle(id, 0)
        assert not content.file_path(tmp_path, id).exists()
