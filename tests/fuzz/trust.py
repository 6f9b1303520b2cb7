"""Targets `authres` and `dmarc`: any octets as an Authentication-Results, a DMARC record, a From field.

What must hold: nothing raises. authres: what is read and written again is read as the same; what we write is a field
of our own, and nothing of it begins another field. dmarc: a record has a policy only if it says so; author domains
are canonical; whatever records the DNS has, a message is judged, with at most eight queries for a walk, and a policy
is applied only if the message fails.
"""

from __future__ import annotations

import asyncio

from postroad.mail.address import canonical_domain
from postroad.trust.author import AUTHORS_MAX, authors
from postroad.trust.authres import RESULTS_MAX, field
from postroad.trust.authres_reading import claims, read, without_forged
from postroad.trust.dmarc import Identifier, judge
from postroad.trust.dmarc_record import Policy, is_record, mail_address, parse, select
from postroad.trust.dmarc_walk import QUERIES_MAX
from postroad.trust.results import DKIM, FAIL, PASS, SPF, Found
from tests.fuzz import choices
from tests.unit.trust.zones import ZoneResolver

US = "mx.example.org"
_CUT_FROM = 150  # characters of a value that are never cut, also if each is quoted and has several octets


def check_authres(data: bytes, *, hasty: bool = False) -> None:
    wire = choices.read(data).wire
    value = wire.replace(b"\r\n", b" ")
    reading = read(value)
    for utf8 in (False, True):
        written = field(US, reading.results, utf8=utf8)
        _is_one_field(written, utf8)
        again = read(written.partition(b":")[2])
        assert again.authserv_id == US and not again.problem and not again.others, again
        assert [(each.method, each.result) for each in again.results] == [
            (each.method, each.result) for each in reading.results[:RESULTS_MAX]
        ]
        if max([len(value) for each in again.results for _, _, value in each.properties], default=0) < _CUT_FROM:
            assert field(US, again.results, utf8=utf8) == written
    claims(value, (US,))
    section = b"Authentication-Results:" + value.replace(b"\n", b" ").replace(b"\r", b" ") + b"\r\nFrom: a@b\r\n"
    kept, removed = without_forged(section, (US, "xn--bcher-kva.example"))
    assert len(kept) + sum(map(len, removed)) == len(section)
    assert without_forged(kept, (US,)) == (kept, ())
    text = wire.decode("utf-8", "surrogateescape")
    _is_one_field(field(text, [Found(DKIM, PASS, text, (("header", "d", text), ("header", "b", text)))]), utf8=False)


def _is_one_field(octets: bytes, utf8: bool) -> None:
    first, *more, last = octets.split(b"\r\n")
    assert first.startswith(b"Authentication-Results: ") and last == b""
    assert all(line.startswith(b" ") and line.strip() for line in more), octets
    assert max(map(len, (first, *more))) <= 998 and b"\r" not in first + b"".join(more)
    assert b"\n" not in first + b"".join(more) and b"\0" not in octets
    assert utf8 or octets.isascii()
    octets.decode()


def check_dmarc(data: bytes, *, hasty: bool = False) -> None:
    chosen = choices.read(data)
    text, _, value = chosen.wire.partition(b"\n")
    record = text.decode("utf-8", "replace")
    if is_record(record):
        made = parse(record)
        assert made == select(["x", record])
        assert made.policy is Policy.NONE or made.policy.word in record.lower()
        assert made.usable or made.policy is Policy.NONE
        for uri in (*made.aggregate, *made.failure):
            assert uri.isascii() and uri.isprintable() and " " not in uri
            address = mail_address(uri)
            assert address is None or ("@" in address and address.isprintable())
    found = authors(b"From:" + value.replace(b"\r", b" ").replace(b"\n", b" ") + b"\r\n")
    assert len(found.domains) <= AUTHORS_MAX and (found.domains or found.problem)
    assert all(canonical_domain(domain) == domain for domain in found.domains)
    domains = found.domains or ("a.b.example.org",)
    _judge(chosen, record, domains)


def _judge(chosen: choices.Choices, record: str, domains: tuple[str, ...]) -> None:
    """The record stands at one of the names above the first author domain, and something else at the next one."""
    labels = domains[0].split(".")
    at = ".".join(labels[chosen.cut % len(labels) :])
    zones = {f"_dmarc.{at}": {"TXT": [record]}, "_dmarc.org": {"TXT": ["v=DMARC1; psd=y; p=reject; np=none"]}}
    if chosen.on(0):
        zones[f"_dmarc.{at.partition('.')[2] or 'x'}"] = {"ERROR": []}
    if chosen.on(1):
        zones[domains[0]] = {"A": ["192.0.2.1"]}
    passed = [Identifier(SPF, domains[0], PASS if chosen.on(2) else FAIL), Identifier(DKIM, f"x.{at}", PASS)]
    resolver = ZoneResolver(zones)
    found = authors("".join([f"From: a@{domain}\r\n" for domain in domains]).encode())
    verdict = asyncio.run(judge(resolver, found, passed if chosen.on(3) else passed[:1]))
    assert len(resolver.asked) <= (len(domains) + 2) * (QUERIES_MAX + 1)
    for each in verdict.all:
        assert each.result == FAIL or each.applied is Policy.NONE
        assert each.told.endswith(".") and bool(each.aligned) == (each.result == PASS)
        assert each.applied <= each.asked
    assert verdict.decisive.applied == max(each.applied for each in verdict.all)
    _is_one_field(field(US, [verdict.decisive.found()]), utf8=False)


