"""Set-ups of Postfix with questions and its answers, asked of a Postroad node instead (`tests/peers/test_setups.py`).

A folder of such a set-up has the maps of main.cf and `expect.tsv`: question, tab, answer. A question is a verb and
`name=value` pairs; this module knows `reply`, `endreply`, `deliver`, `envelope`, `headers`, `map` and `verify`. The
servers of the answers stand at 198.51.100.N; here they are at 127.51.100.N, on the ports of the answers, and each notes
what it takes. The machine itself is 192.0.2.10 there and 127.0.0.1 here. What is delivered on the machine is told by
the history of the node, and must be in the mailboxes, too.
"""

from __future__ import annotations

import json
import re
import shlex
import smtplib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.peers.harness import maildir
from tests.peers.harness.postroad import Node
from tests.peers.harness.process import until
from tests.peers.harness.remote import Dialog, Remote, Transaction
from tests.peers.harness.sendmail import Sendmail

_ADDRESS: Final = re.compile(r"<([^>]*)>")
_DELIVERY: Final = re.compile(
    r"(DSN )?<(?P<final>[^>]*)> (?:\(was <[^>]*>\) )?(?P<agent>\w+):(?P<hop>[^;]*?) (?P<end>sent|bounced|deferred)"
    r"(?! \(forwarded)(?: (?P<status>[45]\.\d+\.\d+))?"
)
_SERVER: Final = re.compile(r"\[(?P<address>[\d.]+)\]:(?P<port>\d+)$")
_ID: Final = re.compile(r"queued as (\w+)")
# Names of the machine: whatever the domain, a user has one mailbox.
_HERE: Final = re.compile(r"@(?:mx1\.example\.com|localhost)$")


@dataclass
class Question:
    """One row. `pairs`: the last value of each name; `fields`: header lines; `recipients` without brackets."""

    text: str
    answer: str
    verb: str = ""
    pairs: dict[str, str] = field(default_factory=dict)
    fields: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    @property
    def recipients(self) -> list[str]:
        return [each.strip("<>") for each in self.pairs.get("to", "").split(",")]

    @property
    def sender(self) -> str:
        return self.pairs.get("from", "<sender@example.org>").strip("<>")


def read(folder: Path) -> list[Question]:
    found = []
    for line in (folder / "expect.tsv").read_text().splitlines():
        text, _, answer = line.replace("[192.0.2.10]", "[127.0.0.1]").partition("\t")
        words = shlex.split(text)
        question = Question(text, answer, words[0], words=words[1:])
        for word in words[1:]:
            name, _, value = word.partition("=")
            if name == "hdr":
                question.fields.append(value)
            else:
                question.pairs[name] = value
        found.append(question)
    return found


