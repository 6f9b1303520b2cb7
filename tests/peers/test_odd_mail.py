"""Mail that breaks the rules, through Postfix and through us to the same next hop: what arrives is the same, but where
`docs/limits.md` says that we do otherwise, and why. Both trust the client, and add missing fields."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.peers.harness import ports
from tests.peers.harness.postfix import Postfix
from tests.peers.harness.postroad import Node, next_hop, relay_listener
from tests.peers.harness.remote import Remote
from tests.peers.test_conformance import Talk

_ADDED = re.compile(rb"(Received|Message-I[dD]|Date|From): .*\r\n([ \t].*\r\n)*")
_TOP = b"Subject: s\r\n"


@dataclass(frozen=True)
class Both:
    """Two servers and the next hop of each."""

    node: Node
    postfix: Postfix
    behind_node: Remote
    behind_postfix: Remote

    def through(
        self, content: bytes, *, sender: str = "a@origin.example", to: str = "b@next.example"
    ) -> tuple[str | tuple[str, str, bytes], str | tuple[str, str, bytes]]:
        """What became of it: by us, and by Postfix."""
        return (
            _sent(self.node.port, self.behind_node, sender, to, content),
            _sent(self.postfix.port, self.behind_postfix, sender, to, content),
        )


def _sent(port: int, remote: Remote, sender: str, to: str, content: bytes) -> str | tuple[str, str, bytes]:
    """The paths and the content as they arrived, without the fields that servers add; or the refusal."""
    before = len(remote.transactions)
    stuffed = (b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:]
    with Talk(port) as client:
        for line in (f"MAIL FROM:<{sender}>".encode(), f"RCPT TO:<{to}>".encode(), b"DATA", stuffed + b"."):
            answer = client.octets(line + b"\r\n")
            if answer[0] not in "23":
                return answer[:9]
    came = remote.wait(before + 1)[before]
    section, found, body = came.content.partition(b"\r\n\r\n")
    section = _ADDED.sub(b"", section + found[:2])
    return came.mail.split(" ")[0], came.rcpt[0].split(" ")[0], section + found[2:] + body


@pytest.fixture(scope="module")
def both(place: Path) -> Iterator[Both]:
    with Remote() as behind_node, Remote() as behind_postfix:
        postfix = Postfix(place / "postfix", settings={"relayhost": f"[127.0.0.1]:{behind_postfix.port}"})
        node = Node(place / "node", {
            "listener": [relay_listener(ports.port(), add_missing=True)],
            "next_hop": [next_hop("next.example", behind_node.port)],
        })
        with postfix, node:
            yield Both(node, postfix, behind_node, behind_postfix)


@pytest.mark.parametrize("address", ["a..b", ".a", "a.", "..", '"a..b"', '"plain"', "ann+x"])
def test_local_parts(both: Both, address: str) -> None:
    quoted = f'"{address}"' if ".." in f".{address}." and not address.startswith('"') else address
    quoted = "plain" if quoted == '"plain"' else quoted
    as_sender = both.through(_TOP, sender=f"{address}@origin.example")
    as_recipient = both.through(_TOP, to=f"{address}@next.example")
    assert as_sender[0] == as_sender[1] == (f"FROM:<{quoted}@origin.example>", "TO:<b@next.example>", _TOP)
    assert as_recipient[0] == as_recipient[1] == ("FROM:<a@origin.example>", f"TO:<{quoted}@next.example>", _TOP)


@pytest.mark.parametrize(
    ("sender", "to", "said"),
    [
        ("a@origin.example.", "b@next.example.", ("FROM:<a@origin.example>", "TO:<b@next.example>", _TOP)),
        ("a@origin..example", "b@next.example", "501 5.1.7"),
        ("a@origin.example", "b c@next.example", "501 5.1.3"),
    ],
)
def test_other_paths(both: Both, sender: str, to: str, said: str | tuple[str, str, bytes]) -> None:
    assert both.through(_TOP, sender=sender, to=to) == (said, said)


_SAME = {
    "a CR alone": (_TOP + b"\r\na\rb\r\n", _TOP + b"\r\na b\r\n"),
    "a CR alone in a field": (b"Subject: s\rX: y\r\nX-B: c\r\n\r\nb\r\n", b"Subject: s X: y\r\nX-B: c\r\n\r\nb\r\n"),
    "CR CR LF": (b"Subject: s\r\r\nX-A: b\r\r\n\r\r\na\r\r\nb\r\r\r\n", b"Subject: s\r\nX-A: b\r\n\r\na\r\nb\r\n"),
    "LF": (b"Subject: s\n\na\nb\r\n", b"Subject: s\r\n\r\na\r\nb\r\n"),
    "no field in the middle": (
        b"Subject: s\r\nX-A: b\r\nthis is none\r\nX-B: c\r\n\r\nbody\r\n",
        b"Subject: s\r\nX-A: b\r\n\r\nthis is none\r\nX-B: c\r\n\r\nbody\r\n",
    ),
    "white space in a name": (_TOP + b"X A: b\r\n\r\nbody\r\n", _TOP + b"\r\nX A: b\r\n\r\nbody\r\n"),
    "no empty line": (_TOP + b"hello\r\nyou\r\n", _TOP + b"\r\nhello\r\nyou\r\n"),
    "an mbox line": (b"From ada Mon\r\n" + _TOP, b"X-Mailbox-Line: From ada Mon\r\n" + _TOP),
    "a quoted one": (b">From ada x\r\n" + _TOP, b"X-Mailbox-Line: >From ada x\r\n" + _TOP),
    "one in the middle": (_TOP + b"From ada x\r\nX-B: c\r\n", _TOP + b"\r\nFrom ada x\r\nX-B: c\r\n"),
    "white space first": (b" white\r\n" + _TOP + b"\r\nb\r\n", b"\r\n white\r\n" + _TOP + b"\r\nb\r\n"),
    "an empty line first": (b"\r\n" + _TOP + b"\r\nb\r\n", b"\r\n" + _TOP + b"\r\nb\r\n"),
    "text first": (b"hello there\r\nyou\r\n", b"\r\nhello there\r\nyou\r\n"),
    "a colon first": (b": x\r\n" + _TOP + b"\r\nb\r\n", b"\r\n: x\r\n" + _TOP + b"\r\nb\r\n"),
    "a line of white space": (_TOP + b" \r\nX-B: c\r\n\r\nb\r\n", _TOP + b" \r\nX-B: c\r\n\r\nb\r\n"),
    "a line of 998": (_TOP + b"\r\n" + b"x" * 998 + b"\r\n", _TOP + b"\r\n" + b"x" * 998 + b"\r\n"),
    "a line of 999": (_TOP + b"\r\n" + b"x" * 999 + b"\r\n", _TOP + b"\r\n" + b"x" * 998 + b"\r\n x\r\n"),
    "a line of dots": (
        _TOP + b"\r\n" + b"." * 2500 + b"\r\n",
        _TOP + b"\r\n" + b"." * 998 + b"\r\n " + b"." * 997 + b"\r\n " + b"." * 505 + b"\r\n",
    ),
    "a long word in a field": (
        b"Subject: " + b"x" * 1000 + b"\r\n\r\nb\r\n",
        b"Subject: " + b"x" * 989 + b"\r\n " + b"x" * 11 + b"\r\n\r\nb\r\n",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", _SAME)
def test_content(both: Both, what: str) -> None:
    sent, came = _SAME[what]
    assert both.through(sent) == (("FROM:<a@origin.example>", "TO:<b@next.example>", came),) * 2


_OTHERWISE = {
    # what was sent, what we make of it, what Postfix does
    "words in a field": (
        b"Subject: " + b"word " * 250 + b"\r\n\r\nb\r\n",
        b"Subject: " + b"word " * 197 + b"word\r\n " + b"word " * 52 + b"\r\n\r\nb\r\n",
        b"Subject: " + b"word " * 197 + b"word\r\n  " + b"word " * 52 + b"\r\n\r\nb\r\n",
    ),
    "UTF-8": (
        _TOP + b"\r\nx" + "ü".encode() * 600 + b"\r\n",
        _TOP + b"\r\nx" + "ü".encode() * 498 + b"\r\n " + "ü".encode() * 102 + b"\r\n",
        _TOP + b"\r\nx" + "ü".encode() * 498 + b"\xc3\r\n \xbc" + "ü".encode() * 101 + b"\r\n",
    ),
    "white space before the colon": (
        b"Subject : s\r\n\r\nb\r\n", b"Subject : s\r\n\r\nb\r\n", b"Subject: s\r\n\r\nb\r\n"
    ),
    "a dot behind a bare LF": (
        _TOP + b"\r\na\n./run\nb\r\n", _TOP + b"\r\na\r\n./run\r\nb\r\n", _TOP + b"\r\na\r\n/run\r\nb\r\n"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", _OTHERWISE)
def test_what_we_do_otherwise(both: Both, what: str) -> None:
    sent, ours, theirs = _OTHERWISE[what]
    paths = ("FROM:<a@origin.example>", "TO:<b@next.example>")
    assert both.through(sent) == ((*paths, ours), (*paths, theirs))


def test_what_we_refuse(both: Both) -> None:
    ours, theirs = both.through(_TOP + b"\r\na\0b\r\n")
    assert ours == "550 5.5.2" and isinstance(theirs, tuple)
    for address in ("ann", "a@@next.example", "@next.example"):
        ours, theirs = both.through(_TOP, to=address)
        assert ours == "501 5.1.3" and isinstance(theirs, tuple), address
