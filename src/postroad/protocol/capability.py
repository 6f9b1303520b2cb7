"""What a remote server offers, read from its answer to EHLO or LHLO (RFC 5321 §4.1.1.1).

The answer is read once for each session; the keywords that a transaction needs are fields. A line that is no keyword is
ignored, and a parameter that makes no sense counts as absent: after an odd answer we do without an extension, but the
mail still goes.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class Capabilities(msgspec.Struct, frozen=True):
    """`keywords`: all that was offered, keyword in capitals → its parameters as written.

    `size_max`: octets of the largest message (RFC 1870 §4), 0 if no limit was named. `mechanisms`: of AUTH, in
    capitals. `mail_max`, `rcpt_max`, `rcpt_domain_max`: of LIMITS (RFC 9422), 0 if none was named.
    """

    keywords: dict[str, str] = {}
    pipelining: bool = False  # RFC 2920
    size: bool = False  # RFC 1870
    size_max: int = 0
    eight_bit_mime: bool = False  # RFC 6152
    smtputf8: bool = False  # RFC 6531
    dsn: bool = False  # RFC 3461
    chunking: bool = False  # RFC 3030
    binary_mime: bool = False  # RFC 3030 §3: only together with CHUNKING
    starttls: bool = False  # RFC 3207
    require_tls: bool = False  # RFC 8689
    mechanisms: frozenset[str] = frozenset()  # RFC 4954
    mail_max: int = 0
    rcpt_max: int = 0
    rcpt_domain_max: int = 0
    by_min_s: int = 0  # RFC 2852: the least by-time


def parse(lines: Sequence[str], ignored: frozenset[str] = frozenset()) -> Capabilities:
    """From the lines of the reply; the first is the greeting and names no keyword. `ignored`: keywords, in capitals,
    that count as not offered."""
    keywords: dict[str, str] = {}
    mechanisms: set[str] = set()
    for line in lines[1:]:
        keyword, _, parameters = line.strip().partition(" ")
        keyword = keyword.upper()
        if keyword.startswith("AUTH="):  # as servers older than RFC 4954 wrote it
            keyword, parameters = "AUTH", f"{keyword[5:]} {parameters}"
        if keyword in ignored:
            continue
        if keyword == "AUTH":
            mechanisms.update(parameters.upper().split())
        if keyword and keyword.isascii():
            keywords.setdefault(keyword, parameters.strip())
    limits = _limits(keywords.get("LIMITS", ""))
    chunking = "CHUNKING" in keywords
    return Capabilities(
        keywords=keywords,
        pipelining="PIPELINING" in keywords,
        size="SIZE" in keywords,
        size_max=_number(keywords.get("SIZE", "")),
        eight_bit_mime="8BITMIME" in keywords,
        smtputf8="SMTPUTF8" in keywords,
        dsn="DSN" in keywords,
        chunking=chunking,
        binary_mime=chunking and "BINARYMIME" in keywords,
        starttls="STARTTLS" in keywords,
        require_tls="REQUIRETLS" in keywords,
        mechanisms=frozenset(mechanisms),
        mail_max=limits.get("MAILMAX", 0),
        rcpt_max=limits.get("RCPTMAX", 0),
        rcpt_domain_max=limits.get("RCPTDOMAINMAX", 0),
        by_min_s=_number(keywords.get("DELIVERBY", "")),
    )


def _number(text: str) -> int:
    """RFC 1870 §4: size-value = 1*20digit; what is none of these is no limit."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 20 else 0


def _limits(parameters: str) -> dict[str, int]:
    """RFC 9422 §3: limits-param = limit-name "=" limit-value, separated by spaces; the numeric ones."""
    pairs = (word.upper().partition("=") for word in parameters.split())
    return {name: int(value) for name, _, value in pairs if value.isascii() and value.isdigit() and len(value) <= 6}
