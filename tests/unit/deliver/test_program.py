"""Delivery to programs: arguments, exit codes, and real ones at the end."""

from __future__ import annotations

import asyncio
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

from postroad.deliver.courier_context import courier_context
from postroad.deliver.options import DeliverOptions, ProgramOptions
from postroad.deliver.program import ProgramCourier, arguments
from postroad.mail.address import Address
from postroad.mail.attempt import Attempt
from postroad.mail.envelope import Body, Recipient
from postroad.mail.job import Job
from postroad.mail.loop import Marks
from postroad.mail.message import ContentFile
from postroad.mail.route import Destination, Transport
from postroad.protocol.sending import Result
from postroad.world import programs
from postroad.world.programs import ProgramResult, SystemPrograms
from tests.unit.deliver import world

VALUES = {"recipient": "a+b@x", "local_part": "a+b", "domain": "x", "sender": ""}


class Programs:
    """Remembers what it was asked to run, and ends as it is told."""

    def __init__(self, *ends: ProgramResult | Exception) -> None:
        self.ends = list(ends)
        self.asked: list[tuple[tuple[str, ...], dict[str, Any]]] = []
        self.inputs: list[bytes] = []

    async def run(self, command: Any, **keywords: Any) -> ProgramResult:
        self.asked.append((tuple(command), keywords))
        stdin = keywords["stdin"]
        self.inputs.append(stdin.read_bytes() if isinstance(stdin, Path) else stdin)
        end = self.ends.pop(0) if self.ends else ProgramResult(0)
        if isinstance(end, Exception):
            raise end
        return end


def given(
    *command: str, content: Any = b"Subject: x\r\n\r\nhello\r\n", to: tuple[str, ...] = ("ada",), **fields: Any
) -> Job:
    made = world.job(content, tuple(Recipient(Address(name, "example.org")) for name in to), **fields)
    return msgspec.structs.replace(made, destination=Destination("program:x", Transport.PROGRAM, command=command))


async def carry(programs: Any, job: Job, **options: Any) -> tuple[Attempt, ...]:
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as pool:
        deliver = DeliverOptions(program=ProgramOptions(**options))
        courier = ProgramCourier(courier_context("mx", deliver, world.Clock(), loop, pool), programs)
        done: asyncio.Future[tuple[Attempt, ...]] = loop.create_future()
        courier.carry(job, lambda job, found: done.set_result(found))
        assert not courier.usable
        found = await done
        assert courier.usable
        return found


@pytest.mark.parametrize(
    ("command", "made"),
    [
        (("/bin/x",), ("/bin/x",)),
        (("/bin/x", "{recipient}", "{local_part}", "{domain}", "{sender}"), ("/bin/x", "a+b@x", "a+b", "x", "")),
        (("/bin/x", "-f", "{sender}", "--", "{local_part}"), ("/bin/x", "-f", "", "--", "a+b")),
        (("/bin/x", "{other}", "$HOME", "a;b"), ("/bin/x", "{other}", "$HOME", "a;b")),
    ],
)
def test_arguments(command: tuple[str, ...], made: tuple[str, ...]) -> None:
    assert arguments(command, VALUES) == made


@pytest.mark.parametrize(
    ("command", "values", "status"),
    [
        ((), {}, "4.3.5"),
        (("/bin/x", "--user={local_part}"), {}, "4.3.5"),
        (("/bin/x", "{local_part}"), {"local_part": "-rf"}, "5.1.3"),
        (("/bin/x", "{recipient}"), {"recipient": "-oX@x"}, "5.1.3"),
        (("/bin/x", "{sender}"), {"sender": "-be@x"}, "5.1.7"),
        (("/bin/x", "{local_part}"), {"local_part": "a\nb"}, "5.1.3"),
        (("/bin/x", "--", "{local_part}"), {"local_part": "a\0b"}, "5.1.3"),
    ],
)
def test_arguments_that_cannot_be(command: tuple[str, ...], values: dict[str, str], status: str) -> None:
    found = arguments(command, VALUES | values)
    assert isinstance(found, Result)
    assert found.status == status


def test_behind_two_dashes_a_dash_is_safe() -> None:
    assert arguments(("/bin/x", "--", "{local_part}"), VALUES | {"local_part": "-rf"}) == ("/bin/x", "--", "-rf")


