"""The drop folder: each file becomes one message, whatever stops the node in between; nobody's file can do harm."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from postroad.check.policy import PolicyOptions
from postroad.mail import identifier
from postroad.mail.address import Address
from postroad.mail.event import Event, Noted
from postroad.mail.policy import Action, Question, Role, Verdict
from postroad.receive import drop
from postroad.receive.drop import Drop, DropFiles
from postroad.receive.local_users import LocalCounts, LocalUser
from postroad.receive.options import ListenerOptions, LocalOptions
from postroad.sendmail import drop_folder, places
from postroad.store.values import Stored
from postroad.world.clock import SystemClock
from postroad.world.files import Posix
from tests.unit.receive.fakes import FULL, House

MESSAGE = b"Subject: left\r\n\r\nhello\r\n"
ANN = Address("ann", "local.test")
OPTIONS = LocalOptions(domain="local.test")


class Cut(Exception):
    """The node ends here."""


class Place:
    """A drop folder, what the spool has, and one node after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.drop = folder / places.DROP
        self.drop.mkdir()
        self.house = self._house()
        self.options = OPTIONS
        self.reported: list[Any] = []
        self.failures: list[str] = []  # of recovering

    def _house(self, **doors: Any) -> House:
        listener = ListenerOptions("sendmail", Role.SUBMISSION, trusted_networks=("unix",))
        trusting = PolicyOptions(trust_network=True)
        loop = asyncio.get_running_loop()
        return House(listener=listener, policy_options=trusting, loop=loop, report=self._report, **doors)

    def _report(self, reports: Any, stored: Stored, new_id: Any = None) -> tuple[tuple[Stored, ...], tuple[Event, ...]]:
        self.reported.append(([str(each.recipient.address) for each in reports], stored))
        envelope = stored.envelope if new_id is None else msgspec.structs.replace(stored.envelope, id=new_id(0))
        made = Stored(envelope, b"a report")
        return (made,), ()

    def leave(self, lines: str = "to ann\n", message: bytes = MESSAGE) -> None:
        drop_folder.drop(str(self.folder), f"submit 1\n{lines}size {len(message)}\n\n".encode(), message)

    def files(self) -> list[str]:
        return sorted(os.listdir(self.drop))

    async def node(self, posix: Posix | None = None, turns: int = 1) -> Drop:
        """A node starts, recovers, and looks into the folder."""
        files = DropFiles(self.drop, posix or Posix())
        stored = {each.envelope.id for each in self.house.spool.stored}

        async def known(id: int) -> bool:
            return id in stored

        await drop.recover(files, lambda id: True, known, self.failures.append)
        loop = asyncio.get_running_loop()
        found = Drop(
            files, self.house.listener.setup, self.options, LocalCounts(loop.time),
            who=lambda uid, told: told(LocalUser(uid, "ann", "Ann Example")), pool=None, clock=SystemClock(),
            lifetime_s=1000.0,
        )
        for _ in range(turns):
            await look(found)
        return found

    def notes(self) -> list[str]:
        return [event.text for event in self.house.logged if isinstance(event, Noted)]


async def look(node: Drop) -> None:
    node.look()
    assert node._task is not None
    await asyncio.wait({node._task})
    await asyncio.sleep(0)


@pytest.fixture
async def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


async def test_a_file_becomes_a_message_of_its_owner(place: Place) -> None:
    place.leave("to ann\nto bob@local.test\n")
    await place.node()
    (stored,) = place.house.spool.stored
    assert [str(each.address) for each in stored.envelope.recipients] == ["ann@local.test", "bob@local.test"]
    assert str(stored.envelope.reverse_path) == "ann@local.test"
    assert f"ann/uid={os.getuid()}" in stored.envelope.peer.hello
    assert b"\r\nFrom: Ann Example <ann@local.test>\r\n" in place.house.spool.message()
    assert place.house.spool.message().endswith(b"\r\n\r\nhello\r\n")
    assert place.house.queued == [stored] and place.files() == []


async def test_large_content_goes_by_a_file(place: Place) -> None:
    body = b"".join(b"%09d\r\n" % number for number in range(200_000))
    place.leave(message=b"Subject: large\r\n\r\n" + body)
    await place.node()
    assert place.house.spool.message().endswith(b"\r\n\r\n" + body)


