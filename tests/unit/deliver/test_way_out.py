"""Header fields that change on the way to a next hop: content in memory and in a file, conversions, maps that wait."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from postroad.deliver.way_out import OtherHead, head_of, other_head, read_other_head, with_head
from postroad.mail.attempt import Attempt
from postroad.mail.envelope import Body
from postroad.mail.job import ChangedHead, Job, WayOut
from postroad.mail.message import ContentFile, header_end, size
from postroad.store.content import read
from tests.unit.deliver.world import Stage, job

SECTION = b"Received: x\r\nSubject: old\r\nFrom: a@b\r\n"
BODY = b"\r\nold\r\n"


def way(head: bytes) -> ChangedHead:
    return ChangedHead(head.replace(b"old", b"new and longer"), ("changed Subject",))


def filed(tmp_path: Path, octets: bytes, prefix: bytes = b"") -> Job:
    path = tmp_path / "content"
    path.write_bytes(octets)
    given = job(ContentFile(str(path), len(octets)))
    envelope = msgspec.structs.replace(given.envelope, prefix=prefix, size=len(octets) + len(prefix))
    return msgspec.structs.replace(given, envelope=envelope)


@pytest.mark.parametrize("cut", [0, 13, 27, len(SECTION)])
@pytest.mark.parametrize("body", [BODY, b"", b"text at once\r\n", b"\r\n" + b"x" * 600_000 + b"\r\n"])
def test_only_the_header_section_changes(tmp_path: Path, cut: int, body: bytes) -> None:
    """`cut`: so much of it stands in the envelope."""
    cut = SECTION.rfind(b"\n", 0, cut) + 1
    for given in (filed(tmp_path, SECTION[cut:] + body, SECTION[:cut]), job(SECTION + body)):
        before = head_of(given)
        assert before == SECTION
        found = with_head(given, before, way(before).head)
        assert read(found.envelope, found.content) == way(SECTION).head + body
        assert size(found.envelope, found.content) == len(way(SECTION).head + body)
        assert found.recipients == given.recipients
        assert read(given.envelope, given.content) == SECTION + body


def test_nothing_changed_is_the_same_job() -> None:
    given = job(SECTION + BODY)
    assert with_head(given, SECTION, SECTION) is given
    assert with_head(given, SECTION, b"") is given  # else the body might be read as a header section


def test_an_address_that_only_smtputf8_can_carry() -> None:
    found = with_head(job(SECTION + BODY), SECTION, SECTION.replace(b"a@b", "ä@b".encode()))
    assert (found.envelope.smtputf8, found.envelope.body) == (True, Body.EIGHT_BIT_MIME)


def asked(given: Job, way_out: WayOut) -> OtherHead | str:
    async def ask() -> OtherHead | str:
        if isinstance(given.content, bytes):
            found = other_head(given, way_out)
            return await found if isinstance(found, Awaitable) else found
        loop = asyncio.get_running_loop()
        return await read_other_head(given, way_out, None, loop)  # type: ignore[arg-type]

    return asyncio.run(ask())


@pytest.mark.parametrize("in_file", [False, True])
@pytest.mark.parametrize("waits", [False, True])
def test_asking(tmp_path: Path, in_file: bool, waits: bool) -> None:
    async def later(head: bytes) -> ChangedHead:
        await asyncio.sleep(0)
        return way(head)

    way_out: Any = later if waits else way
    found = asked(filed(tmp_path, SECTION + BODY) if in_file else job(SECTION + BODY), way_out)
    assert isinstance(found, OtherHead)
    assert found.said == "changed Subject"
    assert read(found.job.envelope, found.job.content) == way(SECTION).head + BODY
    away: Any = lambda head: ChangedHead(head, (), "the map is away")  # noqa: E731
    assert asked(filed(tmp_path, SECTION + BODY) if in_file else job(SECTION + BODY), away) == "the map is away"


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    given = filed(tmp_path, SECTION + BODY)
    (tmp_path / "content").unlink()
    assert str(asked(given, way)).startswith("the content could not be read")


def test_a_courier_sends_the_other_header_section_and_says_so() -> None:
    stage = Stage()
    stage.courier.way_out = way
    given = job(b"Subject: old\r\n\r\nold\r\n")
    heard: list[tuple[Job, tuple[Attempt, ...]]] = []
    stage.courier.carry(given, lambda job, attempts: heard.append((job, attempts)))
    assert b"SIZE=%d" % len(b"Subject: new and longer\r\n\r\nold\r\n") in stage.wire.taken()
    stage.server("250 ok", "250 ok", "354 go")
    assert stage.wire.taken() == b"Subject: new and longer\r\n\r\nold\r\n.\r\n"
    stage.server("250 2.0.0 taken")
    ((told, (attempt,)),) = heard
    assert told is given  # the queue's own
    assert attempt.text == "changed Subject"


def test_eight_bit_mail_is_converted_with_its_other_header_section() -> None:
    stage = Stage(offered="SIZE PIPELINING")
    stage.courier.way_out = way
    given = job("Subject: old ä\r\n\r\nä old\r\n".encode(), body=Body.EIGHT_BIT_MIME)
    stage.courier.carry(given, lambda job, attempts: stage.done.append(attempts))
    stage.loop.run()
    stage.wire.taken()
    stage.server("250 ok", "250 ok", "354 go")
    content = stage.wire.taken()
    assert content.isascii()
    assert b"=?utf-8?B?" in content or b"new and longer" in content
    assert b"Content-Transfer-Encoding: " in content[: header_end(content)]


def test_what_a_map_cannot_tell_is_a_deferral_and_nothing_is_said() -> None:
    stage = Stage()
    stage.courier.way_out = lambda head: ChangedHead(head, (), "the map is away")
    stage.courier.carry(job(), lambda job, attempts: stage.done.append(attempts))
    stage.loop.run()
    (attempt,) = stage.done[0]
    assert (attempt.outcome.value, attempt.status, attempt.text) == ("deferred", "4.3.0", "the map is away")
    assert stage.wire.taken() == b""
    assert stage.courier.usable
