"""The DNS codec against dnspython, the oracle, and against octets that no server should send."""

from __future__ import annotations

import random

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroad.world import wire
from postroad.world.wire import MxRecord, TlsaRecord
from tests.unit.world.fake_dns import answer, records

SOA = "example.org. 600 IN SOA ns.example.org. root.example.org. 1 2 3 4 60"


def query(name: str = "example.org", kind: str = "MX") -> dns.message.Message:
    return dns.message.make_query(name, kind, use_edns=0)


@pytest.mark.parametrize("payload", [0, 512, 1232])
@pytest.mark.parametrize("name", ["example.org", "a.b.c.example.org", "x" * 63 + ".org", "_dmarc.example.org"])
def test_a_query_is_what_dnspython_reads(name: str, payload: int) -> None:
    encoded = wire.encode_name(name)
    assert encoded is not None
    read = dns.message.from_wire(wire.encode_query(4711, encoded, wire.MX, payload))
    assert read.id == 4711
    assert read.flags == dns.flags.RD | dns.flags.AD
    assert read.question[0].to_text() == f"{name}. IN MX"
    assert read.edns == (0 if payload else -1)
    assert not payload or read.payload == payload


@pytest.mark.parametrize(
    "name", ["", ".", "a..b", ".a", "x" * 64, ".".join(["x" * 63] * 4), "ü.example", "a\\.b.example"]
)
def test_names_that_cannot_be(name: str) -> None:
    assert wire.encode_name(name) is None


def test_the_longest_name() -> None:
    name = ".".join(["x" * 63] * 3 + ["y" * 61])
    encoded = wire.encode_name(name)
    assert encoded == dns.name.from_text(name).to_wire()
    assert encoded is not None and len(encoded) == 255


ANSWERS = [
    (["example.org. 300 IN MX 10 MX1.Example.Org.", "example.org. 300 IN MX 5 mx2.example.net."], "MX",
     [MxRecord(10, "mx1.example.org"), MxRecord(5, "mx2.example.net")]),
    (["example.org. 300 IN MX 0 ."], "MX", [MxRecord(0, "")]),
    (["example.org. 300 IN A 192.0.2.1"], "A", ["192.0.2.1"]),
    (["example.org. 300 IN AAAA 2001:db8:0::1"], "AAAA", ["2001:db8::1"]),
    (["example.org. 300 IN CNAME www.example.net."], "A", ["www.example.net"]),
    (['example.org. 300 IN TXT "v=spf1 " "-all"'], "TXT", ["v=spf1 -all"]),
    (['example.org. 300 IN TXT "gr\\195\\188n" "\\255"'], "TXT", ["grün\\xff"]),
    (["example.org. 300 IN PTR a\\.b\\000c.example."], "PTR", ["a\\.b\\000c.example"]),
    (["example.org. 300 IN CNAME www.example.net."], "CNAME", ["www.example.net"]),
    (["example.org. 300 IN TLSA 3 1 1 " + "ab" * 32, "example.org. 300 IN TLSA 2 0 0 cdef"], "TLSA",
     [TlsaRecord(3, 1, 1, b"\xab" * 32), TlsaRecord(2, 0, 0, b"\xcd\xef")]),
    (["example.org. 300 IN SRV 1 2 3 host.example.", "example.org. 300 IN A 192.0.2.1"], "A", ["192.0.2.1"]),
]  # fmt: skip


@pytest.mark.parametrize(("lines", "kind", "values"), ANSWERS)
def test_answers(lines: list[str], kind: str, values: list[wire.Value]) -> None:
    read = wire.decode(answer(query(kind=kind), *lines).to_wire())
    assert read is not None
    assert sorted(map(str, (record.value for record in read.answers))) == sorted(map(str, values))
    assert {record.owner for record in read.answers} == {"example.org"}
    assert {record.ttl_s for record in read.answers} == {300}
    assert read.question == ("example.org", _TYPES[kind])


_TYPES = {"MX": 15, "A": 1, "AAAA": 28, "TXT": 16, "PTR": 12, "CNAME": 5, "TLSA": 52}


@pytest.mark.parametrize(
    ("rcode", "authority", "expected"),
    [
        (dns.rcode.NOERROR, [SOA], (0, 60, False)),
        (dns.rcode.NXDOMAIN, [SOA.replace(" 600 ", " 30 ")], (3, 30, False)),
        (dns.rcode.NOERROR, ["org. 600 IN NS a.example."], (0, None, True)),
        (dns.rcode.NOERROR, [], (0, None, False)),
        (dns.rcode.SERVFAIL, [], (2, None, False)),
        (dns.rcode.BADVERS, [], (16, None, False)),
    ],
)
def test_negative_answers(rcode: int, authority: list[str], expected: tuple[int, int | None, bool]) -> None:
    read = wire.decode(answer(query(), rcode=rcode, authority=authority).to_wire())
    assert read is not None
    assert (read.rcode, read.negative_ttl_s, read.referral) == expected


