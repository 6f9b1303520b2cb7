"""Domains, paths of mailboxes and aliases from a real PostgreSQL, MariaDB and OpenLDAP, in whole nodes."""

from __future__ import annotations

import smtplib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.peers.harness import maildir, ports
from tests.peers.harness.databases import Mariadb, Postgres
from tests.peers.harness.openldap import OpenLdap
from tests.peers.harness.postroad import Node, mx_listener
from tests.peers.harness.process import until

pytestmark = pytest.mark.peer

# kind of entry, key, value
ROWS = [
    ("domain", "shop.example", "x"), ("domain", "two.example", "x"), ("path", "ada@shop.example", "shop.example/ada/"),
    ("path", "o'brien@shop.example", "odd/"), ("path", "bob@two.example", "two.example/bob/"),
    ("path", "postmaster@shop.example", "pm/"), ("path", "postmaster@two.example", "pm/"),
    ("alias", "sales@shop.example", "ada@shop.example, bob@two.example"),
    ("alias", "@two.example", "bob@two.example"),
]  # fmt: skip
TABLE = "CREATE TABLE entry (kind varchar(20), name varchar(200), value varchar(200));"
SQL = TABLE + "".join(
    "INSERT INTO entry VALUES ({});".format(", ".join("'" + each.replace("'", "''") + "'" for each in row))
    for row in ROWS
)
LDIF = """\
dn: dc=example,dc=org
objectClass: dcObject
objectClass: organization
o: example
dc: example
""" + "".join(
    f"\ndn: cn=e{number},dc=example,dc=org\nobjectClass: inetOrgPerson\nsn: x\ncn: e{number}\ntitle: {kind}\n"
    f"mail: {name}\nlabeledURI: {value}\n"
    for number, (kind, name, value) in enumerate(ROWS)
)


@dataclass(frozen=True)
class World:
    node: Node
    server: Any


@pytest.fixture(scope="module", params=["postgresql", "mysql", "ldap"])
def world(request: pytest.FixtureRequest, place: Path) -> Iterator[World]:
    kind = request.param
    folder = place / f"node-{kind}"
    folder.mkdir()
    (folder / "password").write_text("secret\n")
    server = _server(kind, place / f"server-{kind}")
    with server:
        common: dict[str, Any] = {
            "kind": kind, "password_file": "password", "timeout_s": 20, "pause_s": 0.1, "last_good_s": 0, "cache_s": 0,
            "cache_missing_s": 0,
        }  # fmt: skip
        if kind == "ldap":
            common["user"] = "cn=admin,dc=example,dc=org"
            common["url"] = f"ldap://127.0.0.1:{server.port}/dc=example,dc=org?labeledURI?sub"
        else:
            server.sql(("USE mail;" if kind == "mysql" else "") + SQL)
            common["url"] = server.url
        node = Node(folder, {
            "listener": [mx_listener(ports.port(), tls="none")],
            "alias_maps": ["alias"],
            "domain": [{"domain_maps": ["domain"], "path_maps": ["path"], "path_base": str(folder / "mail")}],
            "map": [{"name": name, "query": _query(kind, name), **common} for name in ("domain", "path", "alias")],
        })  # fmt: skip
        node.command("check")
        with node:
            yield World(node, server)


def _server(kind: str, folder: Path) -> Any:
    if kind != "ldap":
        return Mariadb(folder) if kind == "mysql" else Postgres(folder)
    folder.mkdir()
    authority = trustme.CA()
    made = authority.issue_cert("127.0.0.1")
    made.cert_chain_pems[0].write_to_path(folder / "certificate.pem")
    made.private_key_pem.write_to_path(folder / "key.pem")
    return OpenLdap(folder / "ldap", LDIF, folder / "certificate.pem", folder / "key.pem")


def _query(kind: str, name: str) -> str:
    if kind == "ldap":
        return f"(&(title={name})(mail=%s))"
    return f"SELECT value FROM entry WHERE kind = '{name}' AND name = '%s'"


def _codes(node: Node, *to: str) -> dict[str, int]:
    """The recipients that are refused."""
    with smtplib.SMTP("127.0.0.1", node.port, timeout=30) as client:
        try:
            refused = client.sendmail("sender@remote.example", to, "Subject: hello\r\n\r\nhello\r\n")
        except smtplib.SMTPRecipientsRefused as error:
            refused = error.recipients
        return {address: code for address, (code, _) in refused.items()}


def _mail(world: World, path: str) -> Path:
    return world.node.state.parent / "mail" / path


def test_mail_goes_where_the_database_says(world: World) -> None:
    node = world.node
    refused = _codes(
        node, "ada@shop.example", "O'Brien+x@shop.example", "nobody@shop.example", "x@other.example", "any@two.example"
    )
    assert refused == {"nobody@shop.example": 550, "x@other.example": 550}
    for path in ("shop.example/ada", "odd", "two.example/bob"):
        maildir.wait(_mail(world, path))


def test_an_alias_leads_into_two_domains(world: World) -> None:
    before = [len(maildir.raw(_mail(world, path))) for path in ("shop.example/ada", "two.example/bob")]
    assert _codes(world.node, "sales+spring@shop.example") == {}
    for count, path in zip(before, ("shop.example/ada", "two.example/bob"), strict=True):
        maildir.wait(_mail(world, path), count + 1)


def test_route_shows_the_same(world: World) -> None:
    (way,) = world.node.json("route", "sales@shop.example")
    assert way["steps"][0] == "sales@shop.example leads to ada@shop.example, bob@two.example"
    found = {each["destination"].rpartition("mail/")[2] for each in way["targets"]}
    assert found == {"shop.example/ada", "two.example/bob"}


def test_while_the_server_is_away_mail_waits(world: World) -> None:
    """Nobody is refused for good; the mail is taken as soon as the server is back."""
    node, server = world.node, world.server
    before = len(maildir.raw(_mail(world, "shop.example/ada")))
    server.stop()
    until(lambda: _codes(node, "ada@shop.example", "x@new.example") == {"ada@shop.example": 451, "x@new.example": 451},
          "the client is told to wait", within_s=40, pause_s=0.5)  # fmt: skip
    server.start()
    until(lambda: _codes(node, "ada@shop.example") == {}, "the maps answer again", within_s=40, pause_s=0.3)
    maildir.wait(_mail(world, "shop.example/ada"), before + 1)
