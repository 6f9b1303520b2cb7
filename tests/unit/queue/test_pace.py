"""The pace of a destination: which scopes it stands in, and what limits it."""

from __future__ import annotations

import pytest

from postroad.mail.route import Destination, Transport
from postroad.queue.pace import UNLIMITED, PaceRule, PaceTable, Rate, ScopeLimits, parse_rate


def _table(*rules: PaceRule) -> PaceTable:
    return PaceTable(rules, most=20, start=5, recipients_max=100)


def _by_mx(domain: str) -> Destination:
    return Destination(domain, Transport.SMTP, domain=domain)


GOOGLE = PaceRule(mx=(".google.com",), provider="google", connections_max=8, rate=Rate(100, 60.0), recipients_max=50)


@pytest.mark.parametrize(
    ("written", "rate"),
    [
        ("100/1m", Rate(100, 60.0)),
        ("5/s", Rate(5, 1.0)),
        (" 2000 / 1.5h ", Rate(2000, 5400.0)),
        ("1/1d", Rate(1, 86400.0)),
        ("0/1m", None),
        ("5/0s", None),
        ("5", None),
        ("5/1w", None),
        ("-1/1m", None),
        ("a/1m", None),
        ("", None),
    ],
)
def test_rates_as_they_are_written(written: str, rate: Rate | None) -> None:
    assert parse_rate(written) == rate
    if rate is not None:
        assert parse_rate(str(rate)) == rate


def test_without_rules_each_destination_has_its_own_limit_and_local_ones_need_no_caution() -> None:
    table = _table()
    pace = table.of(_by_mx("example.com"))
    assert (pace.scopes, pace.rated, pace.connections_max, pace.recipients_max) == (("example.com",), (), 20, 100)
    assert table.limits("example.com") == ScopeLimits(20, 5)
    assert table.limits("maildir:example.org") == ScopeLimits(20, 20) == table.limits("lmtp:/run/lmtp")
    assert not table.needs_hosts(_by_mx("example.com"))


@pytest.mark.parametrize(
    ("domain", "most"),
    [("a.example", 3), ("x.a.example", 4), ("y.x.a.example", 4), ("b.example", 7), ("aa.example", 7)],
)
def test_the_most_exact_domain_wins(domain: str, most: int) -> None:
    table = _table(
        PaceRule(domain=("*",), connections_max=7),
        PaceRule(domain=("a.example",), connections_max=3),
        PaceRule(domain=(".a.example",), connections_max=4, messages_per_connection_max=9),
    )
    pace = table.of(_by_mx(domain))
    assert pace.connections_max == most == table.limits(domain).most
    assert pace.messages_per_connection_max == (9 if most == 4 else 0)
    assert table.limits(domain).start == min(5, most)


def test_rules_are_for_remotes() -> None:
    table = _table(PaceRule(domain=("*",), connections_max=1), PaceRule(mx=("*",), connections_max=1))
    maildir = Destination("maildir:example.org", Transport.MAILDIR, domain="example.org")
    assert table.of(maildir, ("mx",)).connections_max == 20 == table.limits(maildir.key).most
    assert not table.needs_hosts(maildir)


def test_a_provider_is_one_for_all_its_domains() -> None:
    table = _table(GOOGLE)
    assert table.needs_hosts(_by_mx("a.example"))
    one = table.of(_by_mx("a.example"), ("aspmx.l.google.com", "alt1.aspmx.l.google.com"))
    other = table.of(_by_mx("b.example"), ("aspmx.l.google.com",))
    assert one.scopes == ("a.example", "provider:google") and other.scopes == ("b.example", "provider:google")
    assert one.rated == ("provider:google",) and one.connections_max == 8 and one.recipients_max == 50
    assert table.limits("provider:google") == ScopeLimits(8, 8, Rate(100, 60.0))
    assert table.of(_by_mx("c.example"), ("mx.c.example",)).scopes == ("c.example",)


def test_a_provider_named_by_domains_needs_no_look_up() -> None:
    table = _table(PaceRule(domain=("gmail.com", "googlemail.com"), provider="google", rate=Rate(5, 1.0)))
    assert not table.needs_hosts(_by_mx("gmail.com"))
    for domain in ("gmail.com", "googlemail.com"):
        assert table.of(_by_mx(domain)).scopes == (domain, "provider:google")
    assert table.limits("provider:google") == ScopeLimits(UNLIMITED, UNLIMITED, Rate(5, 1.0))
    assert table.of(_by_mx("gmail.com")).connections_max == 20, "a rule without a number leaves the destination's own"


