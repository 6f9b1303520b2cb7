"""What DMARC says of a message (RFC 9989 §4.4, §4.7, §4.10.1, §5.3, §11.5)."""

from __future__ import annotations

import pytest

from postroad.trust.asking import AskingLimits, DnsQuestions
from postroad.trust.author import Authors
from postroad.trust.dmarc import DmarcVerdict, Identifier, Judgement, identifiers, judge
from postroad.trust.dmarc_record import Policy
from postroad.trust.results import DKIM, DMARC, FAIL, IPREV, NONE, PASS, PERMERROR, SPF, TEMPERROR, Found
from tests.unit.trust.zones import ZoneResolver

Zone = dict[str, dict[str, list[str]]]
EXISTS = {"A": ["192.0.2.1"]}
REJECT = "v=DMARC1; p=reject"


def records(**found: str) -> Zone:
    return {f"_dmarc.{name.replace('_', '.')}": {"TXT": [record]} for name, record in found.items()}


def passed(method: str, domain: str, result: str = PASS) -> Identifier:
    return Identifier(method, domain, result)


async def verdict(zone: Zone, *domains: str, results: tuple[Identifier, ...] = (), problem: str = "") -> DmarcVerdict:
    return await judge(ZoneResolver(zone), Authors(domains, problem=problem), results)


async def judged(zone: Zone, domain: str, *results: Identifier) -> Judgement:
    return (await verdict(zone, domain, results=results)).decisive


# Alignment (§4.4, §4.10.2).


@pytest.mark.parametrize("method", [SPF, DKIM])
@pytest.mark.parametrize(
    ("author", "domain", "relaxed", "strict"),
    [
        ("news.example.com", "news.example.com", True, True),
        ("news.example.com", "foo.example.com", True, False),
        ("news.example.com", "example.com", True, False),
        ("example.com", "a.b.example.com", True, False),
        ("news.example.com", "foo.example.net", False, False),
        ("news.example.com", "xexample.com", False, False),
        ("news.example.com", "com", False, False),
        ("news.example.com", "own.example.com", False, False),  # psd=n there
    ],
)
async def test_alignment(method: str, author: str, domain: str, relaxed: bool, strict: bool) -> None:
    zone = records(own_example_com="v=DMARC1; p=none; psd=n")
    for mode, aligns in (("", relaxed), ("; adkim=r; aspf=r", relaxed), ("; adkim=s; aspf=s", strict)):
        zone["_dmarc.example.com"] = {"TXT": [REJECT + mode]}
        found = await judged(zone, author, passed(method, domain))
        assert found.result == (PASS if aligns else FAIL), (mode, found.told)
        assert (found.spf_aligned, found.dkim_aligned) == (aligns and method == SPF, aligns and method == DKIM)


async def test_each_method_has_its_mode() -> None:
    zone = records(example_com=REJECT + "; adkim=s")
    assert (await judged(zone, "example.com", passed(DKIM, "a.example.com"))).result == FAIL
    assert (await judged(zone, "example.com", passed(SPF, "a.example.com"))).result == PASS


async def test_any_aligned_pass_is_enough_and_only_a_pass_counts() -> None:
    zone = records(example_com=REJECT)
    several = (passed(SPF, "example.com", FAIL), passed(DKIM, "other.example"), passed(DKIM, "example.com"))
    found = await judged(zone, "example.com", *several)
    assert found.result == PASS and found.aligned == several[2:]
    for result in ("fail", "softfail", "neutral", "none", "permerror", "policy"):
        assert (await judged(zone, "example.com", passed(SPF, "example.com", result))).result == FAIL
    assert (await judged(zone, "example.com")).result == FAIL


