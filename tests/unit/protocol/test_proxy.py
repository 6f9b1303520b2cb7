"""PROXY headers: what is read from them, what is refused, and that nothing behind them is touched."""

from __future__ import annotations

import pytest

from postroad.protocol.proxy import BadProxyHeader, Header, HeaderReader, Secured, crc32c
from tests.unit.protocol.proxying import SIGNATURE, raw, tls, tlv, v1, v2

UNIX = b"/run/client".ljust(108, b"\0") + b"/run/server".ljust(108, b"\0")

GOOD = {
    "v1 TCP4": (v1(), Header(1, False, "192.0.2.7", 51_234, "198.51.100.1", 25)),
    "v1 TCP6": (
        v1("2001:DB8::7", 1, "2001:db8:0:0:0:0:0:1", 65_535),
        Header(1, False, "2001:db8::7", 1, "2001:db8::1", 65_535),
    ),
    "v1 longest": (
        b"PROXY TCP6 " + b"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff " * 2 + b"65535 65535\r\n",
        Header(1, False, *("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65_535) * 2),
    ),
    "v1 UNKNOWN": (b"PROXY UNKNOWN\r\n", Header(1, local=True)),
    "v1 UNKNOWN with addresses": (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", Header(1, local=True)),
    "v2 TCP4": (v2(), Header(2, False, "192.0.2.7", 51_234, "198.51.100.1", 25)),
    "v2 TCP6": (
        v2("2001:db8::7", 1, destination="2001:db8::1", to=465),
        Header(2, False, "2001:db8::7", 1, "2001:db8::1", 465),
    ),
    "v2 an IPv4 client on an IPv6 socket": (
        v2("::ffff:192.0.2.7", 1, destination="::ffff:192.0.2.8"),
        Header(2, False, "192.0.2.7", 1, "192.0.2.8", 25),
    ),
    "v2 Unix": (raw(0x31, UNIX), Header(2)),
    "v2 UNSPEC": (raw(0, b""), Header(2, local=True)),
    "v2 LOCAL": (raw(0, b"", command=0), Header(2, local=True)),
    "v2 LOCAL with a block that counts for nothing": (
        raw(0x12, b"whatever", command=0), Header(2, local=True),
    ),
    "v2 datagrams": (
        raw(0x22, bytes(36)), Header(2, local=True),
    ),
    "v2 TLVs": (
        v2("192.0.2.7", 9, tlv(1, b"h2"), tlv(2, b"mx.example"), tlv(5, b"a-1"), tlv(4, b"no-op"), tlv(0xEE, b"?")),
        Header(2, False, "192.0.2.7", 9, "198.51.100.1", 25, "mx.example", "h2", "a-1"),
    ),
    "v2 an opaque id": (
        v2("192.0.2.7", 9, tlv(5, b"\x00\xff")),
        Header(2, False, "192.0.2.7", 9, "198.51.100.1", 25, unique_id="00ff"),
    ),
    "v2 checksum": (v2(checked=True), Header(2, False, "192.0.2.7", 51_234, "198.51.100.1", 25)),
    "v2 TLS": (
        v2("192.0.2.7", 9, tls()),
        Header(2, False, "192.0.2.7", 9, "198.51.100.1", 25, secured=Secured("TLSv1.3", "TLS_AES_256_GCM_SHA384")),
    ),
    "v2 TLS with a certificate": (
        v2("192.0.2.7", 9, tls(name=b"Ann", client=3)),
        Header(2, False, "192.0.2.7", 9, "198.51.100.1", 25,
               secured=Secured("TLSv1.3", "TLS_AES_256_GCM_SHA384", "Ann", True)),
    ),
    "v2 TLS with a bad certificate": (
        v2("192.0.2.7", 9, tls(name=b"Ann\x1b", client=5, verify=18)),
        Header(2, False, "192.0.2.7", 9, "198.51.100.1", 25,
               secured=Secured("TLSv1.3", "TLS_AES_256_GCM_SHA384", "Ann?", False)),
    ),
    "v2 a name without a certificate": (
        v2("192.0.2.7", 9, tls(name=b"Ann", client=1)),
        Header(2, False, "192.0.2.7", 9, "198.51.100.1", 25, secured=Secured("TLSv1.3", "TLS_AES_256_GCM_SHA384")),
    ),
    "v2 no TLS": (
        v2("192.0.2.7", 9, tls(client=0)), Header(2, False, "192.0.2.7", 9, "198.51.100.1", 25),
    ),
}

BAD = {
    "SMTP": b"EHLO client.example\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00",
    "lower case": b"proxy TCP4 192.0.2.7 192.0.2.8 1 2\r\n",
    "v1 without an end": b"PROXY UNKNOWN " + b"x" * 93,
    "v1 too long by one": b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",
    "v1 a bare LF": b"PROXY TCP4 192.0.2.7 192.0.2.8 1 2\nEHLO x\r\n",
    "v1 two spaces": b"PROXY TCP4  192.0.2.7 192.0.2.8 1 2\r\n",
    "v1 something behind": b"PROXY TCP4 192.0.2.7 192.0.2.8 1 2 3\r\n",
    "v1 no address": b"PROXY TCP4 192.0.2.777 192.0.2.8 1 2\r\n",
    "v1 the other family": b"PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
    "v1 a zone": b"PROXY TCP6 fe80::1%eth0 fe80::2 1 2\r\n",
    "v1 a port too high": b"PROXY TCP4 192.0.2.7 192.0.2.8 65536 2\r\n",
    "v1 a port with a zero": b"PROXY TCP4 192.0.2.7 192.0.2.8 025 2\r\n",
    "v1 a sign": b"PROXY TCP4 192.0.2.7 192.0.2.8 +25 2\r\n",
    "v1 UDP": b"PROXY UDP4 192.0.2.7 192.0.2.8 1 2\r\n",
    "v2 another version": raw(0x11, bytes(12), version=1),
    "v2 another command": raw(0x11, bytes(12), command=2),
    "v2 datagrams too short": raw(0x12, bytes(11)),
    "v2 no transport": raw(0x13, bytes(12)),
    "v2 half a family": raw(0x10, bytes(12)),
    "v2 too short": raw(0x21, bytes(12)),
    "v2 a TLV too long": v2("192.0.2.7", 9, b"\x05\x00\x09abc"),
    "v2 half a TLV": v2("192.0.2.7", 9, b"\x05\x00"),
    "v2 an id too long": v2("192.0.2.7", 9, tlv(5, b"x" * 129)),
    "v2 TLS too short": v2("192.0.2.7", 9, tlv(0x20, b"\1\0\0")),
    "v2 TLS broken": v2("192.0.2.7", 9, tlv(0x20, b"\1\0\0\0\0\x21\0\x09x")),
    "v2 a wrong checksum": v2(checked=True)[:-1] + b"\0",
    "v2 a checksum of three octets": v2("192.0.2.7", 9, tlv(3, b"\0\0\0")),
    "v2 too large": SIGNATURE + b"\x21\x11\xff\xff",
    "v2 a signature that breaks off": SIGNATURE[:-1] + b"?",
}


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("behind", [b"", b"\x16\x03\x01rest", b"PROXY UNKNOWN\r\n"])
def test_a_header_and_not_one_octet_more(name: str, behind: bytes) -> None:
    octets, header = GOOD[name]
    reader = HeaderReader()
    assert reader.take(octets + behind) == len(octets)
    assert reader.result == header
    assert reader.take(behind) == 0


@pytest.mark.parametrize("name", GOOD)
def test_split_at_every_octet(name: str) -> None:
    octets, header = GOOD[name]
    for cut in range(1, len(octets)):
        reader = HeaderReader()
        assert reader.take(octets[:cut]) == cut and reader.result is None
        assert reader.take(octets[cut:] + b"behind") == len(octets) - cut
        assert reader.result == header
    reader = HeaderReader()
    assert [reader.take(octets[at : at + 1]) for at in range(len(octets))] == [1] * len(octets)
    assert reader.result == header


@pytest.mark.parametrize("name", BAD)
def test_a_fault(name: str) -> None:
    octets = BAD[name]
    whole, split = HeaderReader(), HeaderReader()
    whole.take(octets)
    for at in range(len(octets)):
        split.take(octets[at : at + 1])
    assert isinstance(whole.result, BadProxyHeader) and isinstance(split.result, BadProxyHeader)
    assert whole.take(b"PROXY UNKNOWN\r\n") == 0 and isinstance(whole.result, BadProxyHeader)


@pytest.mark.parametrize(("versions", "octets"), [({1}, v2()), ({2}, v1())])
def test_only_the_versions_that_were_asked_for(versions: set[int], octets: bytes) -> None:
    reader = HeaderReader(frozenset(versions))
    reader.take(octets)
    assert isinstance(reader.result, BadProxyHeader)


def test_the_limit_of_a_header_is_exact() -> None:
    octets = v2("192.0.2.7", 9, tlv(4, bytes(600)))
    reader = HeaderReader(size_max=len(octets))
    assert reader.take(octets) == len(octets) and isinstance(reader.result, Header)
    reader = HeaderReader(size_max=len(octets) - 1)
    reader.take(octets)
    assert isinstance(reader.result, BadProxyHeader)


def test_crc32c() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # the check value of CRC-32C
    assert crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720 B.4
