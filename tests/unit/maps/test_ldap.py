"""LDAP's octets: filters, and answers that no server should send (tests/peers/test_map_ldap.py asks OpenLDAP)."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroad.maps import ldap
from postroad.maps.ldap import LdapDriver, LdapText, elements, integer, ldap_driver, read_base, read_filter, tlv
from postroad.maps.waiting import Away
from postroad.world.problem import Problem


@pytest.mark.parametrize(
    ("text", "values", "octets"),
    [
        ("(mail=%s)", [b"a@b"], tlv(0xA3, tlv(4, b"mail") + tlv(4, b"a@b"))),
        ("(!(a=%s))", [b"x"], tlv(0xA2, tlv(0xA3, tlv(4, b"a") + tlv(4, b"x")))),
        (r"(a=\28%%%s)", [b"*"], tlv(0xA3, tlv(4, b"a") + tlv(4, b"(%*"))),
        ("(&(a=*)(b>=%u)(c<=1)(d~=%d))", [b"u", b"d"], tlv(
            0xA0,
            tlv(0x87, b"a") + tlv(0xA5, tlv(4, b"b") + tlv(4, b"u")) + tlv(0xA6, tlv(4, b"c") + tlv(4, b"1"))
            + tlv(0xA8, tlv(4, b"d") + tlv(4, b"d")),
        )),
        ("(a=x*%s*)", [b"*y"], tlv(0xA4, tlv(4, b"a") + tlv(0x30, tlv(0x80, b"x") + tlv(0x81, b"*y")))),
    ],
)  # fmt: skip
def test_filters(text: str, values: list[bytes], octets: bytes) -> None:
    found = read_filter(text)
    assert isinstance(found, LdapText) and found.encode(values) == octets


@pytest.mark.parametrize(
    "text", ["", "mail=%s", "(mail=%s", "(mail=x)", "(mail=%s)x", "(=%s)", "(!(a=%s)(b=1))", "(&)", r"(a=%s\z)",
             "(a=%x%s)", "(" * 100 + "a=%s" + ")" * 100, "(&" * 30 + "(a=%s)" + ")" * 30, "(%s=a)"]
)  # fmt: skip
def test_filters_that_cannot_be_read(text: str) -> None:
    assert isinstance(read_filter(text), str)


@given(st.text(max_size=60))
def test_no_text_breaks_the_reader_of_filters(text: str) -> None:
    read_filter(text)


@given(st.integers(0, 2**31 - 1), st.binary(max_size=300))
def test_what_is_written_is_read(number: int, octets: bytes) -> None:
    assert list(elements(integer(number) + tlv(4, octets))) == [(2, integer(number)[2:]), (4, octets)]
    assert int.from_bytes(integer(number)[2:], "big", signed=True) == number


@given(st.binary(max_size=200))
def test_any_octets_end(octets: bytes) -> None:
    with contextlib.suppress(ValueError):
        list(elements(octets))
    for read in (ldap._result, lambda content: ldap._values(content, ("mail",))):
        with contextlib.suppress(ValueError, Away):
            read(octets)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    "said",
    [b"HTTP/1.1 400 no\r\n\r\n", b"\x30\x80", b"\x30\x03\x02\x01", b"\x30\x00",
     b"\x30\x05\x02\x01\x01\x65\x09",
     tlv(0x30, integer(0) + tlv(0x78, b"")), tlv(0x30, integer(1) + tlv(0x65, b"\x0a")), b""],
)  # fmt: skip
async def test_a_server_that_says_what_it_should_not_is_away(said: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(said)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"ldap://127.0.0.1:{server.sockets[0].getsockname()[1]}/dc=x?mail?sub"
    driver = ldap_driver("map it", url, "(mail=%s)", "", "", "", starttls=False)
    assert isinstance(driver, LdapDriver)
    with pytest.raises(Away):
        await asyncio.wait_for(driver.fetch("ada", False), 20)
    server.close()


@pytest.mark.parametrize(
    ("url", "query", "user"),
    [("http://x/dc=x?mail", "(a=%s)", ""), ("ldap:///dc=x?mail", "(a=%s)", ""), ("ldap://x/?mail", "(a=%s)", ""),
     ("ldap://x/dc=x", "(a=%s)", ""), ("ldap://x/dc=x?mail?all", "(a=%s)", ""), ("ldap://x/dc=x?mail", "(a=b)", ""),
     ("ldap://x/dc=x?mail", "(a=%s)", "cn=x"), ("ldap://cn=x:y@x/dc=x?mail", "(a=%s)", "")],
)  # fmt: skip
def test_what_cannot_be_used_is_a_problem(url: str, query: str, user: str) -> None:
    assert isinstance(ldap_driver("map it", url, query, user, "", "", starttls=False), Problem)


def test_a_key_is_a_value_in_a_base() -> None:
    base = read_base("cn=%u,ou=a%20b,dc=%d,o=50%25")
    assert isinstance(base, LdapText) and base.letters == ("u", "d")
    assert base.encode([b"ada", b"x.org"]) == b"cn=ada,ou=a b,dc=x.org,o=50%"
    assert base.encode([b'# a,b=c+"\\\0', "ä".encode()]) == (
        b"cn=\\23\\20a\\2cb\\3dc\\2b\\22\\5c\\00,ou=a b,dc=" + "ä".encode() + b",o=50%"
    )
    assert isinstance(read_base("dc=%x"), str)