def test_flags() -> None:
    made = answer(query(), "example.org. 300 IN MX 1 a.example.", flags=dns.flags.AD)
    read = wire.decode(made.to_wire())
    assert read is not None and read.authentic and not read.truncated
    made.flags = made.flags & ~dns.flags.AD | dns.flags.TC
    read = wire.decode(made.to_wire())
    assert read is not None and read.truncated and not read.authentic and read.answers == ()


def test_a_query_is_no_answer() -> None:
    assert wire.decode(query().to_wire()) is None


def test_every_cut_is_noticed() -> None:
    made = answer(query(), "example.org. 300 IN MX 1 a.example.", 'b.example.org. 1 IN TXT "x" "y"', authority=[SOA])
    octets = made.to_wire()
    assert wire.decode(octets) is not None
    for end in range(len(octets) - 11):  # the OPT record at the end is 11 octets
        assert wire.decode(octets[:end]) is None, end
    assert wire.decode(octets + b"behind it") == wire.decode(octets)


HEADER = bytes.fromhex("12348180000100010000000003") + b"org" + bytes.fromhex("0000010001")


@pytest.mark.parametrize(
    "record",
    [
        b"\xc0\x18" + bytes.fromhex("00010001000000000004") + bytes(4),  # a pointer to itself
        b"\xc0\xff" + bytes.fromhex("00010001000000000004") + bytes(4),  # forward
        b"\xc0\x0c" + bytes.fromhex("00010001000000000005") + bytes(5),  # an A record of five octets
        b"\xc0\x0c" + bytes.fromhex("00010001000000000003") + bytes(3),
        b"\xc0\x0c" + bytes.fromhex("00050001000000000002") + b"\x01a\x00",  # a name longer than its record
        b"\xc0\x0c" + bytes.fromhex("00050001000000000004") + b"\x01a\x00\x00",  # or shorter
        b"\xc0\x0c" + bytes.fromhex("0010000100000000ffff") + b"\x01a",
        b"\xc0\x0c" + bytes.fromhex("00100001000000000002") + b"\x05a",
        b"\x41a" + bytes.fromhex("00010001000000000004") + bytes(4),  # no such kind of label
        (b"\x3f" + b"x" * 63) * 5 + b"\x00" + bytes.fromhex("00010001000000000004") + bytes(4),
    ],
)
def test_octets_that_no_server_should_send(record: bytes) -> None:
    assert wire.decode(HEADER + record) is None


def test_a_long_chain_of_pointers_ends() -> None:
    # 5,000 pointers, each to the one before it
    chain = b"\x00" + b"".join((0xC000 | max(30, 31 + 2 * (number - 1))).to_bytes(2, "big") for number in range(5000))
    octets = bytes.fromhex("123481800000000200000000") + b"\x00" + bytes.fromhex("00ff00010000000027ff")
    padding = 30 - len(octets)
    body = bytes(padding) + chain
    assert wire.decode(octets[:-2] + len(body).to_bytes(2, "big") + body + b"\xe7\x00" + bytes(10)) is None


def test_each_octet_in_a_name_is_written_as_dnspython_writes_it() -> None:
    for octet in range(256):
        label = bytes((3,)) + b"a" + bytes((octet,)) + b"b\0"
        record = b"\xc0\x0c" + bytes.fromhex("00050001000000000005") + label
        read = wire.decode(HEADER + record)
        assert read is not None
        written = str(dns.name.Name([b"a" + bytes((octet,)) + b"b", b""]).canonicalize()).removesuffix(".")
        assert [each.value for each in read.answers] == [written], octet


@given(st.binary(max_size=300))
def test_any_octets(octets: bytes) -> None:
    wire.decode(octets)


@given(st.tuples(*[st.integers(0, 255)] * 3), st.binary(max_size=80), st.binary(max_size=20))
def test_any_tlsa_record_is_read_as_dnspython_reads_it(numbers: tuple[int, ...], data: bytes, behind: bytes) -> None:
    octets = _one_record(wire.TLSA, bytes(numbers) + data, behind)
    read = wire.decode(octets)
    assert read is not None
    found = [record.value for record in read.answers]
    assert found == [TlsaRecord(*numbers, data)]
    assert str(found[0]) == " ".join((*map(str, numbers), data.hex()))
    try:
        (rrset,) = dns.message.from_wire(octets, ignore_trailing=True).answer
    except dns.exception.FormError:  # dnspython refuses digests of a wrong length; here that is DANE's to judge
        assert not data or len(data) != {1: 32, 2: 64}[numbers[2]]
        return
    assert [(each.usage, each.selector, each.mtype, each.cert) for each in rrset] == [(*numbers, data)]


