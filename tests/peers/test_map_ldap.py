"""Maps in a real OpenLDAP: filters, odd keys, TLS, a server that goes and comes back."""

from __future__ import annotations

from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from postroad.maps.face import Answer, Map, NotNow
from postroad.maps.maps import Maps, make
from postroad.maps.options import MapKind, MapOptions
from postroad.maps.waiting import WaitingOptions
from postroad.world.clock import SystemClock
from tests.peers.harness.openldap import OpenLdap

pytestmark = pytest.mark.peer

_PERSON = """
dn: cn={name},ou=people,dc=example,dc=org
objectClass: inetOrgPerson
sn: {name}
cn: {name}
mail: {mail}
{more}
"""
ENTRIES = """\
dn: dc=example,dc=org
objectClass: dcObject
objectClass: organization
o: example
dc: example

dn: ou=people,dc=example,dc=org
objectClass: organizationalUnit
ou: people
""" + "".join(
    _PERSON.format(name=name, mail=mail, more=more)
    for name, mail, more in (
        ("ada", "ada@x.org", "labeledURI: ada@store.example\nlabeledURI: copy@store.example"),
        ("odd", "o'b(r)ie*n\\@x.org", "labeledURI: odd@store.example"),
        ("bob", "bob@x.org", "labeledURI: bob@store.example"),
        ("bob2", "bob@x.org", "labeledURI: bob2@store.example"),
        ("plain", "plain@x.org", "title: x"),
    )
)


@pytest.fixture(scope="module")
def roots(place: Path) -> tuple[Path, Path, Path]:
    authority = trustme.CA()
    made = authority.issue_cert("127.0.0.1", "localhost")
    files = place / "roots.pem", place / "certificate.pem", place / "key.pem"
    authority.cert_pem.write_to_path(files[0])
    made.cert_chain_pems[0].write_to_path(files[1])
    made.private_key_pem.write_to_path(files[2])
    return files


@pytest.fixture(scope="module")
def server(place: Path, roots: tuple[Path, Path, Path]) -> Iterator[OpenLdap]:
    with OpenLdap(place / "ldap", ENTRIES, roots[1], roots[2]) as made:
        yield made


def options(place: Path, url: str, query: str, *, password: str = "secret", **more: Any) -> MapOptions:
    (place / "password").write_text(f"{password}\n")
    waiting = WaitingOptions(timeout_s=20, failures_max=9, pause_s=0.1, cache_s=0, cache_missing_s=0, last_good_s=0)
    return MapOptions(
        "it", MapKind.LDAP, url=url, query=query, password_file=str(place / "password"),
        user="cn=admin,dc=example,dc=org", waiting=waiting, **more,
    )  # fmt: skip


def made(wanted: MapOptions) -> Maps:
    found = make([wanted], SystemClock(), lambda level, text: None)
    assert isinstance(found, Maps), found
    return found


async def ask(map: Map, key: str) -> Answer:
    found: Answer | Awaitable[Answer] = map.look_up(key)
    return found if found is None or isinstance(found, str | NotNow) else await found


BASE = "dc=example,dc=org?labeledURI?sub"


