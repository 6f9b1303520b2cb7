"""What a server offers in a session: the dialect and the extensions that are switched on.

An Offer is made by the host from its listener's settings and from what the session has reached (TLS, identity); it is
replaced as a whole by `ServerMachine.tls_started` and `authenticated`. What each field means on the wire is said once,
in the table of `protocol.extension`.
"""

from __future__ import annotations

import enum
from typing import Any, Final

import msgspec


class Dialect(enum.Enum):
    SMTP = "smtp"  # RFC 5321; submission (RFC 6409) speaks the same
    LMTP = "lmtp"  # RFC 2033: LHLO, and a reply per accepted recipient


# How an offer withholds each keyword that it may. STARTTLS, AUTH, VRFY, EXPN, XCLIENT and XFORWARD are not here: they
# follow from what a listener is set to do.
WITHHELD: Final[dict[str, dict[str, Any]]] = {
    "PIPELINING": {"pipelining": False},
    "SIZE": {"size": False},
    "8BITMIME": {"eight_bit_mime": False},
    "SMTPUTF8": {"smtputf8": False},
    "DSN": {"dsn": False},
    "ENHANCEDSTATUSCODES": {"enhanced_status_codes": False},
    "CHUNKING": {"chunking": False},
    "BINARYMIME": {"binarymime": False},
    "HELP": {"help": False},
    "ETRN": {"etrn": False},
    "LIMITS": {"limits": False},
    "REQUIRETLS": {"requiretls": False},
    "DELIVERBY": {"by_min_s": None},
    "FUTURERELEASE": {"hold_max_s": None, "hold_until": ""},
    "MT-PRIORITY": {"mt_priority": None},
    "RRVS": {"rrvs": False},
    "XVERP": {"xverp": False},
}


def without(offer: Offer, keywords: tuple[str, ...]) -> Offer:
    """The offer without these extensions."""
    changes = {name: value for keyword in keywords for name, value in WITHHELD[keyword].items()}
    return msgspec.structs.replace(offer, **changes) if changes else offer


class Offer(msgspec.Struct, frozen=True):
    """`auth`: the SASL mechanisms now; `auth_after_tls`: those that only TLS would bring (538 without it).

    `tls`: the session is under TLS. `tls_required`, `auth_required`: 530 until it has come to that.
    `vrfy`, `expn`, `help`, `etrn`: the host answers these commands; without, VRFY is answered 252 (502 with
    `vrfy_off`) and the others 502.
    `by_min_s`: DELIVERBY's least by-time, offered when not None, 0 for none. `hold_max_s`: FUTURERELEASE's longest
    hold, offered when not None; `hold_until`: the same as a date-time (RFC 4865 §4 demands both).
    `xclient`, `xforward`: the client may speak for others (Postfix's XCLIENT_README, XFORWARD_README).
    `known`: the client is of a trusted network; one with an identity is known, too. `loose_paths`: paths with
    local-parts that are no Dot-string, such as ``a..b@example.org``, are taken.
    `enhanced_status_codes`: they are announced; they are in the replies in any case.
    `mt_priority`: the name of the priority assignment policy ("MIXER", "STANAG4406", "NSEP"), "" to offer it unnamed.
    """

    pipelining: bool = True
    size: bool = True
    eight_bit_mime: bool = True
    smtputf8: bool = True
    dsn: bool = True
    chunking: bool = True
    binarymime: bool = False
    starttls: bool = False
    tls: bool = False
    tls_required: bool = False
    auth: tuple[str, ...] = ()
    auth_after_tls: tuple[str, ...] = ()
    auth_required: bool = False
    vrfy: bool = False
    vrfy_off: bool = False
    expn: bool = False
    help: bool = True
    etrn: bool = False
    limits: bool = False
    requiretls: bool = False
    by_min_s: int | None = None
    hold_max_s: int | None = None
    hold_until: str = ""
    mt_priority: str | None = None
    rrvs: bool = False
    xverp: bool = False
    enhanced_status_codes: bool = True
    xclient: bool = False
    xforward: bool = False
    known: bool = False
    loose_paths: bool = False
