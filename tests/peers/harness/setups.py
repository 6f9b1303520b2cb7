"""Set-ups of Postfix with questions and its answers, asked of a Postroad node instead (`tests/peers/test_setups.py`).

A folder of such a set-up has the maps of main.cf and `expect.tsv`: question, tab, answer. A question is a verb and
`name=value` pairs; this module knows `reply`, `deliver`, `envelope` and `headers`. The servers of the answers stand at
198.51.100.N; here they are at 127.51.100.N, on the ports of the answers, and each notes what it takes.
"""

from __future__ import annotations

import re
import shlex
import smtplib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.peers.harness.remote import Dialog, Remote, Transaction
from tests.peers.harness.sendmail import Sendmail

_ADDRESS: Final = re.compile(r"<([^>]*)>")
_DELIVERY: Final = re.compile(
    r"(DSN )?<(?P<final>[^>]*)> (?:\(was <[^>]*>\) )?(?P<agent>\w+):(?P<hop>[^;]*?) (?P<end>sent|bounced|deferred)"
    r"(?! \(forwarded)"
)
_SERVER: Final = re.compile(r"\[(?P<address>[\d.]+)\]:(?P<port>\d+)$")
PATIENCE_S: Final = 8.0


@dataclass
class Question:
    """One row. `pairs`: the last value of each name; `fields`: header lines; `recipients` without brackets."""

    text: str
    answer: str
    verb: str = ""
    pairs: dict[str, str] = field(default_factory=dict)
    fields: list[str] = field(default_factory=list)

    @property
    def recipients(self) -> list[str]:
        return [each.strip("<>") for each in self.pairs.get("to", "").split(",")]

    @property
    def sender(self) -> str:
        return self.pairs.get("from", "<sender@example.org>").strip("<>")


def read(folder: Path) -> list[Question]:
    found = []
    for line in (folder / "expect.tsv").read_text().splitlines():
        text, _, answer = line.partition("\t")
        words = shlex.split(text)
        question = Question(text, answer, words[0])
        for word in words[1:]:
            name, _, value = word.partition("=")
            if name == "hdr":
                question.fields.append(value)
            else:
                question.pairs[name] = value
        found.append(question)
    return found


def copied(folder: Path, into: Path) -> Path:
    """The set-up's maps, with the addresses that its servers have here."""
    into.mkdir()
    for file in folder.iterdir():
        if file.is_file():
            name = file.name.removeprefix("etc-")
            text = file.read_text().replace("198.51.100.", "127.51.100.")
            (into / name).write_text(text.replace("/etc/postfix/", f"{into}/"))
    return into


def _rule(dialog: Dialog, verb: str, argument: str) -> str | None:
    if verb == "RCPT" and "<nosuch" in argument:
        return "550 5.1.1 no such user here"
    return "450 4.2.0 busy" if verb == "RCPT" and "<busy" in argument else None


class World:
    """The servers by `address:port` (``198.51.100.20:25``), or by a name (``lmtp``)."""

    def __init__(self, servers: Mapping[str, Remote]) -> None:
        self.servers = dict(servers)

    def start(self) -> None:
        for each in self.servers.values():
            each.start()

    def stop(self) -> None:
        for each in self.servers.values():
            each.stop()

    def taken(self, subject: str) -> list[tuple[str, Transaction]]:
        """What came of the message of this subject, and where."""
        mark = f"Subject: {subject}\r\n".encode()
        return [
            (place, each) for place, server in self.servers.items() for each in server.transactions
            if mark in each.content and b"Content-Type: multipart/report" not in each.content
        ]


def server(address: str, port: int) -> Remote:
    return Remote(_rule, address=address.replace("198.51.", "127.51."), port=port,
                  extensions=("PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES", "AUTH PLAIN LOGIN", "SIZE 0"))


def lmtp() -> Remote:
    return Remote(_rule, lmtp=True)


