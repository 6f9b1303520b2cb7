"""Set-ups of Postfix, each with a Postroad configuration written by hand: the same answers, or a reason why not.

The set-ups are not part of the project. POSTROAD_POSTFIX_SETUPS names the folder that has them (else it is
../shared/postfix-setups); if it is not there, the tests are skipped, and with CI set there are none. The configurations
use the maps of the set-ups as they are. Behind them, `setups/NAME.toml` has `[[row]]` for questions that are not
answered the same: `question` is a pattern, `why` the reason. With `ours` the answer differs on purpose, and that is
ours; without it the question is about something that these tests do not ask, and there is no test for it. `[maps]`
says which map of the configuration stands for a parameter of Postfix.
"""

from __future__ import annotations

import os
import re
import shutil
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.peers.harness import need, ports, setups
from tests.peers.harness.knot import Knot
from tests.peers.harness.postroad import Node
from tests.peers.harness.process import own_to
from tests.peers.harness.sendmail import Sendmail
from tests.peers.harness.setups import Asker, Question, World
from tests.peers.harness.users import users

SETUPS = Path(os.environ.get("POSTROAD_POSTFIX_SETUPS") or Path(__file__).parents[3] / "shared" / "postfix-setups")
HERE = Path(__file__).parent / "setups"
__test__ = SETUPS.is_dir() or not os.environ.get("CI")  # nothing may be skipped there, and it cannot have them
_ROWS = "\n# ---- rows\n"
USERS = ("alice", "bob", "carol", "dave", "listmgr", "www")  # of the machine of set-up 05
NODE = "prnode"
NAMES = ("01-null-client", "02-mx-virtual-dovecot", "05-list-host", "06-sender-dependent")
ZONES = {
    "example.net": "@ MX 10 mx\nmx A 127.51.100.20\nsmarthost A 127.51.100.40",
    "example.org": "@ MX 10 mail\nmail A 127.51.100.30\nclient A 203.0.113.5",
    "example.com": "@ MX 10 mx1\nmx1 A 127.0.0.1\nbackend A 127.51.100.120",
    "provider.example": "@ MX 10 out1\n@ A 127.51.100.42\nout1 A 127.51.100.41\nbulk A 127.51.100.41",
    "customer.example": "@ MX 10 mail\nmail A 127.51.100.50",
    "other.example": "@ MX 10 mail.customer.example.",
    "nomx.example": "@ A 127.51.100.60",
}
PLACES = ("198.51.100.20:25", "198.51.100.30:25", "198.51.100.40:25", "198.51.100.40:587", "198.51.100.41:25",
          "198.51.100.41:587", "198.51.100.42:25", "198.51.100.50:25", "198.51.100.60:25")


@dataclass(frozen=True)
class Setup:
    name: str
    asker: Asker
    node: Node


def known(name: str) -> dict[str, Any]:
    """`row`: the questions of a set-up that are not answered the same. `maps`: by the names of Postfix's parameters."""
    return {"row": [], "maps": {}, **tomllib.loads((HERE / f"{name}.toml").read_text().partition(_ROWS)[2])}


def questions() -> Iterator[Any]:
    """Each question that is asked, with the row that it has, or None."""
    for name in NAMES if SETUPS.is_dir() else ():
        others = known(name)["row"]
        for place, question in enumerate(setups.read(SETUPS / name), 1):
            other = next((each for each in others if re.search(each["question"], question.text)), None)
            if other is None or "ours" in other:
                yield pytest.param((name, question, other), id=f"{name[:2]}-{place:02}")


@pytest.fixture(scope="module")
def world(place: Path) -> Iterator[tuple[World, Knot]]:
    servers = {name: setups.server(*_split(name)) for name in PLACES}
    servers["192.0.2.20:25"] = setups.server("127.51.100.120", 25)
    servers |= {name: setups.lmtp() for name in ("lmtp", "127.0.0.1:8024")}
    made = World(servers)
    with ports.alone("addresses of the set-ups"):
        yield from _running(place, made)


