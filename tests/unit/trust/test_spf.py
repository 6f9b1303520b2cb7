"""SPF against zones of our own (RFC 7208)."""

from __future__ import annotations

from typing import Any

import pytest

from postroad.mail.address import Address
from postroad.trust.asking import AskingLimits, DnsQuestions
from postroad.trust.spf import SpfClient, SpfResult, check_helo, check_mail_from
from tests.unit.trust.zones import ZoneResolver

# RFC 7208, appendix A.
EXAMPLE: dict[str, dict[str, list[str]]] = {
    "example.com": {
        "MX": ["10 mail-a.example.com", "20 mail-b.example.com"],
        "A": ["192.0.2.10", "192.0.2.11"],
    },
    "amy.example.com": {"A": ["192.0.2.65"]},
    "bob.example.com": {"A": ["192.0.2.66"]},
    "mail-a.example.com": {"A": ["192.0.2.129"]},
    "mail-b.example.com": {"A": ["192.0.2.130"]},
    "example.org": {"MX": ["10 mail-c.example.org"]},
    "mail-c.example.org": {"A": ["192.0.2.140"]},
    "10.2.0.192.in-addr.arpa": {"PTR": ["example.com"]},
    "11.2.0.192.in-addr.arpa": {"PTR": ["example.com"]},
    "65.2.0.192.in-addr.arpa": {"PTR": ["amy.example.com"]},
    "66.2.0.192.in-addr.arpa": {"PTR": ["bob.example.com"]},
    "129.2.0.192.in-addr.arpa": {"PTR": ["mail-a.example.com"]},
    "130.2.0.192.in-addr.arpa": {"PTR": ["mail-b.example.com"]},
    "140.2.0.192.in-addr.arpa": {"PTR": ["mail-c.example.org"]},
    "4.0.0.10.in-addr.arpa": {"PTR": ["bob.example.com"]},
}


async def check(
    record: str | list[str], client: str = "192.0.2.1", sender: str = "a@d.example", helo: str = "h.example",
    zones: dict[str, Any] | None = None, **more: Any,
) -> SpfResult:  # fmt: skip
    """`record`: of d.example, without the version."""
    records = [f"v=spf1 {record}"] if isinstance(record, str) else record
    resolver = ZoneResolver({"d.example": {"TXT": records}} | (zones or {}))
    local_part, _, domain = sender.rpartition("@")
    address = Address(local_part, domain) if sender else None
    asked = SpfClient(client, helo, "mx.example.net", 1_700_000_000)
    questions = DnsQuestions(resolver, more.pop("limits", AskingLimits()))
    result = await check_mail_from(asked, address, questions, with_steps=True, **more)
    assert result.told and result.told.isprintable() and "\n" not in result.found().reason
    return result


@pytest.mark.parametrize(
    ("record", "permitted"),
    [
        ("+all", [10, 11, 65, 66, 129, 130, 140]),
        ("a -all", [10, 11]),
        ("a:example.org -all", []),
        ("mx -all", [129, 130]),
        ("mx:example.org -all", [140]),
        ("mx mx:example.org -all", [129, 130, 140]),
        ("mx/30 mx:example.org/30 -all", [129, 130, 140]),
        ("ptr -all", [10, 11, 65, 66, 129, 130]),
        ("ip4:192.0.2.128/28 -all", [129, 130, 140]),
    ],
)
async def test_the_simple_examples_of_the_rfc(record: str, permitted: list[int]) -> None:
    """RFC 7208, appendix A.1."""
    zones = EXAMPLE | {"example.com": EXAMPLE["example.com"] | {"TXT": [f"v=spf1 {record}"]}}
    for last in (10, 11, 65, 66, 129, 130, 140):
        result = await check("", f"192.0.2.{last}", "a@example.com", zones=zones)
        assert result.result == ("pass" if last in permitted else "fail"), (last, result.steps)
        assert result.domain == "example.com"


async def test_a_name_that_leads_elsewhere_is_none_of_the_client() -> None:
    """The PTR record of 10.0.0.4 says bob.example.com, which has another address (RFC 7208, appendix A.1)."""
    result = await check("ptr:example.com -all", "10.0.0.4", zones=EXAMPLE)
    assert result.result == "fail"


