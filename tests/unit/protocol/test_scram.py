"""SCRAM, both ends: the RFCs' examples, channel binding, and what a client or server may try."""

from __future__ import annotations

import base64

import pytest

from postroad.protocol.sasl import scram_keys
from postroad.protocol.sasl.clients import Salting, ScramClient
from postroad.protocol.sasl.prepare import saslprep
from postroad.protocol.sasl.scram import MISMATCH, NO_BINDING, Binding, Scram
from postroad.protocol.sasl.scram_keys import ScramKeys
from postroad.protocol.sasl.step import MALFORMED, Challenge, ExchangeRefused, Hash, Keys, ProofFailed, Proved, Step

SHA_1, SHA_256 = Hash.SHA_1, Hash.SHA_256

# RFC 5802 §5 and RFC 7677 §3: hash, client nonce, server nonce, salt, the last three messages
EXAMPLES = [
    (
        SHA_1, "fyko+d2lbbFgONRv9qkxdawL", "3rfcNHYJY1ZVvWVs7j", "QSXCR+Q6sek8bf92",
        b"r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
        b"c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
        b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
    ),
    (
        SHA_256, "rOprNGfwEbeRWgbNEkqO", "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0", "W22ZaJ0SNY7soEsUEjb6gQ==",
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
    ),
]


def keys(hash: Hash = SHA_256, password: str = "pencil", salt: bytes = b"0123456789abcdef") -> ScramKeys:
    return scram_keys.derive(hash, password, salt, 4096)


def server(hash: Hash = SHA_256, nonce: str = "server", *, plus: bool = False, binding: Binding | None = None) -> Scram:
    return Scram(hash, nonce, binding or (lambda kind: None), plus=plus, plus_offered=plus or binding is not None)


@pytest.mark.parametrize(("hash", "client_nonce", "nonce", "salt", "first", "final", "last"), EXAMPLES)
def test_the_examples_of_the_rfcs(
    hash: Hash, client_nonce: str, nonce: str, salt: str, first: bytes, final: bytes, last: bytes
) -> None:
    machine = server(hash, nonce)
    assert machine.begin(f"n,,n=user,r={client_nonce}".encode()) == Keys("user", hash)
    assert machine.keyed(keys(hash, salt=base64.b64decode(salt))) == Challenge(first)
    assert machine.respond(final) == Challenge(last)
    assert machine.respond(b"") == Proved("user")
    client = ScramClient(hash, "user", client_nonce)
    assert client.initial == f"n,,n=user,r={client_nonce}".encode()
    assert client.server_first(first) == Salting(base64.b64decode(salt), 4096)
    assert client.finish(scram_keys.salted(hash, "pencil", base64.b64decode(salt), 4096)) == final
    assert client.server_final(last) == "" and client.proved


def talk(machine: Scram, client: ScramClient, known: ScramKeys, password: str) -> Step:
    """An exchange to its end."""
    step = machine.begin(None)
    assert step == Challenge(b"")
    step = machine.respond(client.initial)
    if not isinstance(step, Keys):
        return step
    step = machine.keyed(known)
    assert isinstance(step, Challenge)
    salting = client.server_first(step.octets)
    assert isinstance(salting, Salting)
    step = machine.respond(client.finish(scram_keys.salted(known.hash, password, salting.salt, salting.iterations)))
    if isinstance(step, Challenge):
        assert client.server_final(step.octets) == ""
        step = machine.respond(b"")
    return step


def bindings(kind: str) -> bytes | None:
    return {"tls-exporter": b"\x00exported,=", "tls-server-end-point": b"hashed"}.get(kind)


@pytest.mark.parametrize("hash", list(Hash))
@pytest.mark.parametrize("kind", ["tls-exporter", "tls-server-end-point"])
def test_channel_binding(hash: Hash, kind: str) -> None:
    binding = bindings(kind)
    assert binding is not None
    client = ScramClient(hash, "ada", "nonce", binding_type=kind, binding=binding)
    assert talk(server(hash, plus=True, binding=bindings), client, keys(hash), "pencil") == Proved("ada")


def test_a_man_in_the_middle_has_another_channel() -> None:
    client = ScramClient(SHA_256, "ada", "nonce", binding_type="tls-exporter", binding=b"another")
    assert talk(server(plus=True, binding=bindings), client, keys(), "pencil") == ProofFailed("ada")


