"""Addresses without a domain in header fields: which get one, and what stays as it is."""

from __future__ import annotations

import pytest

from postroad.mail.envelope import Forwarded, Peer
from postroad.mail.header_clients import HeaderClients
from postroad.protocol.command import Mail
from postroad.receive.completing import _DOUBTFUL, _DOUBTFUL_HOSTS, Completing, completed
from postroad.receive.draft import Draft

HERE, TRUSTED, STRANGER = Peer("127.0.0.1"), Peer("192.0.2.9", trusted=True), Peer("198.51.100.1")


@pytest.mark.parametrize(("field", "changed"), [
    ("From: root", "From: root@o.test"), ("From: Root <root>", "From: Root <root@o.test>"),
    ("to: joe, ada@x.test,\r\n bob (Bob)", "to: joe@o.test, ada@x.test,\r\n bob@o.test (Bob)"),
    ("Cc: Group: a, b@x.test;, c", "Cc: Group: a@o.test, b@x.test;, c@o.test"),
    ('From: "root" <x@y.test>', 'From: "root" <x@y.test>'), ('From: "a@b" <root>', 'From: "a@b" <root@o.test>'),
    ("Reply-To: joe@host", "Reply-To: joe@host"), ("Sender: <>", "Sender: <>"), ("From:", "From:"),
    ("To: undisclosed-recipients:;", "To: undisclosed-recipients:;"), ("To: two words", "To: two words"),
    ("Errors-To: root", "Errors-To: root@o.test"), ("Resent-Bcc: a", "Resent-Bcc: a@o.test"),
    ("Subject: root", "Subject: root"), ("X-To: root", "X-To: root"), ("Delivered-To: root", "Delivered-To: root"),
    ("From: J\u00f6rg <joerg>", "From: J\u00f6rg <joerg@o.test>"),
    ("To: @route.test:a@x.test", "To: @route.test:a@x.test"),
])  # fmt: skip
def test_which_addresses_get_a_domain(field: str, changed: str) -> None:
    section = f"A: 1\r\n{field}\r\nB: 2\r\n".encode()
    made, names = completed(section, "o.test")
    assert made.decode() == f"A: 1\r\n{changed}\r\nB: 2\r\n"
    assert bool(names) is (field != changed)
    assert field == changed or _DOUBTFUL.search(section) is not None


@pytest.mark.parametrize(("field", "changed"), [
    ("From: joe@host", "From: joe@host.d.test"), ("To: a, <b@h>, c@x.test", "To: a@o.test, <b@h.d.test>, c@x.test"),
    ("To: a@[127.0.0.1]", "To: a@[127.0.0.1]"), ("To: a@host.", "To: a@host."), ("To: @host", "To: @host"),
])  # fmt: skip
def test_hosts_without_a_dot(field: str, changed: str) -> None:
    section = f"{field}\r\n".encode()
    assert completed(section, "o.test", "d.test")[0].decode() == f"{changed}\r\n"
    assert field == changed or _DOUBTFUL_HOSTS.search(section) is not None


@pytest.mark.parametrize("section", [
    b"", b"From: a@x.test\r\nTo: b@x.test, c@y.test,\r\n d@z.test\r\nSubject: hello\r\n",
    b'From: "Doe, John" <j@x.test>\r\nTo: "B" <b@x.test>, C D <c@y.test>\r\nX-From: root\r\n',
    b"Subject: From: root\r\n",
])  # fmt: skip
def test_one_search_tells_that_there_is_nothing_to_do(section: bytes) -> None:
    assert _DOUBTFUL.search(section) is None
    assert _DOUBTFUL_HOSTS.search(section) is None


def test_the_search_is_linear() -> None:
    for piece in (b'"a', b'""', b"a,", b"@", b"\r\n a", b"From: ", b"a@b,", b".", b"@.", b"a.b\r\n ", b"\r\nFrom: a@b"):
        for start in (b"From: ", b"From: a@"):
            _DOUBTFUL.search(start + piece * 60_000 + b"(")
            _DOUBTFUL_HOSTS.search(start + piece * 60_000 + b"(")


def test_signed_fields_and_lines_that_would_be_too_long_stay() -> None:
    section = b"DKIM-Signature: v=1; h=from:subject; b=x\r\nFrom: root\r\nTo: joe\r\n"
    assert completed(section, "o.test") == (section.replace(b"To: joe", b"To: joe@o.test"), ["To"])
    long = b"To: " + b", ".join([b"a%d@x.test" % number for number in range(80)]) + b", joe"
    long += b" " * (998 - len(long)) + b"\r\n"
    assert completed(long, "o.test") == (long, [])


@pytest.mark.parametrize(("clients", "peer", "domain"), [
    (HeaderClients.LOCAL, HERE, "o.test"), (HeaderClients.LOCAL, TRUSTED, "others.test"),
    (HeaderClients.KNOWN, TRUSTED, "o.test"), (HeaderClients.KNOWN, STRANGER, "others.test"),
    (HeaderClients.ALL, STRANGER, "o.test"), (HeaderClients.NONE, HERE, "others.test"),
    (HeaderClients.LOCAL, Peer("127.0.0.1", forwarded=Forwarded(source="REMOTE")), "others.test"),
])  # fmt: skip
def test_whose_mail(clients: HeaderClients, peer: Peer, domain: str) -> None:
    for others in ("others.test", ""):
        draft = Draft(Mail(None), peer, 0, 0.0)
        content = b"From: root\r\nTo: a@host\r\n\r\nhello\r\n"
        draft.head = content[:-9]
        made = Completing(clients, "o.test", others, "hosts.test", lambda each: each.address == "127.0.0.1")
        found = made(draft, content)
        if domain == "others.test" and not others:
            assert found is content and not draft.said
            continue
        host = "hosts.test" if domain == "o.test" else domain
        assert found.decode() == f"From: root@{domain}\r\nTo: a@host.{host}\r\n\r\nhello\r\n"
        assert draft.head + b"\r\nhello\r\n" == found
        assert draft.said == ("a domain was added to addresses in From, To",)