@pytest.mark.parametrize(
    ("record", "client", "expected"),
    [
        ("", "192.0.2.1", "neutral"),
        ("a", "192.0.2.1", "neutral"),
        ("ip4:192.0.2.0/24 -all", "192.0.2.255", "pass"),
        ("ip4:192.0.2.0/24 -all", "192.0.3.0", "fail"),
        ("ip4:192.0.2.77/24 -all", "192.0.2.1", "pass"),  # bits behind the length do not count
        ("~ip4:0.0.0.0/0 -all", "203.0.113.9", "softfail"),
        ("ip4:0.0.0.0/0 -all", "2001:db8::1", "fail"),
        ("ip6:::/0 -all", "203.0.113.9", "fail"),
        ("ip6:2001:db8::/32 ?all", "2001:db8:ffff::1", "pass"),
        ("ip4:192.0.2.1 -all", "::ffff:192.0.2.1", "pass"),  # an IPv4-mapped client is one of IPv4
        ("ip6:::ffff:192.0.2.1 -all", "::ffff:192.0.2.1", "fail"),
        ("a:four.example -all", "::ffff:192.0.2.4", "pass"),
        ("ip6:fe80::1 -all", "fe80::1%eth0", "pass"),
        ("a:both.example//32 -all", "2001:db8:1::", "pass"),
        ("a:both.example/32//32 -all", "192.0.2.5", "fail"),
        ("a:four.example/0 -all", "203.0.113.9", "pass"),
        ("a:six.example/0 -all", "203.0.113.9", "fail"),  # there is no address to compare with
        ("exists:four.example -all", "2001:db8::1", "pass"),
        ("exists:six.example -all", "2001:db8::1", "fail"),  # RFC 7208 §5.7: A records only
        ("a:alias.example -all", "192.0.2.4", "pass"),
        ("mx:nullmx.example -all", "192.0.2.4", "fail"),
        ("a:..example -all", "192.0.2.4", "fail"),
        (f"a:{'x' * 64}.example -all", "192.0.2.4", "fail"),
        ("a:FOUR.Example. -all", "192.0.2.4", "pass"),
        ("a:broken.example -all", "192.0.2.4", "temperror"),
        ("mx:broken.example -all", "192.0.2.4", "temperror"),
        ("mx:half.example -all", "192.0.2.4", "pass"),
        ("mx:half.example -all", "192.0.2.9", "temperror"),
        ("exists:broken.example -all", "192.0.2.4", "temperror"),
        ("ptr:broken.example ?all", "192.0.2.4", "neutral"),
        ("ptr:six.example -all", "2001:db8::6", "pass"),
        ("include:pass.example -all", "192.0.2.4", "pass"),
        ("-include:pass.example ?all", "192.0.2.4", "fail"),
        ("include:fail.example ?all", "192.0.2.4", "neutral"),
        ("include:soft.example -all", "192.0.2.4", "fail"),
        ("include:neutral.example -all", "192.0.2.4", "fail"),
        ("include:none.example -all", "192.0.2.4", "permerror"),
        ("include:faulty.example -all", "192.0.2.4", "permerror"),
        ("include:twice.example -all", "192.0.2.4", "permerror"),
        ("include:broken.example -all", "192.0.2.4", "temperror"),
        ("include:d.example", "192.0.2.4", "permerror"),
        ("redirect=d.example", "192.0.2.4", "permerror"),
        ("redirect=fail.example", "192.0.2.4", "fail"),
        ("redirect=none.example", "192.0.2.4", "permerror"),
        ("redirect=broken.example", "192.0.2.4", "temperror"),
        ("redirect=%{h}", "192.0.2.4", "permerror"),
        ("?all redirect=fail.example", "192.0.2.4", "neutral"),
        ("-all", "unix", "none"),
    ],
)
async def test_results(record: str, client: str, expected: str) -> None:
    zones: dict[str, Any] = {
        "four.example": {"A": ["192.0.2.4"]},
        "six.example": {"AAAA": ["2001:db8::6"]},
        "both.example": {"A": ["192.0.2.4"], "AAAA": ["2001:db8::4"]},
        "alias.example": {"CNAME": ["four.example"]},
        "nullmx.example": {"MX": ["0 ."]},
        "broken.example": {"ERROR": []},
        "half.example": {"MX": ["10 broken.example", "20 four.example"]},
        "pass.example": {"TXT": ["v=spf1 ip4:192.0.2.4 -all"]},
        "fail.example": {"TXT": ["v=spf1 -all"]},
        "soft.example": {"TXT": ["v=spf1 ~all"]},
        "neutral.example": {"TXT": ["v=spf1 ?all"]},
        "none.example": {"TXT": ["something else"]},
        "faulty.example": {"TXT": ["v=spf1 ip4:192.0.2.4 all:x"]},
        "twice.example": {"TXT": ["v=spf1 -all", "v=spf1 +all"]},
        "6." + "0." * 23 + "8.b.d.0.1.0.0.2.ip6.arpa": {"PTR": ["six.example", "broken.example"]},
    }
    result = await check(record, client, helo="a..b", zones=zones)
    assert result.result == expected, (result.told, result.steps)
    assert bool(result.problem) == (expected in ("none", "permerror", "temperror"))


