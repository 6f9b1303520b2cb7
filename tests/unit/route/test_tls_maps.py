"""Values of maps that say how much TLS a destination demands, in the words of Postfix and in ours."""

from __future__ import annotations

import pytest

from postroad.mail.attempt import Attempt, Outcome
from postroad.mail.route import TLS_OPTIONAL, Destination, TlsDemand, TlsTerms, Transport
from postroad.maps.face import Answer, Map, NotNow
from postroad.route.tls_maps import TlsPolicyMaps, keys, oldest, parse
from postroad.world.tls import INTERMEDIATE

PRINT = "ab" * 32
COLONS = ":".join(["AB"] * 32)


@pytest.mark.parametrize(
    ("value", "demand", "terms"),
    [
        ("none", TlsDemand.NONE, TlsTerms()),
        ("never", TlsDemand.NONE, TlsTerms()),
        ("may", TlsDemand.MAY, TlsTerms()),
        ("encrypt protocols=>=TLSv1.2 ciphers=high", TlsDemand.ENCRYPT, TlsTerms(minimum="TLSv1.2",
                                                                                 ciphers=INTERMEDIATE)),
        ("encrypt protocols=!SSLv2:!SSLv3:!TLSv1:!TLSv1.1", TlsDemand.ENCRYPT, TlsTerms(minimum="TLSv1.2")),
        ("encrypt exclude=aNULL:RC4", TlsDemand.ENCRYPT, TlsTerms(ciphers=f"{INTERMEDIATE}:!aNULL:!RC4")),
        ("verify", TlsDemand.VERIFY, TlsTerms()),
        ("verify match=hostname:nexthop", TlsDemand.VERIFY, TlsTerms(("hostname", "nexthop"))),
        ("secure", TlsDemand.VERIFY, TlsTerms(("nexthop", "dot-nexthop"))),
        ("secure match=mail.Example.net:.example.net servername=hostname", TlsDemand.VERIFY,
         TlsTerms(("mail.example.net", ".example.net"))),
        ("secure match=.example.net servername=sni.example.net policy_type=sts policy_domain=example.net "
         "{ policy_string = version: STSv1 }", TlsDemand.VERIFY,
         TlsTerms((".example.net",), server_name="sni.example.net")),
        ("dane", TlsDemand.DANE, TlsTerms()),
        ("dane-only", TlsDemand.DANE_ONLY, TlsTerms()),
        ("sts", TlsDemand.STS, TlsTerms()),
        (f"fingerprint match={COLONS}|{PRINT}", TlsDemand.FINGERPRINT, TlsTerms(fingerprints=(PRINT, PRINT))),
        (f"fingerprint match={PRINT} match={COLONS}", TlsDemand.FINGERPRINT, TlsTerms(fingerprints=(PRINT, PRINT))),
    ],
)  # fmt: skip
def test_values(value: str, demand: TlsDemand, terms: TlsTerms) -> None:
    found = parse(value)
    assert not isinstance(found, str), found
    assert (found.demand, found.terms) == (demand, terms)


@pytest.mark.parametrize(
    "value",
    [
        "", "  ", "sure", "encrypt match", "encrypt match=x.example", "encrypt ciphers=all", "fingerprint",
        "fingerprint match=AB:CD", "verify tafile=/x", "encrypt protocols=SSLv9", "may protocols=TLSv1.1:!TLSv1.2",
        "encrypt protocols=<=TLSv1.1",
    ],
)  # fmt: skip
def test_values_that_cannot_be_used(value: str) -> None:
    assert isinstance(parse(value), str)


@pytest.mark.parametrize(
    ("written", "version"),
    [("!SSLv2", ""), (">=TLSv1", ""), ("TLSv1.2:TLSv1.3", "TLSv1.2"), ("TLSv1.3", "TLSv1.3"), ("<=TLSv1.3", ""),
     ("!SSLv2,!SSLv3,!TLSv1", "TLSv1.1")],
)  # fmt: skip
def test_the_oldest_version(written: str, version: str) -> None:
    assert oldest(written) == version


class Fixed:
    waits = False

    def __init__(self, entries: dict[str, Answer]) -> None:
        self.entries = entries

    def look_up(self, key: str, part: bool = False, /) -> Answer:
        return self.entries.get(key)

    def close(self) -> None:
        pass


def told(entries: dict[str, Answer]) -> TlsPolicyMaps:
    return TlsPolicyMaps((Map("policies", "test", Fixed(entries), lambda text: None),))


BY_MX = Destination("d.b.example", Transport.SMTP, domain="d.b.example", tls=TlsDemand.STS)
BY_HOST = Destination("[h.example]:587", Transport.SMTP, host="h.example", port=587, credentials="x")


def test_keys() -> None:
    assert [step.key for step in keys(BY_MX)] == ["d.b.example", ".b.example", ".example"]
    assert [step.key for step in keys(BY_HOST)] == ["[h.example]:587", "[h.example]", "h.example:587", "h.example"]


async def test_the_most_exact_entry_counts() -> None:
    maps = told({".example": "encrypt", ".b.example": "dane-only", "[h.example]:587": "verify"})
    found = await maps.told(BY_MX)
    assert isinstance(found, Destination) and (found.tls, found.key) == (TlsDemand.DANE_ONLY, BY_MX.key)
    assert found.terms.source == "map policies, .b.example"
    host = await maps.told(BY_HOST)
    assert isinstance(host, Destination) and (host.tls, host.credentials) == (TlsDemand.VERIFY, "x")
    assert await told({}).told(BY_MX) is BY_MX


@pytest.mark.parametrize("answer", ["sure", NotNow("the server is away")])
async def test_mail_waits_if_nobody_knows(answer: Answer) -> None:
    found = await told({"d.b.example": answer}).told(BY_MX)
    assert isinstance(found, Attempt) and (found.outcome, found.status) == (Outcome.DEFERRED, "4.3.0")
    assert "d.b.example" in found.text


async def test_what_a_message_asks_for_stays() -> None:
    """RFC 8689."""
    required = Destination("d.example", Transport.SMTP, domain="d.example", tls=TlsDemand.VERIFY, require_tls=True)
    found = await told({"d.example": "may"}).told(required)
    assert isinstance(found, Destination) and found.tls is TlsDemand.VERIFY
    optional = Destination("d.example" + TLS_OPTIONAL, Transport.SMTP, domain="d.example")
    for value, demand in (("dane", TlsDemand.MAY), ("sts", TlsDemand.MAY), ("encrypt", TlsDemand.ENCRYPT)):
        found = await told({"d.example": value}).told(optional)
        assert isinstance(found, Destination) and found.tls is demand
