"""What the values of transport maps say."""

from __future__ import annotations

import pytest

from postroad.mail.route import SetServer
from postroad.route.transport import SERVERS_MAX, Way, WayKind, parse


def to(host: str, port: int = 0) -> Way:
    return Way(WayKind.SERVERS, (SetServer(host, port),))


def by_mx(host: str, port: int = 0) -> Way:
    return Way(WayKind.SERVERS, (SetServer(host, port, mx=True),))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (":", Way(WayKind.AS_WITHOUT)),
        (" : ", Way(WayKind.AS_WITHOUT)),
        ("smtp:", Way(WayKind.OWN_MX)),
        ("smtp", Way(WayKind.OWN_MX)),
        ("relay:", Way(WayKind.OWN_MX)),
        ("smtp:Example.NET", by_mx("example.net")),
        ("smtp:example.net:2525", by_mx("example.net", 2525)),
        ("smtp:bücher.example", by_mx("xn--bcher-kva.example")),
        ("smtp:[Mail.example.net]", to("mail.example.net")),
        ("smtp:[mail.example.net]:587", to("mail.example.net", 587)),
        ("smtp:[mail.example.net]:submission", to("mail.example.net", 587)),
        ("relay:[192.0.2.7]:25", to("192.0.2.7", 25)),
        ("smtp:192.0.2.7", to("192.0.2.7")),
        ("smtp:inet:192.0.2.7:26", to("192.0.2.7", 26)),
        ("smtp:[2001:DB8::1]:25", to("2001:db8::1", 25)),
        ("smtp:[IPv6:2001:db8::1]", to("2001:db8::1")),
        ("smtp:2001:db8::1", to("2001:db8::1")),
        (":[192.0.2.7]:26", to("192.0.2.7", 26)),
        (":example.net", by_mx("example.net")),
        ("smtp:[a.example]:26, [b.example] c.example:27",
         Way(WayKind.SERVERS, (SetServer("a.example", 26), SetServer("b.example", 0, False, 1),
                               SetServer("c.example", 27, True, 2)))),
        ("lmtp:inet:a.example:24,inet:b.example",
         Way(WayKind.LMTP_SERVERS, (SetServer("a.example", 24), SetServer("b.example", 0, False, 1)))),
        ("lmtp:unix:/run/dovecot/lmtp", Way(WayKind.LMTP_SOCKET, name="/run/dovecot/lmtp")),
        ("lmtp:inet:imap.example.net:2424", Way(WayKind.LMTP_SERVERS, (SetServer("imap.example.net", 2424),))),
        ("lmtp:inet:[192.0.2.9]:24", Way(WayKind.LMTP_SERVERS, (SetServer("192.0.2.9", 24),))),
        ("lmtp:[imap.example.net]", Way(WayKind.LMTP_SERVERS, (SetServer("imap.example.net", 0),))),
        ("next_hop:isp", Way(WayKind.NEXT_HOP, name="isp")),
        ("error:5.7.9 go away", Way(WayKind.ERROR, status="5.7.9", text="go away")),
        ("error:4.2.1 full", Way(WayKind.ERROR, status="5.2.1", text="full")),
        ("error:moved away", Way(WayKind.ERROR, status="5.0.0", text="moved away")),
        ("error:", Way(WayKind.ERROR, status="5.0.0", text="no mail is taken for this address")),
        ("retry:4.7.9 later", Way(WayKind.RETRY, status="4.7.9", text="later")),
        ("retry:5.7.9 later", Way(WayKind.RETRY, status="4.7.9", text="later")),
        ("discard:", Way(WayKind.DISCARD, status="2.0.0")),
        ("hold:", Way(WayKind.HOLD)),
        ("hold:until the audit is done", Way(WayKind.HOLD, text="until the audit is done")),
        ("discard:as asked for", Way(WayKind.DISCARD, status="2.0.0", text="as asked for")),
    ],
)  # fmt: skip
def test_values(value: str, expected: Way) -> None:
    assert parse(value) == expected


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("", "it is empty"),
        ("[192.0.2.7]:25", "a transport must stand in front of a host: smtp:[192.0.2.7]:25"),
        ("dovecot:", "there is no transport 'dovecot'"),
        ("local:", "there is no transport 'local'; write a colon alone for what [[domain]] says"),

        ("SMTP:[192.0.2.7]", "there is no transport 'SMTP'"),
        ("smtp:,", "it names no host"),
        ("smtp:" + "[a.example] " * (SERVERS_MAX + 1), f"it names more than {SERVERS_MAX} hosts"),
        ("lmtp:inet:a.example, unix:/run/lmtp", "a socket must stand alone"),
        ("smtp:[a.example]:0", "'0' is not a port"),
        ("smtp:[a.example]:65536", "'65536' is not a port"),
        ("smtp:[a.example]:٢٥", "'[a.example]:٢٥' is not a host; an IPv6 address stands in brackets"),
        ("smtp:a.example:what", "'what' is not a port"),
        ("smtp:a..example", "'a..example' is not a host"),
        ("smtp:[]", "'' is not a host"),
        ("smtp:[a.example", "'[a.example' is not a host; an IPv6 address stands in brackets"),
        ("lmtp:", "an LMTP server must be named: lmtp:unix:/path or lmtp:inet:host:port"),
        ("lmtp:unix:private/lmtp",
         "the path of the socket must begin with a slash: lmtp:unix:/var/spool/postfix/private/lmtp"),
        ("next_hop:", "it names no next hop"),
        ("error:" + "x" * 1000, "it has more than 1000 characters"),
    ],
)  # fmt: skip
def test_what_means_nothing(value: str, why: str) -> None:
    assert parse(value) == why
