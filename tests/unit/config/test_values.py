"""The kinds of value that a setting may have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic_core import PydanticCustomError

from postroad.config import values

RIGHT: list[tuple[Callable[[Any], Any], Any, Any]] = [
    (values.duration_s, 30, 30.0),
    (values.duration_s, 0.5, 0.5),
    (values.duration_s, "30s", 30.0),
    (values.duration_s, "250ms", 0.25),
    (values.duration_s, "5m", 300.0),
    (values.duration_s, "4h", 14_400.0),
    (values.duration_s, "5d", 432_000.0),
    (values.duration_s, "1w", 604_800.0),
    (values.duration_s, "1h 30m", 5_400.0),
    (values.duration_s, " 1.5 h ", 5_400.0),
    (values.octets, 1000, 1000),
    (values.octets, "1000", 1000),
    (values.octets, "64K", 65_536),
    (values.octets, "50m", 52_428_800),
    (values.octets, "1 GiB", 1_073_741_824),
    (values.octets, "1T", 1_099_511_627_776),
    (values.domain, "Example.ORG.", "example.org"),
    (values.domain, "bücher.example", "xn--bcher-kva.example"),
    (values.domain_pattern, "*", "*"),
    (values.domain_pattern, ".Example.org", ".example.org"),
    (values.domain_pattern, "example.org", "example.org"),
    (values.host, "Mail.example.org", "mail.example.org"),
    (values.host, "2001:DB8::1", "2001:db8::1"),
    (values.server_entry, "Mail.example.org", "mail.example.org"),
    (values.server_entry, "[a.example]:587", "a.example port=587"),
    (values.server_entry, "[2001:db8::1]:26", "2001:db8::1 port=26"),
    (values.server_entry, "2001:db8::1", "2001:db8::1"),
    (values.server_entry, "example.net mx weight=3", "example.net weight=3 mx"),
    (values.server_entry, {"host": "a.example", "port": 26, "priority": 10, "weight": 5, "mx": False},
     "a.example port=26 priority=10 weight=5"),
    (values.own_address, "192.0.2.7", "192.0.2.7"),
    (values.own_address, "2001:DB8::7  Mail.example.org", "2001:db8::7 mail.example.org"),
    (values.hello_name, "[IPv6:2001:DB8::7]", "[IPv6:2001:db8::7]"),
    (values.hello_name, "[192.0.2.7]", "[192.0.2.7]"),
    (values.mailbox, "", ""),
    (values.mailbox, "Postmaster@Example.org", "Postmaster@example.org"),
    (values.mailbox, '"a b"@example.org', '"a b"@example.org'),
    (values.mailbox_pattern, "Ada+Lists@Example.org", "ada+lists@example.org"),
    (values.mailbox_pattern, '"a b"@example.org', "a b@example.org"),
    (values.sender_pattern, "<>", "<>"),
    (values.sender_pattern, "Example.org", "example.org"),
    (values.sender_pattern, ".example.org", ".example.org"),
    (values.sender_pattern, "Ada@Example.org", "ada@example.org"),
    (values.ip_address, "192.0.2.1", "192.0.2.1"),
    (values.network, "192.0.2.0/24", "192.0.2.0/24"),
    (values.network, "::1", "::1/128"),
    (values.trusted_network, "unix", "unix"),
    (values.listening_address, "::", "::"),
    (values.listening_address, "unix:/run/postroad/lmtp", "unix:/run/postroad/lmtp"),
    (values.dns_server, "[::1]:5353", "[::1]:5353"),
    (values.one_or_more, "a", ["a"]),
    (values.one_or_more, ["a", "b"], ["a", "b"]),
]

WRONG: list[tuple[Callable[[Any], Any], Any, str]] = [
    (values.duration_s, "5 minutes", '"5m"'),
    (values.duration_s, "", '"5m"'),
    (values.duration_s, "-5m", '"5m"'),
    (values.duration_s, True, '"5m"'),
    (values.duration_s, [1], '"5m"'),
    (values.octets, "50X", '"50M"'),
    (values.octets, 1.5, '"50M"'),
    (values.octets, True, '"50M"'),
    (values.octets, "-1", '"50M"'),
    (values.domain, "exa mple.org", "example.org"),
    (values.domain, "", "example.org"),
    (values.domain, 5, "example.org"),
    (values.domain_pattern, "*.example.org", 'all domains below it write ".example.org"'),
    (values.domain_pattern, ".", "example.org"),
    (values.host, "[192.0.2.1]", 'Write host = "192.0.2.1"'),
    (values.host, "[smtp.example.net]:587", 'Write host = "smtp.example.net" and port = 587'),
    (values.host, "[2001:db8::1]:25", 'Write host = "2001:db8::1" and port = 25'),
    (values.host, "smtp.example.net:587", 'Write host = "smtp.example.net" and port = 587'),
    (values.host, "smtp example net", "mail.example.org"),
    (values.mailbox, "postmaster", "postmaster@example.org"),
    (values.mailbox, "<a@example.org>", "postmaster@example.org"),
    (values.mailbox, 3, "postmaster@example.org"),
    (values.mailbox_pattern, "ada", "ada@example.org"),
    (values.sender_pattern, "@example.org", 'write "example.org"'),
    (values.sender_pattern, "*", "Leave it out"),
    (values.sender_pattern, 5, "example.org"),
    (values.ip_address, "192.0.2.256", "192.0.2.1"),
    (values.ip_address, 5, "192.0.2.1"),
    (values.network, "192.0.2.1/24", "192.0.2.0/24"),
    (values.network, "example.org", "192.0.2.0/24"),
    (values.listening_address, "unix:lmtp", "absolute path"),
    (values.listening_address, "localhost", "192.0.2.1"),
    (values.dns_server, "dns.example.org", "192.0.2.1:53"),
    (values.dns_server, "192.0.2.1:0", "192.0.2.1:53"),
    (values.dns_server, 53, "192.0.2.1:53"),
]


@pytest.mark.parametrize(("validator", "written", "expected"), RIGHT)
def test_what_is_written_right_is_understood(validator: Callable[[Any], Any], written: Any, expected: Any) -> None:
    found = validator(written)
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize(("validator", "written", "remedy"), WRONG)
def test_what_is_written_wrong_is_named_with_its_remedy(
    validator: Callable[[Any], Any], written: Any, remedy: str
) -> None:
    with pytest.raises(PydanticCustomError) as raised:
        validator(written)
    assert repr(written) in raised.value.message()
    assert remedy in str((raised.value.context or {})["remedy"])


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("a.example fast", "'fast' says nothing of a server"),
        ("a.example weight=x", "'weight=x' says nothing of a server"),
        ("a.example port=0", "0 is not a port of a server"),
        ({"host": "a.example", "weight": 70_000}, "70000 is not a weight of a server"),
        ({"host": "a.example", "weight": True}, "True is not a weight of a server"),
        ({"host": "a.example", "prio": 1}, "a server has no key 'prio'"),
        ({"port": 25}, "a server needs a host"),
        ({"host": "a.example", "mx": 1}, "1 is neither true nor false"),
        ("", "'' is not a server"),
    ],
)
def test_a_server_that_is_written_wrong(written: Any, said: str) -> None:
    with pytest.raises(PydanticCustomError) as raised:
        values.server_entry(written)
    assert said in raised.value.message()


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (300.0, "duration", '"5m"'),
        (90.0, "duration", '"90s"'),
        (0.25, "duration", '"0.25s"'),
        (432_000.0, "duration", '"5d"'),
        (0.0, "duration", "0"),
        (65_536, "size", '"64K"'),
        (12_290, "size", "12290"),
        (1_073_741_824, "size", '"1G"'),
        (True, "", "true"),
        ('a"b', "", '"a\\"b"'),
        (("a", "b"), "", '["a", "b"]'),
        (None, "", ""),
    ],
)
def test_a_value_is_shown_as_it_is_written(value: Any, kind: str, expected: str) -> None:
    assert values.show(value, values.ValueKind(kind, "") if kind else None) == expected


@pytest.mark.parametrize("seconds", [1, 60, 61, 3600, 86_400, 90_000, 604_800, 1_000_001])
def test_a_shown_duration_is_read_as_the_same(seconds: int) -> None:
    shown = values.show(float(seconds), values.ValueKind("duration", ""))
    assert values.duration_s(shown.strip('"')) == seconds


@pytest.mark.parametrize("size", [1, 1023, 1024, 1025, 3 * 1024**2, 1024**4])
def test_a_shown_size_is_read_as_the_same(size: int) -> None:
    assert values.octets(values.show(size, values.ValueKind("size", "")).strip('"')) == size
