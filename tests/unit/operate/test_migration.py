"""A spool of the layout before `Envelope.prefix` and `Attempt.tries`: read, checked, exported and imported, and back.

In that layout the Received field of large content stands in the file; now it stands in the envelope.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from postroad.mail.address import Address
from postroad.mail.attempt import Attempt, Outcome, Reach, Try
from postroad.mail.envelope import Envelope
from postroad.mail.event import Attempted, Event
from postroad.mail.message import ContentFile
from postroad.mail.route import Destination, Transport
from postroad.operate import mailfiles
from postroad.store import content as contents
from postroad.store.sqlite import checking, codec
from postroad.store.sqlite.reader import SpoolReader
from tests.unit.store.sqlite.material import START_US, Desk, message, open_spool

TRACE = b"Received: from a\r\n\tby b; Mon, 23 Nov 2026 12:00:00 +0000\r\n"
SENT = b"Subject: large\r\n\r\n" + b"x" * 70 + b"\r\n"


def _before(struct: type[msgspec.Struct], *appended: str) -> Any:
    """The struct as it was without the fields that were appended."""
    fields = [each for each in msgspec.structs.fields(struct) if each.name not in appended]
    return msgspec.defstruct(
        f"Old{struct.__name__}",
        [(each.name, Any) if each.required else (each.name, Any, each.default) for each in fields],
        array_like=True,
    )


OLD_ENVELOPE = _before(Envelope, "prefix", "classes")
LATER = ("tries", "not_before_us", "policy", "signed", "unsigned")
OLD_ATTEMPT = _before(Attempt, *LATER)


def _old(envelope: Envelope) -> Any:
    values = msgspec.structs.asdict(envelope)
    del values["prefix"], values["classes"]
    return OLD_ENVELOPE(**values)


async def _filed(desk: Desk, octets: bytes, prefix: bytes = b"") -> int:
    incoming = desk.spool.incoming(id := desk.new_id())
    incoming.write(octets)
    file: ContentFile = await desk.ask(incoming.finish)
    stored = message(id, content=file, prefix=prefix, size=len(prefix) + file.size)
    assert await desk.try_accept(stored) is None
    return id


@pytest.mark.parametrize("old", [True, False])
async def test_large_mail_of_both_layouts_is_read_checked_and_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: bool
) -> None:
    spool, folder = tmp_path / "spool", tmp_path / "mail"
    folder.mkdir()
    if old:
        encode = msgspec.msgpack.Encoder().encode
        monkeypatch.setattr(codec, "encode_envelope", lambda envelope: encode(_old(envelope)))
    with open_spool(spool) as desk:
        id = await (_filed(desk, TRACE + SENT) if old else _filed(desk, SENT, TRACE))
    monkeypatch.undo()
    assert [each.findings for each in checking.check(spool, running=False)] == [()]
    reader = SpoolReader(spool)
    loaded, content = reader.load(id), reader.content(id)
    assert loaded is not None and isinstance(content, ContentFile)
    assert (loaded.envelope.prefix == b"") is old
    assert contents.read(loaded.envelope, content) == TRACE + SENT
    assert reader.head(loaded.envelope, len(TRACE)) == TRACE
    # An export is the same whichever layout it came from, so each version imports what the other exported.
    path = mailfiles.write(folder, loaded.envelope, loaded.waiting, content)
    assert path.with_suffix(".eml").read_bytes() == TRACE + SENT
    back = mailfiles.read(path)
    assert back.envelope.prefix == b"" and contents.read(back.envelope, back.content) == TRACE + SENT
    assert back.envelope.size == len(TRACE + SENT)


_BEFORE_DESTINATION = (  # as it was written by the version before `Recipient.destination`
    b"\x9f\x07\x92\xa1s\xaesender.example\x92\x95\x92\xa1a\xa9x.example\x00\xa0\xc0\x90\x95\x92\xa1b\xa9x.example\x02"
    b"\xb2rfc822;b@x.example\x92\xa1c\xa9y.example\x91\x92\xa4RRVS\xb42014-04-03T23:01:00Z\n\x05\x9c\xa9192.0.2.1\x05\xa1h"
    b"\xa5ESMTP\xa0\xa0\xa0\xc0\xa0\xc0\xc0\xc2\xa47BIT\xc2\xa0\xa0\xa0\x90\x00\xc2\xc4\rReceived: x\r\n"
)


def test_recipients_without_a_destination_are_read_and_routed_as_ever() -> None:
    found = codec.decode_envelope(_BEFORE_DESTINATION)
    assert [str(each.address) for each in found.recipients] == ["a@x.example", "b@x.example"]
    assert found.recipients[1].given == Address("c", "y.example") and found.prefix == b"Received: x\r\n"
    assert [each.destination for each in found.recipients] == [None, None]
    stored = Destination("[a]:25", Transport.SMTP, host="a")
    changed = msgspec.structs.replace(found.recipients[0], destination=stored)
    again = msgspec.structs.replace(found, recipients=(changed,))
    assert codec.decode_envelope(codec.encode_envelope(again)) == again


def test_the_versions_read_the_formats_of_each_other() -> None:
    encode, decode = msgspec.msgpack.encode, msgspec.msgpack.decode
    envelope = message(7, prefix=TRACE).envelope
    assert codec.decode_envelope(encode(_old(envelope))) == msgspec.structs.replace(envelope, prefix=b"")
    assert decode(encode(envelope), type=OLD_ENVELOPE).id == 7  # fields that it does not know are passed over
    tried = Try("mx1", "192.0.2.1", 25, Outcome.DEFERRED, "4.4.1", "no connection")
    attempt = Attempt(Outcome.DEFERRED, Reach.DESTINATION, "4.4.1", "2 hosts tried: …", tries=(tried, tried))
    values = msgspec.structs.asdict(attempt)
    for name in LATER:
        del values[name]
    assert decode(encode(OLD_ATTEMPT(**values)), type=Attempt) == msgspec.structs.replace(attempt, tries=())
    assert decode(encode(attempt), type=OLD_ATTEMPT).status == "4.4.1"
    event: Event = Attempted(START_US, 7, ("a@b.example",), "b.example", attempt)
    assert codec.decode_journal(codec.join_events((codec.encode_events((event,)),))) == [event]