@pytest.mark.parametrize(
    ("ended", "outcome", "status"),
    [
        (ProgramResult(0), "delivered", "2.0.0"),
        (ProgramResult(67), "failed", "5.1.1"),
        (ProgramResult(75), "deferred", "4.3.0"),
        (ProgramResult(78), "deferred", "4.3.5"),
        (ProgramResult(127), "deferred", "4.3.5"),
        (ProgramResult(77), "failed", "5.7.0"),
        (ProgramResult(1), "failed", "5.3.0"),
        (ProgramResult(75, output=b"4.2.2 try again\n"), "deferred", "4.2.2"),
        (ProgramResult(77, output=b"5.7.1 not for you\n"), "failed", "5.7.1"),
        (ProgramResult(1, output=b"4.7.1\n"), "deferred", "4.7.1"),
        (ProgramResult(75, output=b"5.2.1 closed"), "failed", "5.2.1"),
        (ProgramResult(75, output=b"2.0.0 kept"), "deferred", "4.3.0"),
        (ProgramResult(75, output=b"5.7.1.2 is our version"), "deferred", "4.3.0"),
        (ProgramResult(0, output=b"5.7.1 said a filter"), "delivered", "2.0.0"),
        (ProgramResult(-1, 9), "deferred", "4.3.0"),
        (ProgramResult(-1, 15, timed_out=True), "deferred", "4.3.0"),
        (ProgramResult(-1, error="/bin/x: No such file or directory"), "deferred", "4.3.0"),
        (RuntimeError("a bug"), "deferred", "4.3.0"),
    ],
)
async def test_how_it_ended(ended: ProgramResult | Exception, outcome: str, status: str) -> None:
    (attempt,) = await carry(Programs(ended), given("/bin/x"))
    assert (attempt.outcome.value, attempt.status, attempt.transport) == (outcome, status, "program")


async def test_what_it_said_is_cleaned_and_bounded() -> None:
    said = b"no\r\n\x1b[31msuch\0\xff user " + b"x" * 5000
    (attempt,) = await carry(Programs(ProgramResult(67, output=said)), given("/bin/x"))
    assert attempt.text.startswith("the program ended with 67: no ?[31msuch?\\xff user xxx")
    assert len(attempt.text) < 600 and attempt.text.isprintable()


async def test_a_recipient_that_was_done_stays_done() -> None:
    found = await carry(
        Programs(ProgramResult(0), OSError(5, "x"), ProgramResult(0)), given("/bin/x", to=("a", "b", "c"))
    )
    assert [attempt.outcome.value for attempt in found] == ["delivered", "deferred", "deferred"]


async def test_what_it_is_given(tmp_path: Path) -> None:
    octets = b"Subject: x\r\n\r\n" + b"y\r\n" * 1000
    path = tmp_path / "content"
    path.write_bytes(octets)
    expected = b"Return-Path: <ada@example.org>\nDelivered-To: ada@example.org\n" + octets.replace(b"\r\n", b"\n")
    for content in (octets, ContentFile(str(path), len(octets))):
        programs = Programs()
        await carry(programs, given("/bin/x", "{recipient}", content=content), time_s=7, output_max=9, directory="/tmp")
        ((command, keywords),) = programs.asked
        assert command == ("/bin/x", "ada@example.org")
        assert programs.inputs == [expected]
        assert keywords["timeout_s"] == 7 and keywords["output_max"] == 9 and keywords["directory"] == "/tmp"
        assert keywords["environment"] == {
            "PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "RECIPIENT": "ada@example.org",
            "LOCAL_PART": "ada", "DOMAIN": "example.org", "SENDER": "ada@example.org",
        }
        stdin = keywords["stdin"]
        assert not isinstance(stdin, Path) or not stdin.exists()  # the copy is gone


async def test_binary_content_is_left_alone() -> None:
    programs = Programs()
    binary = given("/bin/x", content=b"\x00\r\n", body=Body.BINARY_MIME)
    await carry(programs, binary, return_path=False)
    await carry(programs, binary, return_path=False, delivered_to=False)
    assert programs.inputs == [b"Delivered-To: ada@example.org\r\n\x00\r\n", b"\x00\r\n"]


async def test_content_that_is_gone_defers(tmp_path: Path) -> None:
    content = ContentFile(str(tmp_path / "gone"), 5)
    (attempt,) = await carry(Programs(), given("/bin/x", content=content))
    assert (attempt.outcome.value, attempt.status) == ("deferred", "4.3.0")


