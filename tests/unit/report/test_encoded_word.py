"""RFC 2047, for showing."""

from __future__ import annotations

import pytest

from postroad.report.encoded_word import decode


@pytest.mark.parametrize(
    ("text", "decoded"),
    [
        ("plain", "plain"),
        ("=?ISO-8859-1?Q?a?=", "a"),
        # RFC 2047 §8
        ("=?ISO-8859-1?Q?a?= b", "a b"),
        ("=?ISO-8859-1?Q?a?= =?ISO-8859-1?Q?b?=", "ab"),
        ("=?ISO-8859-1?Q?a?=  \t =?ISO-8859-1?Q?b?=", "ab"),
        ("=?ISO-8859-1?Q?a_b?=", "a b"),
        ("=?ISO-8859-1?Q?a?= =?ISO-8859-2?Q?_b?=", "a b"),
        ("=?US-ASCII*EN?Q?Keith_Moore?=", "Keith Moore"),
        ("=?utf-8?b?R3LDvMOfZQ==?=", "Grüße"),
        ("=?utf-8?b?R3LDvMOfZQ?=", "=?utf-8?b?R3LDvMOfZQ?="),
        ("=?no-such-charset?Q?a?=", "=?no-such-charset?Q?a?="),
        ("=?utf-8?X?a?=", "=?utf-8?X?a?="),
        ("=?utf-8?Q?=FF?=", "\ufffd"),
        ("=?utf-8?Q?a", "=?utf-8?Q?a"),
        ("=?utf-8?Q??=", ""),
        ("=?hex?Q?6162?=", "=?hex?Q?6162?="),
    ],
)
def test_decode(text: str, decoded: str) -> None:
    assert decode(text) == decoded
