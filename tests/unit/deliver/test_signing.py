"""What couriers send is signed as it leaves, whatever was done to it before: whose mail, how often, by which keys."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from postroad.deliver import signing_keys
from postroad.deliver.options import DeliverOptions
from postroad.deliver.signing import KEPT_S, LOOP_MAX, Form, Signing
from postroad.deliver.signing_keys import SigningKeys, SigningTables
from postroad.deliver.signing_options import DkimOutOptions, KeyTrouble, NamedKey, SignedOrigin
from postroad.deliver.stream import as_it_leaves
from postroad.deliver.way_out import with_head
from postroad.mail.address import Address
from postroad.mail.envelope import Body, Peer, Recipient
from postroad.mail.job import ChangedHead, Job
from postroad.mail.message import ContentFile
from postroad.mail.own_listeners import OWN as OWN_LISTENERS
from postroad.mail.route import Transport
from postroad.protocol.sending import Security
from postroad.trust import keyring
from postroad.trust.author import _kept
from postroad.trust.dkim_sign import PLAN_FIELDS_MAX, DkimSigner, SigningOptions
from postroad.trust.keyring import DomainKeys, KeyState
from postroad.trust.opendkim_tables import KeyRow, KeyTable, SigningTable, SignRow
from tests.unit.deliver.world import PIPELINING, Stage
from tests.unit.deliver.world import job as plain_job
from tests.unit.trust.dkim_parts import MESSAGE, ed25519, keys, pem, rsa, verify, zone_of
from tests.unit.trust.test_arc import KEYS, sealed, validate

ACCOUNT = Peer("192.0.2.1", 1, "x", "ESMTPSA", identity="ada")
STRANGER = Peer("192.0.2.1", 1, "x", "ESMTP")
NAMES = ("r1._domainkey.example.org", "e1._domainkey.example.org")
LATER_S = 1_800_000_000

Keep = list[SigningKeys]


@pytest.fixture
def files(tmp_path: Path) -> tuple[NamedKey, ...]:
    found = []
    for key in keys():
        path = tmp_path / f"{key.selector}.pem"
        path.write_bytes(pem(key.private))
        path.chmod(0o600)
        found.append(NamedKey("example.org", key.selector, str(path)))
    return tuple(found)


def signing(options: DkimOutOptions, kept: Keep | None = None, told: list[str] | None = None) -> Callable[..., Signing]:
    """For a Stage. `kept`: gets the keys; `told`: what is logged."""

    def made(loop: Any, clock: Any) -> Signing:
        def pieces(form: Form) -> Any:
            return as_it_leaves(form.envelope, form.content, 4096, form.plan, form.line_max)

        signs = Signing(clock=clock, loop=loop, pool=None, pieces=pieces)  # type: ignore[arg-type]
        found = SigningKeys(options, None, lambda level, text: (told if told is not None else []).append(text))
        if kept is not None:
            kept.append(found)
        signs.take(options, found)
        return signs

    return made


def job(content: Any = MESSAGE, to: Any = 1, peer: Peer = ACCOUNT, **more: Any) -> Job:
    return plain_job(content, to, peer=peer, **more)


def filed(path: Path, octets: bytes, prefix: bytes = b"", **more: Any) -> Job:
    path.write_bytes(octets)
    given = job(ContentFile(str(path), len(octets)), **more)
    envelope = msgspec.structs.replace(given.envelope, prefix=prefix, size=len(octets) + len(prefix))
    return msgspec.structs.replace(given, envelope=envelope)


def sent(stage: Stage, given: Job) -> bytes:
    """The content as the remote has it."""
    first = stage.carry(given)
    assert b"MAIL FROM" in first, first
    by_data = b"\r\nDATA\r\n" in first
    stage.server("250 ok", *["250 ok"] * len(given.recipients), "354 go" if by_data else "")
    got = stage.wire.taken()
    stage.server("250 taken")
    if not by_data:
        assert got.startswith(b"BDAT ")
        got = got.partition(b"\r\n")[2]
    else:
        got = (b"\r\n" + got).removesuffix(b".\r\n").replace(b"\r\n..", b"\r\n.")[2:]
    size = int(first.partition(b"SIZE=")[2].split()[0])
    assert len(got) - size in (0, 2 if by_data else 0)  # the last line is ended
    return got


def results(content: bytes) -> list[tuple[str, str]]:
    return [(each.result, each.selector) for each in verify(content, zone_of(keys()), now_s=LATER_S)]


BOTH = [("pass", "r1"), ("pass", "e1")]
LINES = b"a line that has some words, and a  run of white space \t\r\n.dots\r\n..\r\n"


@pytest.mark.parametrize("offered", [PIPELINING, f"{PIPELINING} CHUNKING"])
@pytest.mark.parametrize("body", [b"", LINES, LINES * 30, LINES * 20_000, b"no line end", b"\r\n" * 9])
@pytest.mark.parametrize("in_file", [False, True])
def test_what_is_sent_is_signed(
    tmp_path: Path, files: tuple[NamedKey, ...], offered: str, body: bytes, in_file: bool
) -> None:
    options = DeliverOptions(bdat_size_min=0, piece_size=8192)
    stage = Stage(offered, signing=signing(DkimOutOptions(keys=files)), options=options)
    content = MESSAGE.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" + body
    given = filed(tmp_path / "c", content, b"Received: by us\r\n") if in_file else job(content)
    got = sent(stage, given)
    assert got.endswith(content) or (not content.endswith(b"\r\n") and got.endswith(content + b"\r\n"))
    assert results(got) == BOTH
    (attempt,) = stage.done[0]
    assert (attempt.signed, attempt.unsigned) == (NAMES, "")
    assert results(got.replace(b"Subject: A", b"Subject: B")) == [("fail", "r1"), ("fail", "e1")]


@pytest.mark.parametrize("size", [1, 40_000])
@pytest.mark.parametrize("in_file", [False, True])
@pytest.mark.parametrize("whole_max", [0, 65_536])
def test_converted_to_seven_bits(
    tmp_path: Path, files: tuple[NamedKey, ...], size: int, in_file: bool, whole_max: int
) -> None:
    options = DeliverOptions(whole_max=whole_max, piece_size=8192)
    stage = Stage("PIPELINING SIZE", signing=signing(DkimOutOptions(keys=files)), options=options)
    head = MESSAGE.partition(b"\r\n\r\n")[0]
    content = head + b"\r\n\r\n" + "Grüße aus Köln, überall\r\n".encode() * size
    more: dict[str, Any] = {"body": Body.EIGHT_BIT_MIME}
    got = sent(stage, filed(tmp_path / "c", content, **more) if in_file else job(content, **more))
    assert got.isascii()
    assert results(got) == BOTH


@pytest.mark.parametrize("count", [1, 100])
@pytest.mark.parametrize("in_file", [False, True])
@pytest.mark.parametrize("eight_bit", [False, True])
def test_long_lines_are_broken_first(
    tmp_path: Path, files: tuple[NamedKey, ...], count: int, in_file: bool, eight_bit: bool
) -> None:
    options = DeliverOptions(whole_max=65_536, piece_size=8192)
    offered = "PIPELINING SIZE" if eight_bit else PIPELINING
    stage = Stage(offered, signing=signing(DkimOutOptions(keys=files)), options=options)
    line = b"word " * 500 + ("\u00e4".encode() if eight_bit else b"") + b"x" * 3000 + b"\r\n"
    content = MESSAGE + line * count
    more: dict[str, Any] = {"long_lines": True, "body": Body.EIGHT_BIT_MIME if eight_bit else Body.SEVEN_BIT}
    given = filed(tmp_path / "c", content, **more) if in_file else job(content, **more)
    stage.carry(given)
    stage.server("250 ok", "250 ok", "354 go")
    got = stage.wire.taken().removesuffix(b".\r\n").replace(b"\r\n..", b"\r\n.")
    assert max(map(len, got.split(b"\r\n"))) <= 998
    assert results(got) == BOTH


def test_fields_in_place_of_parameters_go_below_the_signature(files: tuple[NamedKey, ...]) -> None:
    stage = Stage(signing=signing(DkimOutOptions(keys=files, fields=SigningOptions(signed=("MT-Priority",)))),
                  options=DeliverOptions(mt_priority_tunnel=True))  # fmt: skip
    got = sent(stage, job(parameters=(("MT-PRIORITY", "3"),)))
    assert b"MT-Priority: 3\r\n" in got
    assert results(got) == BOTH
    assert results(got.replace(b"MT-Priority: 3", b"MT-Priority: 4"))[0][0] == "fail"


def test_other_header_fields_for_a_next_hop_come_before_the_signature(files: tuple[NamedKey, ...]) -> None:
    """The author that the next hop sees decides, too."""
    stage = Stage(signing=signing(DkimOutOptions(keys=files)))
    stage.courier.way_out = lambda head: ChangedHead(head.replace(b"ada@host.local", b"ada@example.org"))
    got = sent(stage, job(MESSAGE.replace(b"ada@example.org", b"ada@host.local")))
    assert b"ada@host.local" not in got
    assert results(got) == BOTH


# -- whose mail --------------------------------------------------------------------------------------------------------

TRUSTED = Peer("192.0.2.1", 1, "x", "ESMTP", trusted=True)
OWN = Peer(listener="report")


@pytest.mark.parametrize(
    ("peer", "origin"),
    [
        (ACCOUNT, SignedOrigin.ACCOUNTS), (TRUSTED, SignedOrigin.TRUSTED), (OWN, SignedOrigin.OWN), (STRANGER, None)
    ],
)
def test_whose_mail_is_signed(files: tuple[NamedKey, ...], peer: Peer, origin: SignedOrigin | None) -> None:
    for wanted in SignedOrigin:
        stage = Stage(signing=signing(DkimOutOptions(keys=files, origins=(wanted,))))
        got = sent(stage, job(peer=peer))
        assert (b"DKIM-Signature" in got) is (wanted is origin)
        assert stage.done[0][0].unsigned == ""
    stage = Stage(signing=signing(DkimOutOptions(keys=files)))
    assert (results(sent(stage, job(peer=peer))) == BOTH) is (origin is not None)


@pytest.mark.parametrize("listener", sorted(OWN_LISTENERS))
def test_all_that_the_node_writes_is_signed(files: tuple[NamedKey, ...], listener: str) -> None:
    stage = Stage(signing=signing(DkimOutOptions(keys=files)))
    assert results(sent(stage, job(peer=Peer(listener=listener)))) == BOTH
    stage = Stage(signing=signing(DkimOutOptions(keys=files)))
    stranger = Peer("192.0.2.1", 1, "x", "ESMTP", listener=listener)  # an operator may name a listener so
    assert b"DKIM-Signature" not in sent(stage, job(peer=stranger))


@pytest.mark.parametrize("lmtp", [False, True])
def test_mail_that_ends_at_an_lmtp_server(files: tuple[NamedKey, ...], lmtp: bool) -> None:
    signs = signing(DkimOutOptions(keys=files, lmtp=lmtp))
    stage = Stage(kind=Transport.LMTP, security=Security(final=True), signing=signs)
    stage.carry(job())
    stage.server("250 ok", "250 ok", "354 go")
    assert (b"DKIM-Signature" in stage.wire.taken()) is lmtp


def test_a_question_about_recipients_has_no_signature(files: tuple[NamedKey, ...], monkeypatch: Any) -> None:
    monkeypatch.setattr(DkimSigner, "sign", None)
    stage = Stage(signing=signing(DkimOutOptions(keys=files)))
    assert b"MAIL FROM" in stage.carry(msgspec.structs.replace(job(), asks_only=True))


@pytest.mark.parametrize(
    ("author", "names"),
    [
        (b"ada@example.org", NAMES),
        (b"ada@EXAMPLE.ORG", NAMES),
        (b'"x@other.example" <ada@example.org>', NAMES),
        (b"ada@sub.example.org", NAMES),
        (b"ada@example.net, ben@example.org", NAMES),
        (b"ada@example.net", ()),
        (b"ada@anexample.org", ()),
        (b"ada", ()),
    ],
)
def test_the_domain_of_the_author_decides(files: tuple[NamedKey, ...], author: bytes, names: tuple[str, ...]) -> None:
    stage = Stage(signing=signing(DkimOutOptions(keys=files)))
    got = sent(stage, job(MESSAGE.replace(b"Ada <ada@example.org>", author)))
    (attempt,) = stage.done[0]
    assert attempt.signed == names
    assert bool(attempt.unsigned) is (not names)
    if names:
        assert results(got) == BOTH


def test_a_domain_above_signs_only_if_that_is_set(files: tuple[NamedKey, ...]) -> None:
    stage = Stage(signing=signing(DkimOutOptions(keys=files, parent_domains=False)))
    sent(stage, job(MESSAGE.replace(b"ada@example.org", b"ada@sub.example.org")))
    assert (stage.done[0][0].signed, stage.done[0][0].unsigned) == ((), "no key for sub.example.org")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ((b"From: Ada <ada@example.org>\r\n", b""), "it has no From field"),
        ((b"From: ", b"From: eve@example.net\r\nFrom: "), "it has 2 From fields"),
        ((b"ada@example.org", b"ada@[192.0.2.1]"), "its From field names no domain"),
    ],
)
def test_messages_without_one_author(files: tuple[NamedKey, ...], change: tuple[bytes, bytes], why: str) -> None:
    stage = Stage(signing=signing(DkimOutOptions(keys=files)))
    assert b"DKIM-Signature" not in sent(stage, job(MESSAGE.replace(*change, 1)))
    assert (stage.done[0][0].signed, stage.done[0][0].unsigned) == ((), why)


# -- signed before -----------------------------------------------------------------------------------------------------


def test_a_message_with_our_signature_gets_no_second_one(files: tuple[NamedKey, ...]) -> None:
    before = sent(Stage(signing=signing(DkimOutOptions(keys=files))), job())
    stage = Stage(signing=signing(DkimOutOptions(keys=files)))
    assert sent(stage, job(before)) == before
    assert stage.done[0][0].unsigned == "it has a signature of the same key"
    changed = before.replace(b"Hello", b"Hallo")
    again = sent(Stage(signing=signing(DkimOutOptions(keys=files))), job(changed))
    assert results(again) == [*BOTH, ("fail", "r1"), ("fail", "e1")]


def test_only_the_key_that_is_missing_signs(files: tuple[NamedKey, ...]) -> None:
    before = sent(Stage(signing=signing(DkimOutOptions(keys=files[:1]))), job())
    assert results(before) == BOTH[:1]
    stage = Stage(signing=signing(DkimOutOptions(keys=files)))
    assert results(sent(stage, job(before))) == [BOTH[1], BOTH[0]]
    assert stage.done[0][0].signed == NAMES[1:]


def test_a_signature_that_ends_soon_does_not_count_when_it_has_ended(files: tuple[NamedKey, ...]) -> None:
    before = DkimSigner(keys(), SigningOptions(lifetime_s=60)).sign_content(MESSAGE, 1_600_000_000) + MESSAGE
    got = sent(Stage(signing=signing(DkimOutOptions(keys=files))), job(before))
    assert got.count(b"DKIM-Signature:") == 4


# -- how often ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def made(monkeypatch: Any) -> list[bytes]:
    """Body hashes of the signatures that were made."""
    found: list[bytes] = []
    plain = DkimSigner.sign

    def sign(self: DkimSigner, head: Any, body_hash: bytes, now_s: int) -> bytes:
        found.append(body_hash)
        return plain(self, head, body_hash, now_s)

    monkeypatch.setattr(DkimSigner, "sign", sign)
    return found


def parts(given: Job, each: int) -> list[Job]:
    """Jobs of so many recipients each."""
    whole = given.recipients
    return [
        msgspec.structs.replace(given, recipients=whole[at : at + each]) for at in range(0, len(whole), each)
    ]


@pytest.mark.parametrize("in_file", [False, True])
def test_a_thousand_recipients_cost_one_signature(
    tmp_path: Path, files: tuple[NamedKey, ...], made: list[bytes], in_file: bool
) -> None:
    stage = Stage(signing=signing(DkimOutOptions(keys=files)))
    given = filed(tmp_path / "c", MESSAGE, to=1000) if in_file else job(to=1000)
    got = set()
    for part in parts(given, 50):
        got.add(sent(stage, part))
        stage.done.clear()
    assert len(got) == len(made) == 1


def test_another_form_has_a_signature_of_its_own(files: tuple[NamedKey, ...], made: list[bytes]) -> None:
    signs = signing(DkimOutOptions(keys=files))
    stage = Stage(signing=signs)
    one, two, three = parts(job(to=3), 1)
    first = sent(stage, one)
    stage.courier.way_out = lambda head: ChangedHead(head.replace(b"Subject: ", b"Subject: Re: "))
    second = sent(stage, two)
    assert results(second) == BOTH and b"Subject: Re:" in second
    stage.courier.way_out = None
    assert sent(stage, three) == first
    assert len(made) == 2


@pytest.mark.parametrize("size", [1, LOOP_MAX])
@pytest.mark.parametrize("in_file", [False, True])
def test_another_header_section_of_the_same_length_is_another_form(
    tmp_path: Path, files: tuple[NamedKey, ...], made: list[bytes], size: int, in_file: bool
) -> None:
    stage = Stage(signing=signing(DkimOutOptions(keys=files)))
    content = MESSAGE + b"x\r\n" * size
    given = filed(tmp_path / "c", content, to=2) if in_file else job(content, to=2)
    before = MESSAGE.partition(b"\r\n\r\n")[0] + b"\r\n"
    for part, subject in zip(parts(given, 1), (b"Subject: B", b"Subject: C"), strict=True):
        got = sent(stage, with_head(part, before, before.replace(b"Subject: A", subject)))
        assert subject in got and results(got) == BOTH
    assert len(made) == 2


def test_content_that_was_converted_to_the_same_length_is_another_form(
    files: tuple[NamedKey, ...], made: list[bytes]
) -> None:
    """Octets between parts are replaced one for one."""
    head = MESSAGE.partition(b"\r\n\r\n")[0] + b"\r\nMIME-Version: 1.0\r\n"
    head += b'Content-Type: multipart/mixed; boundary="b"\r\n'
    body = b"\r\n\xe4\r\n--b\r\nContent-Type: text/plain\r\n\r\n" + b"x\r\n" * LOOP_MAX + b"--b--\r\n"
    one, two = parts(job(head + body, to=2, body=Body.EIGHT_BIT_MIME), 1)
    signs: list[Signing] = []

    def shared(loop: Any, clock: Any) -> Signing:
        if not signs:
            signs.append(signing(DkimOutOptions(keys=files))(loop, clock))
        return signs[0]

    eight, seven = Stage(signing=shared), Stage("PIPELINING SIZE", signing=shared)
    seven.loop = eight.loop
    assert results(sent(eight, one)) == BOTH
    seven.courier._loop = eight.loop  # type: ignore[assignment]
    got = sent(seven, two)
    assert got.isascii() and results(got) == BOTH
    assert len(made) == 2


def test_a_later_attempt_has_a_fresh_signature(files: tuple[NamedKey, ...], made: list[bytes]) -> None:
    stage = Stage(signing=signing(DkimOutOptions(keys=files)), options=DeliverOptions(age_s=10_000, idle_s=9_000))
    one, two, three = parts(job(to=3), 1)
    sent(stage, one)
    stage.loop.advance(KEPT_S - 10)
    sent(stage, two)
    assert len(made) == 1
    stage.loop.advance(20)
    sent(stage, three)
    assert len(made) == 2


@pytest.mark.parametrize("size", [1, LOOP_MAX])
def test_a_key_that_is_gone_is_out_of_use_at_once(
    files: tuple[NamedKey, ...], made: list[bytes], size: int
) -> None:
    kept: Keep = []
    stage = Stage(signing=signing(DkimOutOptions(keys=files[:1]), kept))
    one, two = parts(job(MESSAGE + b"x\r\n" * size, to=2), 1)
    assert results(sent(stage, one)) == BOTH[:1]
    other = Path(files[0].file)
    other.write_bytes(pem(ed25519()))
    kept[0].look()
    got = sent(stage, two)
    assert b"a=ed25519-sha256" in got and b"a=rsa-sha256" not in got


def stored(state: KeyState) -> dict[str, DomainKeys]:
    made = keyring.made("s", ed25519(), 1)
    return {"example.org": DomainKeys("example.org", (msgspec.structs.replace(made, state=state),))}


def test_keys_that_wait_do_not_sign_and_the_history_says_so(files: tuple[NamedKey, ...]) -> None:
    kept: Keep = []
    stage = Stage(signing=signing(DkimOutOptions(keys=(msgspec.structs.replace(files[0], domain="a.test"),)), kept))
    kept[0].take_stored(stored(KeyState.WAITING))
    assert results(sent(stage, job())) == []
    why = "the keys of example.org (s) wait until the node has seen their records in the DNS"
    assert stage.done[0][0].unsigned == why


def test_a_key_that_is_chosen_while_keys_change_is_not_kept(monkeypatch: Any) -> None:
    """A thread looks for the keys of an author, and the key is retired meanwhile."""
    found = SigningKeys(DkimOutOptions(), None, lambda level, text: None)
    found.take_stored(stored(KeyState.SIGNING))
    author = Address("ada", "example.org")
    plain = SigningKeys._choose

    def slow(self: SigningKeys, author: Address, file: Any) -> Any:
        made = plain(self, author, file)
        monkeypatch.undo()
        found.take_stored(stored(KeyState.RETIRED))
        return made

    monkeypatch.setattr(SigningKeys, "_choose", slow)
    first = found.find(author)
    assert first is not None and [key.selector for key in first.keys] == ["s"]
    again = found.find(author)
    assert again is not None and again.keys == ()


def test_a_file_that_is_read_anew_for_one_author_counts_for_all(tmp_path: Path) -> None:
    """Two authors share a file. It changes, and then one of them needs another file, too."""
    (tmp_path / "one.pem").write_bytes(pem(rsa()))
    (tmp_path / "two.pem").write_bytes(pem(rsa()))
    for name in ("one.pem", "two.pem"):
        (tmp_path / name).chmod(0o600)
    keys_of = KeyTable(tuple(KeyRow(name, "example.org", name, f"./{name}.pem") for name in ("one", "two")),
                       patterns=False)  # fmt: skip
    signers = SigningTable(
        (SignRow("ada@example.org", "one"), SignRow("bob@example.org", "two"), SignRow("bob@example.org", "one")),
        patterns=False,
    )
    options = DkimOutOptions(key_table=str(tmp_path / "keys"), signing_table=str(tmp_path / "s"), all_matches=True)
    found = SigningKeys(options, SigningTables(keys_of, signers), lambda level, text: None)
    ada, bob = Address("ada", "example.org"), Address("bob", "example.org")
    found.read(ada)
    before, edition = found.find(ada), found.edition
    (tmp_path / "one.pem").write_bytes(pem(ed25519()))
    os.utime(tmp_path / "one.pem", (1, 1))
    assert found.find(bob) is None
    found.read(bob)
    after = found.find(ada)
    assert before is not None and after is not None
    assert [key.kind.value for key in (*before.keys, *after.keys)] == ["rsa", "ed25519"]
    assert found.edition > edition


def test_the_loop_tries_no_long_list_of_patterns(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "one.pem").write_bytes(pem(rsa()))
    (tmp_path / "one.pem").chmod(0o600)
    rows = [SignRow(f"*@{number}.example", "none") for number in range(signing_keys.PATTERNS_MAX)]
    tables = SigningTables(
        KeyTable((KeyRow("one", "example.org", "r1", str(tmp_path / "one.pem")),), patterns=False),
        SigningTable((*rows, SignRow("*@example.org", "one")), patterns=True),
    )
    options = DkimOutOptions(key_table=str(tmp_path / "keys"), signing_table="refile:x")
    found = SigningKeys(options, tables, lambda level, text: None)
    ada = Address("ada", "example.org")
    tried: list[str] = []
    plain = SigningTable.matches

    def counted(self: SigningTable, local_part: str, domain: str) -> Any:
        tried.append(local_part)
        return plain(self, local_part, domain)

    monkeypatch.setattr(SigningTable, "matches", counted)
    assert found.find(ada) is None and tried == []
    found.read(ada)
    made = found.find(ada)
    assert made is not None and [key.selector for key in made.keys] == ["r1"] and tried == ["ada"]
    found.renew()
    assert found.find(ada) is None


def test_a_message_of_an_author_in_a_long_list_is_signed(files: tuple[NamedKey, ...], monkeypatch: Any) -> None:
    monkeypatch.setattr(SigningKeys, "_has_many_patterns", property(lambda self: True))
    for size in (1, LOOP_MAX):
        assert results(sent(Stage(signing=signing(DkimOutOptions(keys=files))), job(MESSAGE + b"x\r\n" * size))) == BOTH


def test_a_table_that_is_being_written_is_not_taken_yet(tmp_path: Path) -> None:
    (tmp_path / "one.pem").write_bytes(pem(rsa()))
    (tmp_path / "one.pem").chmod(0o600)
    (tmp_path / "keys").write_text("one %:r1:./one.pem\n")
    signers = tmp_path / "signers"
    signers.write_text("ada@example.org one\n")
    options = DkimOutOptions(key_table=str(tmp_path / "keys"), signing_table=str(signers))
    told: list[str] = []
    tables = signing_keys.read_tables(options)
    assert isinstance(tables, SigningTables)
    found = SigningKeys(
        options, tables, lambda level, text: told.append(text), signing_keys.table_stamps(options)
    )
    signers.write_text("bob@example.org one\n")
    found.look()
    signers.write_text("bob@example.org one\nada@example.org one\n")
    found.look()
    assert told == [] and found._tables is tables
    found.look()
    assert told == ["DKIM: the changed tables are in force"]
    for name in ("ada", "bob"):
        author = Address(name, "example.org")
        found.read(author)
        chosen = found.find(author)
        assert chosen is not None and len(chosen.keys) == 1


def test_files_of_which_none_is_remembered_any_more_are_read_again(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(signing_keys, "FILES_MAX", 1)
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(pem(rsa()))
        (tmp_path / name).chmod(0o600)
    options = DkimOutOptions(keys=(NamedKey("a.example", "s", str(tmp_path / "a")),))
    found = SigningKeys(options, None, lambda level, text: None)
    author = Address("ada", "a.example")
    assert found.find(author) is not None
    found._read_file(str(tmp_path / "b"))
    assert found.find(author) is None  # it is read again before it signs


def test_files_that_are_not_there_are_not_opened_again_until_they_are(tmp_path: Path, monkeypatch: Any) -> None:
    """With `%` in a key table, any author names one."""
    opened: list[str] = []
    plain = signing_keys.read_key
    monkeypatch.setattr(signing_keys, "read_key", lambda path: (opened.append(path), plain(path))[1])
    found = SigningKeys(DkimOutOptions(), None, lambda level, text: None)
    path = tmp_path / "key"
    found._read_file(str(path))
    for _ in range(3):
        found.look()
    assert len(opened) == 1
    path.write_bytes(pem(rsa()))
    path.chmod(0o644)
    for _ in range(3):
        found.look()
    assert len(opened) == 4 and found._files[str(path)].key is None
    path.chmod(0o600)
    found.look()
    assert found._files[str(path)].key is not None


# -- what is remembered ------------------------------------------------------------------------------------------------


def test_odd_header_sections_and_authors_are_not_remembered(files: tuple[NamedKey, ...]) -> None:
    """A client that is known may still be a stolen account: what it sends must not fill the memory."""
    kept: Keep = []
    stage = Stage(signing=signing(DkimOutOptions(keys=files), kept))
    _kept.cache_clear()
    sent(stage, job(MESSAGE))
    plans, authors = len(kept[0]._plans), _kept.cache_info().currsize
    assert (plans, authors) == (1, 1)
    names = b"".join(b"X%d: 1\r\n" % number for number in range(PLAN_FIELDS_MAX))
    for odd in (names, b"X: " + b"x" * 900 + b"\r\n" + b"Y: y\r\n" * 2_000):
        stage.done.clear()
        assert results(sent(stage, job(odd + MESSAGE))) == BOTH
    stage.done.clear()
    long = b"From: " + b", ".join(b"u%d@example.org" % number for number in range(500))
    assert results(sent(stage, job(MESSAGE.replace(b"From: Ada <ada@example.org>", long)))) == BOTH
    assert len(kept[0]._plans) <= plans + 1  # one for the kind with many authors
    assert _kept.cache_info().currsize == authors


def test_what_is_signed_is_remembered_once_for_all_signers(files: tuple[NamedKey, ...]) -> None:
    kept: Keep = []
    stage = Stage(signing=signing(DkimOutOptions(keys=files), kept))
    sent(stage, job(MESSAGE))
    assert kept[0].signer(keys())._plans is kept[0]._plans


# -- keys that cannot be used ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, LOOP_MAX])
@pytest.mark.parametrize("trouble", KeyTrouble)
@pytest.mark.parametrize("fault", ["missing", "open to all", "no key", "damaged"])
def test_a_key_that_cannot_be_used(
    tmp_path: Path, files: tuple[NamedKey, ...], trouble: KeyTrouble, fault: str, size: int
) -> None:
    path = Path(files[0].file)
    match fault:
        case "missing":
            path.unlink()
        case "open to all":
            path.chmod(0o644)
        case "no key":
            path.write_bytes(b"x")
        case "damaged":
            path.write_bytes(path.read_bytes().replace(b"KEY-----\nMIIE", b"KEY-----\nMIIF"))
    told: list[str] = []
    stage = Stage(signing=signing(DkimOutOptions(keys=files[:1], key_trouble=trouble), told=told))
    given = job(MESSAGE + b"x\r\n" * size)
    if trouble is KeyTrouble.SEND:
        assert b"DKIM-Signature" not in sent(stage, given)
        assert str(path) in stage.done[0][0].unsigned
    else:
        assert stage.carry(given) == b""
        assert stage.outcomes() == [("deferred", "message", "4.7.5")]
        assert str(path) in stage.done[0][0].text
    assert len(told) == 1 and str(path) in told[0]
    assert "PRIVATE" not in told[0]


def test_one_of_two_keys_signs_alone(files: tuple[NamedKey, ...]) -> None:
    Path(files[1].file).unlink()
    stage = Stage(signing=signing(DkimOutOptions(keys=files, key_trouble=KeyTrouble.WAIT)))
    assert results(sent(stage, job())) == BOTH[:1]
    (attempt,) = stage.done[0]
    assert attempt.signed == NAMES[:1] and files[1].file in attempt.unsigned


def test_a_key_that_becomes_unreadable_signs_on_and_one_that_comes_back_is_taken(
    files: tuple[NamedKey, ...], made: list[bytes]
) -> None:
    kept: Keep = []
    told: list[str] = []
    stage = Stage(signing=signing(DkimOutOptions(keys=files[:1]), kept, told))
    path = Path(files[0].file)
    octets = path.read_bytes()
    path.write_bytes(b"half")
    for _ in range(3):
        kept[0].look()
    assert results(sent(stage, job())) == BOTH[:1]
    assert len(told) == 1 and "the key from before still signs" in told[0]
    path.write_bytes(octets)
    os.utime(path, (1, 1))
    kept[0].look()
    assert "read anew" in told[1]


def test_the_connection_ends_while_a_signature_is_made(files: tuple[NamedKey, ...]) -> None:
    stage = Stage(signing=signing(DkimOutOptions(keys=files)))
    stage.courier.carry(job(MESSAGE + b"x\r\n" * LOOP_MAX), lambda job, attempts: stage.done.append(attempts))
    stage.courier.connection_lost(None)
    stage.loop.run()
    assert stage.outcomes() == [("deferred", "session", "4.4.2")]


def test_a_bug_makes_mail_wait(files: tuple[NamedKey, ...], monkeypatch: Any) -> None:
    def broken(*arguments: Any) -> bytes:
        raise ZeroDivisionError

    monkeypatch.setattr(DkimSigner, "sign", broken)
    for size in (1, LOOP_MAX):
        stage = Stage(signing=signing(DkimOutOptions(keys=files)))
        stage.carry(job(MESSAGE + b"x\r\n" * size))
        assert stage.outcomes() == [("deferred", "message", "4.3.0")]


def test_content_that_cannot_be_read(tmp_path: Path, files: tuple[NamedKey, ...]) -> None:
    stage = Stage(signing=signing(DkimOutOptions(keys=files)))
    given = filed(tmp_path / "c", MESSAGE)
    (tmp_path / "c").unlink()
    stage.carry(given)
    assert stage.outcomes() == [("deferred", "message", "4.3.0")]


def test_recipients_with_names_of_their_own_share_a_signature(files: tuple[NamedKey, ...], made: list[bytes]) -> None:
    """Other senders and recipients in the envelope (SRS, VERP) are no other form."""
    stage = Stage(signing=signing(DkimOutOptions(keys=files)))
    for part in parts(job(to=(Recipient(Address("a", "b.example")), Recipient(Address("b", "b.example")))), 1):
        named = msgspec.structs.replace(
            part, reverse_path=Address(f"bounce+{part.recipients[0]}", "example.org"),
            forward_paths=(Address("c", "b.example"),),
        )
        assert results(sent(stage, named)) == BOTH
        stage.done.clear()
    assert len(made) == 1


# -- mail of strangers that is forwarded (ARC) -------------------------------------------------------------------------

SEALS = DkimOutOptions(
    arc_seal="one.example", authserv_id="mx.example", arc_listeners=frozenset({"mx"}),
    unchecked_networks=("198.51.100.0/24", "::1/128"),
)  # fmt: skip
FORWARDED = Peer("192.0.2.1", 1, "x", "ESMTP", listener="mx")


def results_field(arc: str) -> bytes:
    return b"Authentication-Results: mx.example;\r\n dkim=pass header.d=example.org;\r\n arc=%b\r\n" % arc.encode()


@pytest.fixture
def sealing(tmp_path: Path) -> DkimOutOptions:
    path = tmp_path / "one.pem"
    path.write_bytes(pem(KEYS[0].private))
    path.chmod(0o600)
    return msgspec.structs.replace(SEALS, keys=(NamedKey("one.example", "arc", str(path)),))


@pytest.mark.parametrize("size", [0, LOOP_MAX])
def test_what_is_forwarded_is_sealed(sealing: DkimOutOptions, size: int) -> None:
    stage = Stage(signing=signing(sealing))
    content = results_field("none") + MESSAGE + b"x\r\n" * size
    got = sent(stage, job(content, peer=FORWARDED))
    assert got.startswith(b"ARC-Seal: i=1;") and got.endswith(content) and b"DKIM-Signature" not in got
    assert b"ARC-Authentication-Results: i=1; mx.example;" in got
    assert stage.done[0][0].signed == ("arc._domainkey.one.example",)
    assert validate(got).result == "pass"


def test_a_chain_goes_on_as_it_was_judged(sealing: DkimOutOptions) -> None:
    before = sealed(1)
    for arc, result in (("pass", "pass"), ("fail", "fail")):
        got = sent(Stage(signing=signing(sealing)), job(results_field(arc) + before, peer=FORWARDED))
        assert b"ARC-Seal: i=2;" in got and b"cv=%b;" % arc.encode() in got
        assert validate(got).result == result
    broken = results_field("pass") + before.replace(b"ARC-Seal:", b"X-Seal:", 1)  # it changed since
    assert b"cv=fail;" in sent(Stage(signing=signing(sealing)), job(broken, peer=FORWARDED))
    dead = sent(Stage(signing=signing(sealing)), job(results_field("fail") + before, peer=FORWARDED))
    again = results_field("fail") + dead
    assert sent(Stage(signing=signing(sealing)), job(again, peer=FORWARDED)) == again  # sealed as failed once


@pytest.mark.parametrize(
    ("field", "peer"),
    [
        (b"", FORWARDED),
        (b"Authentication-Results: mx.example; spf=pass\r\n", FORWARDED),
        (b"Authentication-Results: other.example; arc=pass\r\n", FORWARDED),
        (results_field("none"), Peer("192.0.2.1", 1, "x", "ESMTP", listener="unchecked")),
        (results_field("none"), Peer("198.51.100.7", 1, "x", "ESMTP", listener="mx")),
        (results_field("none"), Peer("::ffff:198.51.100.7", 1, "x", "ESMTP", listener="mx")),
        (results_field("none"), TRUSTED),
        (results_field("none"), OWN),
    ],
)
def test_nothing_is_sealed_that_nobody_has_judged(sealing: DkimOutOptions, field: bytes, peer: Peer) -> None:
    content = field + MESSAGE
    assert sent(Stage(signing=signing(sealing)), job(content, peer=peer)) == content


def test_without_its_key_nothing_is_sealed(sealing: DkimOutOptions) -> None:
    other = msgspec.structs.replace(sealing, arc_seal="other.example")
    stage = Stage(signing=signing(other))
    assert b"ARC-Seal" not in sent(stage, job(results_field("none") + MESSAGE, peer=FORWARDED))
    assert stage.done[0][0].unsigned == "it cannot be sealed (ARC): no key for other.example"
