from __future__ import annotations

import typing

import msgspec

from postroad.protocol.extension import BY_KEYWORD, EXTENSIONS, PATTERNS, terms
from postroad.protocol.limits import ProtocolLimits
from postroad.protocol.offer import Dialect, Offer
from postroad.protocol.state import Verb
from tests.unit.protocol.host import ALL

LIMITS = ProtocolLimits()


def test_each_keyword_stands_once() -> None:
    assert len(BY_KEYWORD) == len(EXTENSIONS)
    parameters = [parameter.keyword for row in EXTENSIONS for parameter in (*row.mail, *row.rcpt)]
    assert len(parameters) == len(set(parameters))


def test_each_verb_is_known_to_the_machine() -> None:
    assert {verb for row in EXTENSIONS for verb in row.verbs} <= {verb.name for verb in Verb}


def test_the_command_line_limit_covers_all_extensions() -> None:
    # RFC 5321 §4.5.3.1.4: 512, and what each extension adds
    (meta,) = [
        part
        for part in typing.get_args(typing.get_type_hints(ProtocolLimits, include_extras=True)["command_line_max"])
        if isinstance(part, msgspec.Meta)
    ]
    assert meta.ge is not None
    for octets in (sum(row.mail_octets for row in EXTENSIONS), sum(row.rcpt_octets for row in EXTENSIONS)):
        assert 512 + octets <= meta.ge <= LIMITS.command_line_max


def test_defaults_keep_the_minimums() -> None:
    hints = typing.get_type_hints(ProtocolLimits, include_extras=True)
    for field in msgspec.structs.fields(ProtocolLimits):
        for part in typing.get_args(hints[field.name])[1:]:
            assert part.description
            if part.ge is not None:
                assert field.default >= part.ge
            if part.le is not None:
                assert field.default <= part.le


def test_nothing_is_announced_that_is_not_offered() -> None:
    bare = Offer(
        pipelining=False, size=False, eight_bit_mime=False, smtputf8=True, dsn=False, chunking=False,
        binarymime=True, help=False,
    )  # fmt: skip
    # SMTPUTF8 needs 8BITMIME (RFC 6531 §3.1 (8)), BINARYMIME needs CHUNKING (RFC 3030 §3 (3))
    assert terms(bare, LIMITS, Dialect.SMTP).lines == ("ENHANCEDSTATUSCODES",)


def test_all_that_can_be_announced() -> None:
    lines = terms(ALL, LIMITS, Dialect.SMTP).lines
    assert [line.partition(" ")[0] for line in lines] == [
        row.keyword for row in EXTENSIONS if row.keyword != "REQUIRETLS"
    ]
    assert "DELIVERBY" in lines and "FUTURERELEASE 3600" in lines and "MT-PRIORITY MIXER" in lines
    assert "LIMITS RCPTMAX=1000" in lines and "SIZE 104857600" in lines and "AUTH PLAIN LOGIN" in lines


def test_under_tls() -> None:
    under = terms(msgspec.structs.replace(ALL, tls=True, requiretls=True), LIMITS, Dialect.SMTP)
    assert "STARTTLS" not in under.lines  # RFC 3207 §4.2
    assert "REQUIRETLS" in under.lines and "REQUIRETLS" in under.mail
    assert "REQUIRETLS" not in terms(msgspec.structs.replace(ALL, requiretls=True), LIMITS, Dialect.SMTP).lines


def test_over_lmtp() -> None:
    over = terms(ALL, LIMITS, Dialect.LMTP)
    assert not {"ETRN", "FUTURERELEASE"} & over.keywords
    assert {"PIPELINING", "ENHANCEDSTATUSCODES", "8BITMIME"} <= over.keywords  # RFC 2033 §5
    assert "HOLDFOR" not in over.mail


def test_patterns_take_no_more_than_they_should() -> None:
    assert PATTERNS["BY"].fullmatch("-120;nt") and not PATTERNS["BY"].fullmatch("120;X")
    assert PATTERNS["REQUIRETLS"].fullmatch("") and not PATTERNS["REQUIRETLS"].fullmatch("x")
    assert PATTERNS["MT-PRIORITY"].fullmatch("-9") and not PATTERNS["MT-PRIORITY"].fullmatch("10")