def _cutting(after: int) -> tuple[Posix, Callable[[], bool]]:
    """Calls that change the disk; the one behind `after` others is not made, and neither is any after it."""
    left = [after]

    def limited(call: Callable[..., Any]) -> Callable[..., Any]:
        def made(*arguments: Any, **named: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise Cut
            return call(*arguments, **named)

        return made

    posix = Posix(rename=limited(os.rename), unlink=limited(os.unlink), fsync=limited(os.fsync), open=limited(os.open))
    return posix, lambda: left[0] < 0


@pytest.mark.parametrize("report", [False, True])
@pytest.mark.parametrize("after", range(12))
async def test_a_node_that_ends_anywhere_takes_each_message_once(place: Place, after: int, report: bool) -> None:
    place.leave("to nobody\n" if report else "to ann\n")
    posix, was_cut = _cutting(after)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drop.DropFiles, "close", lambda self, file: os.close(file.descriptor))
        await place.node(posix)
    heard = len(place.house.queued)
    await place.node()
    assert place.files() == [] and len(place.house.spool.stored) == 1
    assert heard == 0 or heard == len(place.house.queued), "who has heard of it does not hear of it again"
    assert was_cut() or after > 6


async def test_the_queue_hears_of_a_message_only_when_its_file_is_gone(place: Place) -> None:
    place.leave()
    there: list[list[str]] = []
    place.house.doors = place._house().doors
    house = place.house = place._house(queued=lambda stored: there.append(place.files()))
    await place.node()
    assert there == [[]] and len(house.spool.stored) == 1


