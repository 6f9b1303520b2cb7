"""Delivery into Maildirs: what stands there afterwards, and what happens when a call of the system fails."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

from postroad.deliver.courier_context import courier_context
from postroad.deliver.files import LineEnds
from postroad.deliver.maildir import MaildirCourier, Writer
from postroad.deliver.options import DeliverOptions, MaildirOptions
from postroad.mail.address import Address
from postroad.mail.attempt import Attempt
from postroad.mail.envelope import Body, Recipient
from postroad.mail.job import Job
from postroad.mail.loop import Marks
from postroad.mail.message import ContentFile
from postroad.mail.route import Destination, Transport
from postroad.protocol.sending import Result
from postroad.world.files import Posix
from tests.unit.deliver import world

NOW_US = 1_700_000_000_123_456
CONTENT = b"Subject: x\r\n\r\nhello\r\n.\r\n"


def given(root: Path, content: Any = CONTENT, to: tuple[str, ...] = ("ada",), **fields: Any) -> Job:
    made = world.job(content, tuple(Recipient(Address(name, "example.org")) for name in to), **fields)
    path = str(root / "{domain}" / "{local_part}")
    return msgspec.structs.replace(made, destination=Destination("maildir:example.org", Transport.MAILDIR, path=path))


def deliver(job: Job, *, posix: Posix | None = None, **options: Any) -> tuple[Result, ...]:
    return Writer("mx/1:a.test", MaildirOptions(**options), posix or Posix()).deliver(job, NOW_US)


def box(root: Path, name: str = "ada") -> Path:
    return root / "example.org" / name


def mails(root: Path, name: str = "ada") -> list[Path]:
    return sorted((box(root, name) / "new").iterdir()) if (box(root, name) / "new").exists() else []


def test_a_message_as_it_stands_there(tmp_path: Path) -> None:
    (finding,) = deliver(given(tmp_path))
    assert (finding.outcome.value, finding.status) == ("delivered", "2.0.0")
    (mail,) = mails(tmp_path)
    octets = mail.read_bytes()
    assert octets == (
        b"Return-Path: <ada@example.org>\nDelivered-To: ada@example.org\nSubject: x\n\nhello\n.\n"
    )
    assert mail.name.startswith("1700000000.M123456P")
    assert "_000000000007.mx\\0571\\072a.test,S=" in mail.name
    assert mail.name.endswith(f",S={len(octets)},W={len(octets) + 6}")
    assert str(mail) in finding.text
    for folder in ("", "cur", "new", "tmp"):
        assert stat.S_IMODE((box(tmp_path) / folder).stat().st_mode) == 0o700
    assert stat.S_IMODE(mail.stat().st_mode) == 0o600
    assert list((box(tmp_path) / "tmp").iterdir()) == []


def test_the_null_reverse_path(tmp_path: Path) -> None:
    made = given(tmp_path)
    deliver(msgspec.structs.replace(made, reverse_path=None))
    assert mails(tmp_path)[0].read_bytes().startswith(b"Return-Path: <>\n")


def test_binary_content_is_left_alone(tmp_path: Path) -> None:
    deliver(given(tmp_path, b"a: b\r\n\r\n\x00\r\n\n\r", body=Body.BINARY_MIME))
    assert mails(tmp_path)[0].read_bytes().endswith(b"Delivered-To: ada@example.org\r\na: b\r\n\r\n\x00\r\n\n\r")


def test_names_are_used_once(tmp_path: Path) -> None:
    writer = Writer("mx", MaildirOptions(), Posix())
    for _ in range(20):
        writer.deliver(given(tmp_path), NOW_US)
    assert len(mails(tmp_path)) == 20


def test_content_from_a_file(tmp_path: Path) -> None:
    octets = b"Subject: x\r\n\r\n" + b"line\r\n" * 200_000
    path = tmp_path / "content"
    path.write_bytes(octets)
    deliver(given(tmp_path, ContentFile(str(path), len(octets))))
    assert mails(tmp_path)[0].read_bytes().endswith(octets.replace(b"\r\n", b"\n"))


def test_line_ends_in_every_cut() -> None:
    content = b"\r\na\r\n\r\r\n\n\rb\r"
    expected = content.replace(b"\r\n", b"\n")
    for first in range(len(content) + 1):
        for second in range(first, len(content) + 1):
            ends = LineEnds()
            pieces = (content[:first], content[first:second], content[second:])
            assert b"".join(map(ends.piece, pieces)) + ends.end() == expected


def test_each_recipient_has_its_outcome(tmp_path: Path) -> None:
    results = deliver(given(tmp_path, to=("ada", "../../etc", "Bob+x")))
    assert [finding.status for finding in results] == ["2.0.0", "5.1.3", "2.0.0"]
    assert len(mails(tmp_path)) == len(mails(tmp_path, "bob")) == 1
    assert b"Delivered-To: Bob+x@example.org\n" in mails(tmp_path, "bob")[0].read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["example.org"]


@pytest.mark.parametrize(
    "field",
    [
        b"Delivered-To: ada@example.org\r\n",
        b"X: y\r\nDELIVERED-TO:\r\n ADA@Example.org\r\n",
        b"X-Postroad-Loop: AAAAAAAAAAAAAAAA\r\n",
    ],
)
def test_what_others_write_is_no_loop(tmp_path: Path, field: bytes) -> None:
    """OpenSMTPD's LMTP client writes Delivered-To, mail that fetchmail fetches bears it, anybody can forge it."""
    (finding,) = deliver(given(tmp_path, field + CONTENT))
    assert finding.status == "2.0.0" and len(mails(tmp_path)) == 1


