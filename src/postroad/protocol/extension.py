"""The one table of ESMTP extensions: keyword, RFC, parameters, verbs, and what each end does with it.

What always holds: a parameter of MAIL or RCPT is accepted only if its row was announced in the session (RFC 5321
§4.1.1.11); so is a verb. Both come from this table only. `protocol.grammar` parses the values; a parameter with a
`pattern` is only compared with it, and travels as it was written.

https://www.rfc-editor.org/rfc/rfc5321#section-2.2 and the RFC named in each row.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final

import msgspec

from postroad.mail.reply import Reply, encode
from postroad.protocol.limits import ProtocolLimits
from postroad.protocol.offer import Dialect, Offer


class Parameter(msgspec.Struct, frozen=True):
    """A parameter of MAIL or RCPT. `pattern`: what its value must match ("" for no value at all), None where
    `protocol.grammar` knows more of it than a pattern can say."""

    keyword: str
    pattern: str | None = None


class Extension(msgspec.Struct, frozen=True):
    """One row. `announce`: the EHLO line that an Offer makes, None when it is not offered.

    `mail_octets`, `rcpt_octets`: by how much it lengthens the command line (RFC 5321 §4.5.3.1.4).
    `server`, `client`: what each end does, in words. `lmtp`: whether it may be offered over LMTP.
    """

    keyword: str
    rfc: str
    announce: Callable[[Offer, ProtocolLimits], str | None]
    server: str
    client: str
    mail: tuple[Parameter, ...] = ()
    rcpt: tuple[Parameter, ...] = ()
    verbs: tuple[str, ...] = ()
    mail_octets: int = 0
    rcpt_octets: int = 0
    lmtp: bool = True


def _when(on: Callable[[Offer], bool], line: str) -> Callable[[Offer, ProtocolLimits], str | None]:
    return lambda offer, limits: line if on(offer) else None


def _limits(limits: ProtocolLimits) -> str:
    """RFC 9422 §4: what is in force, and is told; a limit has six digits at most."""
    named = (
        ("MAILMAX", limits.transactions_max),
        ("RCPTMAX", min(limits.recipients_max, 999_999)),
        ("RCPTDOMAINMAX", limits.recipient_domains_max),
    )
    return "LIMITS " + " ".join(f"{name}={value}" for name, value in named if value)


# RFC 3339 §5.6 date-time, as RFC 4865 §4 (with its erratum 2040) and RFC 7293 §3.1 use it
_DATE_TIME: Final = r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:[Zz]|[+-]\d\d:\d\d)"

EXTENSIONS: Final[tuple[Extension, ...]] = (
    Extension(
        "PIPELINING", "RFC 2920", _when(lambda offer: offer.pipelining, "PIPELINING"),
        server="commands are answered in order; a client that must wait is made to wait",
        client="MAIL, RCPT and DATA in one write",
    ),
    Extension(
        "SIZE", "RFC 1870", lambda offer, limits: f"SIZE {limits.size_max}" if offer.size else None,
        server="SIZE= above the limit is refused at MAIL (552 5.3.4)",
        client="declares the size; a message above the remote's limit is not begun",
        mail=(Parameter("SIZE"),), mail_octets=26,
    ),
    Extension(
        "8BITMIME", "RFC 6152", _when(lambda offer: offer.eight_bit_mime, "8BITMIME"),
        server="BODY= is kept with the envelope", client="BODY=8BITMIME if offered",
        mail=(Parameter("BODY"),), mail_octets=17,
    ),
    Extension(
        "SMTPUTF8", "RFC 6531", _when(lambda offer: offer.smtputf8 and offer.eight_bit_mime, "SMTPUTF8"),
        server="addresses in UTF-8 after MAIL … SMTPUTF8", client="SMTPUTF8 if the message needs it, else 5.6.7",
        mail=(Parameter("SMTPUTF8", ""),), mail_octets=10,
    ),
    Extension(
        "DSN", "RFC 3461", _when(lambda offer: offer.dsn, "DSN"),
        server="RET, ENVID, NOTIFY and ORCPT are kept with the envelope", client="passed on if offered",
        mail=(Parameter("RET"), Parameter("ENVID")), rcpt=(Parameter("NOTIFY"), Parameter("ORCPT")),
        mail_octets=116, rcpt_octets=536,
    ),
    Extension(
        "ENHANCEDSTATUSCODES", "RFC 2034", _when(lambda offer: offer.enhanced_status_codes, "ENHANCEDSTATUSCODES"),
        server="on every reply but the greeting, EHLO and 3yz", client="read from each reply",
    ),
    Extension(
        "CHUNKING", "RFC 3030", _when(lambda offer: offer.chunking, "CHUNKING"),
        server="BDAT in any sizes", client="BDAT for large or binary content", verbs=("BDAT",),
    ),
    Extension(
        "BINARYMIME", "RFC 3030", _when(lambda offer: offer.binarymime and offer.chunking, "BINARYMIME"),
        server="BODY=BINARYMIME with BDAT only (503 for DATA); content is then not looked at for lines",
        client="BODY=BINARYMIME if offered, else 5.6.1",
        mail_octets=16,
    ),
    Extension(
        "STARTTLS", "RFC 3207", _when(lambda offer: offer.starttls and not offer.tls, "STARTTLS"),
        server="a new session after the handshake; plaintext behind it is thrown away",
        client="used if offered or demanded", verbs=("STARTTLS",),
    ),
    Extension(
        "AUTH", "RFC 4954", lambda offer, limits: "AUTH " + " ".join(offer.auth) if offer.auth else None,
        server="SASL exchange; AUTH= is kept with the envelope", client="to smart hosts that demand it",
        mail=(Parameter("AUTH"),), verbs=("AUTH",), mail_octets=500,
    ),
    Extension(
        "VRFY", "RFC 5321 §3.5", _when(lambda offer: offer.vrfy, "VRFY"),
        server="answered by the host, else 252", client="not used", verbs=("VRFY",),
    ),
    Extension(
        "EXPN", "RFC 5321 §3.5", _when(lambda offer: offer.expn, "EXPN"),
        server="answered by the host, else 502", client="not used", verbs=("EXPN",),
    ),
    Extension(
        "HELP", "RFC 5321 §4.1.1.8", _when(lambda offer: offer.help, "HELP"),
        server="answered by the host, else 502", client="not used", verbs=("HELP",),
    ),
    Extension(
        "ETRN", "RFC 1985", _when(lambda offer: offer.etrn, "ETRN"),
        server="answered by the host, else 502", client="not used", verbs=("ETRN",), lmtp=False,
    ),
    Extension(
        "LIMITS", "RFC 9422",
        lambda offer, limits: _limits(limits) if offer.limits else None,
        server="announces MAILMAX, RCPTMAX and RCPTDOMAINMAX as they are in force", client="obeyed",
    ),
    Extension(
        # RFC 8689 §4.1: never announced outside TLS
        "REQUIRETLS", "RFC 8689", _when(lambda offer: offer.requiretls and offer.tls, "REQUIRETLS"),
        server="kept with the envelope; the header field TLS-Required is read",
        client="passed on over proved TLS to who offers it, else 5.7.10 or 5.7.30",
        mail=(Parameter("REQUIRETLS", ""),), mail_octets=11,
    ),
    Extension(
        "DELIVERBY", "RFC 2852",
        lambda offer, limits: None if offer.by_min_s is None else f"DELIVERBY {offer.by_min_s}".removesuffix(" 0"),
        server="the queue keeps the time: R returns (5.4.7), N tells (4.4.7)",
        client="passed on with the time that is left; R to nobody who does not offer it (5.3.3)",
        mail=(Parameter("BY", r"[+-]?\d{1,9};[NRnr][Tt]?"),), mail_octets=17,
    ),
    Extension(
        "FUTURERELEASE", "RFC 4865",
        lambda offer, limits: None
        if offer.hold_max_s is None
        else f"FUTURERELEASE {offer.hold_max_s} {offer.hold_until}".rstrip(),
        server="on submission listeners: waits in the queue until then", client="not used: it ends with us",
        mail=(Parameter("HOLDFOR", r"[1-9]\d{0,8}"), Parameter("HOLDUNTIL", _DATE_TIME)), mail_octets=34, lmtp=False,
    ),
    Extension(
        "MT-PRIORITY", "RFC 6710",
        lambda offer, limits: None if offer.mt_priority is None else f"MT-PRIORITY {offer.mt_priority}".strip(),
        server="order in the queue; lowered for strangers (2.3.6)",
        client="passed on if offered, else as the header field MT-Priority if that is set (RFC 6758)",
        mail=(Parameter("MT-PRIORITY", r"-?[1-9]|0"),), mail_octets=15,
    ),
    Extension(
        "RRVS", "RFC 7293", _when(lambda offer: offer.rrvs, "RRVS"),
        server="compared with what is known of the mailbox (5.7.17, 5.7.18); the header field is read",
        client="passed on if offered; else 5.7.19, or with C as a header field",
        rcpt=(Parameter("RRVS", rf"{_DATE_TIME}(?:;[CRcr])?"),), rcpt_octets=33,
    ),
    Extension(
        "XVERP", "Postfix VERP_README", _when(lambda offer: offer.xverp, "XVERP"),
        server="kept with the envelope: each recipient gets its mail from a sender of its own", client="not used",
        mail=(Parameter("XVERP", r"(?:[-=+]{2})?"),), mail_octets=9,
    ),
    Extension(
        "XCLIENT", "Postfix XCLIENT_README",
        _when(lambda offer: offer.xclient, "XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT"),
        server="the client counts as the one that it names; the session begins anew", client="not used",
        verbs=("XCLIENT",),
    ),
    Extension(
        "XFORWARD", "Postfix XFORWARD_README",
        _when(lambda offer: offer.xforward, "XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE"),
        server="kept with the envelope, logged, passed on", client="to next hops that are set so", verbs=("XFORWARD",),
    ),
)

BY_KEYWORD: Final[dict[str, Extension]] = {extension.keyword: extension for extension in EXTENSIONS}

PATTERNS: Final[dict[str, re.Pattern[str]]] = {
    parameter.keyword: re.compile(parameter.pattern)
    for extension in EXTENSIONS
    for parameter in (*extension.mail, *extension.rcpt)
    if parameter.pattern is not None
}


class Terms(msgspec.Struct, frozen=True):
    """What an Offer comes to, worked out once: EHLO lines (`block`: as octets), and the parameters and verbs that they
    allow."""

    lines: tuple[str, ...]
    block: bytes
    keywords: frozenset[str]
    mail: frozenset[str]
    rcpt: frozenset[str]
    verbs: frozenset[str]

    def still(self, now: Terms) -> Terms:
        """What is left of these where others hold now."""
        return Terms(
            now.lines, now.block, self.keywords & now.keywords, self.mail & now.mail, self.rcpt & now.rcpt,
            self.verbs & now.verbs,
        )  # fmt: skip


NO_TERMS: Final = Terms((), b"", frozenset(), frozenset(), frozenset(), frozenset())  # a session begun with HELO


@lru_cache(maxsize=256)
def terms(offer: Offer, limits: ProtocolLimits, dialect: Dialect) -> Terms:
    """The terms of a session begun with EHLO or LHLO."""
    told = [
        (extension, line)
        for extension in EXTENSIONS
        if (extension.lmtp or dialect is Dialect.SMTP) and (line := extension.announce(offer, limits)) is not None
    ]
    lines = tuple(line for _, line in told)
    return Terms(
        lines=lines,
        block=encode(Reply(250, "", lines)) if lines else b"",
        keywords=frozenset(extension.keyword for extension, _ in told),
        mail=frozenset(parameter.keyword for extension, _ in told for parameter in extension.mail),
        rcpt=frozenset(parameter.keyword for extension, _ in told for parameter in extension.rcpt),
        verbs=frozenset(verb for extension, _ in told for verb in extension.verbs),
    )