@pytest.mark.parametrize(
    ("query", "key", "value"),
    [
        ("(mail=%s)", "Ada@X.org", "ada@store.example,copy@store.example"),
        ("(mail=%s)", "bob@x.org", "bob@store.example,bob2@store.example"),
        ("(mail=%s)", "nobody@x.org", None),
        ("(mail=%s)", "plain@x.org", None),  # it has no such attribute
        ("(mail=%s)", "*", None),
        ("(mail=%s)", "*)(objectClass=*", None),
        ("(mail=%s)", "o'b(r)ie*n\\@x.org", "odd@store.example"),
        ("(mail=%s)", "\0", None),
        ("(mail=%s)", "ä@x.org", None),
        ("(&(objectClass=inetOrgPerson)(mail=%u@%d))", "ada@x.org", "ada@store.example,copy@store.example"),
        ("(&(objectClass=inetOrgPerson)(mail=%u@%d))", "ada", None),
        ("(&(!(cn=bob2))(mail=%s))", "bob@x.org", "bob@store.example"),
        ("(|(cn=%u)(cn=b\\6fb))", "ada@x.org", "ada@store.example,copy@store.example,bob@store.example"),
        ("(&(cn=*d*)(mail=%u*.org)(sn=*))", "ada@x.org", "ada@store.example,copy@store.example"),
        ("(&(cn=ada)(uid>=%s))", "ada@x.org", None),
    ],
)
async def test_filters(server: OpenLdap, tmp_path: Path, query: str, key: str, value: str | None) -> None:
    maps = made(options(tmp_path, f"ldap://127.0.0.1:{server.port}/{BASE}", query))
    found = await ask(maps["it"], key)
    assert (found.split(",") if isinstance(found, str) else found) == (value.split(",") if value else value)
    maps.close()


async def test_a_part_of_the_key_in_the_base(server: OpenLdap, tmp_path: Path) -> None:
    """The answers are those of Postfix 3.7: without such a base there is no such key."""
    url = f"ldap://127.0.0.1:{server.port}/cn=%u,ou=people,dc=example,dc=org?labeledURI?base"
    maps = made(options(tmp_path, url, "(objectClass=*)"))
    for key, value in (("ada@x.org", "ada@store.example,copy@store.example"), ("nobody@x.org", None),
                       ("bob,ou=people,dc=example,dc=org@x.org", None), ('"# +=<>;\\"@x.org', None)):  # fmt: skip
        assert await ask(maps["it"], key) == value, key
    maps.close()


async def test_tls(server: OpenLdap, tmp_path: Path, roots: tuple[Path, Path, Path]) -> None:
    for url, more in (
        (f"ldaps://127.0.0.1:{server.tls_port}/{BASE}", {}),
        (f"ldap://127.0.0.1:{server.port}/{BASE}", {"starttls": True}),
    ):
        maps = made(options(tmp_path, url, "(mail=%s)", ca_file=str(roots[0]), **more))
        assert await ask(maps["it"], "ada@x.org") == "ada@store.example,copy@store.example"
        assert await ask(maps["it"], "nobody@x.org") is None
        maps.close()
        maps = made(options(tmp_path, url, "(mail=%s)", **more))  # an authority that the system does not know
        answer = await ask(maps["it"], "ada@x.org")
        assert isinstance(answer, NotNow) and "certificate" in answer.text.lower()


async def test_what_the_server_refuses_is_not_now(server: OpenLdap, tmp_path: Path) -> None:
    url = f"ldap://127.0.0.1:{server.port}/{BASE}"
    answer = await ask(made(options(tmp_path, url, "(mail=%s)", password="wrong"))["it"], "ada@x.org")
    assert isinstance(answer, NotNow) and "49" in answer.text and "wrong" not in answer.text
    elsewhere = options(tmp_path, f"ldap://127.0.0.1:{server.port}/dc=nowhere?mail?base", "(mail=%s)")
    answer = await ask(made(elsewhere)["it"], "ada@x.org")  # a base that is not there, or may not be seen
    assert isinstance(answer, NotNow) and "32" in answer.text
    nobody = options(tmp_path, "ldap://127.0.0.1:1/dc=x?mail?sub", "(mail=%s)")
    assert isinstance(await ask(made(nobody)["it"], "ada@x.org"), NotNow)


async def test_a_server_that_goes_and_comes_back(server: OpenLdap, tmp_path: Path) -> None:
    maps = made(options(tmp_path, f"ldap://127.0.0.1:{server.port}/{BASE}", "(mail=%s)"))
    assert await ask(maps["it"], "bob@x.org") == "bob@store.example,bob2@store.example"
    server.stop()
    assert isinstance(await ask(maps["it"], "bob@x.org"), NotNow)
    server.start()
    assert await ask(maps["it"], "bob@x.org") == "bob@store.example,bob2@store.example"
    maps.close()
