"""DMARC policy records (RFC 9989 §4.7, §4.8)."""

from __future__ import annotations

import pytest

from postroad.trust.dmarc_record import DmarcRecord, Policy, Psd, is_record, mail_address, parse, select

NONE, QUARANTINE, REJECT = Policy.NONE, Policy.QUARANTINE, Policy.REJECT


@pytest.mark.parametrize(
    "text",
    ["v=DMARC1", "v=DMARC1;", "v=DMARC1;p=none", "v = DMARC1 ; p = none", "V=DMARC1; p=none", " v=DMARC1; p=none"],
)
def test_v_comes_first(text: str) -> None:
    assert is_record(text)


@pytest.mark.parametrize(
    "text",
    ["", "v=DMARC", "v=dmarc1; p=none", "v=DMARC10; p=none", "p=none; v=DMARC1", "v=DMARC1 p=none", "v=spf1 -all", ";"],
)
def test_anything_else_is_no_record(text: str) -> None:
    assert not is_record(text)


def test_all_tags_and_their_defaults() -> None:
    plain = parse("v=DMARC1; p=reject")
    assert plain == DmarcRecord(policy=REJECT, text="v=DMARC1; p=reject")
    full = parse(
        "v=DMARC1; sp=quarantine; np=REJECT; p=None; t=y; psd=n; adkim=s; aspf=S; fo=1:d:s; "
        "rua=mailto:a@b.example!10m , https://b.example/x?y=%2c; ruf=mailto:f@b.example"
    )
    assert (full.policy, full.subdomains, full.nonexistent) == (NONE, QUARANTINE, REJECT)
    assert full.testing and full.psd is Psd.NO and full.dkim_strict and full.spf_strict
    assert full.options == ("1", "d", "s") and full.failure == ("mailto:f@b.example",)
    assert full.aggregate == ("mailto:a@b.example", "https://b.example/x?y=%2c")
    assert full.usable and not full.faults


def test_unknown_tags_are_passed_over() -> None:
    record = parse("v=DMARC1; x=1; p=reject; pct=50; rf=afrf; ri=3600; p2=none; y_z=;")
    assert record.policy is REJECT and record.usable
    assert record.faults == tuple([f"the tag {name}= is of RFC 7489 and has no effect any more" for name in
                                   ("pct", "rf", "ri")])  # fmt: skip


@pytest.mark.parametrize(
    ("tag", "default"),
    [
        ("t=x", ("testing", False)), ("t=yes", ("testing", False)), ("psd=x", ("psd", Psd.UNKNOWN)),
        ("psd=", ("psd", Psd.UNKNOWN)), ("adkim=strict", ("dkim_strict", False)), ("aspf=", ("spf_strict", False)),
        ("ruf=x; fo=1", ("options", ("0",))), ("ruf=mailto:a@b; fo=0:1", ("options", ("0",))),
        ("ruf=mailto:a@b; fo=d:d", ("options", ("0",))), ("ruf=mailto:a@b; fo=x", ("options", ("0",))),
        ("rua=a@b.example", ("aggregate", ())), ("rua=mailto:a b", ("aggregate", ())),
        ("rua=,mailto:a@b,,", ("aggregate", ("mailto:a@b",))), ("rua=mailto:ä@b", ("aggregate", ())),
        ("rua=mailto:a%zz@b", ("aggregate", ())),
    ],
)  # fmt: skip
def test_a_value_that_is_not_allowed_has_its_default_and_is_named(tag: str, default: tuple[str, object]) -> None:
    record = parse(f"v=DMARC1; p=reject; {tag}")
    assert getattr(record, default[0]) == default[1]
    assert record.policy is REJECT and record.usable and record.faults


def test_the_options_of_reports_count_with_an_address_only() -> None:
    assert parse("v=DMARC1; p=none; fo=1").options == ("0",)
    assert parse("v=DMARC1; p=none; ruf=mailto:a@b; fo=s:1").options == ("s", "1")


def test_of_a_tag_that_is_there_twice_the_first_counts() -> None:
    for text in ("v=DMARC1; p=reject; p=none", "v=DMARC1; p=reject; P=none"):
        record = parse(text)
        assert record.policy is REJECT and any("twice" in fault for fault in record.faults)


@pytest.mark.parametrize("wrong", ["p=rejct", "p=", "sp=quarantine", "p=reject; sp=x", "p=reject; np=", "p = re ject"])
def test_a_policy_that_is_wrong_is_none_if_somebody_wants_reports(wrong: str) -> None:
    """RFC 9989 §4.10.1."""
    reported = parse(f"v=DMARC1; {wrong}; rua=mailto:a@b.example")
    assert reported.usable and reported.policy is NONE
    assert reported.subdomains is None and reported.nonexistent is None and reported.faults
    assert not parse(f"v=DMARC1; {wrong}").usable
    assert not parse(f"v=DMARC1; {wrong}; rua=nobody").usable


def test_one_record_counts_and_two_do_not() -> None:
    assert isinstance(select(["x", "v=DMARC1; p=none", "v=spf1"]), DmarcRecord)
    assert select(["v=DMARC1; p=none", "v=DMARC1; p=none"]) == "there are 2 DMARC records, so none counts"
    assert select(["p=none"]) == "there is no DMARC record" == select([])


def test_the_address_for_reports() -> None:
    assert mail_address("mailto:a%2Bb@c.example?subject=x") == "a+b@c.example"
    assert mail_address("MAILTO:a@c.example") == "a@c.example"
    for wrong in ("https://a@b", "mailto:a", "mailto:a@b,c@d", "mailto:a@b%0d%0aX", "mailto:%ff@b"):
        assert mail_address(wrong) is None
