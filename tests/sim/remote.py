"""Remote mail servers: written for the simulation alone, so that they share no mistake with the node.

Each session draws from its host's mood whether it goes well, and if not, at which step what happens: the connection is
dropped, reset, stalled, slow; 421, 4xx or 5xx, with or without the end of the session behind it; two codes in one
segment; garbage, or a reply without end; replies too many between two messages; an extension that was offered and does
not work. Each refusal has a number, by which the ledger knows which sender and recipient it was said of. What a host
takes it writes into the ledger, with how far its 250 must come before the node knows.
"""

from __future__ import annotations

import asyncio
import base64
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.sim import line_ends, signing
from tests.sim.ledger import Delivery, message_id_of
from tests.sim.signed_mail import divided
from tests.sim.wire import End

if TYPE_CHECKING:
    from tests.sim.house import House

RCPT_MAX, MAIL_MAX = 2, 3  # of those that name limits (RFC 9422)
STEPS = ("connect", "hello", "starttls", "mail", "rcpt", "data", "content", "end", "told", "reset", "quit")
DEEDS = ("drop", "reset", "stall", "slow", "421", "4xx", "5xx", "closes", "two codes", "garbage", "endless")
_FOR_GOOD = ("5xx", "closes", "two codes")
_STATUS = re.compile(r"^(\d{3}) [245]\.")
_SIZE = re.compile(rb"SIZE=(\d+)")
_PATH = re.compile(rb"<([^>]*)>")


@dataclass
class Host:
    """One host. `trouble`: share of its sessions that go wrong. `offers`: its EHLO keywords; `lies`: those of them that
    do not work. `grey`: recipients are refused (451) for so long after they were first seen. `account`: name and
    password without which nothing is taken. `greet_s`: how long a client waits for the greeting. `size_max`: the limit
    that it names by SIZE, and that holds; 0: none."""

    name: str
    address: str
    lmtp: bool = False
    trouble: float = 0.0
    offers: tuple[str, ...] = ()
    lies: frozenset[str] = frozenset()
    grey_s: float = 0.0
    messages_max: int = 0
    account: tuple[str, str] | None = None
    greet_s: float = 0.0
    size_max: int = 0
    seen: dict[tuple[str, str], float] = field(default_factory=dict)


