"""Sessions over a stand-in transport: the way of a message, and every way in which it may not go on."""

from __future__ import annotations

import pytest

from postroad.mail.envelope import Body
from tests.unit.receive.fakes import House, opened

MESSAGE = b"Subject: hi\r\nMessage-ID: <1@client.test>\r\n\r\nHello\r\n"
DIALOG = (
    b"EHLO client.test\r\n",
    b"MAIL FROM:<eve@elsewhere.test>\r\nRCPT TO:<ann@local.test>\r\nDATA\r\n",
    MESSAGE + b".\r\n",
    b"QUIT\r\n",
)


def test_a_message_comes_in() -> None:
    house = House()
    client = house.client()
    assert client.heard() == b"220 mx.local.test ESMTP Postroad\r\n"
    assert client.say(DIALOG[0]).startswith("250-mx.local.test\n250-")
    assert [line[:9] for line in client.say(DIALOG[1]).split("\n")] == ["250 2.1.0", "250 2.1.5", "354 Send "]
    assert client.transport.writes == 3  # one for each turn
    answer = client.say(DIALOG[2])
    (stored,) = house.spool.stored
    assert house.queued == [stored]
    assert answer.startswith("250 2.0.0 Ok: queued as ")
    assert isinstance(stored.content, bytes)
    assert stored.content.endswith(MESSAGE)
    assert stored.content.startswith(b"Received: from client.test ([192.0.2.1])\r\n\tby mx.local.test (Postroad) with ESMTP id ")
    assert b"\r\n\tfor <ann@local.test>;\r\n" in stored.content
    envelope = stored.envelope
    assert envelope.size == len(stored.content)
    assert (str(envelope.reverse_path), envelope.message_id) == ("eve@elsewhere.test", "<1@client.test>")
    assert [str(each.address) for each in envelope.recipients] == ["ann@local.test"]
    assert envelope.peer.hello == "client.test" and envelope.peer.listener == "front"
    assert client.say(DIALOG[3]).startswith("221 2.0.0")
    assert client.transport.closed