@pytest.mark.parametrize(
    ("plus", "first", "step"),
    [
        (True, b"n,,n=a,r=x", ExchangeRefused(MISMATCH)),
        (True, b"y,,n=a,r=x", ExchangeRefused(MISMATCH)),
        (True, b"p=tls-unique,,n=a,r=x", ExchangeRefused(NO_BINDING)),
        (False, b"p=tls-exporter,,n=a,r=x", ExchangeRefused(MISMATCH)),
        (
            False,
            b"y,,n=a,r=x",
            ExchangeRefused(MISMATCH),
        ),  # -PLUS was offered: somebody has taken it out of what it saw
        (False, b"n,,n=a,r=x", Keys("a", SHA_256)),
    ],
)
def test_flags_of_channel_binding(plus: bool, first: bytes, step: Step) -> None:
    assert server(plus=plus, binding=bindings).begin(first) == step


@pytest.mark.parametrize(
    ("name", "password"),
    [("a,b=c", "pencil"), ("jörg", "päss\u00adwörd"), ("=2C", "x"), ("I\u00adX", "\u2168"), ("'; --*)(", "p\tq")],
)
def test_names_and_passwords(name: str, password: str) -> None:
    client = ScramClient(SHA_256, name, "nonce")
    assert talk(server(), client, keys(password=password), password) == Proved(saslprep(name) or name)


def test_a_wrong_password() -> None:
    assert talk(server(), ScramClient(SHA_256, "ada", "n"), keys(), "pen") == ProofFailed("ada")


@pytest.mark.parametrize(
    "first",
    [
        b"", b",", b",,", b"n", b"n,,", b"n,,n=a", b"n,,r=x,n=a", b"n,,n=,r=x", b"n,,n=a,r=", b"n,,m=x,n=a,r=x",
        b"n,,n=a=b,r=x", b"n,,n=a=3d,r=x", b"n,,n=a\0b,r=x", b"n,,n=\xff,r=x", b"z,,n=a,r=x", b"n,b,n=a,r=x",
        b"n,a=,n=a,r=x", b"n,,n=a,r=x y", b"n,,n=a,r=\xc3\xa4", b"n,,n=a,r=x,zz", b"n,,n=a,r=" + b"x" * 513,
        b"n,,n=" + b"a" * 2000 + b",r=x", b"n,,n=a,r=" + b"x" * 1_000_000,
    ],
)  # fmt: skip
def test_malformed_first_messages(first: bytes) -> None:
    assert server().begin(first) == ExchangeRefused(MALFORMED)


@pytest.mark.parametrize(
    ("final", "step"),
    [
        (b"", ExchangeRefused(MALFORMED)),
        (b"c=biws", ExchangeRefused(MALFORMED)),
        (b"c=biws,r=xserver", ExchangeRefused(MALFORMED)),
        (b"r=xserver,c=biws,p=AAAA", ExchangeRefused(MALFORMED)),
        (b"c=b iws,r=xserver,p=AAAA", ExchangeRefused(MALFORMED)),
        (b"c=biws,r=xserver,p=!", ExchangeRefused(MALFORMED)),
        (b"\xff", ExchangeRefused(MALFORMED)),
        (b"c=biws,r=xserver,p=AAAA", ProofFailed("a")),
        (b"c=biws,r=another,p=" + base64.b64encode(b"p" * 32), ProofFailed("a")),
        (b"c=eSws,r=xserver,p=" + base64.b64encode(b"p" * 32), ProofFailed("a")),
        (b"c=biws,r=xserver,p=" + b"A" * 1_000_000, ExchangeRefused(MALFORMED)),
    ],
)
def test_bad_final_messages(final: bytes, step: Step) -> None:
    machine = server()
    machine.begin(b"n,,n=a,r=x")
    machine.keyed(keys())
    assert machine.respond(final) == step
    assert not isinstance(machine.respond(b""), Proved)


def test_a_proof_is_good_once() -> None:
    """Recorded and sent again to a server whose nonce is another one."""
    client = ScramClient(SHA_256, "ada", "n")
    first = server(nonce="one")
    first.begin(client.initial)
    challenge = first.keyed(keys())
    assert isinstance(challenge, Challenge) and isinstance(client.server_first(challenge.octets), Salting)
    final = client.finish(scram_keys.salted(SHA_256, "pencil", keys().salt, 4096))
    assert isinstance(first.respond(final), Challenge)
    again = server(nonce="two")
    again.begin(client.initial)
    again.keyed(keys())
    assert again.respond(final) == ProofFailed("ada")


