"""Clients that hand messages over: pipelining or line by line, DATA or BDAT, and some that leave in the middle.

A client believes what it hears and nothing else: only a 250 to the end of data, all of whose octets have come, is a
promise. Where it heard no answer, or a transient one, it tries again later with a Message-ID of its own, so that each
try is an own message to the ledger.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from postroad.protocol.limits import StrayLineEnds
from tests.sim import line_ends
from tests.sim.ledger import Delivery, Submitted
from tests.sim.wire import End

if TYPE_CHECKING:
    from tests.sim.house import House

KNOWING = ("192.0.2.1:25", "192.0.2.1:587", "192.0.2.1:588")  # doors at which our clients are trusted, or log in
_QUEUED = re.compile(r"queued as (\w{12})")


@dataclass(frozen=True)
class Order:
    """What a client is to send. `door`: the place it connects to; `leaves`: before which step it hangs up, "" never."""

    number: int
    door: str
    lmtp: bool
    address: str
    sender: str
    recipients: tuple[tuple[str, str], ...]  # with NOTIFY, "" for none
    body: bytes
    pipelining: bool
    bdat: bool
    leaves: str
    envid: str = ""
    eight_bit: bool = False
    fields: str = ""  # of the header section, beside those that all have
    follow: int = 0  # further messages in the same session
    segment: int = 0  # octets of content that are sent at once; 0: all
    login: tuple[str, str] | None = None  # name and password
    sizes: bool = False  # SIZE is declared
    verp: str = ""  # delimiters of XVERP; "": it is not wanted
    seal: Callable[[bytes, str], bytes] | None = None  # makes of content and sender what is sent: with a signature
    meant: str = ""  # whom the one recipient stands for, if it is a sender that the node has signed


class Gone(Exception):
    """The server has closed, or said nothing for too long."""


class Client(asyncio.Protocol):
    """A connection, read reply by reply."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._buffer = b""
        self._replies: asyncio.Queue[str | None] = asyncio.Queue()
        self._lines: list[str] = []
        self.transport: End | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, End)
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._replies.put_nowait(None)

    def data_received(self, data: bytes) -> None:
        *lines, self._buffer = (self._buffer + data).split(b"\r\n")
        for line in lines:
            text = line.decode()
            self._lines.append(text)
            if text[3:4] != "-":
                self._replies.put_nowait("\n".join(self._lines))
                self._lines = []

    async def reply(self) -> str:
        try:
            async with asyncio.timeout(1200.0):
                found = await self._replies.get()
        except TimeoutError:
            raise Gone from None
        if found is None:
            self._replies.put_nowait(None)
            raise Gone
        return found

    def say(self, *lines: str) -> None:
        assert self.transport is not None
        self.transport.write("".join(f"{line}\r\n" for line in lines).encode())

    async def ask(self, line: str) -> str:
        self.say(line)
        return await self.reply()


async def submit(house: House, order: Order, tries: int) -> None:
    """Hand the message over; try again where it was not taken."""
    for attempt in range(tries):
        done = await _session(house, order, attempt)
        if done or house.closing:
            return
        await asyncio.sleep(60.0 + 3000.0 * house.chance.random())


async def hand_back(house: House, delivery: Delivery, to: str, door: str) -> None:
    """A mailbox whose owner, or whose server, sends all mail on to where it came from, with trace fields on top."""
    await asyncio.sleep(0.01 + 2.0 * house.chance.random())
    client = Client(house)
    try:
        if not await _connected(house, door, ("198.51.100.7", house.wires.port()), client):
            return
        if not (await client.reply()).startswith("220"):
            return
        await client.ask("EHLO ring.test")
        for line in (f"MAIL FROM:<{delivery.said or delivery.sender}> BODY=8BITMIME", f"RCPT TO:<{to}>", "DATA"):
            if (await client.ask(line))[0] not in "23":
                return
        content = b"Received: from a\n by ring.test; Fri, 15 Jan 2027 08:00:00 +0000\n"
        content += delivery.content.replace(b"\r\n", b"\n")
        content = content.replace(b"\n.", b"\n..").replace(b"\n", b"\r\n")
        answer = await client.ask(f"{content.decode()}.")
        house.trace(f"{delivery.message_id} came back to {to}: {answer[:9]}")
        if answer.startswith("250"):
            house.ledger.fault(f"{delivery.message_id} came back to {to}, and was taken once more")
    except Gone:
        pass
    finally:
        if client.transport is not None:
            client.transport.close()


