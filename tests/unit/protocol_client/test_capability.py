"""What a remote offers."""

from __future__ import annotations

from postroad.protocol.capability import Capabilities, parse

FULL = (
    "mx.example.org greets you", "PIPELINING", "SIZE 35882577", "8BITMIME", "smtputf8", "DSN", "CHUNKING", "BINARYMIME",
    "STARTTLS", "AUTH PLAIN login SCRAM-SHA-256", "AUTH=XOLD", "REQUIRETLS",
    "LIMITS RCPTMAX=20 mailmax=5 RCPTDOMAINMAX=1",
    "MT-PRIORITY MIXER", "RRVS",
)


def test_everything_that_is_known() -> None:
    found = parse(FULL)
    assert found.pipelining and found.size and found.eight_bit_mime and found.smtputf8 and found.dsn
    assert found.chunking and found.binary_mime and found.starttls and found.require_tls
    assert found.size_max == 35882577
    assert found.mechanisms == {"PLAIN", "LOGIN", "SCRAM-SHA-256", "XOLD"}
    assert (found.rcpt_max, found.mail_max, found.rcpt_domain_max) == (20, 5, 1)
    assert found.keywords["MT-PRIORITY"] == "MIXER"


def test_nothing() -> None:
    assert parse(("mx.example.org",)) == Capabilities()
    assert parse(("PIPELINING",)) == Capabilities()  # the first line is no keyword


def test_odd_lines_cost_no_more_than_themselves() -> None:
    limits = "LIMITS RCPTMAX=x MAILMAX RCPTDOMAINMAX=9999999"
    found = parse(("mx", "", " ", "SIZE", "PIPELINING  ", "SIZE 5", limits, "Ü"))
    assert found.pipelining
    assert found.size and found.size_max == 0  # the first of two counts
    assert (found.rcpt_max, found.mail_max, found.rcpt_domain_max) == (0, 0, 0)
    assert parse(("mx", "SIZE 0")).size_max == 0
    assert parse(("mx", "SIZE -1")).size_max == 0
    assert parse(("mx", f"SIZE {'9' * 21}")).size_max == 0
    assert parse(("mx", "SIZE ١٢")).size_max == 0


def test_binarymime_needs_chunking() -> None:
    assert not parse(("mx", "BINARYMIME")).binary_mime