def test_the_mark_of_each_mailbox_stands_on_top(tmp_path: Path) -> None:
    marks = Marks(b"secret")
    job = given(tmp_path, to=("ada", "Bob+x"), message_id="<1@a.test>")
    Writer("mx", MaildirOptions(), Posix(), marks).deliver(job, NOW_US)
    for name, folder in (("ada", "ada"), ("Bob+x", "bob")):
        mark = marks.delivered(Address(name, "example.org"), "<1@a.test>")
        top = f"Delivered-To: {name}@example.org\nX-Postroad-Loop: {mark}\nSubject"
        assert top.encode() in mails(tmp_path, folder)[0].read_bytes()


HOUR_US = 3_600_000_000


def test_our_own_leftovers_in_tmp_go_after_36_hours(tmp_path: Path) -> None:
    """https://cr.yp.to/proto/maildir.html."""
    writer = Writer("mx", MaildirOptions(), Posix())
    writer.deliver(given(tmp_path), NOW_US)
    tmp = box(tmp_path) / "tmp"
    old_s, young_s = (NOW_US - 37 * HOUR_US) // 1_000_000, (NOW_US - 35 * HOUR_US) // 1_000_000
    ours = f"{old_s}.M000001P1Q1_000000000007.mx"
    kept = (
        f"{young_s}.M000001P1Q1_000000000007.mx",  # not old yet
        f"{old_s}.M000001P1Q2_000000000007.other",  # of another host
        f"{old_s}.M000001P1Q3_000000000007.mx,S=1",  # a name that we do not give in tmp
        f"{old_s}.123_1.mx",  # of another program
    )
    written_since = f"{old_s}.M000001P1Q4_000000000007.mx"
    for name in (ours, *kept, written_since):
        (tmp / name).touch()
        os.utime(tmp / name, (old_s, young_s if name == written_since else old_s))
    writer.deliver(given(tmp_path), NOW_US + HOUR_US)
    assert (tmp / ours).exists(), "looked for a short time ago"
    Writer("mx", MaildirOptions(), Posix()).deliver(given(tmp_path), NOW_US + 2)
    assert {path.name for path in tmp.iterdir()} == {*kept, written_since}
    assert len(mails(tmp_path)) == 3


def test_leftovers_that_cannot_be_removed_do_no_harm(tmp_path: Path) -> None:
    def unlink(name: str, **more: Any) -> None:
        raise PermissionError(errno.EACCES, "no")

    deliver(given(tmp_path))
    old_s = (NOW_US - 37 * HOUR_US) // 1_000_000
    left = box(tmp_path) / "tmp" / f"{old_s}.M000001P1Q1_000000000007.mx"
    left.touch()
    os.utime(left, (old_s, old_s))
    (finding,) = deliver(given(tmp_path), posix=Posix(unlink=unlink))
    assert finding.status == "2.0.0" and left.exists()


# -- folders that we do not trust


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    for folder in ("cur", "new", "tmp"):
        (elsewhere / folder).mkdir(parents=True)
    (tmp_path / "example.org").mkdir(mode=0o700)
    box(tmp_path).symlink_to(elsewhere)
    (finding,) = deliver(given(tmp_path))
    assert (finding.outcome.value, finding.status) == ("deferred", "4.3.5")
    assert not list((elsewhere / "new").iterdir())


@pytest.mark.parametrize("folder", ["", "new", "tmp", "cur"])
def test_a_folder_that_everybody_may_write_to(tmp_path: Path, folder: str) -> None:
    deliver(given(tmp_path))
    (box(tmp_path) / folder).chmod(0o777)
    (finding,) = deliver(given(tmp_path))
    assert finding.status == "4.3.5"
    assert len(mails(tmp_path)) == 1


def test_a_folder_of_somebody_else(tmp_path: Path) -> None:
    def fstat(handle: int) -> Any:
        found = list(os.fstat(handle))
        found[4] = 12345
        return os.stat_result(found)

    (finding,) = deliver(given(tmp_path), posix=Posix(fstat=fstat))
    assert finding.status == "4.3.5"


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "example.org").write_bytes(b"")
    (finding,) = deliver(given(tmp_path))
    assert finding.status == "4.3.5"


