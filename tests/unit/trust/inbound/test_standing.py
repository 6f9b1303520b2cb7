"""Whether the author of a report is who it says: only what this node wrote itself counts."""

from __future__ import annotations

import pytest

from postroad.trust.inbound.standing import Standing, standing

US = ("mx.example.org",)
RECEIVED = b"Received: from x by mx.example.org; now\r\n"


def _of(results: str, author: str = "reporter.example", submitter: str = "", below: bytes = b"") -> Standing:
    field = f"Authentication-Results: mx.example.org; {results}\r\n".encode()
    return standing(field + RECEIVED + below, author, submitter, US)


@pytest.mark.parametrize(
    ("results", "has_passed", "is_signed"),
    [
        ("dmarc=pass header.from=reporter.example", True, False),
        ("dkim=pass header.d=reporter.example", True, True),
        ("dkim=pass header.d=mail.reporter.example; dmarc=fail", True, True),
        ("dkim=pass header.d=other.example", False, False),
        ("dkim=pass header.d=example", False, False),
        ("dkim=fail header.d=reporter.example; dmarc=fail", False, False),
        ("dkim=none; dmarc=none", False, False),
    ],
)
def test_what_counts(results: str, has_passed: bool, is_signed: bool) -> None:
    assert _of(results) == Standing(True, has_passed, is_signed)


def test_the_submitter_may_sign_for_the_author() -> None:
    assert _of("dkim=pass header.d=reporter.example", "bounces.example", "reporter.example").is_signed


def test_nothing_is_known_if_this_node_did_not_look() -> None:
    assert _of("spf=pass smtp.mailfrom=reporter.example") == Standing()
    good = b"Authentication-Results: mx.example.org; dkim=pass header.d=reporter.example\r\n"
    for section in (b"", RECEIVED, RECEIVED + good, good, good.replace(b"mx.", b"my.") + RECEIVED):
        assert standing(section, "reporter.example", "", US) == Standing()