async def test_what_the_spool_does_not_take_comes_again_under_the_same_id(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.leave()
    place.house.spool.failure = FULL
    node = await place.node()
    (name,) = place.files()
    assert name.startswith(drop.TAKEN)
    await look(node)
    assert place.files() == [name], "it is not tried again at once"
    place.house.spool.failure = None
    monkeypatch.setattr(drop, "RETRY_S", 0.0)
    node._again_at.clear()
    await look(node)
    (stored,) = place.house.spool.stored
    assert identifier.text(stored.envelope.id) == name.split("-")[1] and place.files() == []


async def test_who_is_refused_is_told_by_mail_and_the_others_get_theirs(place: Place) -> None:
    place.leave("to ann\nto nobody\n")
    await place.node()
    (stored,) = place.house.spool.stored
    assert [str(each.address) for each in stored.envelope.recipients] == ["ann@local.test"]
    assert [names for names, _ in place.reported] == [["nobody@local.test"]]
    assert len(place.house.spool.reports) == 1 and len(place.house.queued) == 2


async def test_if_all_are_refused_only_the_report_is_there(place: Place) -> None:
    place.leave("to nobody\nto none\n")
    await place.node()
    ((names, stored),) = place.reported
    assert names == ["nobody@local.test", "none@local.test"] and stored.content == MESSAGE
    assert [each.content for each in place.house.spool.stored] == [b"a report"] and place.files() == []


async def test_content_that_is_refused_is_told_by_mail(place: Place) -> None:
    place.leave(message=b"Date: x\r\nDate: y\r\n\r\nbody\r\n")
    await place.node()
    assert [names for names, _ in place.reported] == [["ann@local.test"]] and place.files() == []


async def test_a_user_over_its_rate_waits_and_others_do_not_wait_with_it(place: Place) -> None:
    place.options = LocalOptions(domain="local.test", messages_max=1)
    for _ in range(3):
        place.leave()
    await place.node()
    assert len(place.house.spool.stored) == 1 and len(place.files()) == 2
    assert all(name.startswith(places.WHOLE) for name in place.files())


@pytest.mark.parametrize(
    ("octets", "why"),
    [
        (b"", "no request"),
        (b"submit 1\nto ann\n", "no request"),
        (b"submit 1\nto ann\nsize 5\n\nhello world", "not whole"),
        (b"submit 1\nto ann\nsize 50\n\nhello", "not whole"),
        (b"submit 1\nto ann\nsize 99999999999\n\nhello", "not whole"),
        (b"list 1\n\n", "not a message"),
        (b"submit 9\n\n", "version"),
        (b"submit 1\nto a b\nsize 0\n\n", "5.1.3"),
        (b"submit 1\nsize 0\n\n", "5.1.3"),
    ],
)
async def test_what_is_no_message_is_set_aside(place: Place, octets: bytes, why: str) -> None:
    (place.drop / "m-00").write_bytes(octets)
    place.leave()
    await place.node()
    assert len(place.house.spool.stored) == 1, "another file is taken all the same"
    assert place.files() == ["b-00"] and any(why in text for text in place.notes()), place.notes()
    assert (place.drop / "b-00").read_bytes() == octets
    await place.node()
    assert place.files() == ["b-00"]


async def test_no_file_leads_elsewhere(place: Place, tmp_path: Path) -> None:
    request = b"submit 1\nto ann\nsize %d\n\n" % len(MESSAGE)
    secret = tmp_path / "secret"
    secret.write_bytes(request + MESSAGE)
    (place.drop / "m-00").symlink_to(secret)
    os.link(secret, place.drop / "m-01")
    (place.drop / "m-02").mkdir()
    os.mkfifo(place.drop / "m-03")
    await place.node()
    assert place.house.spool.stored == [] and place.files() == ["b-00", "b-01", "b-02", "b-03"]
    assert secret.read_bytes() == request + MESSAGE


async def test_parts_are_left_until_their_writer_must_be_gone(place: Place) -> None:
    (place.drop / "t-new").write_bytes(b"")
    (place.drop / "t-old").write_bytes(b"")
    os.utime(place.drop / "t-old", (0, 0))
    await place.node()
    assert place.files() == ["t-new"]


async def test_a_file_that_is_cut_off_while_it_is_read(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.leave()
    monkeypatch.setattr(DropFiles, "piece", lambda self, file, at: MESSAGE[:10] if not at else b"")
    await place.node()
    assert place.house.spool.stored == [] and place.files()[0].startswith(drop.BAD)


async def test_recipients_refused_for_now_fail_when_the_time_is_over(place: Place) -> None:
    place.leave("to ann\n")
    (name,) = place.files()
    os.utime(place.drop / name, (0, 0))
    place.house.spool.failure = FULL
    node = await place.node()
    assert len(place.files()) == 1, "a full disk is not the message's fault"
    assert node is not None


async def test_many_files_of_a_user_over_its_rate_keep_nobody_elses_from_being_taken(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the one come first in each look."""
    monkeypatch.setattr(drop, "AT_ONCE", 2)
    names, real = DropFiles.names, DropFiles.open

    def sorted_names(self: DropFiles, prefix: str, limit: int, but: frozenset[str] = frozenset()) -> list[str]:
        return sorted(names(self, prefix, 1000, but))[:limit]

    def opened(self: DropFiles, name: str) -> Any:
        found = real(self, name)
        return msgspec.structs.replace(found, uid=5000 if found.request.recipients == ("bob",) else 6000)

    monkeypatch.setattr(DropFiles, "names", sorted_names)
    monkeypatch.setattr(DropFiles, "open", opened)
    place.options = LocalOptions(domain="local.test", messages_max=1)
    for _ in range(9):
        place.leave("to ann\n")
    place.leave("to bob\n")
    (bobs,) = [name for name in place.files() if b"to bob" in (place.drop / name).read_bytes()]
    (place.drop / bobs).rename(place.drop / "m-zz")
    await place.node()
    to = sorted(str(each.envelope.recipients[0].address) for each in place.house.spool.stored)
    assert to == ["ann@local.test", "bob@local.test"] and len(place.files()) == 8


async def test_a_file_that_cannot_be_removed_holds_its_message_back_over_a_stop(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue would deliver it, and the next node would take it once more."""
    monkeypatch.setattr(drop, "RETRY_S", 0.01)
    place.leave()

    def failing(name: str) -> None:
        raise OSError(5, "Input/output error")

    node = await place.node(Posix(unlink=failing), turns=0)
    node.look()
    while not any("cannot be removed" in text for text in place.notes()):
        await asyncio.sleep(0.01)
    await node.stop(10.0)
    assert len(place.house.spool.stored) == 1 and place.house.queued == [] and len(place.files()) == 1
    await place.node()
    assert len(place.house.spool.stored) == 1 and place.files() == []


async def test_a_stop_does_not_wait_for_a_disk_for_ever(place: Place) -> None:
    place.house.spool.patient = True
    place.leave()
    node = await place.node(turns=0)
    node.look()
    while not place.house.spool.pending:
        await asyncio.sleep(0.01)
    await node.stop(0.05)
    assert place.house.spool.stored == [] and len(place.files()) == 1


@pytest.mark.parametrize("name", ["m-" + "n" * 253, "m-..", "m-a\nb", "m-\udcff", "m-a-b"])
async def test_a_name_of_anybody_s_making_stops_nothing(place: Place, name: str) -> None:
    for at in ("", "0"):  # one before the other file, or behind it
        (place.drop / (name[:255 - len(at)] + at)).write_bytes(b"submit 1\nto ann\nsize 0\n\n")
    place.leave()
    await place.node()
    assert len(place.house.spool.stored) == 1
    assert len(place.files()) == 2 and all(each.startswith(drop.BAD) for each in place.files())
    assert all(text.isascii() and text.isprintable() for text in place.notes()), place.notes()


async def test_what_is_set_aside_replaces_nothing(place: Place) -> None:
    (place.drop / "b-00").write_bytes(b"older")
    (place.drop / "m-00").mkdir()
    place.leave()
    await place.node()
    assert (place.drop / "b-00").read_bytes() == b"older"
    assert len(place.files()) == 2 and all(each.startswith(drop.BAD) for each in place.files())
    assert len(place.house.spool.stored) == 1


async def test_what_somebody_makes_in_the_way_of_recovering_stops_no_start(place: Place) -> None:
    id = identifier.text(identifier.make(1_795_000_000_000_000, 0, 0))
    (place.drop / f"x-{id}-00").mkdir()
    (place.drop / "m-00").write_bytes(b"")
    (place.drop / f"x-{id}-zz-00").write_bytes(b"")
    place.leave()
    await place.node()
    assert len(place.house.spool.stored) == 1 and len(place.failures) == 1
    assert place.files() == ["b-00", f"x-{id}-00", f"x-{id}-zz-00"]


@pytest.mark.parametrize("call", ["open", "fstat"])
async def test_a_file_that_cannot_be_read_now_stays_and_others_are_taken(place: Place, call: str) -> None:
    (place.drop / "m-00").write_bytes(b"submit 1\nto ann\nsize 0\n\n")
    place.leave()
    bad = (place.drop / "m-00").stat().st_ino

    def failing(*arguments: Any, **named: Any) -> Any:
        what = arguments[0]
        if (os.fstat(what) if isinstance(what, int) else os.stat(what)).st_ino == bad:
            raise OSError(errno.EMFILE if call == "open" else errno.EIO, "no")
        return getattr(os, call)(*arguments, **named)

    node = await place.node(Posix(**{call: failing}))
    assert len(place.house.spool.stored) == 1 and place.files() == ["m-00"]
    await look(node)
    assert len(place.notes()) == 1 and "m-00 is not taken: no" in place.notes()[0]


async def test_a_name_whose_change_cannot_be_synced_is_not_forgotten(place: Place) -> None:
    place.leave()
    broken = [True, *[False] * 9]

    def fsync(descriptor: int) -> None:
        if broken.pop(0):
            raise OSError(errno.EIO, "no")

    await place.node(Posix(fsync=fsync))
    assert len(place.house.spool.stored) == 1 and place.files() == []


async def test_files_that_wait_do_not_hide_others(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drop, "AT_ONCE", 2)
    for _ in range(5):
        place.leave("from over@local.test\nto ann\n")

    async def deferring(self: Drop, name: str, file: drop.DropFile, user: LocalUser) -> bool:
        if file.request.sender == "over@local.test":
            self._later(name)
            return False
        return await taking(self, name, file, user)

    taking = Drop._carry
    monkeypatch.setattr(Drop, "_carry", deferring)
    node = await place.node()
    for _ in range(5):
        place.leave()
    await look(node)
    assert len(place.house.spool.stored) == 5 and len(place.files()) == 5


async def test_a_message_that_is_too_large_is_told_by_mail_and_not_read(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    size_max = place.house.options.limits.size_max
    place.leave()
    (name,) = place.files()
    with open(place.drop / name, "wb") as file:
        file.write(b"submit 1\nto ann\nsize %d\n\nSubject: large\r\n\r\n" % (size_max + 18))
        file.truncate(file.tell() + size_max)
    read: list[int] = []
    piece = DropFiles.piece
    monkeypatch.setattr(DropFiles, "piece", lambda self, file, at: read.append(at) or piece(self, file, at))
    await place.node()
    ((names, stored),) = place.reported
    assert names == ["ann@local.test"] and stored.content == b"Subject: large\r\n\r\n"
    assert place.files() == [] and max(read) < 2_000_000


async def test_who_was_refused_is_told_of_although_a_rule_lets_the_others_go(place: Place) -> None:
    rule = place.house.listener.setup.rules.rcpt
    assert rule is not None

    def judged(question: Question) -> Any:
        return Verdict(Action.DISCARD, reason="not wanted") if question.recipient == ANN else rule(question)

    setup = place.house.listener.setup
    rules = msgspec.structs.replace(setup.rules, rcpt=judged)
    place.house.listener.setup = dataclasses.replace(setup, rules=rules)
    place.leave("to ann\nto nobody\n")
    await place.node()
    assert [names for names, _ in place.reported] == [["nobody@local.test"]] and place.files() == []
    assert [each.content for each in place.house.spool.stored] == [b"a report"] and len(place.house.queued) == 1