def test_missing_folders_wait_where_none_are_to_be_made(tmp_path: Path) -> None:
    (finding,) = deliver(given(tmp_path), make_folders=False)
    assert (finding.outcome.value, finding.status) == ("deferred", "4.3.0")
    assert list(tmp_path.iterdir()) == []
    deliver(given(tmp_path))
    (finding,) = deliver(given(tmp_path), make_folders=False)
    assert finding.status == "2.0.0"


# -- faults


class Faulty:
    """The system's calls, the `when`-th call of `name` failing with `code`. `opened`: descriptors not closed again."""

    def __init__(self, name: str, when: int, code: int) -> None:
        self.name, self.when, self.code = name, when, code
        self.calls: list[str] = []
        self.opened: set[int] = set()
        self.failed = False

    def posix(self) -> Posix:
        names = Posix.__struct_fields__
        return Posix(**{name: self.call(name, getattr(os, name)) for name in names})

    def call(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            self.calls.append(name)
            if name == self.name and self.calls.count(name) == self.when:
                self.failed = True
                if name == "close":
                    real(*arguments)
                    self.opened.discard(arguments[0])
                raise OSError(self.code, os.strerror(self.code))
            value = real(*arguments, **keywords)
            if name == "open":
                self.opened.add(value)
            if name == "close":
                self.opened.discard(arguments[0])
            return value

        return call


FAULTS = [("write", errno.ENOSPC), ("write", errno.EDQUOT), ("write", errno.EIO), ("fsync", errno.EIO),
          ("fsync", errno.ENOSPC), ("rename", errno.EDQUOT), ("rename", errno.EACCES), ("open", errno.EMFILE),
          ("open", errno.EACCES), ("mkdir", errno.ENOSPC), ("mkdir", errno.EROFS)]
STATUS = {errno.ENOSPC: "4.3.1", errno.EDQUOT: "4.2.2"}


@pytest.mark.parametrize(("name", "code"), FAULTS)
def test_every_call_that_may_fail(tmp_path: Path, name: str, code: int) -> None:
    """Whichever call fails: deferred with the reason, nothing left in tmp or new, no descriptor left open."""
    for when in range(1, 40):
        root = tmp_path / str(when)
        root.mkdir()
        faulty = Faulty(name, when, code)
        (finding,) = deliver(given(root), posix=faulty.posix())
        assert not faulty.opened
        if not faulty.failed:
            assert finding.status == "2.0.0"
            assert when > 1
            return
        assert finding.outcome.value == "deferred"
        assert finding.status == STATUS.get(code, "4.3.0")
        assert mails(root) == []
        assert not list(root.rglob("tmp/*"))
    pytest.fail("it always fails")


def test_nothing_is_told_as_delivered_before_file_and_folder_are_synced(tmp_path: Path) -> None:
    deliver(given(tmp_path))
    faulty = Faulty("", 0, 0)
    deliver(given(tmp_path), posix=faulty.posix())
    calls = [call for call in faulty.calls if call in ("write", "fsync", "rename")]
    assert calls == ["write", "write", "fsync", "rename", "fsync"]


def test_short_writes_are_continued(tmp_path: Path) -> None:
    deliver(given(tmp_path), posix=Posix(write=lambda handle, octets: os.write(handle, bytes(octets)[:3])))
    assert mails(tmp_path)[0].read_bytes().endswith(b"hello\n.\n")


def test_a_bug_defers_one_recipient_only(tmp_path: Path) -> None:
    faulty = Posix(rename=lambda *arguments, **keywords: None + 1)  # type: ignore[operator]
    results = deliver(given(tmp_path, to=("ada", "bob")), posix=faulty)
    assert [finding.status for finding in results] == ["4.3.0"] * 2
    assert not list(tmp_path.rglob("tmp/*"))


async def test_the_courier(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        loop = asyncio.get_running_loop()
        shared = courier_context("mx", DeliverOptions(), world.Clock(), loop, pool)
        courier = MaildirCourier(shared, Posix())
        for _ in range(3):
            assert courier.usable
            done: asyncio.Future[tuple[Attempt, ...]] = loop.create_future()
            courier.carry(given(tmp_path, to=("ada", "..")), lambda job, found, done=done: done.set_result(found))
            assert not courier.usable and not done.done()
            delivered, failed = await done
            assert (delivered.outcome.value, delivered.transport) == ("delivered", "maildir")
            assert delivered.started_us and not delivered.remote_name
            assert (failed.outcome.value, failed.status, failed.reach.value) == ("failed", "5.1.3", "recipient")
        assert len(mails(tmp_path)) == 3
        courier.close()
        assert not courier.usable
