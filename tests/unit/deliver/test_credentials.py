"""Exchanges as a client, step by step: what the sessions of `test_opener` do not come to."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from postroad.deliver.credentials import Credentials, Surroundings, exchange
from postroad.protocol.sasl.scram import Scram
from postroad.protocol.sasl.scram_keys import derive
from postroad.protocol.sasl.step import Challenge, Hash


async def test_nothing_is_answered_behind_the_proof_of_the_server() -> None:
    """Else a server could keep a connection, and its permit, for ever."""
    programs: Any = None
    name, hash = "SCRAM-SHA-256", Hash.SHA_256
    around = Surroundings(None, "mx.test", 587, random.Random(1), ThreadPoolExecutor(1), programs)
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
