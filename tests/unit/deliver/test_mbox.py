"""Delivery into mbox files: what stands there, locks, what a crash leaves, and calls of the system that fail."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import mailbox
import os
import random
import re
import signal
import stat
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given as any_of
from hypothesis import strategies as st

from postroad.deliver.courier_context import courier_context
from postroad.deliver.folders import guarded
from postroad.deliver.letter import letter
from postroad.deliver.mailbox import mbox_file
from postroad.deliver.mbox import Locked, MboxGate, MboxWriter, Quoting, from_line, lines
from postroad.deliver.mbox_courier import MboxCourier
from postroad.deliver.options import DeliverOptions, MaildirOptions, MboxOptions, MboxQuoting
from postroad.mail.address import Address
from postroad.mail.attempt import Attempt
from postroad.mail.envelope import Body, Recipient
from postroad.mail.job import Job
from postroad.mail.message import ContentFile
from postroad.mail.route import Destination, MailboxRules, Transport
from postroad.protocol.sending import Result
from postroad.world.files import Posix
from tests.unit.deliver import world
from tests.unit.deliver.test_maildir import FAULTS, STATUS, Faulty

NOW_US = 1_700_000_000_123_456
CONTENT = b"Subject: x\r\n\r\nhello\r\n"
HELLO = b"Return-Path: <ada@example.org>\nDelivered-To: ada@example.org\nSubject: x\n\nhello\n\n"


def given(root: Path, content: Any = CONTENT, to: tuple[str, ...] = ("ada",), **fields: Any) -> Job:
    made = world.job(content, tuple(Recipient(Address(name, "example.org")) for name in to), **fields)
    path = str(root / "{local_part}")
    return msgspec.structs.replace(made, destination=Destination("mbox:example.org", Transport.MBOX, path=path))


def put(
    job: Job, *, posix: Posix | None = None, gate: MboxGate | None = None, rules: MailboxRules | None = None,
    size_max: int = 0, **options: Any,
) -> Result | Locked:
    writer = MboxWriter(MboxOptions(**options), posix or Posix(), gate or MboxGate(), make_folders=True)
    box = mbox_file(job.destination.path, job.envelope.recipients[0].address, "example.org", MaildirOptions())
    assert not isinstance(box, str)
    return writer.put(box, letter(job, job.named()[0].address, None), NOW_US, rules or MailboxRules(), size_max)


def delivered(result: Result | Locked) -> bool:
    return isinstance(result, Result) and result.outcome.value == "delivered"


def without_from(octets: bytes) -> bytes:
    return re.sub(rb"(?m)^From .*\n", b"", octets)


def test_a_message_as_it_stands_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    assert delivered(put(given(tmp_path)))
    assert (tmp_path / "ada").read_bytes() == b"From ada@example.org Tue Nov 14 22:13:20 2023\n" + HELLO
    assert stat.S_IMODE((tmp_path / "ada").stat().st_mode) == 0o600
    assert delivered(put(given(tmp_path)))
    assert without_from((tmp_path / "ada").read_bytes()) == HELLO * 2
    assert [path.name for path in tmp_path.iterdir()] == ["ada"], "no lock is left"


@pytest.mark.parametrize(("before", "gap"), [(b"x", b"\n\n"), (b"x\n", b"\n"), (b"x\n\n", b""), (b"", b""),
                                             (b"\n", b"\n")])
def test_a_message_begins_behind_an_empty_line(tmp_path: Path, before: bytes, gap: bytes) -> None:
    (tmp_path / "ada").write_bytes(before)
    put(given(tmp_path))
    assert (tmp_path / "ada").read_bytes().startswith(before + gap + b"From ada@example.org ")


def test_content_without_a_last_line_end_gets_one(tmp_path: Path) -> None:
    put(given(tmp_path, b"Subject: x\r\n\r\nhello"))
    assert without_from((tmp_path / "ada").read_bytes()) == HELLO


def test_what_stands_in_the_from_line() -> None:
    assert from_line(None, NOW_US).startswith(b"From MAILER-DAEMON ")
    assert from_line(Address("a b\tc", "d.example"), NOW_US).startswith(b'From "a_b_c"@d.example ')
    assert b"\n" not in from_line(Address("a\nFrom b", "d.example"), NOW_US)[:-1]


@pytest.mark.parametrize(
    ("how", "quoted"),
    [
        (MboxQuoting.MBOXO, b">From a\nFromb\n>From b\n>>From c\n >From\n From d\n>From "),
        (MboxQuoting.MBOXRD, b">From a\nFromb\n>>From b\n>>>From c\n >From\n From d\n>From "),
    ],
)
def test_quoting_in_every_cut(how: MboxQuoting, quoted: bytes) -> None:
    plain = b"From a\nFromb\n>From b\n>>From c\n >From\n From d\nFrom "
    for first in range(len(plain) + 1):
        for second in range(first, len(plain) + 1):
            quoting = Quoting(how)
            pieces = (plain[:first], plain[first:second], plain[second:])
            assert b"".join(map(quoting.piece, pieces)) + quoting.end() == quoted


@any_of(st.lists(st.sampled_from([b"From ", b"From", b"F", b">", b"\n", b"x", b"rom ", b" "]), max_size=30), st.data())
def test_mboxrd_can_be_read_again(parts: list[bytes], data: st.DataObject) -> None:
    plain = b"".join(parts)
    quoting = Quoting(MboxQuoting.MBOXRD)
    quoted, at = b"", 0
    while at < len(plain):
        size = data.draw(st.integers(1, 10))
        quoted += quoting.piece(plain[at : at + size])
        at += size
    quoted += quoting.end()
    assert re.search(rb"(?m)^From ", quoted) is None
    assert re.sub(rb"(?m)^>(>*From )", rb"\1", quoted) == plain


def test_the_state_of_a_message_is_not_the_senders_to_say(tmp_path: Path) -> None:
    fields = b"".join(name + b": RO\r\n D\r\n" for name in (b"Status", b"X-STATUS", b"x-uid", b"Content-Length"))
    put(given(tmp_path, b"Statuses: y\r\n" + fields + b"Subject: x\r\n\r\nStatus: z\r\n"))
    found = without_from((tmp_path / "ada").read_bytes()).partition(b"example.org\n")[2]
    assert found == b"Statuses: y\nSubject: x\n\nStatus: z\n\n"


def test_large_content_from_a_file(tmp_path: Path) -> None:
    octets = b"Subject: x\r\nStatus: R\r\n\r\n" + b"From line\r\n" * 100_000
    path = tmp_path / "content"
    path.write_bytes(octets)
    put(given(tmp_path, ContentFile(str(path), len(octets))))
    found = (tmp_path / "ada").read_bytes()
    assert found.endswith(b"Subject: x\n\n" + b">From line\n" * 100_000 + b"\n")


def test_python_reads_what_we_write(tmp_path: Path) -> None:
    for number in range(3):
        put(given(tmp_path, b"Subject: %d\r\n\r\nFrom me\r\n\r\nFrom you\r\n" % number))
    found = list(mailbox.mbox(tmp_path / "ada"))
    assert [message["Subject"] for message in found] == ["0", "1", "2"]
    assert found[0].get_payload() == ">From me\n\n>From you\n"


def test_binary_content_is_refused(tmp_path: Path) -> None:
    result = put(given(tmp_path, b"a: b\r\n\r\n\x00\n", body=Body.BINARY_MIME))
    assert isinstance(result, Result) and (result.outcome.value, result.status) == ("failed", "5.6.1")


@pytest.mark.parametrize("name", ["ada.lock", "ada.lock.7.1", ".", "-x"])
def test_names_that_no_file_may_have(tmp_path: Path, name: str) -> None:
    assert isinstance(mbox_file(str(tmp_path / "{local_part}"), Address(name, "x"), "x", MaildirOptions()), str)


# -- files that we do not trust


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"")
    (tmp_path / "ada").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic link"):
        put(given(tmp_path))
    assert (tmp_path / "victim").read_bytes() == b""


def test_a_file_with_a_second_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"")
    os.link(tmp_path / "victim", tmp_path / "ada")
    with pytest.raises(OSError, match="second name"):
        put(given(tmp_path))
    assert (tmp_path / "victim").read_bytes() == b""


def test_no_file_at_all(tmp_path: Path) -> None:
    (tmp_path / "ada").mkdir()
    with pytest.raises(OSError, match="folder"):
        put(given(tmp_path))
    (tmp_path / "ada").rmdir()
    os.mkfifo(tmp_path / "ada")
    with pytest.raises(OSError, match="not a file"):
        put(given(tmp_path))


@pytest.mark.skipif(os.geteuid() != 0, reason="the test must run as root")
def test_a_file_of_somebody_else_in_a_folder_for_everybody(tmp_path: Path) -> None:
    (tmp_path / "ada").write_bytes(b"")
    os.chown(tmp_path / "ada", 12345, -1)
    assert delivered(put(given(tmp_path)))
    tmp_path.chmod(0o1777)
    with pytest.raises(OSError, match="not our own"):
        put(given(tmp_path))


def test_a_file_for_everybody(tmp_path: Path) -> None:
    (tmp_path / "ada").write_bytes(b"")
    (tmp_path / "ada").chmod(0o666)
    with pytest.raises(OSError, match="everybody"):
        put(given(tmp_path))


# -- locks

HOLD = """
import fcntl, sys
file = open(sys.argv[1], "r+b")
fcntl.lockf(file, fcntl.LOCK_EX)
print(flush=True)
sys.stdin.read()
"""


def test_somebody_has_a_lock_of_fcntl(tmp_path: Path) -> None:
    (tmp_path / "ada").write_bytes(b"")
    command = [sys.executable, "-c", HOLD, str(tmp_path / "ada")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdin is not None
        holder.stdout.readline()
        assert put(given(tmp_path)) == Locked("a lock of fcntl")
        assert not (tmp_path / "ada.lock").exists()
        holder.stdin.close()
        holder.wait()
    assert delivered(put(given(tmp_path)))


def test_somebody_has_the_lock_file(tmp_path: Path) -> None:
    (tmp_path / "ada.lock").write_bytes(b"%d\n" % os.getpid())
    assert put(given(tmp_path)) == Locked(f"the file ada.lock (process {os.getpid()})")
    with open(tmp_path / "ada", "r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # ours was let go
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["ada", "ada.lock"]
    assert delivered(put(given(tmp_path), dotlock=False))


def test_a_stale_lock_file_is_removed(tmp_path: Path) -> None:
    lock = tmp_path / "ada.lock"
    lock.write_bytes(b"0\n")
    state = lock.stat()
    os.utime(lock, (state.st_atime, state.st_mtime - 250))
    assert isinstance(put(given(tmp_path)), Locked)
    os.utime(lock, (state.st_atime, state.st_mtime - 350))
    assert delivered(put(given(tmp_path)))
    assert not lock.exists()


def test_two_threads_never_write_at_once(tmp_path: Path) -> None:
    gate = MboxGate()
    counts: list[int] = []

    def work() -> None:
        count = 0
        while count < 20:
            count += delivered(put(given(tmp_path, CONTENT * 20), gate=gate))
        counts.append(count)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [20] * 4
    octets = (tmp_path / "ada").read_bytes()
    assert octets.count(b"From ada@example.org ") == 80
    assert set(octets.split(b"From ada@example.org ")[1:]) == {octets.split(b"From ada@example.org ")[1]}


def test_a_file_that_was_replaced_meanwhile(tmp_path: Path) -> None:
    put(given(tmp_path))
    calls: list[Any] = []

    def open_(path: Any, flags: int, *more: Any, **keywords: Any) -> int:
        handle = os.open(path, flags, *more, **keywords)
        if path == "ada" and not calls:
            calls.append(path)
            os.unlink(tmp_path / "ada")  # a mail reader removes an empty mailbox
        return handle

    assert put(given(tmp_path), posix=Posix(open=open_)) == Locked("the file was replaced")
    assert delivered(put(given(tmp_path)))


# -- crashes

CRASH = """
import os, sys
sys.path[:0] = {path!r}
from pathlib import Path
from tests.unit.deliver import test_mbox
from postroad.world.files import Posix
count = 0
def write(handle, octets):
    global count
    count += 1
    if count == {when}:
        os.write(handle, bytes(octets)[: len(octets) // 2])
        os.kill(os.getpid(), 9)
    return os.write(handle, octets)
def die(handle, size):
    os.kill(os.getpid(), 9)
posix = Posix(write=write) if {when} else Posix(ftruncate=die)
test_mbox.put(test_mbox.given(Path({root!r}), b"Subject: y\\r\\n\\r\\nhalf of it\\r\\n"), posix=posix)
"""


def crash(root: Path, when: int) -> None:
    """`when`: at which write; 0: when all is written and synced, and nothing is told yet."""
    code = textwrap.dedent(CRASH.format(path=sys.path, when=when, root=str(root)))
    ended = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()


@pytest.mark.parametrize("when", [0, 3, 4])
def test_what_a_crash_leaves_is_cut(tmp_path: Path, when: int) -> None:
    put(given(tmp_path))
    crash(tmp_path, when)
    assert (tmp_path / "ada.lock").exists()
    assert when == 3 or len((tmp_path / "ada").read_bytes()) > len(HELLO) + 60
    assert delivered(put(given(tmp_path)))
    assert without_from((tmp_path / "ada").read_bytes()) == HELLO * 2
    assert not (tmp_path / "ada.lock").exists()


def test_what_somebody_wrote_behind_it_is_not_cut(tmp_path: Path) -> None:
    put(given(tmp_path))
    crash(tmp_path, 4)
    with open(tmp_path / "ada", "ab") as file:  # a program that takes no lock file
        file.write(b"\nFrom bob Tue Nov 14 22:13:20 2023\n\nmine\n\n")
    before = (tmp_path / "ada").read_bytes()
    assert delivered(put(given(tmp_path)))
    assert (tmp_path / "ada").read_bytes().startswith(before)


def test_a_file_that_was_written_anew_is_not_cut(tmp_path: Path) -> None:
    put(given(tmp_path))
    crash(tmp_path, 4)
    other = b"From bob Tue Nov 14 22:13:20 2023\n" + b"x" * 1000 + b"\n\n"
    (tmp_path / "ada").write_bytes(other)
    assert delivered(put(given(tmp_path)))
    assert (tmp_path / "ada").read_bytes().startswith(other)


def test_after_another_start_of_the_machine_nothing_is_cut(tmp_path: Path) -> None:
    """Then the note may be older than the file, which may hold a message that was told as delivered."""
    put(given(tmp_path))
    crash(tmp_path, 4)
    lock = tmp_path / "ada.lock"
    lock.write_bytes(re.sub(rb'"boot":"[^"]*"', b'"boot":"another"', lock.read_bytes()))
    os.utime(lock, (1, 1))
    before = (tmp_path / "ada").read_bytes()
    assert delivered(put(given(tmp_path)))
    assert (tmp_path / "ada").read_bytes().startswith(before + b"\n")


@pytest.mark.parametrize("how", ["owner", "link"])
def test_the_note_of_somebody_else_has_nothing_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """Where everybody may make files in the folder, anybody can make a lock file."""
    put(given(tmp_path))
    crash(tmp_path, 4)
    before = (tmp_path / "ada").read_bytes()
    lock = tmp_path / "ada.lock"
    inode = lock.stat().st_ino

    def of_another(handle: int) -> os.stat_result:
        found = os.fstat(handle)
        return os.stat_result((*found[:4], found.st_uid + 1, *found[5:])) if found.st_ino == inode else found

    if how == "link":
        os.link(lock, tmp_path / "other")
    told = put(given(tmp_path), posix=Posix(fstat=of_another) if how == "owner" else Posix())
    assert isinstance(told, Locked)
    assert (tmp_path / "ada").read_bytes() == before


@pytest.mark.parametrize(("name", "code"), [*FAULTS, ("ftruncate", errno.EIO)])
def test_every_call_that_may_fail(tmp_path: Path, name: str, code: int) -> None:
    """Whichever call fails: the file is as it was, no lock and no descriptor is left."""
    for when in range(1, 40):
        root = tmp_path / str(when)
        root.mkdir()
        faulty = Faulty(name, when, code)
        job = given(root / "more")
        result = guarded("x", partial(put, job, posix=faulty.posix()))
        assert not faulty.opened
        assert isinstance(result, Result)
        if not faulty.failed:
            assert delivered(result) and (when > 1 or name == "rename")
            return
        assert result.outcome.value == "deferred"
        assert result.status in (STATUS.get(code, "4.3.0"), "4.3.5")
        assert all((path.name, path.read_bytes()) == ("ada", b"") for path in root.rglob("*") if path.is_file())
    pytest.fail("it always fails")


def test_nothing_is_told_as_delivered_before_it_is_synced(tmp_path: Path) -> None:
    faulty = Faulty("", 0, 0)
    put(given(tmp_path), posix=faulty.posix())
    calls = [call for call in faulty.calls if call in ("write", "fsync", "ftruncate", "unlink")]
    assert calls[-5:] == ["write", "fsync", "fsync", "ftruncate", "unlink"]


# -- the courier


async def carry(job: Job, **options: Any) -> tuple[Attempt, ...]:
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as pool:
        shared = courier_context("mx", DeliverOptions(mbox=MboxOptions(**options)), world.Clock(), loop, pool)
        courier = MboxCourier(shared, Posix(), MboxGate(), random.Random(1))
        done: asyncio.Future[tuple[Attempt, ...]] = loop.create_future()
        courier.carry(job, lambda job, found: done.set_result(found))
        assert not courier.usable and not done.done()
        while not done.done():
            await asyncio.sleep(0.01)
            if (lock := Path(job.destination.path).with_name("bob.lock")).exists() and "locked" in courier.doing:
                assert "bob.lock" in courier.doing
                lock.unlink()
        assert courier.usable
        courier.close()
        assert not courier.usable
        return done.result()


async def test_the_courier_comes_again_for_a_locked_mailbox(tmp_path: Path) -> None:
    (tmp_path / "bob.lock").write_bytes(b"0\n")
    attempts = await carry(given(tmp_path, to=("ada", "bob", "..")))
    assert [attempt.status for attempt in attempts] == ["2.0.0", "2.0.0", "5.1.3"]
    assert {attempt.transport for attempt in attempts} == {"mbox"}
    for name in ("ada", "bob"):
        assert (tmp_path / name).read_bytes().count(b"\nSubject: x\n") == 1


async def test_the_courier_gives_up_at_last(tmp_path: Path) -> None:
    (tmp_path / "ada.lock").write_bytes(b"0\n")
    attempts = await carry(given(tmp_path, to=("ada", "carl")), lock_s=0.1)
    assert [attempt.status for attempt in attempts] == ["4.2.0", "2.0.0"]
    assert attempts[0].text == "the mailbox is locked: the file ada.lock"


def test_lines_of_a_message_without_a_header_section(tmp_path: Path) -> None:
    sent = given(tmp_path, b"\r\nbody")
    made = letter(sent, sent.named()[0].address, None)
    assert b"".join(lines(made, MboxQuoting.MBOXO)).endswith(b"example.org\n\nbody\n\n")