async def test_the_examples_of_appendix_b_4() -> None:
    zone = records(
        example_com=REJECT, signing_example_com=REJECT, bank_example="v=DMARC1; psd=y", giant_bank_example=REJECT
    )
    for author in ("example.com", "a.b.c.d.e.f.g.h.i.j.k.example.com"):
        found = await judged(zone, author, passed(SPF, "example.com"), passed(DKIM, "signing.example.com"))
        assert found.result == PASS and found.spf_aligned and found.dkim_aligned
        assert (found.policy_domain, found.organizational) == ("example.com", "example.com")
    both = passed(SPF, "mail.giant.bank.example"), passed(DKIM, "mail.mega.bank.example")
    found = await judged(zone, "giant.bank.example", *both)
    assert found.result == PASS and found.aligned == both[:1]


async def test_the_same_domain_costs_one_query() -> None:
    resolver = ZoneResolver(records(example_com=REJECT))
    await judge(resolver, Authors(("example.com",)), [passed(DKIM, "example.com"), passed(SPF, "bounce.other")])
    assert resolver.asked == ["TXT _dmarc.example.com"]


async def test_a_domain_that_cannot_be_aligned_costs_no_walk() -> None:
    resolver = ZoneResolver(records(example_com=REJECT))
    strangers = [passed(DKIM, f"a.b.c.d{number}.com") for number in range(20)]
    await judge(resolver, Authors(("example.com",)), strangers)
    assert resolver.asked == ["TXT _dmarc.example.com", "TXT _dmarc.com"]


# Which policy (§4.7, §4.10.1).


@pytest.mark.parametrize(
    ("record", "own", "below", "nowhere"),
    [
        ("p=reject", "p reject", "p reject", "p reject"),
        ("p=none; sp=quarantine", "p none", "sp quarantine", "sp quarantine"),
        ("p=none; sp=quarantine; np=reject", "p none", "sp quarantine", "np reject"),
        ("p=quarantine; np=reject", "p quarantine", "p quarantine", "np reject"),
        ("p=reject; sp=none; np=none", "p reject", "sp none", "np none"),
    ],
)
async def test_p_sp_and_np(record: str, own: str, below: str, nowhere: str) -> None:
    zone = records(example_com=f"v=DMARC1; {record}")
    zone["here.example.com"] = zone["deep.mail.example.com"] = EXISTS
    for domain, expected in {
        "example.com": own,
        "here.example.com": below,
        "mail.example.com": below,  # it has no records itself, but a name below it has
        "nowhere.example.com": nowhere,
        "x.here2.example.com": nowhere,
    }.items():
        found = await judged(zone, domain)
        assert (found.result, f"{found.tag} {found.asked.word}") == (FAIL, expected), domain
        assert found.applied == found.asked and found.policy_domain == "example.com"


async def test_an_alias_that_leads_nowhere_exists() -> None:
    zone: Zone = records(example_com="v=DMARC1; p=reject; sp=none; np=reject")
    zone["x.example.com"] = {"CNAME": ["gone.example.net"]}
    assert (await judged(zone, "x.example.com")).tag == "sp"


async def test_existence_is_asked_only_if_it_matters() -> None:
    for record, results, count in (
        ("p=reject", [], 0),
        ("p=none; np=reject", [passed(DKIM, "example.com")], 0),
        ("p=none; np=reject", [], 1),
    ):
        resolver = ZoneResolver(records(example_com=f"v=DMARC1; {record}"))
        await judge(resolver, Authors(("x.example.com",)), results)
        assert len([each for each in resolver.asked if each.startswith("A ")]) == count


async def test_the_record_of_the_author_domain_comes_first_then_that_of_the_organization_then_of_the_suffix() -> None:
    zone = records(example_com="v=DMARC1; p=reject; sp=none", com="v=DMARC1; p=quarantine; psd=y; sp=reject; np=none")
    zone["a.other.com"] = zone["a.b.example.com"] = EXISTS
    zone |= records(a_b_example_com="v=DMARC1; p=quarantine; sp=reject")
    for domain, place, tag, policy in (
        ("a.b.example.com", "a.b.example.com", "p", Policy.QUARANTINE),
        ("b.example.com", "example.com", "sp", Policy.NONE),
        ("a.other.com", "com", "sp", Policy.REJECT),
        ("other2.com", "com", "np", Policy.NONE),
        ("com", "com", "p", Policy.QUARANTINE),
    ):
        found = await judged(zone, domain)
        assert (found.policy_domain, found.tag, found.asked) == (place, tag, policy), domain


