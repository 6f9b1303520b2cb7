"""The courier that asks the porter: what it asks, what it makes of the answers, and how it is broken off."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

from postroad.deliver.courier_context import courier_context
from postroad.deliver.delegated import DelegatedCourier
from postroad.deliver.options import DeliverOptions
from postroad.deliver.porter import PorterRequest, answer_of
from postroad.deliver.quota import QuotaTable
from postroad.mail.address import Address
from postroad.mail.attempt import Attempt, Outcome, Reach
from postroad.mail.envelope import Recipient
from postroad.mail.job import Job
from postroad.mail.loop import Marks
from postroad.mail.message import ContentFile
from postroad.mail.route import Destination, MailboxRules, Quota, Transport
from postroad.protocol.sending import Result
from postroad.world.problem import Problem
from tests.unit.deliver import world

CONTENT = b"Subject: x\r\n\r\nhello\r\n"
DELIVERED = answer_of(Result(Outcome.DELIVERED, Reach.RECIPIENT, "2.0.0", "there"))


class Porter:
    """Gives these answers, one after the other; None: never."""

    def __init__(self, *answers: bytes | Problem | None) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[PorterRequest, bytes]] = []

    async def ask(self, request: bytes, content: int) -> bytes | Problem:
        read = msgspec.msgpack.decode(request, type=PorterRequest)
        self.asked.append((read, read.prefix + os.pread(content, 1 << 20, 0)))
        with pytest.raises(OSError):
            os.pwrite(content, b"x", 0)  # one recipient cannot change what the next one gets
        answer = self.answers.pop(0)
        if answer is None:
            await asyncio.get_running_loop().create_future()
        assert answer is not None
        return answer


def given(content: Any = CONTENT, to: tuple[str, ...] = ("ada",), prefix: bytes = b"") -> Job:
    made = world.job(content, tuple(Recipient(Address(name, "example.org")) for name in to), prefix=prefix)
    rules = MailboxRules(Quota(7, 8), user="{local_part}")
    destination = Destination("maildir:d", Transport.MAILDIR, domain="d", path="/home/{local_part}", rules=rules)
    return msgspec.structs.replace(made, destination=destination)


async def carry(porter: Porter | None, job: Job, *, broken_off: bool = False) -> tuple[Attempt, ...]:
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as pool:
        shared = courier_context("mx", DeliverOptions(), world.Clock(), loop, pool)
        busy: set[DelegatedCourier] = set()
        courier = DelegatedCourier(shared, porter, busy, QuotaTable(), Marks(b"secret"))
        done: asyncio.Future[tuple[Attempt, ...]] = loop.create_future()
        courier.carry(job, lambda job, found: done.set_result(found))
        assert not courier.usable and busy == {courier}
        if broken_off:
            while porter is not None and porter.answers:
                await asyncio.sleep(0.01)
            await courier.end()
            assert done.done()
        found = await done
        assert not busy and courier.usable is not broken_off
        return found


async def test_what_it_asks() -> None:
    porter = Porter(DELIVERED, b"")
    first, second = await carry(porter, given(to=("ada", "Bob+x")))
    assert (first.outcome.value, first.text, first.transport) == ("delivered", "there", "maildir")
    assert (second.outcome.value, second.status) == ("deferred", "4.3.0")
    (request, content), (other, _) = porter.asked
    assert content == CONTENT and request.size == len(CONTENT)
    assert (request.domain, request.address, request.reverse_path) == (
        "d", Address("ada", "example.org"), Address("ada", "example.org")
    )  # fmt: skip
    assert (other.local_part, other.quota) == ("Bob+x", Quota(7, 8))
    assert request.mark != other.mark and len(request.mark) == 16


@pytest.mark.parametrize("prefix", [b"Received: x\r\n", b"Received: x\r\n" * 3_000])
async def test_content_in_a_file(tmp_path: Path, prefix: bytes) -> None:
    path = tmp_path / "content"
    path.write_bytes(CONTENT)
    porter = Porter(DELIVERED)
    await carry(porter, given(ContentFile(str(path), len(CONTENT)), prefix=prefix))
    assert porter.asked[0][1] == prefix + CONTENT
    assert path.read_bytes() == CONTENT


async def test_a_file_that_is_not_there() -> None:
    (attempt,) = await carry(Porter(), given(ContentFile("/nowhere/at/all", 5)))
    assert (attempt.outcome.value, attempt.status) == ("deferred", "4.3.0")


async def test_without_a_porter_mail_waits() -> None:
    (attempt,) = await carry(None, given())
    assert (attempt.outcome.value, attempt.status) == ("deferred", "4.3.5")
    (attempt,) = await carry(Porter(Problem("the porter", "is gone", "")), given())
    assert (attempt.outcome.value, attempt.status) == ("deferred", "4.3.5")


async def test_what_is_broken_off_waits() -> None:
    found = await carry(Porter(DELIVERED, None), given(to=("ada", "bob", "cid")), broken_off=True)
    assert [attempt.outcome.value for attempt in found] == ["delivered", "deferred", "deferred"]


async def test_a_delivery_that_is_broken_off_before_it_has_begun() -> None:
    (told,) = await carry(None, given(), broken_off=True)
    assert (told.outcome.value, told.text) == ("deferred", "the delivery was broken off")