def test_each_host_by_itself() -> None:
    table = _table(PaceRule(mx=("mx1.example.net",), connections_max=2, connections_start=1))
    pace = table.of(_by_mx("a.example"), ("mx1.example.net", "mx2.example.net"))
    assert pace.scopes == ("a.example", "host:mx1.example.net") and pace.connections_max == 2
    assert table.limits("host:mx1.example.net") == ScopeLimits(2, 1)


def test_a_set_next_hop_is_a_host() -> None:
    table = _table(PaceRule(mx=("smtp.example.net",), provider="relay", connections_max=3))
    hop = Destination("[smtp.example.net]:587", Transport.SMTP, host="smtp.example.net", port=587)
    assert not table.needs_hosts(hop)
    assert table.of(hop).scopes == ("[smtp.example.net]:587", "provider:relay")


def test_domains_with_the_same_hosts_are_one_provider_by_themselves() -> None:
    table = _table(PaceRule(provider="*", connections_max=4))
    one = table.of(_by_mx("a.example"), ("mx2.h.net", "mx1.h.net", "mx1.h.net"))
    other = table.of(_by_mx("b.example"), ("mx1.h.net", "mx2.h.net"))
    third = table.of(_by_mx("c.example"), ("mx1.h.net",))
    assert one.scopes[1] == other.scopes[1] == "set:mx1.h.net+mx2.h.net" != third.scopes[1]
    assert table.limits(one.scopes[1]).most == 4
    only = _table(PaceRule(provider="*", mx=(".h.net",), connections_max=4))
    assert only.of(_by_mx("a.example"), ("mx.other.net",)).scopes == ("a.example",)
    assert only.of(_by_mx("a.example"), ("mx1.h.net",)).scopes == ("a.example", "set:mx1.h.net")


def test_all_rules_that_fit_hold_and_the_least_counts() -> None:
    table = _table(
        PaceRule(domain=("a.example",), connections_max=6, recipients_max=30, rate=Rate(1, 1.0)),
        PaceRule(mx=(".google.com",), connections_max=4, messages_per_connection_max=7),
        GOOGLE,
    )
    pace = table.of(_by_mx("a.example"), ("aspmx.l.google.com",))
    assert pace.scopes == ("a.example", "host:aspmx.l.google.com", "provider:google")
    assert pace.rated == ("a.example", "provider:google")
    assert (pace.connections_max, pace.messages_per_connection_max, pace.recipients_max) == (4, 7, 30)


def test_mail_that_requires_tls_has_the_limits_of_its_domain() -> None:
    """It has connections of its own (RFC 8689), and so a count of its own."""
    table = _table(PaceRule(domain=("example.com",), connections_max=3))
    pace = table.of(Destination("example.com/requiretls", Transport.SMTP, domain="example.com", require_tls=True))
    assert (pace.scopes, pace.connections_max) == (("example.com/requiretls",), 3)
    assert table.limits("example.com/tls-optional").most == 3


@pytest.mark.parametrize("key", ["[smtp.isp.example]:587/isp/@slow.example", "[hub]:25/@slow.example/requiretls"])
def test_a_domain_keeps_its_limits_behind_a_next_hop(key: str) -> None:
    table = _table(PaceRule(domain=("slow.example",), connections_max=3, rate=Rate(2, 60.0)))
    pace = table.of(Destination(key, Transport.SMTP, host="smtp.isp.example", apart="slow.example"))
    assert (pace.scopes, pace.rated, pace.connections_max) == ((key,), (key,), 3)
    assert table.limits(key) == ScopeLimits(3, 3, Rate(2, 60.0))
    assert not table.of(Destination("[smtp.isp.example]:587", Transport.SMTP, host="smtp.isp.example")).rated


def test_domains_of_a_provider_share_its_limits_behind_a_next_hop() -> None:
    table = _table(PaceRule(domain=("slow.example",), provider="slow", rate=Rate(2, 60.0)))
    pace = table.of(Destination("[a]:25/@slow.example", Transport.SMTP, host="a", apart="slow.example"))
    assert pace.rated == ("provider:slow",)
