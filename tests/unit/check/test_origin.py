"""The inspector that checks where mail comes from: what it asks and when, whom it leaves alone, what it puts on top."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
import pytest

from postroad.check import origin
from postroad.check.origin import OriginInspection, OriginInspector
from postroad.check.origin_options import CheckMode, OriginChecks, OriginOptions, Quarantine
from postroad.mail.address import Address
from postroad.mail.effects import Sections, applied
from postroad.mail.envelope import Peer
from postroad.mail.evaluation import Evaluation, Found, JudgedMessage
from postroad.mail.event import Evaluated, Event
from postroad.mail.policy import (
    ACCEPT,
    Action,
    Answer,
    Evaluate,
    HeaderEffect,
    Phase,
    Question,
    Redirect,
    Verdict,
)
from postroad.trust.arc import ArcVerification
from postroad.trust.arc_seal import ArcSealer
from postroad.trust.asking import AskingLimits
from postroad.trust.dkim_body import BodyHashes
from postroad.trust.dkim_head import SignedHead, body_start
from postroad.trust.dkim_sign import DkimSigner, SigningKey, SigningOptions, public_record
from postroad.trust.dkim_verify import DkimOptions
from tests.unit.trust.dkim_parts import ed25519, rsa
from tests.unit.trust.zones import ZoneResolver

NOW_S = 1_764_600_000
MARK, ENFORCE = CheckMode.MARK, CheckMode.ENFORCE
MARKED = OriginChecks(spf=MARK, dkim=MARK, dmarc=MARK, arc=MARK, iprev=MARK)
STRICT = OriginChecks(spf=ENFORCE, dkim=ENFORCE, dmarc=ENFORCE, arc=MARK, iprev=MARK)
KEYS = (SigningKey("a.test", "r1", rsa()), SigningKey("a.test", "e1", ed25519()))
LIST_KEY = SigningKey("lists.test", "arc", ed25519())
CLIENT = Peer("192.0.2.1", 1, "mx.a.test", "ESMTP", listener="mx")
BOB = Address("bob", "ours.test")
MAIL = b"From: <ada@a.test>\r\nTo: <bob@ours.test>\r\nSubject: one\r\n\r\nHello,\r\nthere.\r\n"
ZONES: Mapping[str, Mapping[str, list[str]]] = {
    "a.test": {"TXT": ["v=spf1 ip4:192.0.2.0/28 -all"]},
    "_dmarc.a.test": {"TXT": ["v=DMARC1; p=reject"]},
    "soft.test": {"TXT": ["v=spf1 ~all"]},
    "_dmarc.soft.test": {"TXT": ["v=DMARC1; p=quarantine"]},
    "broken.test": {"ERROR": ["ERROR"]},
    "mx.a.test": {"A": ["192.0.2.1"]},
    "1.2.0.192.in-addr.arpa": {"PTR": ["mx.a.test"]},
    **{f"{each.selector}._domainkey.{each.domain}": {"TXT": [public_record(each.private)]} for each in KEYS},
    "arc._domainkey.lists.test": {"TXT": [public_record(LIST_KEY.private)]},
}


class Bench:
    """An inspector over the zones."""

    def __init__(
        self, checks: OriginChecks = MARKED, options: OriginOptions | None = None, slow_s: float = 0.0
    ) -> None:
        self.resolver = ZoneResolver(ZONES, slow_s)
        self.events: list[Event] = []
        self.options = options or OriginOptions("mx.ours.test", exempt_networks=())
        self.inspector = OriginInspector(
            checks, self.options, self.resolver, lambda: NOW_S * 1_000_000, self.events.extend
        )

    def visit(self, peer: Peer = CLIENT) -> OriginInspection:
        inspection = self.inspector.visit(peer)
        assert inspection is not None
        return inspection


async def answer(given: Answer) -> Verdict:
    return given if isinstance(given, Verdict) else await given


async def sent(
    inspection: OriginInspection, content: bytes = MAIL, sender: str | None = "ada@a.test", *, peer: Peer = CLIENT,
    trusted: bool = False, piece: int = 65_536, recipients: tuple[Address, ...] = (BOB,),
) -> Verdict:  # fmt: skip
    """The verdict at the end, or the first refusal."""
    path = None if sender is None else Address(*sender.split("@"))
    question = Question(peer, trusted, path, phase=Phase.MAIL)
    assert await answer(inspection.ask(question)) is ACCEPT
    for recipient in recipients:
        asked = msgspec.structs.replace(question, phase=Phase.RCPT, recipient=recipient)
        verdict = await answer(inspection.ask(asked))
        if verdict is not ACCEPT:
            return verdict
    for at in range(0, len(content), piece):
        inspection.content(content[at : at + piece])
    return await answer(inspection.ask(msgspec.structs.replace(question, phase=Phase.MESSAGE, id=7)))


def run(made: Callable[[], Awaitable[Any]]) -> Any:
    async def inside() -> Any:
        return await made()

    return asyncio.run(inside())


def one(bench: Callable[[], Bench], *args: Any, visitor: Peer = CLIENT, **more: Any) -> tuple[Verdict, Bench]:
    """One message by a new session."""
    async def inside() -> tuple[Verdict, Bench]:
        made = bench()
        inspection = made.visit(visitor)
        verdict = await sent(inspection, *args, **more)
        inspection.ended()
        return verdict, made

    return asyncio.run(inside())


def signed(content: bytes = MAIL) -> bytes:
    return DkimSigner(KEYS, SigningOptions()).sign_content(content, NOW_S) + content


def evaluation(verdict: Verdict) -> Evaluation:
    (found,) = [each.evaluation for each in verdict.effects if isinstance(each, Evaluate)]
    return found


def short(found: Evaluation) -> list[str]:
    return [f"{each.method}={each.result}" for each in found.found]


def fields(verdict: Verdict, head: bytes = b"") -> tuple[str, str]:
    """What the verdict puts on top, and what it leaves of a header section."""
    effects = [each for each in verdict.effects if isinstance(each, HeaderEffect)]
    made = applied(Sections(b"", b"", head), effects)
    return made.top.decode(), made.head.decode()


def reply(verdict: Verdict) -> str:
    assert verdict.reply is not None
    return str(verdict.reply)


# ---- What is found


def test_everything_passes() -> None:
    verdict, made = one(Bench, signed())
    found = evaluation(verdict)
    assert short(found) == ["spf=pass", "dkim=pass", "dkim=pass", "dmarc=pass", "arc=none", "iprev=pass"]
    (top, _) = fields(verdict)
    assert top.startswith("Authentication-Results: mx.ours.test;\r\n spf=pass smtp.mailfrom=a.test;\r\n")
    assert (found.client, found.hello, found.sender_domain) == ("192.0.2.1", "mx.a.test", "a.test")
    (facts,) = found.dmarc
    assert (facts.author, facts.record, facts.spf_aligned, facts.dkim_aligned) == (
        "a.test", "v=DMARC1; p=reject", True, True,
    )  # fmt: skip
    assert found.queries == len(set(made.resolver.asked)) == len(made.resolver.asked) == 6
    assert not made.events


@pytest.mark.parametrize("piece", [1, 7, 4096])
def test_where_the_content_is_cut_changes_nothing(piece: int) -> None:
    whole, _ = one(Bench, signed())
    cut, _ = one(Bench, signed(), piece=piece)
    assert cut == whole


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\r\n", b"no header\r\n", b"From: <ada@a.test>\r\n", b"From ada Mon\r\nFrom: <ada@a.test>\r\n\r\nx",
        b"\r\n" * 9,
    ],
)
def test_odd_content(content: bytes) -> None:
    verdict, _ = one(Bench, content, piece=3)
    assert short(evaluation(verdict))[0] == "spf=pass" and verdict.action is Action.ACCEPT


def test_a_header_section_in_octets_is_looked_at_in_linear_time(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    real = origin.message.header_is_whole
    monkeypatch.setattr(origin.message, "header_is_whole", lambda octets: looks.append(len(octets)) or real(octets))
    content = b"From: <ada@a.test>\r\n" + b"X-Long: 0123456789\r\n" * 3_000 + b"\r\nbody\r\n"
    one(Bench, content, piece=1)
    assert sum(looks) < 3 * len(content)


def test_the_null_reverse_path_is_checked_by_hello() -> None:
    verdict, _ = one(Bench, MAIL, None)
    top, _ = fields(verdict)
    assert "spf=none smtp.helo=mx.a.test" in top


def test_a_client_without_an_address_is_not_asked_about() -> None:
    peer = Peer("", 0, "unix", "ESMTP")
    verdict, made = one(Bench, signed(), peer=peer, visitor=peer)
    assert short(evaluation(verdict)) == ["dkim=pass", "dkim=pass", "dmarc=pass", "arc=none"]
    assert not any(each.startswith("PTR") for each in made.resolver.asked)


def test_only_what_is_on_is_asked() -> None:
    def spf_only() -> Bench:
        return Bench(OriginChecks(spf=MARK))

    verdict, made = one(spf_only, signed())
    assert made.resolver.asked == ["TXT a.test"]
    assert fields(verdict)[0] == "Authentication-Results: mx.ours.test;\r\n spf=pass smtp.mailfrom=a.test\r\n"


def test_dmarc_looks_at_what_is_off_and_does_not_mark_it() -> None:
    verdict, _ = one(lambda: Bench(OriginChecks(dmarc=MARK)), signed())
    assert fields(verdict)[0] == "Authentication-Results: mx.ours.test;\r\n dmarc=pass header.from=a.test\r\n"
    assert short(evaluation(verdict)) == ["spf=pass", "dkim=pass", "dkim=pass", "dmarc=pass"]


def test_questions_are_asked_side_by_side() -> None:
    async def inside() -> float:
        made = Bench(slow_s=0.2)
        began = asyncio.get_running_loop().time()
        verdict = await sent(made.visit(), signed())
        assert short(evaluation(verdict)).count("dkim=pass") == 2
        return asyncio.get_running_loop().time() - began

    assert asyncio.run(inside()) < 1.0  # PTR and its A one after the other; one by one they would take 1.2 s


def test_the_name_of_a_client_is_asked_for_once_in_a_session() -> None:
    async def inside() -> list[str]:
        made = Bench()
        inspection = made.visit()
        for _ in range(3):
            assert "iprev=pass" in short(evaluation(await sent(inspection)))
        return made.resolver.asked

    assert asyncio.run(inside()).count("PTR 1.2.0.192.in-addr.arpa") == 1


def test_results_in_utf8_only_for_internationalised_mail() -> None:
    content = "From: <ada@bücher.test>\r\n\r\nx\r\n".encode()
    assert "xn--bcher-kva.test" in fields(one(Bench, content)[0])[0]
    peer = msgspec.structs.replace(CLIENT, protocol="UTF8SMTP")
    assert fields(one(Bench, content, peer=peer)[0])[0].encode()  # readable in any case


def test_received_spf() -> None:
    options = OriginOptions("mx.ours.test", exempt_networks=(), received_spf=True)
    top, _ = fields(one(lambda: Bench(options=options))[0])
    assert top.index("Authentication-Results:") < top.index("Received-SPF: pass (mx.ours.test: a.test permits")


# ---- Limits


def test_signatures_over_the_limit() -> None:
    options = OriginOptions("mx.ours.test", exempt_networks=(), dkim=DkimOptions(signatures_max=1))
    found = evaluation(one(lambda: Bench(options=options), signed())[0])
    assert short(found)[1:3] == ["dkim=pass", "dkim=permerror"] and "more than 1" in found.found[2].reason


def test_questions_over_the_limit() -> None:
    options = OriginOptions("mx.ours.test", exempt_networks=(), asking=AskingLimits(queries_max=1))
    found = evaluation(one(lambda: Bench(options=options), signed())[0])
    assert "temperror" in " ".join(short(found)) and found.queries == 1
    assert any("more than 1 DNS queries" in each.told for each in found.found)


def test_the_dns_does_not_answer() -> None:
    options = OriginOptions("mx.ours.test", exempt_networks=(), asking=AskingLimits(waiting_max_s=0.05))
    found = evaluation(one(lambda: Bench(options=options, slow_s=5.0), signed())[0])
    assert set(short(found)) == {"spf=temperror", "dkim=temperror", "dmarc=temperror", "arc=none", "iprev=temperror"}


def test_texts_of_strangers_are_cut_in_the_history() -> None:
    found = Found("spf", "permerror", "r" * 5_000, (), "t" * 5_000)
    kept = origin._kept(found)
    assert (len(kept.told), len(kept.reason), kept.method) == (1_000, 1_000, "spf")


# ---- Forged results


def test_fields_that_claim_to_be_ours_go() -> None:
    forged = b"Authentication-Results: MX.ours.test; spf=pass\r\nAuthentication-Results: gw.test; spf=pass\r\n"
    content = forged + b"Authentication-Results: other.test; spf=pass\r\n" + MAIL
    options = OriginOptions("mx.ours.test", exempt_networks=(), believed_authserv_ids=("gw.test",))
    verdict, _ = one(lambda: Bench(options=options), content)
    _, left = fields(verdict, content[: content.index(b"\r\n\r\n") + 2])
    assert left == "Authentication-Results: other.test; spf=pass\r\n" + MAIL.decode().partition("\r\n\r\n")[0] + "\r\n"


# ---- Enforcing


def test_spf_is_judged_once_for_all_recipients() -> None:
    async def inside() -> None:
        made = Bench(STRICT)
        inspection = made.visit(msgspec.structs.replace(CLIENT, address="198.51.100.1"))
        peer = msgspec.structs.replace(CLIENT, address="198.51.100.1")
        question = Question(peer, False, Address("ada", "a.test"), phase=Phase.MAIL)
        await answer(inspection.ask(question))
        asked = [msgspec.structs.replace(question, phase=Phase.RCPT, recipient=BOB)] * 3
        said = [reply(await answer(inspection.ask(each))) for each in asked]
        assert len(set(said)) == 1 and said[0].startswith("550 5.7.23 ")
        assert made.resolver.asked.count("TXT a.test") == 1

    asyncio.run(inside())


def test_the_name_in_hello_is_enforced_too() -> None:
    peer = msgspec.structs.replace(CLIENT, hello="a.test", address="198.51.100.1")
    verdict, _ = one(lambda: Bench(STRICT), MAIL, "ada@soft.test", peer=peer)
    assert reply(verdict).startswith("550 5.7.23 SPF validation failed: a.test does not permit 198.51.100.1")


def test_a_refused_message_is_an_event() -> None:
    verdict, made = one(lambda: Bench(STRICT), MAIL, "ada@soft.test")
    assert reply(verdict).startswith("550 5.7.1 DMARC: mail of a.test")
    (event,) = made.events
    assert isinstance(event, Evaluated) and event.id == 0 and event.evaluation.disposition == "reject"
    assert event.evaluation.dmarc[0].applied == "reject"


SOFT = MAIL.replace(b"a.test", b"soft.test")


def test_who_reports_failures_hears_of_what_is_not_aligned() -> None:
    heard: list[JudgedMessage] = []

    def bench(wanted: bool = True) -> Bench:
        made = Bench(STRICT)
        made.inspector.on_unaligned = heard.append if wanted else None
        return made

    verdict, _ = one(bench, sender="bad@other.test")
    assert verdict.action is Action.REJECT
    (judged,) = heard
    assert judged.evaluation.dmarc[0].author == "a.test" and judged.evaluation.disposition == "reject"
    assert (judged.header, judged.sender) == (MAIL.partition(b"\r\n\r\n")[0] + b"\r\n", "bad@other.test")
    one(lambda: bench(wanted=False), sender="bad@other.test")
    one(bench, signed())
    assert len(heard) == 1  # all of it passed, or nobody listened


@pytest.mark.parametrize(
    "author",
    [
        b'"' + b"x" * 20_000 + b'" <x@soft.test>',
        b", ".join([b"<x@a%d.test>" % number for number in range(5)]) + b", <x@soft.test>",
    ],
)
def test_no_author_hides_in_a_long_field(author: bytes) -> None:
    verdict, _ = one(lambda: Bench(STRICT), MAIL.replace(b"<ada@a.test>", author))
    assert verdict.action is (Action.HOLD if b"xx" in author else Action.REJECT)


def test_quarantine_by_hold() -> None:
    verdict, _ = one(lambda: Bench(STRICT), SOFT, "ada@soft.test")
    assert verdict.action is Action.HOLD
    assert verdict.reason == "DMARC failed, and the policy of soft.test is quarantine (p= at _dmarc.soft.test)"
    assert "dmarc=fail" in fields(verdict)[0] and evaluation(verdict).disposition == "quarantine"


def test_quarantine_by_a_field() -> None:
    checks = msgspec.structs.replace(STRICT, quarantine=Quarantine.FIELD, quarantine_field="X-Junk: yes, it is")
    verdict, _ = one(lambda: Bench(checks), SOFT, "ada@soft.test")
    assert verdict.action is Action.ACCEPT and "X-Junk: yes, it is\r\n" in fields(verdict)[0]


def test_quarantine_by_another_recipient() -> None:
    checks = msgspec.structs.replace(STRICT, quarantine=Quarantine.REDIRECT, quarantine_to="junk@ours.test")
    eve = Address("eve", "ours.test")
    verdict, _ = one(lambda: Bench(checks), SOFT, "ada@soft.test", recipients=(BOB, eve, BOB))
    readdressed = [each for each in verdict.effects if isinstance(each, Redirect)]
    assert readdressed == [Redirect(Address("junk", "ours.test"))]
    passed, _ = one(lambda: Bench(checks), signed(), recipients=(BOB,))
    assert not any(isinstance(each, Redirect) for each in passed.effects)


# ---- Exceptions


def test_exempt_networks_and_trusted_clients_are_not_looked_at() -> None:
    made = run(_made(OriginOptions(exempt_networks=("192.0.2.0/24", "2001:db8::/32"))))
    assert made.inspector.visit(CLIENT) is None
    assert made.inspector.visit(msgspec.structs.replace(CLIENT, address="::ffff:192.0.2.9")) is None
    assert made.inspector.visit(msgspec.structs.replace(CLIENT, address="2001:db8::7")) is None
    assert made.inspector.visit(msgspec.structs.replace(CLIENT, address="198.51.100.7", trusted=True)) is None
    assert made.inspector.visit(msgspec.structs.replace(CLIENT, address="198.51.100.7")) is not None


def _made(options: OriginOptions) -> Callable[[], Awaitable[Bench]]:
    async def inside() -> Bench:
        return Bench(options=options)

    return inside


@pytest.mark.parametrize(
    ("accounts", "exempt"), [(("*",), True), (("ada",), True), (("bob",), False), ((), False)], ids=str
)
def test_exempt_accounts(accounts: tuple[str, ...], exempt: bool) -> None:
    options = OriginOptions("mx.ours.test", exempt_networks=(), exempt_accounts=accounts)
    peer = msgspec.structs.replace(CLIENT, identity="ada")
    verdict, made = one(lambda: Bench(options=options), peer=peer)
    assert (verdict is ACCEPT) is exempt and bool(made.resolver.asked) is not exempt


def test_an_account_may_not_write_our_results() -> None:
    peer = msgspec.structs.replace(CLIENT, identity="ada")
    head = b"Authentication-Results: mx.ours.test; dmarc=pass\r\nFrom: <ada@a.test>\r\n"

    async def inside() -> tuple[Answer, Answer]:
        inspection = Bench().visit()
        question = Question(peer, False, Address("ada", "a.test"), phase=Phase.MAIL)
        said = []
        for section in (head, MAIL[:20]):
            inspection.ask(question)
            inspection.content(section)
            said.append(inspection.ask(msgspec.structs.replace(question, phase=Phase.MESSAGE, head=section)))
        return said[0], said[1]

    forged, honest = asyncio.run(inside())
    assert honest is ACCEPT and isinstance(forged, Verdict)
    assert fields(forged, head) == ("", "From: <ada@a.test>\r\n")


def test_a_client_that_becomes_trusted_is_left_alone() -> None:
    verdict, made = one(Bench, trusted=True)
    assert verdict is ACCEPT and not made.resolver.asked


@pytest.mark.parametrize("checks", [STRICT, msgspec.structs.replace(STRICT, dmarc=CheckMode.OFF)])
def test_an_exempt_author_is_marked_and_not_refused(checks: OriginChecks) -> None:
    options = OriginOptions("mx.ours.test", exempt_networks=(), exempt_domains=("a.test",))
    broken = signed().replace(b"Hello", b"Goodbye")
    verdict, _ = one(lambda: Bench(checks, options), broken, "ada@soft.test")
    found = evaluation(verdict)
    assert "dkim=fail" in short(found) and found.disposition == "none"
    if checks is STRICT:
        assert "dmarc=fail" in short(found)
        assert found.override == "local_policy" and "a.test" in found.comment


@pytest.mark.parametrize(
    "content", [MAIL, MAIL.replace(b"<ada@a.test>", b"<x@soft.test>, <ada@a.test>")], ids=["author", "two authors"]
)
def test_an_exempt_sender_does_not_help_another_author(content: bytes) -> None:
    options = OriginOptions("mx.ours.test", exempt_networks=(), exempt_domains=("soft.test",))
    verdict, _ = one(lambda: Bench(STRICT, options), content, "ada@soft.test")
    assert reply(verdict).startswith("550 5.7.1 DMARC: mail of a.test")


def test_spf_of_an_exempt_sender() -> None:
    options = OriginOptions("mx.ours.test", exempt_networks=(), exempt_domains=("a.test",))
    peer = msgspec.structs.replace(CLIENT, address="198.51.100.1")
    assert one(lambda: Bench(STRICT, options), peer=peer)[0].action is Action.ACCEPT


def sealed(content: bytes, payload: bytes) -> bytes:
    """As a mailing list sends it: sealed with what it has found, with a changed subject."""
    sealer = ArcSealer(LIST_KEY, SigningOptions())
    start = body_start(content)
    bodies = BodyHashes([sealer.form])
    bodies.feed(content[start:])
    section = content[: start - 2]
    chain = ArcVerification(SignedHead(section)).conclude({})
    return sealer.seal(section, bodies.results()[sealer.form].digest, payload, chain, NOW_S) + content


@pytest.mark.parametrize(
    ("forwarders", "said", "refused"),
    [
        (("lists.test",), b"dmarc=pass header.from=a.test", False),
        ((".test",), b"dmarc=pass header.from=a.test", False),
        (("lists.test",), b"dmarc=fail header.from=a.test", True),
        (("lists.test",), b"dmarc=pass header.from=other.test", True),
        (("other.test",), b"dmarc=pass header.from=a.test", True),
        ((), b"dmarc=pass header.from=a.test", True),
    ],
)
def test_seals_of_named_forwarders(forwarders: tuple[str, ...], said: bytes, refused: bool) -> None:
    options = OriginOptions("mx.ours.test", exempt_networks=(), arc_forwarders=forwarders)
    content = sealed(MAIL.replace(b"one", b"[list] one"), b"lists.test; " + said)
    verdict, _ = one(lambda: Bench(STRICT, options), content, "bounces@lists.test")
    assert (verdict.action is Action.REJECT) is refused
    if not refused:
        found = evaluation(verdict)
        assert found.override == "trusted_forwarder" and "as[1].d=lists.test" in found.comment
        changed, _ = one(lambda: Bench(STRICT, options), content + b"footer\r\n", "bounces@lists.test")
        assert changed.action is Action.REJECT  # the chain does not count any more


GATEWAY = msgspec.structs.replace(CLIENT, address="10.0.0.1")
BELIEVING = OriginOptions("mx.ours.test", exempt_networks=("10.0.0.0/8",), believed_authserv_ids=("gw.test",))
OF_GATEWAY = (
    b"Authentication-Results: gw.test; spf=%s smtp.mailfrom=a.test; iprev=pass policy.iprev=192.0.2.1;\r\n x=y\r\n"
)


@pytest.mark.parametrize(("result", "dmarc"), [(b"pass", "dmarc=pass"), (b"fail", "dmarc=fail")])
def test_results_of_a_host_in_front_are_believed(result: bytes, dmarc: str) -> None:
    content = b"Authentication-Results: mx.ours.test; dmarc=pass\r\n" + OF_GATEWAY % result + MAIL
    verdict, made = one(lambda: Bench(MARKED, BELIEVING), content, peer=GATEWAY, visitor=GATEWAY)
    found = evaluation(verdict)
    assert found.believed == "gw.test"
    assert short(found) == [f"spf={result.decode()}", "iprev=pass", "dkim=none", dmarc, "arc=none"]
    assert "TXT a.test" not in made.resolver.asked
    top, left = fields(verdict, content[: content.index(b"\r\n\r\n") + 2])
    assert "spf" not in top and dmarc in top and "gw.test; spf=" in left and "mx.ours.test" not in left


def test_mail_of_a_host_in_front_without_results_is_not_looked_at() -> None:
    verdict, made = one(lambda: Bench(STRICT, BELIEVING), MAIL, "ada@soft.test", peer=GATEWAY, visitor=GATEWAY)
    assert verdict is ACCEPT and not made.resolver.asked


def test_behind_a_host_in_front_fields_of_ours_are_forged_also_without_its_results() -> None:
    head = b"Authentication-Results: mx.ours.test; dmarc=pass\r\n" + MAIL

    async def inside() -> Verdict:
        inspection = Bench(STRICT, BELIEVING).visit(GATEWAY)
        question = Question(GATEWAY, False, Address("ada", "soft.test"), phase=Phase.MAIL)
        await answer(inspection.ask(question))
        inspection.content(head)
        return await answer(inspection.ask(msgspec.structs.replace(question, phase=Phase.MESSAGE, head=head)))

    top, left = fields(asyncio.run(inside()), head)
    assert (top, left.encode()) == ("", MAIL)


# ---- What ends early


@pytest.mark.parametrize("after", ["MAIL", "content", "ended"])
def test_what_was_asked_is_given_up_with_the_transaction(after: str) -> None:
    async def inside() -> set[asyncio.Task[Any]]:
        made = Bench(slow_s=30.0)
        inspection = made.visit()
        await answer(inspection.ask(Question(CLIENT, False, Address("ada", "a.test"), phase=Phase.MAIL)))
        await asyncio.sleep(0)
        if after != "MAIL":
            inspection.content(signed())
            await asyncio.sleep(0)
        inspection.aborted()
        inspection.ended()
        for _ in range(5):
            await asyncio.sleep(0)
        return asyncio.all_tasks() - {asyncio.current_task()}  # type: ignore[arg-type]

    assert asyncio.run(inside()) == set()


def test_what_was_asked_is_given_up_if_the_client_goes_while_it_waits_for_the_answer() -> None:
    async def inside() -> set[asyncio.Task[Any]]:
        made = Bench(slow_s=30.0)
        inspection = made.visit()
        waiting = asyncio.ensure_future(sent(inspection, signed()))
        await asyncio.sleep(0.01)
        waiting.cancel()
        await asyncio.wait([waiting])
        inspection.aborted()
        inspection.ended()
        for _ in range(5):
            await asyncio.sleep(0)
        return asyncio.all_tasks() - {asyncio.current_task()}  # type: ignore[arg-type]

    assert asyncio.run(inside()) == set()


def test_what_the_dns_could_not_say_of_a_client_is_asked_again_for_the_next_message() -> None:
    """A session may last for hours."""

    async def inside() -> list[list[str]]:
        made = Bench(msgspec.structs.replace(MARKED, spf=CheckMode.ENFORCE, iprev=CheckMode.ENFORCE))
        inspection = made.visit()
        zones = made.resolver._zones
        broken = {name: zones[name] for name in ("1.2.0.192.in-addr.arpa", CLIENT.hello)}
        zones.update({name: {"ERROR": ["ERROR"]} for name in broken})
        first = await sent(inspection)
        hello = inspection._hello
        zones.update(broken)
        second = await sent(inspection)
        assert hello is not None and inspection._hello is not None
        results = [task.result().result for _, task in (hello, inspection._hello)]
        return [short(evaluation(first))[-1:], short(evaluation(second))[-1:], results]

    assert asyncio.run(inside()) == [["iprev=temperror"], ["iprev=pass"], ["temperror", "none"]]


def test_a_transaction_after_one_that_came_to_nothing() -> None:
    async def inside() -> list[str]:
        made = Bench()
        inspection = made.visit()
        question = Question(CLIENT, False, Address("ada", "soft.test"), phase=Phase.MAIL)
        await answer(inspection.ask(question))
        inspection.content(b"From: <x@soft")
        inspection.aborted()
        return short(evaluation(await sent(inspection, signed())))

    assert asyncio.run(inside())[:2] == ["spf=pass", "dkim=pass"]
