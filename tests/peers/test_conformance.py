"""What the RFCs say of a message on its whole way, from a client through the queue to the next hop and back as a DSN.

Each test names the section that it holds. What one room alone can show stands in its unit tests.
"""

from __future__ import annotations

import contextlib
import smtplib
import socket
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import pytest

from tests.peers.harness import dsn, maildir, ports
from tests.peers.harness.postroad import Node, local_domain, next_hop, relay_listener
from tests.peers.harness.process import folder
from tests.peers.harness.remote import Dialog, Remote

_SENDER = "sender@example.test"


class Talk:
    """A client that says what it is told, octet by octet."""

    def __init__(self, where: int | Path, hello: str = "EHLO client.test") -> None:
        self._socket = socket.socket(socket.AF_INET if isinstance(where, int) else socket.AF_UNIX)
        self._socket.settimeout(20)
        self._socket.connect(("127.0.0.1", where) if isinstance(where, int) else str(where))
        self._lines = self._socket.makefile("rb")
        self.reply()
        self(hello)

    def reply(self) -> str:
        line = self._lines.readline().decode()
        while line[3:4] == "-":
            line = self._lines.readline().decode()
        return line.rstrip("\r\n")

    def __call__(self, *lines: str) -> str:
        """The reply to the last of these lines; all others must be accepted."""
        answer = ""
        for line in lines:
            assert answer[:1] in ("", "2", "3"), answer
            answer = self.octets(line.encode() + b"\r\n")
        return answer

    def octets(self, octets: bytes) -> str:
        self._socket.sendall(octets)
        return self.reply()

    def __enter__(self) -> Talk:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self._socket.close()


def _refuses(dialog: Dialog, verb: str, argument: str) -> str | None:
    return "550 5.1.1 nobody" if verb == "RCPT" else None


@pytest.fixture(scope="module")
def remotes() -> Iterator[dict[str, Remote]]:
    made = {
        "full": Remote(),
        "bare": Remote(extensions=["PIPELINING"]),
        "late": Remote(),
        "no": Remote(_refuses),
    }
    with contextlib.ExitStack() as running:
        for remote in made.values():
            running.enter_context(remote)
        yield made


@pytest.fixture(scope="module")
def node(place: Path, remotes: dict[str, Remote]) -> Iterator[Node]:
    with folder("lmtp") as sockets:
        (place / "aliases").write_text(
            f"team: one@example.test, two@full.example\nsingle: {_SENDER}\ntönk: three@bare.example\n"
        )
        node = Node(place / "node", {
            "aliases": str(place / "aliases"),
            "postmaster": "chief@example.test",
            "listener": [
                relay_listener(ports.port()),
                {"name": "lmtp", "address": f"unix:{sockets}/lmtp", "protocol": "lmtp", "role": "mx"},
            ],
            "domain": [local_domain("example.test")],
            "next_hop": [next_hop(f"{name}.example", remote.port) for name, remote in remotes.items()],
        })
        with node:
            yield node


def _reports(node: Node, subject: str, to: str = _SENDER) -> list[tuple[Mapping[str, str], Mapping[str, str]]]:
    """Per-message and per-recipient fields, of each recipient that a DSN speaks of."""
    return [
        (report.per_message, fields) for report in dsn.wait(node.maildir(to), subject) for fields in report.recipients
    ]


def test_content_by_bdat_in_odd_sizes_goes_on_by_data(node: Node, remotes: dict[str, Remote]) -> None:
    """RFC 3030 §2 in, RFC 5321 §4.1.1.4 and §4.5.2 out: the missing CRLF is added, dots are stuffed."""
    content = b"Subject: chunks\r\n\r\n.dot\r\n..\r\n.\r\nno line end"
    with Talk(node.port) as client:
        client(f"MAIL FROM:<{_SENDER}> BODY=8BITMIME", "RCPT TO:<a@full.example>")
        cuts = [0, 1, 8, 8, 17, 18, 19, 26, len(content)]
        for start, end in pairwise(cuts):
            last = b" LAST" if end == len(content) else b""
            assert client.octets(b"BDAT %d%s\r\n" % (end - start, last) + content[start:end]).startswith("250 2.0.0")
    taken = remotes["full"].wait_for(lambda each: b"chunks" in each.content)
    assert taken.content.endswith(b"\r\n" + content + b"\r\n")


def test_an_alias_leads_from_an_address_in_utf8_to_a_host_without_smtputf8(
    node: Node, remotes: dict[str, Remote]
) -> None:
    """RFC 6531 §3.7.3: our own trace field does not demand SMTPUTF8 of the next hop."""
    with Talk(node.port) as client:
        client(f"MAIL FROM:<{_SENDER}> SMTPUTF8", "RCPT TO:<tönk@example.test>", "DATA")
        client("Subject: from utf8\r\n\r\nhello\r\n.")
    taken = remotes["bare"].wait_for(lambda each: b"from utf8" in each.content)
    assert taken.rcpt == ("TO:<three@bare.example>",) and taken.mail == f"FROM:<{_SENDER}>"
    assert taken.content.isascii() and b" with UTF8SMTP id " in taken.content


def test_lmtp_over_a_unix_socket_answers_for_each_recipient_and_leaves_a_from_clause(node: Node) -> None:
    """RFC 2033 §4.2; RFC 5321 §4.4: FROM MUST be there, also where there is no TCP-info."""
    where = Path(node.config["listener"][1]["address"].removeprefix("unix:"))
    with Talk(where, "LHLO mda.test") as client:
        client("MAIL FROM:<a@b.test>", "RCPT TO:<lmtp1@example.test>", "RCPT TO:<lmtp2@example.test>", "DATA")
        assert client("Subject: local\r\n\r\nhello\r\n.").startswith("250 2.0.0")
        assert client.reply().startswith("250 2.0.0")
        assert client("MAIL FROM:<a@b.test>", "DATA").startswith("503 5.5.1")
    (octets,) = maildir.wait(node.maildir("lmtp1@example.test"))
    received = maildir.parse(octets)["Received"]
    assert received.split()[:4] == ["from", "mda.test", "by", "postroad.test"]
    assert " with LMTP id " in received