async def _session(house: House, order: Order, attempt: int) -> bool:
    client = Client(house)
    if not await _connected(house, order.door, (order.address, house.wires.port()), client):
        return False
    try:
        return await _dialog(house, order, attempt, client)
    except Gone:
        return False
    finally:
        assert client.transport is not None
        if house.chance.random() < 0.3:
            client.transport.abort()
        else:
            client.transport.close()


async def _connected(house: House, door: str, source: tuple[str, int], client: Client) -> bool:
    connected: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def told(end: End | OSError, protocol: object) -> None:
        if not connected.done():
            connected.set_result(not isinstance(end, OSError))

    house.wires.reach(door, None, lambda: client, source, told)
    try:
        async with asyncio.timeout(60.0):
            return await connected
    except TimeoutError:
        return False


async def _dialog(house: House, order: Order, attempt: int, client: Client) -> bool:
    if not (await client.reply()).startswith("220"):
        return False
    _leave(order, client, "hello")
    await client.ask("LHLO client.test" if order.lmtp else "EHLO client.test")
    if order.login is not None and not await _logs_in(house, client, order.login):
        return False
    if order.number % 7 == 3:  # no draw of chance, so that what a seed means stays
        await _refused(house, order, client)
    done = False
    for number in range(order.follow + 1):
        done = await _message(house, order, f"{order.number}.{attempt}.{number}", client)
        if not done:
            return False
    if house.chance.random() < 0.7:
        await client.ask("QUIT")
    return done


async def _logs_in(house: House, client: Client, login: tuple[str, str]) -> bool:
    name, password = login
    answer = await client.ask(f"AUTH PLAIN {base64.b64encode(f'{chr(0)}{name}{chr(0)}{password}'.encode()).decode()}")
    house.trace(f"client: {name} logs in: {answer[:9]}")
    return answer.startswith("235")


_STRAY = b"Subject: refused\r\n\r\na bare\nLF\r\n"
_NUL = b"Subject: refused\r\n\r\na NUL\0, it\r\n"


async def _refused(house: House, order: Order, client: Client) -> None:
    """A message that must be refused, its chunks all in one: each has the same answer, and the session goes on."""
    assert client.transport is not None
    content = _NUL if _repairs(house, order) else _STRAY
    client.say(f"MAIL FROM:<{order.sender}>", f"RCPT TO:<{order.recipients[0][0]}>", *([] if order.bdat else ["DATA"]))
    answers = [await client.reply() for _ in range(2 if order.bdat else 3)]
    if not answers[1].startswith("25") or answers[-1][:3] not in ("250", "354"):
        await client.ask("RSET")
        return
    if order.bdat:
        client.transport.write(b"BDAT %d\r\n%bBDAT 0\r\nBDAT 5 LAST\r\nhello" % (len(content), content))
    else:
        client.transport.write(content + b".\r\n")
    answers = [await client.reply() for _ in range(3 if order.bdat else 1)]
    if any(not answer.startswith(("550 5.5.2", "421")) for answer in answers):
        house.ledger.fault(f"{content!r} by {'BDAT' if order.bdat else 'DATA'} was answered {answers}")


def _repairs(house: House, order: Order) -> bool:
    """Whether the stray line ends of this client are repaired. All our clients are of the trusted network, where a
    listener has one, or have logged in."""
    settings, port = house.node.settings, int(order.door.rpartition(":")[2])
    if settings.limits.stray_line_ends is StrayLineEnds.KNOWN:
        trusted = any(listener.port == port and listener.trusted_networks for listener in settings.listener)
        return trusted or order.login is not None
    return settings.limits.stray_line_ends is StrayLineEnds.REPAIR