@given(st.data())
def test_a_changed_octet_never_raises_and_reads_as_dnspython_does(data: st.DataObject) -> None:
    lines = ("example.org. 300 IN MX 1 a.example.org.", "example.org. 300 IN MX 2 b.org.")
    made = answer(query(), *lines, authority=[SOA])
    octets = bytearray(made.to_wire())
    octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    read = wire.decode(bytes(octets))
    try:
        oracle = dns.message.from_wire(bytes(octets), ignore_trailing=True)
    except Exception:
        return  # dnspython reads more than we do, and so finds more faults
    if read is None or read.truncated:
        return
    assert read.id == oracle.id
    expected = {
        (str(rrset.name.canonicalize()).removesuffix("."), rdata.preference)
        for rrset in oracle.answer
        if rrset.rdtype == wire.MX and rrset.rdclass == 1
        for rdata in rrset
    }
    assert {(r.owner, r.value.preference) for r in read.answers if isinstance(r.value, MxRecord)} == expected


def test_many_records() -> None:
    chance = random.Random(1)
    lines = [f"example.org. 60 IN MX {chance.randrange(99)} mx{number}.example.org." for number in range(500)]
    read = wire.decode(answer(query(), *lines).to_wire(max_size=65535))
    assert read is not None
    expected = {(rdata.preference, str(rdata.exchange).rstrip(".")) for rdata in records(*lines)[0]}
    assert {(r.value.preference, r.value.exchange) for r in read.answers if isinstance(r.value, MxRecord)} == expected


# RFC 1035 §3.3, §3.4.1, RFC 3596 §2.2: right rdata of each type, and what it must be read as.
RDATA = {
    wire.A: (bytes((192, 0, 2, 1)), "192.0.2.1"),
    wire.AAAA: (bytes.fromhex("20010db8000000000000000000000001"), "2001:db8::1"),
    wire.MX: (b"\0\x0a\x02mx\0", MxRecord(10, "mx")),
    wire.CNAME: (b"\x02mx\0", "mx"),
    wire.PTR: (b"\x02mx\0", "mx"),
    wire.TXT: (b"\x01a\x01b", "ab"),
    wire.TLSA: (bytes((3, 1, 1)) + b"\xab" * 4, TlsaRecord(3, 1, 1, b"\xab" * 4)),
}


def _one_record(type: int, rdata: bytes, behind: bytes = b"") -> bytes:
    head = HEADER[:2] + HEADER[2:6] + b"\0\x01\0\0\0\0" + HEADER[12:]
    record = b"\xc0\x0c" + type.to_bytes(2, "big") + b"\0\x01\0\0\0\x3c" + len(rdata).to_bytes(2, "big") + rdata
    return head + record + behind


@pytest.mark.parametrize("type", RDATA)
@pytest.mark.parametrize("behind", [b"", b"\0" * 40, b"\xc0\x0c" * 20, b"\x02mx\0" * 10])
def test_rdata_that_is_empty_too_short_or_too_long(type: int, behind: bytes) -> None:
    """What stands behind a short record is not read as a part of it: the whole answer counts for nothing."""
    rdata, value = RDATA[type]
    whole = wire.decode(_one_record(type, rdata, behind))
    assert whole is not None and [record.value for record in whole.answers] == [value]
    short = [rdata[:size] for size in range(len(rdata))]
    for wrong in (*short, rdata + b"\0", rdata + b"\x05", rdata + b"\x09" * 8):
        read = wire.decode(_one_record(type, wrong, behind))
        if type == wire.TXT:  # strings may follow one another, or be none
            assert read is None or all(str(record.value) in ("", "a", "ab") for record in read.answers), wrong
        elif type == wire.TLSA and len(wrong) >= 3:  # its data may have any length
            assert read is not None and [each.value for each in read.answers] == [TlsaRecord(3, 1, 1, wrong[3:])]
        else:
            assert read is None, wrong


@pytest.mark.parametrize("size", range(22))
def test_a_soa_that_is_too_short_says_nothing_of_time(size: int) -> None:
    soa = (b"\0\0" + bytes(20))[:size]
    head = HEADER[:6] + b"\0\0\0\x01\0\0" + HEADER[12:]
    record = b"\xc0\x0c\0\x06\0\x01\0\0\0\x3c" + size.to_bytes(2, "big") + soa
    read = wire.decode(head + record + b"\0" * 40)
    assert read is not None and read.negative_ttl_s is None and not read.referral


def test_a_record_of_a_type_that_nobody_reads_may_be_of_any_length() -> None:
    for size in (0, 1, 255):
        read = wire.decode(_one_record(99, bytes(size)))
        assert read is not None and read.answers == ()