async def test_a_record_between_the_author_and_its_organization_is_not_the_policy() -> None:
    """§4.10.1: author domain, organizational domain, public suffix domain; nothing between them."""
    zone = records(mail_example_com="v=DMARC1; p=none", example_com=REJECT)
    found = await judged(zone, "a.mail.example.com")
    assert (found.policy_domain, found.asked) == ("example.com", Policy.REJECT)


@pytest.mark.parametrize(
    ("policy", "applied"), [("reject", Policy.QUARANTINE), ("quarantine", Policy.NONE), ("none", Policy.NONE)]
)
async def test_a_policy_that_is_tested_is_one_level_lower(policy: str, applied: Policy) -> None:
    found = await judged(records(example_com=f"v=DMARC1; p={policy}; t=y"), "example.com")
    assert (found.asked.word, found.applied) == (policy, applied)
    assert ("t=y" in found.told) == (policy != "none")


async def test_no_record_means_no_dmarc() -> None:
    for zone in ({}, {"_dmarc.example.com": {"TXT": [REJECT, REJECT]}}, records(example_com="v=dmarc1; p=reject")):
        found = await judged(zone, "a.example.com", passed(SPF, "a.example.com"))
        assert (found.result, found.applied, found.record) == (NONE, Policy.NONE, None)
        assert found.told == ("DMARC does not apply: neither a.example.com nor a domain above it has a DMARC record.")


async def test_a_record_without_a_policy_that_can_be_used() -> None:
    found = await judged(records(example_com="v=DMARC1; p=rejct"), "example.com", passed(DKIM, "example.com"))
    assert (found.result, found.applied) == (PERMERROR, Policy.NONE)
    assert "the tag p= must be none, quarantine or reject, not 'rejct'" in found.told
    found = await judged(records(example_com="v=DMARC1; p=rejct; rua=mailto:a@b.example"), "example.com")
    assert (found.result, found.applied, found.asked) == (FAIL, Policy.NONE, Policy.NONE)


# The DNS fails (§5.3.6).


async def test_without_an_answer_there_is_no_result() -> None:
    zone: Zone = {"_dmarc.example.com": {"ERROR": []}}
    found = await judged(zone, "example.com", passed(DKIM, "example.com"))
    assert (found.result, found.applied) == (TEMPERROR, Policy.NONE) and "SERVFAIL" in found.told
    assert (await judged(zone, "a.example.com")).result == TEMPERROR


async def test_a_pass_needs_no_answer_that_fails() -> None:
    zone: Zone = {**records(a_example_com=REJECT), "_dmarc.example.com": {"ERROR": []}}
    other, same = passed(SPF, "b.example.com"), passed(DKIM, "a.example.com")
    assert (await judged(zone, "a.example.com", other, same)).result == PASS
    found = await judged(zone, "a.example.com", other)
    assert (found.result, found.applied, found.asked, found.tag) == (TEMPERROR, Policy.NONE, Policy.REJECT, "p")


async def test_an_error_of_spf_or_dkim_leaves_it_open_if_the_domain_is_aligned() -> None:
    zone = records(example_com=REJECT)
    found = await judged(zone, "example.com", passed(DKIM, "a.example.com", TEMPERROR))
    assert found.result == TEMPERROR and "DKIM of a.example.com had a temporary error" in found.told
    assert (await judged(zone, "example.com", passed(DKIM, "a.example", TEMPERROR))).result == FAIL
    both = passed(DKIM, "a.example.com", TEMPERROR), passed(SPF, "a.example.com")
    assert (await judged(zone, "example.com", *both)).result == PASS