def test_success_is_told_in_each_way_in_which_it_can_come(node: Node, remotes: dict[str, Remote]) -> None:
    """RFC 3461 §5.2.2 (relayed, delivered), §5.2.7.2 and §5.2.7.3 (aliases), §6.3 (ENVID, ORCPT)."""
    with Talk(node.port) as client:
        client(
            f"MAIL FROM:<{_SENDER}> RET=FULL ENVID=see+20you", "RCPT TO:<team@example.test> NOTIFY=SUCCESS "
            "ORCPT=rfc822;list@origin.test", "RCPT TO:<a@bare.example> NOTIFY=SUCCESS,FAILURE",
            "RCPT TO:<home@example.test> NOTIFY=SUCCESS", "RCPT TO:<quiet@example.test>", "DATA",
        )
        client("Subject: success\r\n\r\nhello\r\n.")
    passed = remotes["full"].wait_for(lambda each: b"Subject: success" in each.content)
    assert passed.mail.endswith(" RET=FULL ENVID=see+20you")
    assert passed.rcpt == ("TO:<two@full.example> NOTIFY=NEVER ORCPT=rfc822;list@origin.test",)
    found = {}
    dsn.wait(node.maildir(_SENDER), "Subject: success", 3)
    for per_message, fields in _reports(node, "Subject: success"):
        assert per_message["Original-Envelope-Id"] == "see you"
        found[fields["Action"]] = fields
    assert set(found) == {"expanded", "relayed", "delivered"}
    assert found["expanded"]["Final-Recipient"] == "rfc822; team@example.test"
    assert found["expanded"]["Original-Recipient"].replace(" ", "") == "rfc822;list@origin.test"
    assert found["relayed"]["Final-Recipient"] == "rfc822; a@bare.example"
    assert found["delivered"]["Final-Recipient"] == "rfc822; home@example.test"
    assert all(fields["Status"].startswith("2.") for fields in found.values())


def test_dsn_parameters_outlive_a_deferral_and_a_restart(node: Node, remotes: dict[str, Remote]) -> None:
    """RFC 3461 §5.2.1: passed on to the next hop as they came, whenever that is."""
    remotes["late"].rule = lambda dialog, verb, argument: "450 4.2.0 later" if verb == "RCPT" else None
    with Talk(node.port) as client:
        client(f"MAIL FROM:<{_SENDER}> RET=HDRS ENVID=a+2Bb+3Dc", 'RCPT TO:<"x y"@late.example> NOTIFY=DELAY,FAILURE '
               'ORCPT=x400;/S+3Dx+2B/', "DATA")
        client("Subject: patience\r\n\r\nhello\r\n.")
    node.wait_log("450 4.2.0 later")
    node.stop()
    remotes["late"].rule = lambda dialog, verb, argument: None
    node.start()
    taken = remotes["late"].wait_for(lambda each: b"patience" in each.content)
    assert taken.mail.endswith(" RET=HDRS ENVID=a+2Bb+3Dc")
    assert taken.rcpt == ('TO:<"x y"@late.example> NOTIFY=FAILURE,DELAY ORCPT=x400;/S+3Dx+2B/',)


def test_a_report_that_cannot_be_delivered_goes_to_the_postmaster_and_no_further(node: Node) -> None:
    """RFC 5321 §6.1, RFC 3461 §5.2: never a DSN to the null reverse-path; the postmaster may be told."""
    with smtplib.SMTP("127.0.0.1", node.port, timeout=20) as client:
        client.sendmail("<>", ["gone@no.example"], "Subject: twice failed\r\n\r\nhello\r\n")
    ((_, fields),) = _reports(node, "twice failed", "chief@example.test")
    assert (fields["Action"], fields["Status"]) == ("failed", "5.1.1")


@pytest.mark.parametrize(("hops", "reply"), [(100, "250 2.0.0"), (101, "554 5.4.6")])
def test_a_message_that_goes_round_in_circles_is_refused(node: Node, hops: int, reply: str) -> None:
    """RFC 5321 §6.3: at least 100 Received fields."""
    with Talk(node.port) as client:
        client("MAIL FROM:<a@b.test>", "RCPT TO:<loop@example.test>", "DATA")
        assert client("Received: by x; now\r\n" * hops + "Subject: loop\r\n\r\nhello\r\n.").startswith(reply)


@pytest.mark.parametrize(
    ("to", "home"),
    [
        ("<PostMaster>", "postmaster"), ("<POSTMASTER@example.test>", "postmaster"),
        ("<@relay.test,@other.test:Routed@EXAMPLE.test>", "routed"), ('<"quoted"@example.test>', "quoted"),
        ("<literal@[127.0.0.1]>", "literal"),
    ],
)
def test_each_way_of_writing_a_local_recipient(node: Node, to: str, home: str) -> None:
    """RFC 5321 §4.1.1.3 (postmaster, source routes), §4.1.2 (quoting), §4.1.3 (literals), §2.4 (case)."""
    subject = f"written {to.encode().hex()}"
    with Talk(node.port) as client:
        client("MAIL FROM:<>", f"RCPT TO:{to}", "DATA")
        client(f"Subject: {subject}\r\n\r\nhello\r\n.")
    (octets,) = maildir.wait(node.maildir(f"{home}@example.test"), of=subject)
    assert octets.startswith(b"Return-Path: <>")