async def test_a_real_program(tmp_path: Path) -> None:
    script = tmp_path / "keep.py"
    script.write_text(
        "import os, sys\n"
        f"open({str(tmp_path / 'kept')!r}, 'ab').write(sys.stdin.buffer.read())\n"
        "print(sys.argv[1:], os.environ['SENDER'], sorted(os.environ)[:1])\n"
        "sys.exit(67 if 'nobody' in sys.argv[1] else 0)\n"
    )
    job = given(sys.executable, str(script), "{local_part}", to=("$(touch x);`y`", "nobody"))
    kept, failed = await carry(SystemPrograms(), job)
    assert kept.outcome.value == "delivered" and "$(touch x);`y`" in kept.text
    assert (failed.outcome.value, failed.status) == ("failed", "5.1.1")
    names = (str(recipient.address) for recipient in job.named())
    expected = (f"Return-Path: <ada@example.org>\nDelivered-To: {name}\nSubject: x\n\nhello\n" for name in names)
    assert (tmp_path / "kept").read_text() == "".join(expected)


@pytest.mark.parametrize(
    ("trap", "outcomes"),
    [
        ("", [("deferred", "4.3.2"), ("deferred", "4.3.2")]),
        ("trap '' TERM;", [("deferred", "4.3.2"), ("deferred", "4.3.2")]),  # it is killed then
        ("trap 'exit 1' TERM;", [("deferred", "4.3.2"), ("deferred", "4.3.2")]),  # not a failure of the mail
        ("trap 'exit 0' TERM;", [("delivered", "2.0.0"), ("deferred", "4.3.2")]),  # it was done before
    ],
)
async def test_what_is_broken_off_has_ended_and_is_deferred_unless_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trap: str, outcomes: list[tuple[str, str]]
) -> None:
    monkeypatch.setattr(programs, "_GRACE_S", 0.5 if "''" in trap else 20.0)
    loop = asyncio.get_running_loop()
    busy: set[ProgramCourier] = set()
    with ThreadPoolExecutor(1) as pool:
        shared = courier_context("mx", DeliverOptions(), world.Clock(), loop, pool)
        courier = ProgramCourier(shared, SystemPrograms(), busy)
        done: asyncio.Future[tuple[Attempt, ...]] = loop.create_future()
        script = f"{trap} echo $$ > {tmp_path}/pid; while :; do sleep 0.05; done"
        courier.carry(given("/bin/sh", "-c", script, to=("ada", "bob")), lambda job, found: done.set_result(found))
        assert busy == {courier}
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            await asyncio.sleep(0.01)
        await courier.end()
        assert [(each.outcome.value, each.status) for each in await done] == outcomes
        assert not busy and not courier.usable
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


async def test_what_is_broken_off_before_it_has_begun_is_deferred() -> None:
    loop = asyncio.get_running_loop()
    busy: set[ProgramCourier] = set()
    with ThreadPoolExecutor(1) as pool:
        shared = courier_context("mx", DeliverOptions(), world.Clock(), loop, pool)
        courier = ProgramCourier(shared, SystemPrograms(), busy)
        done: list[tuple[Attempt, ...]] = []
        courier.carry(given("/bin/sh", "-c", "exit 0", to=("ada", "bob")), lambda job, found: done.append(found))
        await courier.end()
        assert [(each.outcome.value, each.status) for each in done[0]] == [("deferred", "4.3.2")] * 2
        assert not busy and not courier.usable


async def test_what_is_empty_shifts_no_argument() -> None:
    """The null reverse-path, an empty local-part: each stays an argument of its own."""
    script = "import sys; print(sys.argv[1:])"
    job = given(sys.executable, "-c", script, "{sender}", "{local_part}", "{domain}", "last", to=("",))
    (found,) = await carry(SystemPrograms(), msgspec.structs.replace(job, reverse_path=None))
    assert found.text == "['', '', 'example.org', 'last']"


@pytest.mark.parametrize("size", [10, 100_000])
async def test_each_recipient_has_its_own_mark_on_top(tmp_path: Path, size: int) -> None:
    marks, programs = Marks(b"secret"), Programs()
    content: Any = b"Subject: x\r\n\r\n" + b"y" * size + b"\r\n"
    if size > 10:
        path = tmp_path / "content"
        path.write_bytes(content)
        content = ContentFile(str(path), len(content))
    job = given("/bin/x", content=content, to=("ada", "bob"), message_id="<1@a.test>")
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as pool:
        shared = courier_context("mx", DeliverOptions(), world.Clock(), loop, pool)
        courier = ProgramCourier(shared, programs, None, marks)
        done: asyncio.Future[Any] = loop.create_future()
        courier.carry(job, lambda job, found: done.set_result(found))
        await done
    for name, octets in zip(("ada", "bob"), programs.inputs, strict=True):
        mark = marks.delivered(Address(name, "example.org"), "<1@a.test>")
        top = f"Return-Path: <ada@example.org>\nDelivered-To: {name}@example.org\nX-Postroad-Loop: {mark}\n"
        assert octets.startswith(f"{top}Subject".encode())
        assert octets.endswith(b"y\n")
