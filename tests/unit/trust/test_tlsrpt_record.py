"""The record at `_smtp._tls` (RFC 8460 §3)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroad.trust.tlsrpt_record import TlsrptRecord, select


@pytest.mark.parametrize(
    ("text", "uris"),
    [
        ("v=TLSRPTv1;rua=mailto:reports@example.com", ("mailto:reports@example.com",)),
        ("v=TLSRPTv1; rua=https://reporting.example.com/v1/tlsrpt", ("https://reporting.example.com/v1/tlsrpt",)),
        ("v=TLSRPTv1; rua=mailto:a@b.example , https://b.example/ ;", ("mailto:a@b.example", "https://b.example/")),
        ("v=TLSRPTv1;x-y.z=1;rua=mailto:a@b;ext=a b", ("mailto:a@b",)),
        ("v=TLSRPTv1;rua=http://b.example,mailto:a@b", ("mailto:a@b",)),
    ],
)
def test_records_that_count(text: str, uris: tuple[str, ...]) -> None:
    found = select(["v=spf1 -all", text])
    assert isinstance(found, TlsrptRecord)
    assert found.uris == uris


@pytest.mark.parametrize(
    "texts",
    [
        [], ["v=TLSRPTv1"], ["V=TLSRPTv1;rua=mailto:a@b"], ["v=tlsrptv1;rua=mailto:a@b"], ["v=TLSRPTv2;rua=mailto:a@b"],
        ["v=TLSRPTv1;"], ["v=TLSRPTv1;rua="], ["v=TLSRPTv1;rua=ftp://b"], ["v=TLSRPTv1;rua"],
        ["v=TLSRPTv1;rua=mailto:a@b", "v=TLSRPTv1;rua=mailto:c@d"],
    ],
)  # fmt: skip
def test_records_that_do_not(texts: list[str]) -> None:
    assert isinstance(select(texts), str)


@given(st.lists(st.text().map(lambda text: "v=TLSRPTv1;" + text), max_size=2))
def test_any_text(texts: list[str]) -> None:
    select(texts)