def copied(folder: Path, into: Path) -> Path:
    """The set-up's maps and programs, with the addresses that its servers have here."""
    into.mkdir(mode=0o755)
    (into / "bin").mkdir()
    (into / "archive").mkdir()
    (into / "archive").chmod(0o777)
    for file in (*folder.iterdir(), *folder.glob("bin/*")):
        if file.is_file():
            path = into / file.relative_to(folder).with_name(file.name.removeprefix("etc-"))
            text = file.read_text().replace("198.51.100.", "127.51.100.").replace("/srv/archive/", f"{into}/archive/")
            path.write_text(text.replace("/etc/postfix/", f"{into}/"))
            path.chmod(0o755 if path.parent.name == "bin" else 0o644)
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

    def __init__(
        self, world: World, listeners: Mapping[str, int], sendmail: Sendmail, node: Node, homes: Path | None = None
    ) -> None:
        self._node = node
        self._homes = homes
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
        said = self._calls(question, subject) if "via" in question.pairs else self._talk(question, subject)
        queued = _ID.search(said)
        if queued is None:
            return said, self._world.taken(subject)
        until(lambda: self._is_done(queued[1]), f"what became of {question.text}: {said}", pause_s=0.1)
        return said, [*self._world.taken(subject), *self._delivered_here(queued[1], subject)]

    def _is_done(self, name: str) -> bool:
        """Whether each recipient has had an attempt."""
        (trail,) = self._node.json("trace", name)
        tried = {to for event in trail["events"] if event["kind"] == "attempted" for to in event["recipients"]}
        return all(each["fate"] != "waiting" or each["recipient"] in tried for each in trail["recipients"])

    def _delivered_here(self, name: str, subject: str) -> list[tuple[str, Transaction]]:
        """What the history tells of deliveries on this machine; each mailbox must have the message, too."""
        (trail,) = self._node.json("trace", name)
        # Programs and files are the recipients of their aliases; Postfix tells of the alias.
        aliases = {to: event["recipient"] for event in trail["events"] if event["kind"] == "expanded"
                   for to in event["into"] if to[:1] in "|/"}  # fmt: skip
        found = []
        for event in (each for each in trail["events"] if each["kind"] == "attempted"):
            place = _place_of(event["destination"], event["outcome"], event["status"])
            for to in event["recipients"] if place else ():
                if place == "local" and to not in aliases and self._homes is not None:
                    user = re.split("[@+-]", to.lower())[0]
                    maildir.wait(self._homes / user / "Maildir", of=f"Subject: {subject}\n")
                where = "local" if place == "discard" and to in aliases else place
                found.append((where, Transaction("", (f"<{aliases.get(to, to)}>",), b"", False, "")))
        return found

    def found(self, names: Sequence[str], key: str) -> str:
        """What the first of these maps that knows the key has for it, without other forms of the key."""
        for name in names:
            steps = json.loads(self._node.command("map", "test", name, key, "--json", code=None))
            if steps[0]["value"] is not None:
                return str(steps[0]["value"])
        return "(none)"

    def verified(self, address: str) -> str:
        """What `sendmail -bv` says."""
        ended = self._sendmail("-bv", address)
        return (ended.stdout + ended.stderr).decode().strip()

    def _calls(self, question: Question, subject: str) -> str:
        """By the program `sendmail`. The users of the questions are not on this machine: root names them with -f."""
        pairs = question.pairs
        options = shlex.split(pairs.get("args", "")) or (["-f", pairs["as"]] if pairs["as"] != "root" else [])
        options += ["-v", "-F", pairs["as"]]
        head = "\n".join([*question.fields, f"Subject: {subject}", "", "hello", ""])
        ended = self._sendmail(*options, *question.recipients, message=head.encode())
        return f"SENDMAIL {ended.returncode} {ended.stderr.decode()}{ended.stdout.decode()}"

    def _talk(self, question: Question, subject: str | None) -> str:
        pairs = question.pairs
        with smtplib.SMTP("127.0.0.1", self._listeners[pairs.get("port", "25")], timeout=20) as client:
            client.ehlo("proxy.test")
            login = f" LOGIN={pairs['auth']}" if "auth" in pairs else ""
            code, text = client.docmd("XCLIENT", f"ADDR={pairs.get('client', '203.0.113.5')}{login}")
            if code != 220:
                return _said("CONNECT", code, text)
            client.docmd("EHLO", pairs.get("helo", "client.example.org"))
            parameter = f" {pairs['mailopt']}" if "mailopt" in pairs else ""
            code, text = client.docmd("MAIL", f"FROM:<{question.sender}>{parameter}")
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
            return f"{_said('DATA', code, text)} {text.decode()}"


def _place_of(destination: str, outcome: str, status: str) -> str:
    """Where a delivery on this machine was, or the end of what was delivered nowhere; "" if a server took it."""
    match outcome:
        case "delivered" if destination.startswith(("maildir:", "program:", "mbox:")):
            return "local"
        case "delivered" if not destination or destination.startswith("discard"):
            return "discard"
        case "failed":
            return f"bounced {status}"
        case "deferred":
            return f"deferred {status}"
    return ""


def _said(stage: str, code: int, text: bytes) -> str:
    status = re.match(rb"([245])\.\d+\.\d+ ", text)
    return f"{stage} {code} {status[1].decode() if status else str(code)[0]}"


# ---- answers


def expected_reply(question: Question) -> str:
    """As `Asker.reply` says it."""
    stage, code, *rest = question.answer.split()
    status = rest[0][0] if rest and re.fullmatch(r"[245]\.\d+\.\d+", rest[0]) else code[0]
    return f"{stage} {code} {status}"


def deliveries(answer: str) -> set[tuple[str, str]]:
    """Final recipient, in lower case, and place of each copy that was sent, or status of what was not; no reports."""
    found = set()
    for each in _DELIVERY.finditer(answer):
        if not each[1]:
            server = _SERVER.search(each["hop"])
            place = _place(f"{server['address']}:{server['port']}" if server else each["agent"])
            final, _ = _final(each["final"], place)
            found.add((final, place if each["end"] == "sent" else f"{each['end']} {each['status']}"))
    return found


def _final(address: str, place: str) -> tuple[str, str]:
    return (_HERE.sub("@example.com", address.lower()) if place == "local" else address.lower()), place


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
    return "lmtp" if text.startswith("private/") else "local" if text == "pipe" else text


def came(taken: list[tuple[str, Transaction]]) -> set[tuple[str, str]]:
    return {_final(recipient, place) for place, each in taken for recipient in _names(each)}


def carried(taken: list[tuple[str, Transaction]]) -> set[tuple[str, str, frozenset[str]]]:
    """Transactions with one sender to one place count as one: how many recipients share one is not asked. What was
    delivered here is no envelope in the answers."""
    found: dict[tuple[str, str], set[str]] = {}
    for place, each in taken:
        if place.split()[0] in ("local", "discard", "bounced", "deferred"):
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
