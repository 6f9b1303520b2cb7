"""Lines of zone files: dnspython reads what we write."""

from __future__ import annotations

import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.zone
import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroad.trust import zone

_HEAD = "$TTL 60\n@ IN SOA ns.example.org. a.example.org. 1 60 60 60 60\n@ IN NS ns.example.org.\n"


def _read(line: str, name: str = "x") -> bytes:
    read = dns.zone.from_text(_HEAD + line + "\n", "example.org", relativize=True)
    [record] = read.get_rdataset(name, "TXT")
    assert all(len(each) <= 255 for each in record.strings)
    return b"".join(record.strings)


@pytest.mark.parametrize("length", [0, 1, 254, 255, 256, 510, 511, 4_000])
def test_text_of_any_length_is_split_into_strings(length: int) -> None:
    text = ("v=DKIM1; p=" + "A" * length)[:length]
    assert _read(zone.txt_record("x.example.org", text)) == text.encode()


@given(st.text(max_size=600))
def test_any_text_is_read_as_it_was_written(text: str) -> None:
    assert _read(zone.txt_record("x.example.org", text)) == text.encode()
