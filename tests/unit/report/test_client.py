"""What others told of a client (PROXY, XCLIENT, XFORWARD), in the words of log and trace."""

from __future__ import annotations

import pytest

from postroad.mail.envelope import Forwarded, Peer, Via
from postroad.report.client import behind


@pytest.mark.parametrize(
    ("peer", "words"),
    [
        (Peer("192.0.2.1"), []),
        (Peer("192.0.2.1", name="mx.example.org"), ["named mx.example.org"]),
        (Peer("192.0.2.1", via=Via("PROXY v1")), ["by PROXY v1"]),
        (
            Peer("192.0.2.1", via=Via("PROXY v2", "198.51.100.2", 4711, "203.0.113.9", 25, authority="mx.example.net",
                                      alpn="smtp", common_name="client.example", unique_id="17")),
            ["by PROXY v2 of [198.51.100.2]:4711 for [203.0.113.9]:25, name asked for mx.example.net, ALPN smtp, "
             "certificate of client.example, unique id 17"],
        ),
        (
            Peer("192.0.2.1", forwarded=Forwarded("c.example", "198.51.100.7", 99, "ESMTP", "hello.example", "4C7x",
                                                  "REMOTE")),
            ['forwarded for c.example[198.51.100.7]:99 "hello.example" ESMTP id 4C7x source REMOTE'],
        ),
        (Peer("192.0.2.1", forwarded=Forwarded(address="198.51.100.7")), ["forwarded for [198.51.100.7]"]),
        (Peer("192.0.2.1", forwarded=Forwarded(ident="4C7x")), ['forwarded for "" id 4C7x']),
    ],
)  # fmt: skip
def test_what_is_behind_a_client(peer: Peer, words: list[str]) -> None:
    assert [" ".join(each.split()) for each in behind(peer)] == words