@pytest.mark.parametrize(
    ("record", "zones", "words"),
    [
        ("a mx ipv4:192.0.2.1 -all", {}, ["SPF record of d.example is wrong", 'term 3, "ipv4:192.0.2.1"']),
        ("include:gone.example", {}, ["include:gone.example of d.example", "gone.example has no SPF record"]),
        ("include:x.example", {"x.example": {"TXT": ["v=spf1 a:"]}}, ["SPF record of x.example is wrong"]),
        ("a a a a a a a a a a a", {"d.example": {"A": ["192.0.2.9"], "TXT": ["v=spf1" + " a" * 11]}},
         ["SPF record of d.example needs more than 10 DNS look-ups", "the one too many is a of d.example"]),
        ("a:x1.example a:x2.example a:x3.example", {}, ["more than 2 times", "a:x3.example of d.example"]),
        ("mx", {"d.example": {"TXT": ["v=spf1 mx"], "MX": [f"{n} m{n}.example" for n in range(11)]}},
         ["d.example has more than 10 mail servers"]),
        ("a:b.example", {"b.example": {"ERROR": []}}, ["a:b.example of d.example could not be looked up", "SERVFAIL"]),
        ("redirect=%{h}", {}, ["redirect=%{h} of d.example leads to no domain"]),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_told(record: str, zones: dict[str, Any], words: list[str]) -> None:
    result = await check(record, helo="a..b", zones=zones)
    assert result.result in ("permerror", "temperror")
    for word in words:
        assert word in result.told
    assert result.found().reason == result.told


async def test_what_decided_is_told() -> None:
    zones = {"i.example": {"TXT": ["v=spf1 redirect=r.example"]}, "r.example": {"TXT": ["v=spf1 ip4:192.0.2.0/24"]}}
    passed = await check("include:i.example -all", zones=zones)
    assert passed.told == (
        "d.example permits 192.0.2.1: include:i.example, there redirect=r.example, there ip4:192.0.2.0/24"
    )
    assert (await check("-all")).told == "d.example does not permit 192.0.2.1: -all"
    assert (await check("~all")).told == "d.example probably does not permit 192.0.2.1: ~all"
    assert (await check("?all")).told == "d.example neither permits nor forbids 192.0.2.1: ?all"
    assert (await check("a:x.example")).told.endswith("192.0.2.1: no term of its record matches")
    found = passed.found()
    assert (found.method, found.result, found.reason) == ("spf", "pass", "")
    assert found.properties == (("smtp", "mailfrom", "d.example"),)
    assert passed.steps == (
        'd.example has the SPF record "v=spf1 include:i.example -all"',
        'i.example has the SPF record "v=spf1 redirect=r.example"',
        'include:i.example > i.example: redirect=r.example leads to "r.example"',
        'r.example has the SPF record "v=spf1 ip4:192.0.2.0/24"',
        "include:i.example > redirect=r.example > r.example: ip4:192.0.2.0/24 matches: pass",
        "d.example: include:i.example matches: pass",
    )


async def test_a_void_term_counts_once() -> None:
    """RFC 7208 §4.6.4 counts terms: a client with IPv6 does no harm to a domain whose hosts have IPv4 only."""
    hosts = {f"m{number}.example": {"A": ["192.0.2.9"]} for number in range(5)}
    zones: dict[str, Any] = hosts | {
        "d.example": {"TXT": ["v=spf1 a mx -all"], "A": ["192.0.2.8"], "MX": [f"1 {host}" for host in hosts]}
    }
    assert (await check("", "2001:db8::1", zones=zones)).result == "fail"


async def test_the_client_cannot_cause_an_error_by_its_own_name() -> None:
    zones = {"1.2.0.192.in-addr.arpa": {"PTR": [f"n{number}.example" for number in range(50)]}}
    result = await check("ptr ptr:x.example ptr:y.example exists:%{p}.z.example -all", zones=zones)
    assert result.result == "fail", result.told


async def test_only_ten_names_of_the_client_are_looked_at() -> None:
    names = [f"n{number}.x.example" for number in range(12)]
    zones: dict[str, Any] = {"1.2.0.192.in-addr.arpa": {"PTR": names}, "n10.x.example": {"A": ["192.0.2.1"]},
                             "n9.y.example": {"A": ["192.0.2.1"]}}  # fmt: skip
    assert (await check("ptr:x.example -all", zones=zones)).result == "fail"
    zones["n9.x.example"] = {"A": ["192.0.2.1"]}
    assert (await check("ptr:x.example -all", zones=zones)).result == "pass"


@pytest.mark.parametrize(
    ("target", "expected"),
    [("mail.x.example", "pass"), ("x.example", "pass"), ("l.x.example", "fail"), ("deep.mail.x.example", "fail")],
)
async def test_the_name_of_the_client_is_the_target_or_below_it(target: str, expected: str) -> None:
    """The sentence of RFC 7208 §5.5 has it the wrong way round; its erratum and its example do not."""
    zones = {"1.2.0.192.in-addr.arpa": {"PTR": ["Mail.X.example."]}, "mail.x.example": {"A": ["192.0.2.1"]}}
    assert (await check(f"ptr:{target} -all", zones=zones)).result == expected


@pytest.mark.parametrize(
    ("sender", "helo", "result", "identity", "domain"),
    [
        ("a@d.example", "h.example", "fail", "mailfrom", "d.example"),
        ("", "d.example", "fail", "helo", "d.example"),
        ("", "D.Example.", "fail", "helo", "d.example"),
        ("", "bücher.example", "softfail", "helo", "xn--bcher-kva.example"),
        ("a@bücher.example", "h.example", "softfail", "mailfrom", "xn--bcher-kva.example"),
        ("", "localhost", "none", "helo", ""),
        ("", "[192.0.2.1]", "none", "helo", ""),
        ("", "[IPv6:2001:db8::1]", "none", "helo", ""),
        ("", "192.0.2.1", "none", "helo", ""),
        ("", "", "none", "helo", ""),
        ("", "a b.example", "none", "helo", ""),
        ("", "a\x00b.example", "none", "helo", ""),
        ("", "x" * 64 + ".example", "none", "helo", ""),
        ("", "x." * 127 + "example", "none", "helo", ""),
        ("", "ü" * 70 + ".example", "none", "helo", ""),
        ("a@[192.0.2.1]", "h.example", "none", "mailfrom", ""),
        ("a@gone.example", "h.example", "none", "mailfrom", "gone.example"),
    ],
)  # fmt: skip
async def test_identities(sender: str, helo: str, result: str, identity: str, domain: str) -> None:
    found = await check("-all", sender=sender, helo=helo, zones={"xn--bcher-kva.example": {"TXT": ["v=spf1 ~all"]}})
    assert (found.result, found.identity, found.domain) == (result, identity, domain)
    assert found.found().properties == ((("smtp", identity, domain),) if domain else ())


async def test_the_helo_identity_beside_mail_from() -> None:
    resolver = ZoneResolver({"h.example": {"TXT": ["v=spf1 exists:%{l}.%{o}.%{h}.x.example -all"]},
                             "postmaster.h.example.h.example.x.example": {"A": ["127.0.0.2"]}})  # fmt: skip
    result = await check_helo(SpfClient("192.0.2.1", "h.example"), DnsQuestions(resolver))
    assert (result.result, result.sender) == ("pass", "postmaster@h.example")


@pytest.mark.parametrize(
    ("sender", "explanation", "expected"),
    [
        ("a.b@d.example", "%{i} is not %{d}'s", "192.0.2.1 is not d.example's"),
        ("a.b@d.example", "%{s} %{l1r} %{o} %{h} %{p} %{c} %{r} %{t} %{v}",
         "a.b@d.example a d.example h.example unknown 192.0.2.1 mx.example.net 1700000000 in-addr"),
        ("a b&c@d.example", "see http://why.example/?s=%{S}", "see http://why.example/?s=a%20b%26c%40d.example"),
        ("a\r\n250 ok@d.example", "%{l}", ""),  # nothing of a stranger ends a line
        ("a\r\n250 ok@d.example", "%{L}", "a%0D%0A250%20ok"),
        ("jörg@d.example", "%{l}", ""),
        ("a@d.example", "naïve", ""),
        ("a@d.example", "caf\\xe9", ""),
        ("a@d.example", "%{x}", ""),
        ("a@d.example", "100%", ""),
        ("a@d.example", "x" * 1000, "x" * 400),
        ("a@d.example", "", ""),
    ],
)  # fmt: skip
async def test_explanations(sender: str, explanation: str, expected: str) -> None:
    zones = {"why.example": {"TXT": [explanation]}}
    result = await check("exp=why.example -all", sender=sender, zones=zones)
    assert (result.result, result.explanation) == ("fail", expected)
    assert explanation not in result.told or not explanation  # words of a stranger are kept apart


async def test_an_explanation_is_asked_for_only_after_a_fail() -> None:
    for record in ("exp=why.example ~all", "exp=why.example +all", "exp=why.example include:gone.example -all"):
        assert (await check(record, zones={"why.example": {"TXT": ["no"]}})).explanation == ""
    answers: list[dict[str, Any]] = [{}, {"why.example": {"ERROR": []}}, {"why.example": {"TXT": ["a", "b"]}}]
    for zones in answers:
        result = await check("a:x1.example a:x2.example exp=why.example -all", zones=zones)
        assert (result.result, result.explanation) == ("fail", "")


async def test_a_local_part_that_is_not_ascii_matches_nothing() -> None:
    """RFC 8616 §4."""
    zones: dict[str, Any] = {"x.example": {"A": ["127.0.0.2"]}, "d.example.x.example": {"A": ["127.0.0.2"]}}
    for record, expected in (
        ("exists:%{l}.x.example exists:%{s}.x.example exists:%{L}.x.example ?all", "neutral"),
        ("-exists:%{o}.x.example ?all", "fail"),
    ):
        assert (await check(record, sender="jörg@d.example", zones=zones)).result == expected


async def test_a_name_with_control_characters_is_not_asked_for() -> None:
    """It would stand in texts for people and in header fields, and no host has it."""
    zones = {"a\r\nx: y.x.example": {"ERROR": []}}
    result = await check("exists:%{l}.x.example -all", sender="a\r\nX: y@d.example", zones=zones)
    assert result.result == "fail"
    assert all(step.isprintable() for step in result.steps)


async def test_the_limits_of_the_message_are_told() -> None:
    result = await check("a:x1.example mx:x2.example -all", limits=AskingLimits(queries_max=2))
    assert result.result == "temperror" and "more than 2 DNS queries" in result.told


async def test_includes_of_all_records_share_the_limits() -> None:
    def including(*names: str) -> dict[str, list[str]]:
        return {"TXT": ["v=spf1 " + " ".join(f"include:{name}.example" for name in names) + " -all"]}

    leaves = {f"l{number}.example": {"TXT": ["v=spf1 ip4:192.0.2.99"]} for number in range(8)}
    zones: dict[str, Any] = leaves | {"i.example": including(*(f"l{number}" for number in range(4)))}
    zones["j.example"] = including(*(f"l{number}" for number in range(4, 8)))
    assert (await check("include:i.example include:j.example -all", zones=zones)).result == "fail"
    assert (await check("include:i.example include:j.example a:l1.example -all", zones=zones)).result == "permerror"


async def test_a_bomb_of_includes_costs_little() -> None:
    zones = {f"i{number}.example": {"TXT": [f"v=spf1 {' '.join([f'include:i{number + 1}.example'] * 50)}"]}
             for number in range(20)}  # fmt: skip
    resolver = ZoneResolver(zones)
    questions = DnsQuestions(resolver)
    result = await check_mail_from(SpfClient("192.0.2.1", "h.example"), Address("a", "i0.example"), questions)
    assert result.result == "permerror" and len(resolver.asked) <= 11
