"""A refused mailing is one line of the log."""

from __future__ import annotations

from pathlib import Path

import msgspec

from postroad.mail.attempt import Attempt, Outcome, Reach
from postroad.mail.envelope import Peer
from postroad.mail.event import Accepted, Attempted, Event, Refused
from postroad.mail.reply import Reply
from postroad.report.merging import merged
from tests.unit.report.test_log import Loop, log_to

FAILED = Attempt(Outcome.FAILED, Reach.RECIPIENT, "5.1.1", remote_name="mx.b.test", remote_address="192.0.2.1")


def failed(number: int, *, id: int = 1, next_us: int = 0, code: int = 550, status: str = "5.1.1") -> Attempted:
    name = f"u{number}@b.test"
    outcome = Outcome.DEFERRED if next_us else Outcome.FAILED
    reply = Reply(code, status, (f"<{name}>: no such user",))
    attempt = msgspec.structs.replace(FAILED, outcome=outcome, status=status, reply=reply)
    return Attempted(5, id, (name,), "b.test", attempt, 1, next_us)


def refused(number: int, *, port: int = 7, reply: str = "550 5.1.1 <u>: no such user here") -> Refused:
    return Refused(5, 0, Peer("192.0.2.7", port), "RCPT", reply, "a@a.test", f"u{number}@c.test", "unknown recipient")


def test_five_hundred_recipients_are_one_line(tmp_path: Path) -> None:
    loop = Loop()
    log = log_to(tmp_path / "log", loop)
    log.write_all([failed(number) for number in range(500)])
    log.flush()
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert "<u0@b.test>" in line and "and 400 more" in line and '"550 5.1.1 <u0@b.test>: no such user"' in line


def test_each_recipient_is_in_one_line_and_only_what_tells_the_same_is_merged() -> None:
    delivered = Attempted(5, 1, ("d@b.test",), "b.test", msgspec.structs.replace(FAILED, outcome=Outcome.DELIVERED))
    accepted = Accepted(5, 1, "", (), 1, "", Peer())
    events: list[Event] = [
        failed(1), accepted, failed(2), failed(3, id=2), delivered, failed(4, next_us=9), failed(5, next_us=7),
        failed(6, status="5.7.1"), refused(1), refused(2), refused(3, port=8), refused(4, reply="450 4.2.1 later"),
        delivered,
    ]  # fmt: skip
    found = merged(events)
    assert found[0] == msgspec.structs.replace(failed(1), recipients=("u1@b.test", "u2@b.test"))
    assert found[1] is accepted and found[2] == failed(3, id=2) and found[3] is delivered and found[-1] is delivered
    later = found[4]
    assert isinstance(later, Attempted) and later.recipients == ("u4@b.test", "u5@b.test") and later.next_us == 7
    told = found[6]
    assert isinstance(told, Refused) and told.recipients == ("u1@c.test", "u2@c.test") and not told.recipient
    assert len(found) == 10


def test_what_stands_alone_is_as_it_was() -> None:
    events = [failed(1)]
    assert merged(events) is events
    assert list(merged([refused(1), failed(1)])) == [refused(1), failed(1)]