class Asker:
    """Puts questions to a node: one client after the other, by XCLIENT. `listeners`: its ports by those of the
    questions."""

    def __init__(self, world: World, listeners: Mapping[str, int], sendmail: Sendmail) -> None:
        self._sendmail = sendmail
        self._world = world
        self._listeners = listeners
        self._number = 0

    def reply(self, question: Question) -> str:
        """Stage, code and class of the status of the first refusal, or of the last RCPT."""
        return self._talk(question, None)

    def outcome(self, question: Question) -> tuple[str, list[tuple[str, Transaction]]]:
        """The same of a whole message, and all copies of it that came to servers, once they are as many as expected."""
        self._number += 1
        subject = f"question {self._number} {id(self)}"
        found = self._calls(question, subject) if "via" in question.pairs else self._talk(question, subject)
        wanted = 1
        if question.verb != "headers":
            wanted = len(deliveries(question) if question.verb == "deliver" else envelopes(question))
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            taken = self._world.taken(subject)
            if sum(len(each.rcpt) if question.verb == "deliver" else 1 for _, each in taken) >= max(wanted, 1):
                break
            if not (found.endswith("250 2") or found.startswith("SENDMAIL 0")) and not wanted:
                break
            time.sleep(0.02)
        time.sleep(0.1)
        return found, self._world.taken(subject)

    def _calls(self, question: Question, subject: str) -> str:
        """By the program `sendmail`. The users of the questions are not on this machine: root names them with -f."""
        pairs = question.pairs
        options = shlex.split(pairs.get("args", "")) or (["-f", pairs["as"]] if pairs["as"] != "root" else [])
        options += ["-F", pairs["as"]]
        head = "\n".join([*question.fields, f"Subject: {subject}", "", "hello", ""])
        ended = self._sendmail(*options, *question.recipients, message=head.encode())
        return f"SENDMAIL {ended.returncode} {ended.stderr.decode()}"

    def _talk(self, question: Question, subject: str | None) -> str:
        pairs = question.pairs
        with smtplib.SMTP("127.0.0.1", self._listeners[pairs.get("port", "25")], timeout=20) as client:
            client.ehlo("proxy.test")
            login = f" LOGIN={pairs['auth']}" if "auth" in pairs else ""
            code, text = client.docmd("XCLIENT", f"ADDR={pairs.get('client', '203.0.113.5')}{login}")
            if code != 220:
                return _said("CONNECT", code, text)
            client.docmd("EHLO", pairs.get("helo", "client.example.org"))
            code, text = client.docmd("MAIL", f"FROM:<{question.sender}>")
            if code != 250:
                return _said("MAIL", code, text)
            for recipient in question.recipients:
                code, text = client.docmd("RCPT", f"TO:<{recipient}>")
                if code != 250:
                    return _said("RCPT", code, text)
            if subject is None:
                return _said("RCPT", code, text)
            named = {each.partition(":")[0].lower() for each in question.fields}
            usual = (("from", f"From: <{question.sender}>"), ("to", f"To: <{question.recipients[0]}>"))
            fields = [line for name, line in usual if name not in named]
            fields += [*question.fields, f"Subject: {subject}"]
            if pairs.get("mid") != "no":
                fields += [f"Message-ID: <{self._number}.{id(self)}@client.example.org>",
                           "Date: Tue, 01 Dec 2026 07:00:00 +0000"]
            code, text = client.data("\r\n".join([*fields, "", "hello", ""]).encode())
            return _said("DATA", code, text)


def _said(stage: str, code: int, text: bytes) -> str:
    status = re.match(rb"([245])\.\d+\.\d+ ", text)
    return f"{stage} {code} {status[1].decode() if status else str(code)[0]}"


# ---- answers


def expected_reply(question: Question) -> str:
    """As `Asker.reply` says it."""
    stage, code, *rest = question.answer.split()
    status = rest[0][0] if rest and re.fullmatch(r"[245]\.\d+\.\d+", rest[0]) else code[0]
    return f"{stage} {code} {status}"


def deliveries(question: Question) -> set[tuple[str, str]]:
    """Final recipient and place of each copy that was sent and is no report, in lower case."""
    found = set()
    for each in _DELIVERY.finditer(question.answer):
        if not each[1] and each["end"] == "sent":
            server = _SERVER.search(each["hop"])
            place = f"{server['address']}:{server['port']}" if server else each["agent"]
            found.add((each["final"].lower(), place))
    return found


def envelopes(question: Question) -> set[tuple[str, str, frozenset[str]]]:
    """Place, sender and recipients of each transaction."""
    found = set()
    for each in question.answer.split(" ; "):
        place, _, rest = each.partition(" ")
        sender, _, to = rest.partition(" to=")
        found.add((_place(place), _ADDRESS.findall(sender.partition("from=")[2])[0],
                   frozenset(_ADDRESS.findall(to))))
    return found


def _place(text: str) -> str:
    return "lmtp" if text.startswith("private/") else text


def came(taken: list[tuple[str, Transaction]]) -> set[tuple[str, str]]:
    return {(recipient.lower(), place) for place, each in taken for recipient in _names(each)}


def carried(taken: list[tuple[str, Transaction]]) -> set[tuple[str, str, frozenset[str]]]:
    """Transactions with one sender to one place count as one: how many recipients share one is not asked. What was
    delivered here is no envelope in the answers."""
    found: dict[tuple[str, str], set[str]] = {}
    for place, each in taken:
        if place == "local":
            continue
        found.setdefault((place, _ADDRESS.findall(each.mail)[0]), set()).update(_names(each))
    return {(*key, frozenset(names)) for key, names in found.items()}


def _names(transaction: Transaction) -> list[str]:
    return [_ADDRESS.findall(each)[0] for each in transaction.rcpt]


def shown(question: Question, content: bytes) -> str:
    """The fields that a question asks for, in the order in which they stand."""
    head = content.partition(b"\r\n\r\n")[0].decode()
    wanted = [name.lower() for name in question.pairs["show"].split(",")]
    lines = re.sub(r"\r\n[ \t]+", " ", head).split("\r\n")
    fields = [line for line in lines if line.partition(":")[0].lower() in wanted]
    return " | ".join("Date: (date)" if line.startswith("Date:") else line for line in fields)