class RemoteSession(asyncio.Protocol):
    """One connection to a host."""

    def __init__(self, house: House, host: Host) -> None:
        self._house = house
        self._host = host
        self._chance = house.chance
        self._buffer = bytearray()
        self._transport: Any = None
        self._sender: str | None = None
        self._recipients: list[str] = []
        self._content = bytearray()
        self._in_data = False
        self._chunk = -1  # octets of a chunk that are still to come
        self._last = False
        self._messages = 0
        self._mails = 0
        self._over = False
        self._limited = self._eight_bit = False
        self._size_max = host.size_max
        self._asking: list[bytes] | None = None  # what AUTH LOGIN has answered so far
        self._known = host.account is None
        self._busy = False
        self._swallow = False
        self._about: str | None = None  # the real sender of the message that is spoken of
        self._said = ""  # the same as it was signed
        self._loose = self._chance.random() < host.trouble / 2  # says too much between messages
        self._step, self._deed = "", ""
        if self._chance.random() < host.trouble:
            self._step = self._chance.choice(STEPS if host.account is None else (*STEPS, "auth", "auth"))
            self._deed = self._chance.choice(DEEDS)

    # -- the connection ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._house.base.call_later(600.0, self._silence)
        if self._deed == "slow" or self._host.greet_s:
            self._house.base.call_later(self._host.greet_s or self._chance.random() * 30, self._greet)
        else:
            self._greet()

    def _greet(self) -> None:
        if not self._misbehaves("connect"):
            self._say(f"220 {self._host.name} ready")

    def connection_lost(self, exc: Exception | None) -> None:
        self._over = True

    def _silence(self) -> None:
        """A session that lasts too long is ended (idle clients, stalled ones)."""
        if not self._over:
            self._over = True
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._over:
            return
        self._buffer += data
        if not self._busy:
            self._go_on()

    def _go_on(self) -> None:
        self._busy = False
        while not self._over and not self._busy:
            if self._chunk >= 0:
                if not self._take_chunk():
                    return
            elif self._in_data:
                if not self._take_data():
                    return
            else:
                line, found, rest = self._buffer.partition(b"\r\n")
                if not found:
                    return
                self._buffer = bytearray(rest)
                if self._deed == "slow" and self._chance.random() < 0.3:
                    self._busy = True
                    self._house.base.call_later(self._chance.random() * 25, self._later, bytes(line))
                else:
                    self._command(bytes(line))

    def _later(self, line: bytes) -> None:
        if not self._over:
            self._command(line)
            self._go_on()

    # -- what it says -----------------------------------------------------------------------------------------

    def _say(self, *lines: str) -> None:
        if "ENHANCEDSTATUSCODES" in self._host.lies:  # they say something else than the code
            lines = tuple(_STATUS.sub(self._other_class, line) for line in lines)
        if not self._over:
            self._transport.write("".join(f"{line}\r\n" for line in lines).encode())

    def _refuse(self, text: str, recipient: str = "") -> None:
        """A refusal with a number, where it is said of a message."""
        if self._about is None:
            self._say(text)
            return
        said = self._house.ledger.refusals
        said.append((self._about, recipient))
        self._say(f"{text} #{len(said) - 1}")

    def _say_too_much(self) -> None:
        """Behind the last reply of a transaction: another one, or the beginning of one."""
        if not self._loose or self._over or self._chance.random() < 0.5:
            return
        match self._chance.choice(("2yz", "4yz", "5yz", "421", "piece")):
            case "2yz":
                self._say("250 2.0.0 taken")
            case "4yz":
                self._refuse("451 4.3.0 not now, said late")
            case "5yz":
                self._refuse("550 5.7.1 not with us, said late")
            case "421":
                self._say("421 4.3.2 going down")
            case _:
                self._transport.write(b"42")

    def _other_class(self, found: re.Match[str]) -> str:
        return f"{found[1]} {self._chance.choice('245')}."

    def _misbehaves(self, step: str) -> bool:
        """Whether the planned trouble begins at this step, and has left nothing to say."""
        if step != self._step or self._deed == "slow":
            return False
        if self._chance.random() < 0.3:
            return False  # this time it goes well
        transport = self._transport
        match self._deed:
            case "drop":
                self._over = True
                transport.close()
            case "reset":
                self._over = True
                transport.abort()
            case "stall":
                self._over = True  # hears nothing, says nothing; ended after ten minutes
                self._house.base.call_later(self._chance.choice((60.0, 900.0)), transport.abort)
            case "421":
                self._say("421 4.3.2 going down")
                self._over = True
                transport.close()
            case "4xx":
                self._refuse("451 4.3.0 not now")
            case "5xx":
                self._refuse("554 5.7.1 not with us")
            case "closes":
                self._refuse("554 5.7.1 not with us")
                self._over = True
                transport.close()
            case "two codes":
                self._say(*{"connect": ("220-welcome",), "data": ("354 go ahead",)}.get(step, ()))
                self._refuse("554 5.7.1 not with us after all")
                self._over = True
                transport.close()
            case "garbage":
                transport.write(bytes(self._chance.randrange(256) for _ in range(40)) + b"\r\n")
            case _:
                transport.write(b"250-x\r\n" * 400)
                self._over = True
                self._house.base.call_later(60.0, transport.abort)
        return True

    # -- commands ---------------------------------------------------------------------------------------------

    def _command(self, line: bytes) -> None:
        verb = line[:4].upper()
        house, host = self._house, self._host
        if self._swallow:
            return
        if self._asking is not None:
            self._answered(line)
            return
        if verb in (b"EHLO", b"LHLO", b"HELO"):
            self._sender = None
            if self._misbehaves("hello"):
                return
            if verb == b"EHLO" and "EHLO" in host.lies:
                self._say("502 5.5.1 what is EHLO")
                return
            offers = [word for word in host.offers if word != "STARTTLS" or not self._transport.tls]
            if self._loose:  # of who says too much, nothing but 354 shows what an answer is for
                offers = [word for word in offers if word != "CHUNKING"]
            self._eight_bit = verb != b"HELO" and "8BITMIME" in offers
            self._limited = verb != b"HELO" and any(word.startswith("LIMITS") for word in offers)
            if host.size_max:
                offers.append(f"SIZE {host.size_max}")
            lines = [host.name, *(offers if verb != b"HELO" else [])]
            self._size_max = host.size_max
            self._say(*[f"250-{word}" for word in lines[:-1]], f"250 {lines[-1]}")
            for part in house.parts:
                part.told_size(host, self._transport)
        elif verb == b"STAR":
            if not self._misbehaves("starttls"):
                self._say("454 4.7.0 no TLS now" if "STARTTLS" in host.lies else "220 go ahead")
        elif verb == b"AUTH" and host.account is None:
            house.ledger.fault(f"{host.name} was given an account, and knows none")
            self._say("535 5.7.8 unknown account")
        elif verb == b"AUTH" and host.account is not None:
            self._auth(line)
        elif verb == b"MAIL" and not self._known:
            house.ledger.fault(f"{host.name} was given MAIL without AUTH")
        elif verb == b"MAIL":
            self._mail(line)
        elif verb == b"RCPT":
            self._rcpt(line)
        elif verb == b"DATA":
            self._data()
        elif verb == b"BDAT":
            self._bdat(line)
        elif verb == b"RSET":
            self._sender, self._recipients = None, []
            if not self._misbehaves("reset"):
                self._say("250 2.0.0 ok")
        elif verb == b"QUIT":
            if not self._misbehaves("quit"):
                self._say("221 2.0.0 bye")
                self._over = True
                self._transport.close()
        elif verb == b"NOOP":
            self._say("250 ok")
        else:
            house.ledger.fault(f"{host.name} was told {line[:60]!r}") if not self._confused() else None
            self._refuse("500 5.5.2 what")

    def _confused(self) -> bool:
        return bool(self._deed or self._host.lies)

    def _auth(self, line: bytes) -> None:
        """RFC 4954, RFC 4616 and AUTH LOGIN."""
        if self._misbehaves("auth"):
            return
        words = line.split()
        if words[1].upper() == b"PLAIN":
            _, name, password = base64.b64decode(words[2]).split(b"\0")
            self._judge_account(name, password)
        else:
            self._asking = []
            self._say("334 VXNlcm5hbWU6")

    def _answered(self, line: bytes) -> None:
        assert self._asking is not None
        self._asking.append(base64.b64decode(line))
        if len(self._asking) < 2:
            self._say("334 UGFzc3dvcmQ6")
            return
        (name, password), self._asking = self._asking, None
        self._judge_account(name, password)

    def _judge_account(self, name: bytes, password: bytes) -> None:
        self._known = (name.decode(), password.decode()) == self._host.account
        if not self._known:
            self._house.ledger.fault(f"{self._host.name} was given another account: {name!r}")
        self._say("235 2.7.0 welcome" if self._known else "535 5.7.8 no")

    def _mail(self, line: bytes) -> None:
        host = self._host
        found = _PATH.search(line)
        self._said = found[1].decode() if found else ""
        self._about = signing.plain(self._said)
        if self._misbehaves("mail"):
            if not self._over and "PIPELINING" not in host.offers:
                self._say_too_much()
            return
        if self._sender is not None:
            self._house.ledger.fault(f"{host.name}: nested MAIL")
        self._mails += 1
        if self._limited and self._mails > MAIL_MAX:
            self._house.ledger.fault(f"{host.name} was given more transactions than its limit")
        if (host.messages_max and self._messages >= host.messages_max) or ("LIMITS" in host.lies and self._mails > 1):
            self._say("421 4.7.0 enough for this session")
            self._over = True
            self._transport.close()
            return
        if self._about.startswith("bad") and host.trouble:
            self._refuse("550 5.1.8 not from there")
            if "PIPELINING" not in host.offers:
                self._say_too_much()
            return
        upper = line.upper()
        declared = _SIZE.search(upper)
        if self._size_max and declared and int(declared[1]) > self._size_max:
            self._refuse("552 5.3.4 larger than we take")
            return
        if "SIZE" in host.lies and b"SIZE=" in upper:
            self._refuse("552 5.3.4 too large")
            return
        if b"BODY=8BITMIME" in upper and "8BITMIME" in host.lies:
            self._refuse("501 5.5.4 what is BODY")
            return
        if b"BODY=8BITMIME" in upper and "8BITMIME" not in host.offers:
            self._house.ledger.fault(f"{host.name} was given BODY=8BITMIME and does not offer it")
        self._sender = self._about
        self._recipients = []
        self._content.clear()
        self._say("250 2.1.0 ok")
        if "PIPELINING" in host.lies and self._buffer:
            self._buffer.clear()  # what came behind is thrown away

    def _rcpt(self, line: bytes) -> None:
        host = self._host
        if not line.upper().startswith(b"RCPT TO:<"):  # what came before it was thrown away
            self._refuse("501 5.5.4 what")
            return
        if self._sender is None:
            self._refuse("503 5.5.1 MAIL first")
            return
        found = _PATH.search(line)
        recipient = found[1].decode() if found else ""
        if self._misbehaves("rcpt"):
            if self._deed in _FOR_GOOD:
                self._told_rcpt(recipient, "554")
            return
        if "DSN" in host.lies and (b"NOTIFY=" in line.upper() or b"ORCPT=" in line.upper()):
            self._refuse("555 5.5.4 unknown parameter", recipient)
            return
        if self._limited and len(self._recipients) >= RCPT_MAX:
            self._house.ledger.fault(f"{host.name} was given more recipients than its limit")
        said = self._house.judge(host, self._sender, recipient)
        if "LIMITS" in host.lies and self._recipients:
            said = "452 4.5.3 one at a time"
        if said.startswith("250"):
            self._recipients.append(recipient)
            self._say(said)
        else:
            self._refuse(said, recipient)
        self._told_rcpt(recipient, said)

    def _told_rcpt(self, recipient: str, said: str) -> None:
        for part in self._house.parts:
            part.told_rcpt(self._host, self._sender or "", recipient, said, self._transport)

    def _data(self) -> None:
        if not self._recipients:
            self._refuse("503 5.5.1 no valid recipients")
            self._say_too_much()
            return
        if self._misbehaves("data"):
            self._say_too_much()
            return
        self._in_data = True
        self._content.clear()
        self._say("354 go ahead")

    def _take_data(self) -> bool:
        if self._fails_in_content():
            return False
        if self._buffer.startswith(b".\r\n"):
            end = 0
        else:
            end = self._buffer.find(b"\r\n.\r\n")
            if end < 0:
                return False
            end += 2
        octets = bytes(self._buffer[:end])
        self._buffer = bytearray(self._buffer[end + 3 :])
        octets = (b"\r\n" + octets).replace(b"\r\n..", b"\r\n.")[2:]
        self._in_data = False
        self._content = bytearray(octets)
        self._end()
        return True

    def _fails_in_content(self) -> bool:
        """Whether the connection ends, or stands still, while the content is coming."""
        if self._step != "content" or self._deed not in ("drop", "reset", "stall") or len(self._buffer) <= 20:
            return False
        if self._misbehaves("content"):
            return True
        self._step = ""
        return False

    def _bdat(self, line: bytes) -> None:
        words = line.split()
        if "CHUNKING" in self._host.lies:
            self._refuse(self._chance.choice(("500 5.5.2 what", "502 5.5.1 no", "503 5.5.1 what", "555 5.5.4 no")))
            self._swallow = True  # and what comes is anything but commands
            self._house.base.call_later(400.0, self._silence)
            return
        self._chunk = int(words[1])
        self._last = len(words) > 2
        self._go_on() if not self._busy else None

    def _take_chunk(self) -> bool:
        if self._fails_in_content():
            return False
        count = min(self._chunk, len(self._buffer))
        self._content += self._buffer[:count]
        del self._buffer[:count]
        self._chunk -= count
        if self._chunk:
            return False
        self._chunk = -1
        if not self._recipients:
            self._refuse("503 5.5.1 no valid recipients")
        elif self._last:
            self._end()
        else:
            self._say("250 2.0.0 go on")
        return True

    # -- the end of data --------------------------------------------------------------------------------------

    def _end(self) -> None:
        """It takes the message, or does not."""
        sender, recipients = self._sender, self._recipients
        self._sender, self._recipients = None, []
        if self._misbehaves("end"):
            if self._host.lmtp and not self._over:
                for _ in recipients[1:]:
                    self._refuse("451 4.3.0 not now")
            self._say_too_much()
            return
        if self._size_max and len(self._content) > self._size_max:
            self._refuse("552 5.3.4 larger than we take")
            return
        self._messages += 1
        told = self._step != "told" or self._chance.random() < 0.3 or self._deed == "slow"
        kept = [self._keep(sender or "", each) for each in (recipients if self._host.lmtp else [""])]
        made = [self._note(sender or "", each) for each in recipients] if not self._host.lmtp else []
        if not self._host.lmtp and kept[0] is None:
            for each in made:
                self._house.ledger.deliveries.remove(each)
            self._refuse("452 4.2.2 no space for it")
            self._say_too_much()
            return
        if told:
            self._tell(recipients, kept, made)
            self._say_too_much()
        else:
            for delivery in (*made, *(each for each in kept if isinstance(each, Delivery))):
                delivery.excused = True
            self._step = "end"
            if self._deed in ("4xx", "5xx", "closes", "two codes"):
                self._deed = "drop"  # who has taken a message does not say that he has not
            while not self._over and not self._misbehaves("end"):
                pass

    def _keep(self, sender: str, recipient: str) -> Delivery | bool | None:
        """For LMTP a recipient's own verdict; for SMTP that of all."""
        if self._chance.random() < 0.04 and not self._house.healed:
            return None
        return self._note(sender, recipient) if recipient else True

    def _note(self, sender: str, recipient: str) -> Delivery:
        end = self._transport
        assert isinstance(end, End) and end.peer is not None
        content = bytes(self._content)
        self._look_at_lines(content)
        if not self._eight_bit and not content.isascii():  # RFC 6152 §3
            self._house.ledger.fault(f"{self._host.name} was given 8-bit data and does not offer 8BITMIME")
        signatures, content = divided(content)
        process = end.peer.process
        delivery = Delivery(
            message_id_of(content), recipient, self._house.base.now, self._host.name, content,
            process.name if process is not None else "", sender, "DSN" in self._host.offers,
            self._eight_bit, self._host.lmtp, end.peer, 1 << 60, said=self._said, path=self._said,
            signatures=signatures,
        )
        self._house.taken(delivery)
        self._house.trace(f"{self._host.name} takes {delivery.message_id} for {recipient}")
        return delivery

    def _look_at_lines(self, content: bytes) -> None:
        if line_ends.strays(content):
            self._house.ledger.fault(f"{self._host.name} was given a stray CR or LF in {message_id_of(content)}")
        longest = max(map(len, content.split(b"\r\n")))
        if longest > line_ends.LINE_MAX and not self._host.lmtp:
            self._house.ledger.fault(f"{self._host.name} was given a line of {longest} in {message_id_of(content)}")

    def _tell(self, recipients: list[str], kept: list[Any], made: list[Delivery]) -> None:
        if self._host.lmtp:
            for recipient, delivery in zip(recipients, kept, strict=True):
                if delivery is None:
                    self._refuse("452 4.2.2 box full", recipient)
                else:
                    self._say(f"250 2.0.0 <{recipient}> kept")
                    delivery.reply_end = self._transport.written
            return
        self._say("250 2.0.0 taken")
        for delivery in made:
            delivery.reply_end = self._transport.written


def listen(house: House, host: Host) -> None:
    """Open for business."""
    port = 24 if host.lmtp else 25
    house.wires.listen(f"{host.address}:{port}", None, lambda: RemoteSession(house, host))