async def test_if_nobody_knows_whether_the_domain_exists_there_is_no_policy_to_apply() -> None:
    zone: Zone = {**records(example_com="v=DMARC1; p=none; np=reject"), "x.example.com": {"ERROR": []}}
    found = await judged(zone, "x.example.com")
    assert (found.result, found.asked) == (TEMPERROR, Policy.REJECT) and "exists" in found.told
    zone |= records(example_com="v=DMARC1; p=reject; np=reject")
    assert (await judged(zone, "x.example.com")).result == FAIL


async def test_a_limit_of_queries_is_an_error_for_a_time() -> None:
    asking = DnsQuestions(ZoneResolver(records(example_com=REJECT)), AskingLimits(queries_max=1))
    found = (await judge(asking, Authors(("a.example.com",)), ())).decisive
    assert found.result == TEMPERROR and "more than 1 DNS queries" in found.told


# Authors (§5.3.1, §11.5).


async def test_without_an_author_domain_nothing_can_be_said() -> None:
    found = (await verdict({}, problem="the message has no From field")).decisive
    assert (found.result, found.author, found.problem) == (PERMERROR, "", "the message has no From field")
    assert found.found() == Found(DMARC, PERMERROR, "the message has no From field", (), found.told)


async def test_of_several_authors_the_worst_counts() -> None:
    zone = records(a_example=REJECT, b_example="v=DMARC1; p=quarantine", c_example=REJECT)
    ours = (passed(DKIM, "a.example"),)
    for domains, result, applied in (
        (("a.example", "b.example"), FAIL, Policy.QUARANTINE),
        (("b.example", "a.example", "c.example"), FAIL, Policy.REJECT),
        (("a.example", "none.test"), NONE, Policy.NONE),
    ):
        found = await verdict(zone, *domains, results=ours, problem="it names several")
        assert (found.decisive.result, found.decisive.applied) == (result, applied)
        assert [each.author for each in found.all] == list(domains)
        assert found.decisive.problem == "it names several"


async def test_if_there_are_too_many_authors_nothing_passes() -> None:
    zone = records(a_example=REJECT)
    authors = Authors(("a.example",), more=True)
    found = (await judge(ZoneResolver(zone), authors, [passed(DKIM, "a.example")])).decisive
    assert found.result == PERMERROR
    assert (await judge(ZoneResolver(zone), authors, [])).decisive.applied is Policy.REJECT


# What goes in and out.


def test_the_identifiers_come_from_the_results() -> None:
    found = (
        Found(SPF, PASS, properties=(("smtp", "helo", "mx.a.example"),)),
        Found(SPF, FAIL, properties=(("smtp", "mailfrom", "ada@A.example"),)),
        Found(DKIM, PASS, properties=(("header", "d", "bücher.example"), ("header", "i", "@x.bücher.example"))),
        Found(DKIM, NONE),
        Found(DKIM, PASS, properties=(("header", "d", "no domain"),)),
        Found(IPREV, PASS, properties=(("policy", "iprev", "192.0.2.1"),)),
    )
    assert identifiers(found) == [passed(SPF, "a.example", FAIL), passed(DKIM, "xn--bcher-kva.example")]
    assert identifiers(found[:1]) == []
    assert identifiers(found[:1], null_sender=True) == [passed(SPF, "mx.a.example")]


async def test_the_result_in_the_terms_of_authentication_results_and_in_words() -> None:
    zone = records(example_com=REJECT)
    good = await judged(zone, "a.example.com", passed(DKIM, "example.com"))
    assert good.found() == Found(
        DMARC, PASS, "", (("header", "from", "a.example.com"),),
        "DMARC passed: DKIM for example.com is aligned with the author domain a.example.com.",
    )  # fmt: skip
    bad = await judged(zone, "a.example.com", passed(SPF, "other.example"))
    assert bad.found() == Found(
        DMARC, FAIL, "", (("header", "from", "a.example.com"), ("policy", "dmarc", "reject")),
        "DMARC failed for the author domain a.example.com: SPF for other.example passed, but not aligned with it. "
        "Its policy is reject (p= at _dmarc.example.com).",
    )  # fmt: skip