AUTHRES_SEEDS = (
    " mx.google.com; dkim=pass header.i=@a.example header.s=one header.b=aB/cD+e=; spf=pass (google.com: x) "
    "smtp.mailfrom=x@a.example; dmarc=pass (p=REJECT sp=REJECT dis=NONE) header.from=a.example; dara=pass",
    " spf=pass (sender IP is 192.0.2.1) smtp.mailfrom=a.example; dkim=pass (x) header.d=a.example;dmarc=pass "
    "action=none header.from=a.example;compauth=pass reason=100",
    " mx.example.org; none", " mx.example.org 1; spf=pass", ' "mx.example.org" 1; spf=pass',
    " MX.example.ORG.;spf=fail", " mx.example.org 2; spf=pass",
    " (x) mx.example.org (y) ; spf=pass", " (x mx.example.org; spf=pass",
    ' "mx.\\example.org"; dkim=pass reason="a \\"b\\" \\\\"', " mx.example.org; dkim/1=pass; spf/2=pass",
    ' x; auth=pass smtp.auth="a b"@a.example smtp . mailfrom = "c"', " x; iprev=pass policy.iprev=2001:db8::1",
    " bücher.example; dkim=pass header.i=jü@bücher.example header.d=bücher.example", " xn--bcher-kva.example; none",
    " x; spf=hardfail", " x; arc=pass (i=1 (a (b) c))", " ; ; ;", "", ' "', " (", " a=b=c=d", " x; =pass", " x; spf=",
    " x; spf=pass smtp.=y .z=1 smtp.mailfrom=", " x; dkim=pass header.d header.i=@b.example", " x/1; spf=pass",
    ' x; dkim=fail header.i="@b.example" header.d="\\', " x; dkim=pass header.b=" + "\\" * 500,
    " x" + "; spf=pass" * 80, " x; spf=pass smtp.mailfrom=" + "ä" * 300 + "@b.example",
)  # fmt: skip
_ONE = "\n ada@a.b.example.org"
DMARC_SEEDS = (
    *[each + _ONE for each in (
        "v=DMARC1; p=reject", "v=DMARC1; p=none; sp=quarantine; np=reject; t=y", "v=DMARC1;p=quarantine;psd=n",
        "v=DMARC1; psd=y", "V = DMARC1 ; P = Reject ;", "v=dmarc1; p=none", "v=DMARC1", "v=DMARC1; p=x", "p=none",
        "v=DMARC1; p=reject; p=none", "v=DMARC1; adkim=s; aspf=s; p=reject", "v=DMARC1;; p=reject;;;",
        "v=DMARC1; p=x; rua=mailto:a@b.example!10m,https://c.example/?%2c , x", "v=DMARC1; pct=0; p=reject; rf=afrf",
        "v=DMARC1; p=none; ruf=mailto:f@b.example; fo=1:d:s", "v=DMARC1; p=none; ruf=mailto:%ff@b; fo=0:1",
        "v=DMARC1; p=none; psd=u; t=n; np=", "", ";", "=", "v", "v=DMARC1; \x00=\x01; p=reject", "v=DMARC1; p=ＮＯＮＥ",
    )],
    *["v=DMARC1; p=reject; sp=none; np=quarantine\n " + each for each in (
        "Ada <ada@b.example.org>", "a@a.example, b@b.example", "Ada, Bob <a@b.example>", "<a@b.example> <c@d.example>",
        '"x@y.example" <a@b.example>', "(c@d.example) a@b.example", "undisclosed:;", "a@[192.0.2.1]", "",
        '"a@b.example', "a@b.example\nFrom: c@d.example", "a@bücher.example", "a@" + "x." * 60 + "org",
        "a@b..example", "a@b.example.",
        "=?utf-8?q?a=40b?= <a@b.example>", "G: a@b.example, <@r:c@d.example>;", ", ".join(["a@b.c"] * 40), "@", "a@-",
    )],
)  # fmt: skip


def seeds() -> dict[str, dict[str, bytes]]:
    """Target → name → input."""
    made = {"authres": AUTHRES_SEEDS, "dmarc": DMARC_SEEDS}
    return {
        name: {
            f"{number:02}-{mode}": choices.written(mode, 9, number, text.encode())
            for number, text in enumerate(texts)
            for mode in ((0,) if name == "authres" else (8, 15))
        }
        for name, texts in made.items()
    }
