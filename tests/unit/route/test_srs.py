"""The Sender Rewriting Scheme (`route.srs`). The first vectors are what postsrsd 1.10 gives with these keys and days;
`tests/peers/test_senders.py` asks a running one."""

from __future__ import annotations

import pytest

from postroad.mail.address import Address
from postroad.route import srs
from postroad.route.srs import DAY_US, Separator, SrsOptions

OPTIONS = SrsOptions("us.example", "keys")
KEYS = (b"first", b"second key")
NOW_US = 20_788 * DAY_US + 1  # 2026-12-01: JU


def address(text: str) -> Address:
    return Address(*text.rsplit("@", 1))


def forward(sender: str, options: SrsOptions = OPTIONS, key: bytes = b"first", now_us: int = NOW_US) -> str:
    return str(srs.forward(address(sender), options, key, now_us))


def back(local_part: str, keys: tuple[bytes, ...] = KEYS, now_us: int = NOW_US, options: SrsOptions = OPTIONS) -> str:
    return str(srs.back(local_part, options, keys, now_us))


@pytest.mark.parametrize(
    ("sender", "becomes"),
    [
        ("a@b.example", "SRS0=NOnm=JU=b.example=a@us.example"),
        ("SRS0=AAAA=BB=orig.example=u@fwd.example", "SRS1=dR0B=fwd.example==AAAA=BB=orig.example=u@us.example"),
        ("srs0=AAAA=BB=orig.example=u@fwd.example", "SRS1=dR0B=fwd.example==AAAA=BB=orig.example=u@us.example"),
        ("SRS0+AAAA=BB=orig.example=u@fwd.example", "SRS1=GDXh=fwd.example=+AAAA=BB=orig.example=u@us.example"),
        (
            "SRS1=AAAA=h.example==AAAA=BB=orig.example=u@fwd.example",
            "SRS1=VJ1P=h.example==AAAA=BB=orig.example=u@us.example",
        ),
        ("SRS0=bad@fwd.example", "SRS1=BExn=fwd.example==bad@us.example"),
    ],
)
def test_senders_are_written_as_postsrsd_writes_them(sender: str, becomes: str) -> None:
    assert forward(sender) == becomes
    plus = forward(sender, SrsOptions("us.example", "keys", separator=Separator.PLUS))
    assert plus == becomes[:4] + "+" + becomes[5:]
    assert back(plus.rpartition("@")[0]) == back(becomes.rpartition("@")[0])


@pytest.mark.parametrize("local_part", ["SRS1=bad", "SRS1=AAAA=no host==x", "SRS1=AAAA=h.example=x", "SRS0=", "srs1+"])
def test_what_only_looks_like_srs_is_signed_as_any_other_sender(local_part: str) -> None:
    """Else the reports about it could not come back."""
    signed = srs.forward(Address(local_part, "fwd.example"), OPTIONS, b"first", NOW_US)
    assert signed.local_part.startswith("SRS0=") and signed.local_part.endswith(f"=fwd.example={local_part}")
    assert srs.back(signed.local_part, OPTIONS, KEYS, NOW_US) == Address(local_part, "fwd.example")


@pytest.mark.parametrize("sender", [
    "a@b.example", "A.b=c=d@b.example", '"a b"@b.example', "x" * 200 + "@b.example", "ä@xn--bcher-kva.example",
    "a@[192.0.2.1]", "prvs=1234abcdef=a@b.example", "SRS0=AAAA=BB=orig.example=u@fwd.example",
])  # fmt: skip
def test_what_goes_out_comes_back_in_any_case(sender: str) -> None:
    plain = Address(sender.rsplit("@", 1)[0].strip('"'), sender.rsplit("@", 1)[1])
    signed = srs.forward(plain, OPTIONS, b"first", NOW_US)
    assert srs.is_srs(signed.local_part)
    assert srs.back(signed.local_part, OPTIONS, KEYS, NOW_US) == plain
    lower = srs.back(signed.local_part.lower(), OPTIONS, KEYS, NOW_US)
    assert isinstance(lower, Address) and (lower.local_part.lower(), lower.domain) == (
        plain.local_part.lower(), plain.domain,
    )  # fmt: skip


def test_the_first_key_signs_and_all_verify() -> None:
    signed = forward("a@b.example", key=b"second key").rpartition("@")[0]
    assert back(signed) == "a@b.example"
    assert "hash is wrong" in back(signed, (b"first",))


@pytest.mark.parametrize(
    ("local_part", "why"),
    [
        ("SRS0=NOnm=JU=c.example=a", "hash is wrong"),
        ("SRS0=NOnm=JU=b.example=c", "hash is wrong"),
        ("SRS0=NOnm=JV=b.example=a", "hash is wrong"),
        ("SRS0=NOn=JU=b.example=a", "hash is wrong"),
        ("SRS0=" + "N" * 28 + "=JU=b.example=a", "hash is wrong"),
        ("SRS0=NOnß=JU=b.example=a", "hash is wrong"),
        ("SRS0=NOnm=JU=b.example", "not complete"),
        ("SRS0=NOnm", "not complete"),
        ("SRS0==", "not complete"),
        ("SRS1=dR0B=fwd.example=", "not complete"),
        ("SRS1=dR0B=fwd.example=xAAAA", "not complete"),
        ("SRS1=dR0B==", "not complete"),
        ("SRS1=dR0C=fwd.example==AAAA=BB=orig.example=u", "hash is wrong"),
    ],
)
def test_what_is_forged_or_cut_off_is_refused(local_part: str, why: str) -> None:
    assert srs.is_srs(local_part)
    assert why in back(local_part)


def test_an_address_is_valid_for_its_days() -> None:
    signed = forward("a@b.example").rpartition("@")[0]
    assert back(signed, now_us=NOW_US + 21 * DAY_US) == "a@b.example"
    assert "out of date" in back(signed, now_us=NOW_US + 22 * DAY_US)
    assert "out of date" in back(signed, now_us=NOW_US - DAY_US)
    assert back(signed, now_us=NOW_US + 1030 * DAY_US) == "a@b.example"  # the date begins anew after 1,024 days
    last = 1023 * DAY_US
    over = forward("a@b.example", now_us=last).rpartition("@")[0]
    assert back(over, now_us=last + 3 * DAY_US) == "a@b.example"


def test_longer_hashes_can_be_demanded() -> None:
    strict = SrsOptions("us.example", "keys", hash_length=8, hash_length_min=8)
    assert forward("a@b.example", strict) == "SRS0=NOnmLZPV=JU=b.example=a@us.example"
    assert back("SRS0=NOnmLZPV=JU=b.example=a", options=strict) == "a@b.example"
    assert back("SRS0=NOnmLZPV=JU=b.example=a") == "a@b.example"
    assert "hash is wrong" in back("SRS0=NOnm=JU=b.example=a", options=strict)


@pytest.mark.parametrize("local_part", ["SRS0", "SRS0x=a", "SRS2=a", "srs", "", "xSRS0=a"])
def test_other_addresses_are_left_alone(local_part: str) -> None:
    assert not srs.is_srs(local_part)