async def _message(house: House, order: Order, name: str, client: Client) -> bool:
    message_id = f"<{name}@sender.test>"
    content = (
        f"Date: Fri, 15 Jan 2027 08:00:00 +0000\r\nFrom: <{order.sender or 'x@sender.test'}>\r\n"
        f"Subject: {name}\r\nMessage-ID: {message_id}\r\n{order.fields}\r\n"
    ).encode() + order.body
    if order.seal is not None:
        content = order.seal(content, order.sender)
    mended = line_ends.repaired(content) if _repairs(house, order) or not line_ends.strays(content) else None
    submitted = Submitted(message_id, order.sender, content, mended, is_known=order.door in KNOWING, verp=order.verp)
    house.ledger.submitted.append(submitted)
    mail = f"MAIL FROM:<{order.sender}>"
    if order.eight_bit:
        mail += " BODY=8BITMIME"
    if order.verp:
        mail += f" XVERP={order.verp}"
    if order.sizes:
        mail += f" SIZE={len(content)}"
    if order.envid:
        mail += f" ENVID={order.envid} RET=HDRS"
    rcpts = [
        f"RCPT TO:<{to}>" + (f" NOTIFY={notify} ORCPT=rfc822;{to}" if notify else "") for to, notify in order.recipients
    ]
    _leave(order, client, "mail")
    if order.pipelining:
        last = [] if order.bdat else ["DATA"]
        client.say(mail, *rcpts, *last)
        answers = [await client.reply() for _ in range(1 + len(rcpts) + len(last))]
    else:
        answers = [await client.ask(mail)]
        for line in rcpts:
            answers.append(await client.ask(line))
            _leave(order, client, "rcpt")
        if not order.bdat and any(answer.startswith("25") for answer in answers[1:]):
            answers.append(await client.ask("DATA"))
        elif not order.bdat:
            answers.append("503")
    for answer in answers:
        house.counts.heard(order, answer)
    for (to, notify), answer in zip(order.recipients, answers[1:], strict=False):
        if answer.startswith("25"):
            submitted.taken[order.meant or to] = notify
        elif answers[0].startswith("250") and to.endswith("@box.test") and answer.startswith("55"):
            house.ledger.fault(f"{to} is refused, and its domain is ours: {answer}")
        elif order.meant and answers[0].startswith("250") and answer.startswith("5"):
            house.ledger.fault(f"a report to {to} is refused, and the node has signed this sender: {answer}")
        if answers[0].startswith("250"):
            house.heard(order, submitted, to, answer)
    if not answers[0].startswith("250") or not submitted.taken:
        house.ledger.refused += 1
        return answers[0].startswith("5") or any(answer.startswith("5") for answer in answers[1:])
    if not order.bdat and not answers[-1].startswith("354"):
        return False
    await _content(house, order, client, content)
    return await _answers(house, order, client, submitted)


async def _content(house: House, order: Order, client: Client, content: bytes) -> None:
    assert client.transport is not None
    stuffed = (b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:]
    if order.leaves == "content":
        begun = b"BDAT %d LAST\r\n" % len(content) if order.bdat else b""
        client.transport.write(begun + (content if order.bdat else stuffed)[: len(content) // 2])
        await asyncio.sleep(house.chance.random())
        _leave(order, client, "content")
    if order.bdat:
        half = len(content) // 2 if house.chance.random() < 0.5 else 0
        if half:
            client.transport.write(b"BDAT %d\r\n" % half + content[:half])
            if not (await client.reply()).startswith("250"):
                raise Gone
        sent = b"BDAT %d LAST\r\n" % (len(content) - half) + content[half:]
    else:
        sent = stuffed + b".\r\n"
    for at in range(0, len(sent), order.segment or len(sent)):
        client.transport.write(sent[at : at + (order.segment or len(sent))])
    _leave(order, client, "end")


async def _answers(house: House, order: Order, client: Client, submitted: Submitted) -> bool:
    """The answers to the end of data; only now something is promised."""
    taken = list(submitted.taken)
    codes = []
    for place in range(len(taken) if order.lmtp else 1):
        answer = await client.reply()
        codes.append(answer[:3])
        house.counts.heard(order, answer)
        house.heard(order, submitted, "", answer)
        if answer.startswith("250" if submitted.kept is None else "550 5.5.2"):
            house.ledger.fault(f"{submitted.message_id} with {submitted.content!r:.300} was answered {answer}")
        if not answer.startswith("250"):
            continue
        submitted.at = house.base.now
        submitted.told += [taken[place]] if order.lmtp else taken
        found = _QUEUED.search(answer)
        submitted.queue_id = found[1] if found else submitted.queue_id
        house.trace(f"client: {submitted.message_id} is queued as {submitted.queue_id} for {submitted.told}")
    return all(code[0] in "25" for code in codes)


def _leave(order: Order, client: Client, step: str) -> None:
    if order.leaves == step:
        raise Gone
