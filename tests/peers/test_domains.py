"""Domains, catch-alls and address extensions: the same tables in a real Postfix and in a node, compared.

Each recipient is sent a message of its own by both; the recipients that come out behind them are compared, and the
answers at RCPT. Where Postroad differs on purpose, a test of its own says so.
"""

from __future__ import annotations

import pwd
import re
import smtplib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers.harness import ports
from tests.peers.harness.postfix import Postfix
from tests.peers.harness.postroad import Node, mx_listener
from tests.peers.harness.process import own_to, until
from tests.peers.harness.remote import Remote

pytestmark = pytest.mark.peer

MAILBOX_DOMAINS = "shop.example yes\nnew.example yes\ncaught.example yes\nold.example yes\n"
MAILBOXES = (
    "ada@shop.example yes\nbob@shop.example yes\nbob+lists@shop.example yes\nada@new.example yes\n"
    "ada@caught.example yes\nall@caught.example yes\n"
)
ALIAS_DOMAINS = "names.example yes\n"
VIRTUAL = (
    "sales@names.example ada@shop.example, far@remote.example\ninfo@names.example bob@shop.example\n"
    "exact+x@names.example ada@shop.example\nexact@names.example bob@shop.example\n"
    "@caught.example all@caught.example\nteam@shop.example team@shop.example, bob@shop.example\n"
    "@old.example @new.example\npostmaster@names.example ada@shop.example\n"
)
RELAY_DOMAINS = "behind.example yes\n.behind.example yes\n"
RELAY_RECIPIENTS = "carol@behind.example yes\n@sub.behind.example yes\n"

RECIPIENTS = (
    "ada@shop.example", "ADA@Shop.Example", "nobody@shop.example", "ada+x@shop.example", "ada-x@shop.example",
    "sales@names.example", "info+q@names.example", "info-q+r@names.example", "exact+x@names.example",
    "exact+y@names.example", "nobody@names.example", "all@caught.example", "whoever@caught.example",
    "whoever+q@caught.example", "ada@caught.example", "ada@old.example", "ada+x@old.example", "carol@behind.example",
    "nobody@behind.example", "any@sub.behind.example", "x@remote.example", "x@sub.shop.example",
    "bob+lists@shop.example", "postmaster@names.example",
)  # fmt: skip


@pytest.fixture(scope="module")
def sink() -> Iterator[Remote]:
    with Remote() as remote:
        yield remote


@pytest.fixture(scope="module")
def tables(place: Path) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    place.chmod(0o755)
    for name, text in (
        ("mailbox_domains", MAILBOX_DOMAINS), ("mailboxes", MAILBOXES), ("alias_domains", ALIAS_DOMAINS),
        ("virtual", VIRTUAL), ("relay_domains", RELAY_DOMAINS), ("relay_recipients", RELAY_RECIPIENTS),
    ):  # fmt: skip
        (place / name).write_text(text)
        (place / name).chmod(0o644)
    with sqlite3.connect(place / "domains.db") as database:
        database.execute("CREATE TABLE domain (name TEXT PRIMARY KEY)")
        rows = [(line.split()[0],) for line in MAILBOX_DOMAINS.splitlines()]
        database.executemany("INSERT INTO domain VALUES (?)", rows)
    return place


@pytest.fixture(scope="module")
def postfix(tables: Path, sink: Remote) -> Iterator[Postfix]:
    hop = f"smtp:[127.0.0.1]:{sink.port}"
    made = Postfix(tables / "postfix", settings={
        "virtual_mailbox_domains": f"texthash:{tables}/mailbox_domains",
        "virtual_mailbox_maps": f"texthash:{tables}/mailboxes",
        "virtual_alias_domains": f"texthash:{tables}/alias_domains",
        "virtual_alias_maps": f"texthash:{tables}/virtual",
        "relay_domains": f"texthash:{tables}/relay_domains",
        "relay_recipient_maps": f"texthash:{tables}/relay_recipients",
        "parent_domain_matches_subdomains": "",
        "virtual_transport": hop, "default_transport": hop, "relay_transport": hop,
        "recipient_delimiter": "+-",
        "smtpd_relay_restrictions": "reject_unauth_destination", "mynetworks": "192.0.2.1/32",
    })  # fmt: skip
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def node(tables: Path, sink: Remote) -> Iterator[Node]:
    names = ("mailboxes", "alias_domains", "virtual", "relay_domains", "relay_recipients")
    made = Node(tables / "node", {
        "listener": [mx_listener(ports.port(), tls="none")], "postmaster": "ada@shop.example",
        "alias_maps": ["virtual"],
        "routing": {
            "transport_maps": ["ways"], "detail_delimiter": "+-", "extensions_kept": ["alias_maps"],
            "catch_all_first": True,
        },
        "map": [
            *({"name": name, "kind": "text", "file": str(tables / name)} for name in names),
            {"name": "mailbox_domains", "kind": "sqlite", "file": str(tables / "domains.db"),
             "query": "SELECT 1 FROM domain WHERE name = '%s'"},
            {"name": "ways", "kind": "static", "value": f"smtp:[127.0.0.1]:{sink.port}"},
        ],
        "domain": [
            {"domain_maps": ["mailbox_domains"], "recipient_maps": ["mailboxes"], "path": str(tables / "unused")},
            {"domain_maps": ["alias_domains"], "deliver": "aliases"},
        ],
        "relay": {"domain": [
            {"domain_maps": ["relay_domains"], "recipients": [], "recipient_maps": ["relay_recipients"]}
        ]},
    })  # fmt: skip
    with made:
        yield made