def test_what_is_said_behind_the_end_does_not_count() -> None:
    machine = server()
    machine.begin(b"n,,n=a,r=x")
    assert machine.respond(b"n,,n=b,r=x") == ExchangeRefused(MALFORMED), "a second name in place of the look-up's end"
    client = ScramClient(SHA_256, "ada", "n")
    machine = server()
    machine.begin(client.initial)
    challenge = machine.keyed(keys())
    assert isinstance(challenge, Challenge)
    client.server_first(challenge.octets)
    machine.respond(client.finish(scram_keys.salted(SHA_256, "pencil", keys().salt, 4096)))
    assert machine.respond(b"x") == ExchangeRefused(MALFORMED)


@pytest.mark.parametrize(
    "first",
    [
        b"", b"r=nonce,s=QSXCR+Q6sek8bf92,i=4096", b"r=other,s=QSXCR+Q6sek8bf92,i=4096", b"r=nonceX,s=,i=4096",
        b"r=nonceX,s=QSXCR+Q6sek8bf92,i=4095", b"r=nonceX,s=QSXCR+Q6sek8bf92,i=1", b"r=nonceX,s=QSXCR+Q6sek8bf92,i=-1",
        b"r=nonceX,s=QSXCR+Q6sek8bf92,i=999999999", b"r=nonceX,s=QSXCR+Q6sek8bf92,i=9" + b"9" * 5000,
        b"m=x,r=nonceX,s=QSXCR+Q6sek8bf92,i=4096", b"r=nonceX,s=QSXCR+Q6sek8bf92", b"\xff", b"e=no",
    ],
)  # fmt: skip
def test_a_client_computes_nothing_for_a_hostile_server(first: bytes) -> None:
    assert isinstance(ScramClient(SHA_256, "ada", "nonce").server_first(first), str)


@pytest.mark.parametrize("last", [b"", b"v=", b"v=AAAA", b"v=!", b"e=invalid-proof", b"\xff", b"x"])
def test_a_client_believes_no_server_that_does_not_know_the_keys(last: bytes) -> None:
    client = ScramClient(SHA_256, "ada", "nonce")
    assert client.server_final(last) and not client.proved, "before anything was said"
    client.server_first(b"r=nonceX,s=QSXCR+Q6sek8bf92,i=4096")
    client.finish(b"salted")
    assert client.server_final(last) and not client.proved


def test_keys_as_text() -> None:
    made = keys()
    text = scram_keys.format_keys(made)
    assert scram_keys.parse_keys(text) == made
    assert ":" not in text and "," not in text
    assert "stored" not in repr(made)
    for bad in (
        "", "SCRAM-SHA-256", text + "$x", text.replace("4096", "4095"), text.replace("4096", "99999999"),
        text.replace("4096", "٤096"), text.replace("SHA-256", "SHA-512"), text.replace("SHA-256", "SHA-1"), text[:-8],
    ):  # fmt: skip
        assert scram_keys.parse_keys(bad) is None, bad


def test_decoys_stay_the_same_and_differ_by_name() -> None:
    one = scram_keys.decoy(SHA_256, b"secret", "nobody", 4096)
    assert one == scram_keys.decoy(SHA_256, b"secret", "nobody", 4096)
    assert len(one.salt) == len(keys().salt)
    others = [
        scram_keys.decoy(SHA_256, b"secret", "anybody", 4096), scram_keys.decoy(SHA_256, b"other", "nobody", 4096),
        scram_keys.decoy(SHA_1, b"secret", "nobody", 4096),
    ]  # fmt: skip
    assert len({each.salt for each in (one, *others)}) == 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [  # RFC 4013 §3
        ("I\u00adX", "IX"),
        ("user", "user"),
        ("USER", "USER"),
        ("\u00aa", "a"),
        ("\u2168", "IX"),
        ("\u0007", None),
        ("\u0627\u0031", None),
        ("\u0627\u0031\u0628", "\u0627\u0031\u0628"),
        ("a\u00a0b", "a b"),
        ("\ue000", None),
        ("\u0221", None),  # unassigned in Unicode 3.2
    ],
)
def test_saslprep(text: str, expected: str | None) -> None:
    assert saslprep(text) == expected
