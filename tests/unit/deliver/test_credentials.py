"""Exchanges as a client, step by step: what the sessions of `test_opener` do not come to."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from postroad.deliver.credentials import ClientExchangeContext, Credentials, choose, exchange
from postroad.protocol.sasl import clients
from postroad.protocol.sasl.scram import Scram
from postroad.protocol.sasl.scram_keys import derive
from postroad.protocol.sasl.step import Challenge, Hash


async def test_nothing_is_answered_behind_the_proof_of_the_server() -> None:
    """Else a server could keep a connection, and its permit, for ever."""
    programs: Any = None
    name, hash = "SCRAM-SHA-256", Hash.SHA_256
    around = ClientExchangeContext(None, "mx.test", 587, random.Random(1), ThreadPoolExecutor(1), programs)
    made = await exchange(Credentials("ada", "secret"), name, frozenset({name}), around)
    assert not isinstance(made, str)
    server = Scram(hash, "nonce", lambda kind: None, plus=False, plus_offered=False)
    server.begin(made.initial)
    first = server.keyed(derive(hash, "secret", b"0123456789abcdef", 4096))
    assert isinstance(first, Challenge)
    final = await made.respond(first.octets)
    assert final is not None
    last = server.respond(final)
    assert isinstance(last, Challenge)
    assert await made.respond(last.octets) == b"" and not made.problem
    assert await made.respond(last.octets) is None and "goes on" in made.problem


def test_cram_md5_as_the_rfc_has_it() -> None:
    """RFC 2195 §2, its example."""
    challenge = b"<1896.697170952@postoffice.reston.mci.net>"
    assert clients.cram_md5("tim", "tanstaaftanstaaf", challenge) == b"tim b913a602c7eda7a495b4e6e7334d3890"
    assert isinstance(clients.cram_md5("tim", "x", b""), str)


async def test_cram_md5_answers_one_challenge() -> None:
    around: Any = None
    made = await exchange(Credentials("tim", "tanstaaftanstaaf"), "CRAM-MD5", frozenset({"CRAM-MD5"}), around)
    assert not isinstance(made, str) and made.initial is None
    answer = await made.respond(b"<1896.697170952@postoffice.reston.mci.net>")
    assert answer == b"tim b913a602c7eda7a495b4e6e7334d3890" and not made.problem
    assert await made.respond(b"<again>") is None and "second" in made.problem


ALLOWED = Credentials("ada", "secret", cram_md5=True)
ANYWHERE = Credentials("ada", "secret", cram_md5=True, without_tls=True)


@pytest.mark.parametrize(
    ("credentials", "offered", "tls", "chosen"),
    [
        (ALLOWED, "CRAM-MD5", True, "CRAM-MD5"),
        (ALLOWED, "CRAM-MD5 PLAIN", True, "PLAIN"),  # under TLS that is safe, and the server may keep a good hash
        (ALLOWED, "CRAM-MD5 LOGIN", True, "LOGIN"),
        (ALLOWED, "CRAM-MD5 SCRAM-SHA-1", True, "SCRAM-SHA-1"),
        (ALLOWED, "CRAM-MD5", False, "is not sent"),
        (ANYWHERE, "CRAM-MD5 PLAIN LOGIN", False, "CRAM-MD5"),
        (ANYWHERE, "CRAM-MD5 SCRAM-SHA-256", False, "SCRAM-SHA-256"),
        (ANYWHERE, "PLAIN", False, "PLAIN"),
        (Credentials("ada", "secret"), "CRAM-MD5", True, "offers none of"),
        (Credentials("ada", "secret", without_tls=True), "CRAM-MD5 PLAIN", False, "PLAIN"),
        (Credentials("ada", "secret", mechanism="CRAM-MD5"), "CRAM-MD5 PLAIN", True, "CRAM-MD5"),
        (Credentials("ada", token_file="/none", cram_md5=True), "CRAM-MD5", True, "offers none of"),
    ],
)
def test_cram_md5_only_where_it_is_allowed_and_nothing_better_is_there(
    credentials: Credentials, offered: str, tls: bool, chosen: str
) -> None:
    found = choose(credentials, frozenset(offered.split()), tls=tls, bindable=False)
    assert found == chosen or (" " in chosen and chosen in found)