def _running(place: Path, made: World) -> Iterator[tuple[World, Knot]]:
    made.start()
    try:
        with Knot(place / "knot", ZONES) as knot:
            yield made, knot
    finally:
        made.stop()


@pytest.fixture(scope="module")
def homes(place: Path) -> Iterator[Path]:
    """The folder of the homes of users of this machine, with their .forward files."""
    need.root()
    base = place / "home"
    base.mkdir(mode=0o755)
    with users(*USERS, system=[NODE], homes={name: base / name for name in USERS}, strangers=False):
        for name in USERS:
            (base / name).mkdir(mode=0o755)
            for file in (SETUPS / "05-list-host" / "home" / name).glob("dot-*"):
                shutil.copy(file, base / name / file.name.replace("dot-", "."))
            for path in (base / name, *(base / name).iterdir()):
                own_to(path, name)
        yield base


@pytest.fixture(scope="module")
def nodes(place: Path, world: tuple[World, Knot], homes: Path) -> Iterator[dict[str, Setup]]:
    place.chmod(0o755)
    made: dict[str, Setup] = {}
    try:
        for name in NAMES:
            made[name] = _start(place, name, *world)
        yield made
    finally:
        for setup in made.values():
            setup.node.stop()


def _split(name: str) -> tuple[str, int]:
    address, _, port = name.rpartition(":")
    return address, int(port)


def _start(place: Path, name: str, world: World, knot: Knot) -> Setup:
    maps = setups.copied(SETUPS / name, place / f"maps-{name[:2]}")
    sendmail = Sendmail(place / f"sendmail-{name[:2]}")
    listeners = {port: ports.port() for port in ("25", "587")}
    text = (HERE / f"{name}.toml").read_text()
    words = {"MAPS": str(maps), "PORT_25": str(listeners["25"]), "PORT_587": str(listeners["587"]),
             "LMTP_PORT": str(world.servers["lmtp"].port),
             "LISTS_PORT": str(world.servers["127.0.0.1:8024"].port), "DNS_PORT": str(knot.port), "PLACE": str(place),
             "SENDMAIL": str(sendmail.folder)}
    for word, value in words.items():
        text = text.replace(f"@{word}@", value)
    config = tomllib.loads(text.partition(_ROWS)[0])
    node = Node(place / name[:2], config, defaults={"workers": 1, "state_dir": "state"})
    if "user" in config:
        own_to(node.directory, NODE)
    for account in ("alice", "bob") if "users" in config.get("auth", {}) else ():
        node.add_user(account, "secret")
    node.start()
    listeners["465"] = listeners["587"]
    return Setup(name, Asker(world, listeners, sendmail, node, place / "home" if "user" in config else None), node)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    asked = list(questions())
    if not asked:
        reason = f"{SETUPS} is not there; POSTROAD_POSTFIX_SETUPS may name the folder of the set-ups"
        asked = [pytest.param(None, marks=pytest.mark.skip(reason=reason))]
    metafunc.parametrize("row", asked)


def test_the_same_answer(row: tuple[str, Question, dict[str, str] | None], nodes: dict[str, Setup]) -> None:
    name, question, other = row
    asker = nodes[name].asker
    ours = other["ours"] if other is not None else ""
    if question.verb == "map":
        assert asker.found(known(name)["maps"][question.words[0]], question.words[1]) == (ours or question.answer)
        return
    if question.verb == "verify":
        assert asker.verified(question.words[0]) == ours
        return
    if question.verb in ("reply", "endreply") or ours.partition(" ")[0] in ("CONNECT", "MAIL", "RCPT"):
        assert asker.reply(question) == (ours or setups.expected_reply(question))
        return
    assert question.verb in ("deliver", "envelope", "headers"), "no reason stands for this question"
    said, taken = asker.outcome(question)
    if ours.startswith("SENDMAIL "):
        assert said.startswith(ours) and not taken
    elif question.verb == "deliver":
        assert (setups.came(taken), said) == (setups.deliveries(ours or question.answer), said)
    elif question.verb == "envelope":
        assert (setups.carried(taken), said) == (setups.envelopes(question), said)
    else:
        assert taken, said
        assert setups.shown(question, taken[0][1].content) == question.answer