def _sent(port: int, recipient: str, subject: str) -> int:
    """The code of the answer to RCPT."""
    with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
        client.ehlo()
        client.mail("sender@far.example")
        code = client.rcpt(recipient)[0]
        if code == 250:
            client.data(f"Subject: {subject}\r\n\r\nhello\r\n")
        return code


def _came(sink: Remote, subject: str) -> list[str]:
    """The recipients of all messages with this subject, in lower case."""
    wanted = f"Subject: {subject}\r\n".encode()
    found = [each for each in sink.transactions if wanted in each.content]
    return sorted(match[1].lower() for each in found for rcpt in each.rcpt if (match := re.search("<(.*)>", rcpt)))


@pytest.mark.parametrize("recipient", RECIPIENTS)
def test_the_same_recipients_come_out(postfix: Postfix, node: Node, sink: Remote, recipient: str) -> None:
    place = RECIPIENTS.index(recipient)
    theirs, ours = f"postfix-{place}", f"postroad-{place}"
    codes = _sent(postfix.port, recipient, theirs), _sent(node.port, recipient, ours)
    assert codes[0] // 100 == codes[1] // 100, codes  # to what is not relayed Postfix says 554
    if codes[0] == 250:
        until(lambda: _came(sink, theirs), "Postfix has sent it", pause_s=0.1)
        until(lambda: _came(sink, ours) == _came(sink, theirs), "both sent the same", pause_s=0.1)


def test_an_alias_of_a_domain_for_nobody_is_refused_at_once(postfix: Postfix, node: Node) -> None:
    assert _sent(postfix.port, "nobody@old.example", "old") == 250
    assert _sent(node.port, "nobody@old.example", "old") == 550


PATHS = (
    "ada@shop.example shop.example/ada/\nbob@shop.example shop.example/bob.mbox\n@new.example all-new/\n"
    "abs@shop.example {base}/elsewhere/abs/\nbob+box@shop.example shop.example/bob-box/\n"
)  # fmt: skip


def test_the_values_of_a_mailbox_map_are_paths_as_in_postfix(tables: Path) -> None:
    user = pwd.getpwnam("mail")
    bases = {name: tables / "boxes" / name for name in ("theirs", "ours")}
    for base in bases.values():
        (base / "shop.example").mkdir(parents=True)
        (base / "elsewhere").mkdir()
        absolute = "" if base.name == "theirs" else f"{base}/"  # in Postfix all paths are below the base
        (tables / f"paths-{base.name}").write_text(PATHS.replace("{base}/", absolute))
        (tables / f"paths-{base.name}").chmod(0o644)
        for each in (base, base / "shop.example", base / "elsewhere"):
            own_to(each, "mail")
    postfix = Postfix(tables / "virtual-postfix", settings={
        "virtual_mailbox_domains": "shop.example, new.example", "virtual_mailbox_base": str(bases["theirs"]),
        "virtual_mailbox_maps": f"texthash:{tables}/paths-theirs", "virtual_minimum_uid": "1",
        "virtual_uid_maps": f"static:{user.pw_uid}", "virtual_gid_maps": f"static:{user.pw_gid}",
        "recipient_delimiter": "+",
    })  # fmt: skip
    node = Node(tables / "paths", {
        "listener": [mx_listener(ports.port(), tls="none")],
        "map": [{"name": "paths", "kind": "text", "file": str(tables / "paths-ours")}],
        "domain": [
            {"name": name, "path_maps": ["paths"], "path_base": str(bases["ours"])}
            for name in ("shop.example", "new.example")
        ],
    })  # fmt: skip
    postfix.start()
    try:
        with node:
            recipients = ("ada@shop.example", "ada+x@shop.example", "bob@shop.example", "bob+box@shop.example",
                          "who@new.example", "abs@shop.example", "nobody@shop.example")  # fmt: skip
            codes = [[_sent(port, each, each) for each in recipients] for port in (postfix.port, node.port)]
            assert codes[0] == codes[1] == [250] * 6 + [550]
            until(lambda: _boxes(bases["ours"]) == _boxes(bases["theirs"]) and len(_boxes(bases["ours"])) == 5,
                  "both have delivered the same", pause_s=0.2)  # fmt: skip
    finally:
        postfix.stop()


def _boxes(base: Path) -> dict[str, int]:
    """How many messages came into which mailbox."""
    found: dict[str, int] = {}
    for path in base.rglob("*"):
        if path.parent.name == "new" and path.is_file():
            box = str(path.parent.parent.relative_to(base))
            found[box] = found.get(box, 0) + 1
        elif path.suffix == ".mbox":
            found[str(path.relative_to(base))] = path.read_bytes().count(b"Subject: ")
    return found
