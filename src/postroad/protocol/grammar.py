"""The grammar of commands: paths, mailboxes, ESMTP parameters, xtext. ABNF stands above each rule.

What always holds: a parse gives a value, or the Reply to send; nothing is raised, whatever the octets. All results,
decoded parameters too, are free of CR, LF, NUL and other control characters. Each rule is linear in the length of its
input.

Deviations, each towards accepting more: white space after the colon of ``MAIL FROM:`` and ``RCPT TO:`` (§3.3 forbids
clients to send it; many do), a mailbox without its angle brackets there, one with them in AUTH=, several spaces
between parameters, an underscore in a domain name, a local-part longer than 64 octets within the limit for the path,
octets that are not ASCII in EHLO. A loose path may have periods where a Dot-string may not (``a..b``, ``a.``,
``.a``); `mail.address` writes it as a Quoted-string, which is the same mailbox (§4.1.2). A period may follow its
domain, as in zone files; it is dropped.

https://www.rfc-editor.org/rfc/rfc5321#section-4.1.2, RFC 6531 §3.3, RFC 3461 §4, RFC 6533 §3, RFC 4954 §5

Not here: order of commands and what is on offer (`server`, `extension`).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from postroad.mail import wishes
from postroad.mail.address import Address, canonical_domain
from postroad.mail.envelope import Body, Notify, Ret
from postroad.mail.reply import Reply, reply
from postroad.protocol.command import Mail, Rcpt
from postroad.protocol.extension import PATTERNS
from postroad.protocol.limits import ProtocolLimits

ORCPT_MAX: Final = 500  # RFC 3461 §4.2
ENVID_MAX: Final = 100  # RFC 3461 §4.4

BAD_SYNTAX: Final = reply(501, "5.5.4", "Syntax error in parameters or arguments")
BAD_MAIL: Final = reply(501, "5.5.4", "Syntax: MAIL FROM:<reverse-path> [parameters]")
BAD_RCPT: Final = reply(501, "5.5.4", "Syntax: RCPT TO:<forward-path> [parameters]")
BAD_SENDER: Final = reply(501, "5.1.7", "Bad sender address syntax")
BAD_RECIPIENT: Final = reply(501, "5.1.3", "Bad recipient address syntax")
LONG_SENDER: Final = reply(501, "5.1.7", "Path too long")
LONG_RECIPIENT: Final = reply(501, "5.1.3", "Path too long")
NOT_UTF8: Final = reply(501, "5.5.2", "Command is not UTF-8")
SENDER_NOT_ASCII: Final = reply(550, "5.6.7", "Non-ASCII sender address needs SMTPUTF8")  # RFC 6531 §3.5: MAIL 550
RECIPIENT_NOT_ASCII: Final = reply(553, "5.6.7", "Non-ASCII recipient address needs SMTPUTF8")  # RCPT 553
TOO_BIG: Final = reply(552, "5.3.4", "Message size exceeds the limit")

# RFC 5322 §3.2.3 atext = ALPHA / DIGIT / "!" / "#" / …; RFC 6531 §3.3: atext =/ UTF8-non-ascii
_ATEXT: Final = r"A-Za-z0-9!#$%&'*+\-/=?^_`{|}~\u0080-\U0010ffff"

# RFC 5321 §4.1.2, extended by RFC 6531 §3.3:
#   Mailbox         = Local-part "@" ( Domain / address-literal )
#   Local-part      = Dot-string / Quoted-string
#   Dot-string      = Atom *("." Atom)
#   Atom            = 1*atext
#   Quoted-string   = DQUOTE *QcontentSMTP DQUOTE
#   QcontentSMTP    = qtextSMTP / quoted-pairSMTP
#   quoted-pairSMTP = %d92 %d32-126
#   qtextSMTP       = %d32-33 / %d35-91 / %d93-126 / UTF8-non-ascii
# What a domain may be is left to `_domain`; here only where it ends.
_MAILBOX: Final = (
    rf'(?:(?P<dots>[{_ATEXT}]+(?:\.[{_ATEXT}]+)*)|"(?P<quoted>(?:[ !#-\[\]-~\u0080-\U0010ffff]|\\[ -~])*)")'
    r"@(?P<domain>\[[!-Z^-~]+\]|[A-Za-z0-9_.\-\u0080-\U0010ffff]+)"
)
_DOTS: Final = rf"[{_ATEXT}]+(?:\.[{_ATEXT}]+)*"
_LABEL: Final = r"[A-Za-z0-9_\-\u0080-\U0010ffff]+"
_LOOSE_MAILBOX: Final = _MAILBOX.replace(_DOTS, rf"[{_ATEXT}.]+").replace(
    r"[A-Za-z0-9_.\-\u0080-\U0010ffff]+)", rf"{_LABEL}(?:\.{_LABEL})*)\.?"
)
_MAILBOX_RULE: Final = re.compile(_MAILBOX)
_LOOSE_MAILBOX_RULE: Final = re.compile(_LOOSE_MAILBOX)

#   Path      = "<" [ A-d-l ":" ] Mailbox ">"
#   A-d-l     = At-domain *( "," At-domain )
#   At-domain = "@" Domain
_DOMAIN: Final = r"[A-Za-z0-9_.\-\u0080-\U0010ffff]+"
_ROUTE: Final = rf"(?:(?P<route>@{_DOMAIN}(?:,@{_DOMAIN})*):)?"
_PATH: Final = re.compile(rf"<{_ROUTE}{_MAILBOX}>")
_LOOSE_PATH: Final = re.compile(rf"<{_ROUTE}{_LOOSE_MAILBOX}>")

#   mail = "MAIL FROM:" Reverse-path [SP Mail-parameters] CRLF
#   rcpt = "RCPT TO:" ( "<Postmaster@" Domain ">" / "<Postmaster>" / Forward-path ) [SP Rcpt-parameters] CRLF
_FROM: Final = re.compile(r"MAIL FROM: *", re.IGNORECASE | re.ASCII)
_TO: Final = re.compile(r"RCPT TO: *", re.IGNORECASE | re.ASCII)
_POSTMASTER: Final = re.compile(r"<postmaster>|postmaster(?= |\Z)", re.IGNORECASE | re.ASCII)

# What nearly all commands look like: ASCII, a Dot-string, a domain name, no parameters.
_PLAIN_ATEXT: Final = rb"A-Za-z0-9!#$%&'*+\-/=?^_`{|}~"
_PLAIN_PATH: Final = (
    rb"<([" + _PLAIN_ATEXT + rb"]+(?:\.[" + _PLAIN_ATEXT + rb"]+)*)@([A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*)>"
)
_PLAIN_MAIL: Final = re.compile(rb"(?i:MAIL FROM):" + _PLAIN_PATH)
_PLAIN_RCPT: Final = re.compile(rb"(?i:RCPT TO):" + _PLAIN_PATH)
_PLAIN_MAX: Final = 256  # RFC 5321 §4.5.3.1.3: no limit on a path is lower

#   esmtp-param   = esmtp-keyword ["=" esmtp-value]
#   esmtp-keyword = (ALPHA / DIGIT) *(ALPHA / DIGIT / "-")
#   esmtp-value   = 1*(%d33-60 / %d62-126 / UTF8-non-ascii)          ; RFC 6531 §3.3
_PARAMETER: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([!-<>-~\u0080-\U0010ffff]+))?")
_XVERP: Final = re.compile(r"([Xx][Vv][Ee][Rr][Pp])=([!-~]+)")  # no esmtp-value of RFC 5321: it may hold "="

# RFC 1870 §4: size-value = 1*20DIGIT
_SIZE: Final = re.compile(r"[0-9]{1,20}")

# RFC 3461 §4: xtext = *( xchar / hexchar ); xchar = %x21-2A / %x2C-3C / %x3E-7E; hexchar = "+" 2(DIGIT / %x41-46)
_XTEXT: Final = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*")
_HEXCHAR: Final = re.compile(rb"\+([0-9A-F]{2})")
_NO_XCHAR: Final = re.compile(rb"[^!-*,-<>-~]")

# RFC 3461 §4.2: addr-type = atom
_ADDR_TYPE: Final = re.compile(r"[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~]+")
# printable (graphic and white space) characters of US-ASCII
_PRINTABLE: Final = re.compile(r"[\t -~]*")

# RFC 6533 §3: utf-8-addr-unitext = 1*(QUCHAR / EmbeddedUnicodeChar), QUCHAR = %x21-2A / %x2C-3C / %x3E-5B / %x5D-7E
# and what is not ASCII; EmbeddedUnicodeChar = %x5C.78 "{" HEXPOINT "}"
_UNITEXT: Final = re.compile(r"(?:[!-*,-<>-\[\]-~\u0080-\U0010ffff]|\\x\{[0-9A-F]{2,6}\})+")
_EMBEDDED: Final = re.compile(r"\\x\{([0-9A-F]{2,6})\}")
_NO_QUCHAR: Final = re.compile(r"[^!-*,-<>-\[\]-~\u0080-\U0010ffff]")
_NO_QCHAR: Final = re.compile(r"[^!-*,-<>-\[\]-~]")
_UNITEXT_ASCII: Final = frozenset(" \\+=")  # the only ASCII characters that are embedded and printable

# RFC 5321 §4.1.2: Domain = sub-domain *("." sub-domain); sub-domain = Let-dig [Ldh-str], in its canonical form
_NAME: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?)*")

# RFC 5321 §4.1.3: IPv4-address-literal = Snum 3("." Snum); Snum = 1*3DIGIT
_IPV4: Final = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}")
#   General-address-literal = Standardized-tag ":" 1*dcontent; Standardized-tag = Ldh-str; dcontent = %d33-90 / %d94-126
_GENERAL: Final = re.compile(r"(?:[A-Za-z0-9-]*[A-Za-z0-9]):[!-Z^-~]+")
_IPV6: Final = re.compile(r"[0-9A-Fa-f:.]+")

_NO_CONTROL: Final = re.compile(r"[^\x00-\x1f\x7f]*")


# ---- mailboxes


def parse_mailbox(text: str) -> Address | None:
    """A Mailbox, without brackets, its local-part loose perhaps, or None if it is not one."""
    found = None if text.endswith(".") else _LOOSE_MAILBOX_RULE.fullmatch(text)
    return _address(found) if found else None


def parse_domain(text: str) -> str | None:
    """A Domain or address-literal in its canonical form, or None."""
    if text.startswith("["):
        return _literal(text[1:-1]) if text.endswith("]") else None
    if text.endswith("."):  # RFC 5321 §4.1.2 knows no final dot
        return None
    try:
        domain = canonical_domain(text)
    except ValueError:
        return None
    # UTS 46 maps other full stops to ".", also a final one, and compatibility characters to ASCII.
    return domain if text.isascii() or _NAME.fullmatch(domain) else None


def _address(found: re.Match[str]) -> Address | None:
    domain = parse_domain(found["domain"])
    if domain is None:
        return None
    quoted = found["quoted"]
    local_part = found["dots"] if quoted is None else _unquote(quoted)
    return Address(local_part, domain)


def _unquote(quoted: str) -> str:
    """The semantic local-part: backslashes gone (RFC 5321 §4.1.2)."""
    return re.sub(r"\\(.)", r"\1", quoted) if "\\" in quoted else quoted


@lru_cache(maxsize=4096)
def _literal(inner: str) -> str | None:
    """The canonical address-literal for what stands between the brackets (RFC 5321 §4.1.3)."""
    if _IPV4.fullmatch(inner):
        numbers = [int(number) for number in inner.split(".")]
        return "[" + ".".join(map(str, numbers)) + "]" if max(numbers) < 256 else None
    tag, colon, rest = inner.partition(":")
    if tag.upper() == "IPV6":
        # IPv6-address-literal = "IPv6:" IPv6-addr. Its own colons and an IPv4 tail are ipaddress's to check.
        if not _IPV6.fullmatch(rest):
            return None
        try:
            address = ipaddress.IPv6Address(rest)
        except ValueError:
            return None
        # RFC 5952 §5 writes a mapped address with a dotted tail; ipaddress does so only from Python 3.13 on.
        mapped = address.ipv4_mapped
        return f"[IPv6:::ffff:{mapped}]" if mapped is not None else f"[IPv6:{address}]"
    return f"[{inner}]" if colon and _GENERAL.fullmatch(inner) else None


# ---- MAIL and RCPT


@lru_cache(maxsize=8192)
def plain_mail(line: bytes) -> Mail | None:
    """MAIL with a usual address and no parameters; None sends the line to `parse_mail`."""
    address = _plain(_PLAIN_MAIL.fullmatch(line), len(line))
    return Mail(address) if address is not None else None


@lru_cache(maxsize=8192)
def plain_rcpt(line: bytes) -> Rcpt | None:
    """RCPT with a usual address and no parameters; None sends the line to `parse_rcpt`."""
    address = _plain(_PLAIN_RCPT.fullmatch(line), len(line))
    return Rcpt(address) if address is not None else None


def _plain(found: re.Match[bytes] | None, length: int) -> Address | None:
    if found is None or length > _PLAIN_MAX:
        return None
    try:
        return Address(found[1].decode("ascii"), canonical_domain(found[2].decode("ascii")))
    except ValueError:
        return None


def parse_mail(line: bytes, allowed: frozenset[str], limits: ProtocolLimits, *, loose: bool = False) -> Mail | Reply:
    """MAIL, whole line without CRLF. `allowed`: the keywords of parameters and extensions that were announced.
    `loose`: whether the local-part may be."""
    text = _decode(line)
    if isinstance(text, Reply):
        return text
    start = _FROM.match(text)
    if start is None:
        return BAD_MAIL
    if text.startswith("<>", start.end()):  # Reverse-path = Path / "<>"
        address, end = None, start.end() + 2
    else:
        found = _find_path(text, start.end(), loose=loose)
        sender = _path(found) if found else None
        if found is None or sender is None:
            return BAD_SENDER
        address, end = sender, found.end()
        if len(found[0].encode()) > limits.path_max:
            return LONG_SENDER
    parameters = _parameters(text[end:], allowed)
    if isinstance(parameters, Reply):
        return parameters
    if not text[:end].isascii() and "SMTPUTF8" not in parameters:
        return SENDER_NOT_ASCII
    return _mail(address, parameters, allowed, limits)


def parse_rcpt(
    line: bytes, allowed: frozenset[str], limits: ProtocolLimits, *, smtputf8: bool, loose: bool = False
) -> Rcpt | Reply:
    """RCPT, whole line without CRLF. `smtputf8`: whether MAIL said SMTPUTF8. The others as for `parse_mail`."""
    text = _decode(line)
    if isinstance(text, Reply):
        return text
    start = _TO.match(text)
    if start is None:
        return BAD_RCPT
    postmaster = _POSTMASTER.match(text, start.end())  # RFC 5321 §4.1.1.3
    if postmaster is not None:
        address, end = Address("postmaster", ""), postmaster.end()
    else:
        found = _find_path(text, start.end(), loose=loose)
        recipient = _path(found) if found else None
        if found is None or recipient is None:
            return BAD_RECIPIENT
        address, end = recipient, found.end()
        if len(found[0].encode()) > limits.path_max:
            return LONG_RECIPIENT
    if not smtputf8 and not text[:end].isascii():
        return RECIPIENT_NOT_ASCII
    parameters = _parameters(text[end:], allowed)
    if isinstance(parameters, Reply):
        return parameters
    return _rcpt(address, parameters)


def _decode(line: bytes) -> str | Reply:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        return NOT_UTF8


def _find_path(text: str, at: int, *, loose: bool) -> re.Match[str] | None:
    """A path at this place, or a mailbox without the brackets of one, as many small clients write it."""
    if text.startswith("<", at):
        return (_LOOSE_PATH if loose else _PATH).match(text, at)
    found = (_LOOSE_MAILBOX_RULE if loose else _MAILBOX_RULE).match(text, at)
    return found if found is None or text[found.end() : found.end() + 1] in ("", " ") else None


def _path(found: re.Match[str]) -> Address | None:
    """The mailbox of a path. A source route must be well formed and is then ignored (RFC 5321 §4.1.1.3, App. C)."""
    route = found.groupdict().get("route")
    if route is not None and any(parse_domain(hop[1:]) is None for hop in route.split(",")):
        return None
    return _address(found)


def _parameters(text: str, allowed: frozenset[str]) -> dict[str, str] | Reply:
    """The parameters by keyword in capitals; a keyword without a value has "". Each at most once (RFC 3461 §4.5)."""
    if not text:
        return {}
    if not text.startswith(" "):
        return BAD_SYNTAX
    parameters: dict[str, str] = {}
    for word in text.split(" "):
        if not word:
            continue
        found = _PARAMETER.fullmatch(word) or _XVERP.fullmatch(word)
        if found is None:
            return BAD_SYNTAX
        keyword = found[1].upper()
        if keyword not in allowed:  # RFC 5321 §4.1.1.11
            return reply(555, "5.5.4", f"Parameter not recognized: {keyword[:40]}")
        if keyword in parameters:
            return reply(501, "5.5.4", f"Parameter given twice: {keyword}")
        value = found[2] or ""
        if not value.isascii() and (keyword != "ORCPT" or "SMTPUTF8" not in allowed):
            return BAD_SYNTAX
        parameters[keyword] = value
    return parameters


def _bad(keyword: str) -> Reply:
    return reply(501, "5.5.4", f"Bad value of parameter {keyword}")


def _mail(
    address: Address | None, parameters: dict[str, str], allowed: frozenset[str], limits: ProtocolLimits
) -> Mail | Reply:
    size, body, smtputf8, ret, envid, auth = 0, Body.SEVEN_BIT, False, Ret.UNSET, "", ""
    others: list[tuple[str, str]] = []
    for keyword, value in parameters.items():
        match keyword:
            case "SIZE":
                if not _SIZE.fullmatch(value):
                    return _bad(keyword)
                size = int(value)
                if size > limits.size_max:  # RFC 1870 §6.1
                    return TOO_BIG
            case "BODY":
                known = _BODIES.get(value.upper())
                if known is None:
                    return _bad(keyword)
                if known is Body.BINARY_MIME and "BINARYMIME" not in allowed:
                    return reply(555, "5.5.4", "BINARYMIME is not offered")
                body = known
            case "SMTPUTF8":  # RFC 6531 §3.4: no value
                if value:
                    return _bad(keyword)
                smtputf8 = True
            case "RET":  # RFC 3461 §4.3
                known_ret = _RETS.get(value.upper())
                if known_ret is None:
                    return _bad(keyword)
                ret = known_ret
            case "ENVID":  # RFC 3461 §4.4
                decoded = xtext_decode(value) if value and len(value) <= ENVID_MAX else None
                if decoded is None or not _PRINTABLE.fullmatch(decoded):
                    return _bad(keyword)
                envid = decoded
            case "AUTH":  # RFC 4954 §5
                submitter = _submitter(value)
                if submitter is None:
                    return _bad(keyword)
                auth = submitter
            case _:
                if not _fits(keyword, value):
                    return _bad(keyword)
                others.append((keyword, value))
    if "HOLDFOR" in parameters and "HOLDUNTIL" in parameters:  # RFC 4865 §4: one of the two
        return BAD_SYNTAX
    return Mail(address, size, body, smtputf8, ret, envid, auth, tuple(others))


def _rcpt(address: Address, parameters: dict[str, str]) -> Rcpt | Reply:
    if not parameters:
        return Rcpt(address)
    notify, orcpt = Notify.UNSET, ""
    others: list[tuple[str, str]] = []
    for keyword, value in parameters.items():
        match keyword:
            case "NOTIFY":
                known = parse_notify(value)
                if known is None:
                    return _bad(keyword)
                notify = known
            case "ORCPT":
                decoded = orcpt_decode(value)
                if decoded is None:
                    return _bad(keyword)
                orcpt = decoded
            case _:
                if not _fits(keyword, value):
                    return _bad(keyword)
                others.append((keyword, value))
    return Rcpt(address, notify, orcpt, tuple(others))


def _fits(keyword: str, value: str) -> bool:
    pattern = PATTERNS.get(keyword)
    if pattern is None or pattern.fullmatch(value) is None:
        return False
    meaning = _MEANINGS.get(keyword)
    return meaning is None or meaning(value) is not None


# What a pattern cannot tell: a thirteenth month, a time that is over before it begins.
_MEANINGS: Final[dict[str, Callable[[str], object]]] = {
    wishes.BY: wishes.parse_by,
    wishes.HOLDUNTIL: wishes.date_time_us,
    wishes.RRVS: wishes.parse_valid_since,
}


# RFC 6152 §2, RFC 3030 §3: body-value = "7BIT" / "8BITMIME" / "BINARYMIME"
_BODIES: Final = {body.value: body for body in Body}
_RETS: Final = {"FULL": Ret.FULL, "HDRS": Ret.HDRS}
_NOTIFY: Final = {"SUCCESS": Notify.SUCCESS, "FAILURE": Notify.FAILURE, "DELAY": Notify.DELAY}


@lru_cache(maxsize=64)
def parse_notify(value: str) -> Notify | None:
    """RFC 3461 §4.1: notify-esmtp-value = "NEVER" / 1#( "SUCCESS" / "FAILURE" / "DELAY" ); None if it is not."""
    words = value.upper().split(",")
    if words == ["NEVER"]:
        return Notify.NEVER
    notify = Notify.UNSET
    for word in words:
        if word:  # RFC 822 §2.7: null elements of a list count for nothing
            known = _NOTIFY.get(word)
            if known is None:
                return None
            notify |= known
    return notify or None


def _submitter(value: str) -> str | None:
    """The value of AUTH=, decoded: a mailbox or "<>" (RFC 4954 §5). Brackets around a mailbox are taken off."""
    decoded = xtext_decode(value) if value else None
    if decoded is None or decoded == "<>":
        return decoded
    if decoded.startswith("<") and decoded.endswith(">"):
        decoded = decoded[1:-1]
    submitter = parse_mailbox(decoded)
    return None if submitter is None else str(submitter)


# ---- xtext, ORCPT


def xtext_encode(text: str) -> str:
    """xtext (RFC 3461 §4) of the UTF-8 octets of `text`."""
    if _XTEXT.fullmatch(text) and "+" not in text:
        return text
    return _NO_XCHAR.sub(lambda found: b"+%02X" % found[0][0], text.encode()).decode("ascii")


def xtext_decode(text: str) -> str | None:
    """What xtext stands for; None if it is not xtext, or its octets are not UTF-8."""
    if not _XTEXT.fullmatch(text):
        return None
    if "+" not in text:
        return text
    octets = _HEXCHAR.sub(lambda found: bytes((int(found[1], 16),)), text.encode("ascii"))
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        return None


def orcpt_decode(value: str) -> str | None:
    """The value of ORCPT, ``addr-type ";" xtext``, decoded: ``"rfc822;a@example.org"``; None if it is not valid.

    The addr-type keeps its case (RFC 3461 §5.2.1 d). A ``utf-8`` address may come in any form of RFC 6533 §3.
    """
    if len(value) > ORCPT_MAX:
        return None
    addr_type, semicolon, encoded = value.partition(";")
    if not semicolon or not encoded or not _ADDR_TYPE.fullmatch(addr_type):
        return None
    if addr_type.lower() == "utf-8":
        decoded = _unitext_decode(encoded)
        if decoded is None and "\\" not in encoded:
            decoded = xtext_decode(encoded)  # a client that only knows RFC 3461
        if decoded is None or not _NO_CONTROL.fullmatch(decoded):
            return None
    else:
        decoded = xtext_decode(encoded)
        if decoded is None:
            return None
        if not decoded.isascii() and addr_type.lower() == "rfc822":
            addr_type = "utf-8"  # as Postfix writes such an address; RFC 6533 §3 has this type for it
            if not _NO_CONTROL.fullmatch(decoded):
                return None
        elif not _PRINTABLE.fullmatch(decoded):
            return None
    return f"{addr_type};{decoded}"


def orcpt_encode(orcpt: str, *, smtputf8: bool) -> str:
    """The value of ORCPT for what `orcpt_decode` gave. `smtputf8`: the server offers SMTPUTF8, so that a ``utf-8``
    address may hold UTF-8 (utf-8-addr-unitext), else it is all ASCII (utf-8-addr-xtext, RFC 6533 §3)."""
    addr_type, _, address = orcpt.partition(";")
    if addr_type.lower() != "utf-8":
        return f"{addr_type};{xtext_encode(address)}"
    return f"{addr_type};{unitext_encode(address, smtputf8=smtputf8)}"


def unitext_encode(text: str, *, smtputf8: bool) -> str:
    """utf-8-addr-unitext, or utf-8-addr-xtext if not `smtputf8` (RFC 6533 §3)."""
    outside = _NO_QUCHAR if smtputf8 else _NO_QCHAR
    return outside.sub(lambda found: f"\\x{{{ord(found[0]):02X}}}", text)


def _unitext_decode(text: str) -> str | None:
    if not _UNITEXT.fullmatch(text):
        return None
    decoded = _EMBEDDED.sub(_embedded, text)
    return None if "\ufffe" in decoded else decoded


def _embedded(found: re.Match[str]) -> str:
    """One EmbeddedUnicodeChar; U+FFFE, which no text holds, for what is none."""
    digits = found[1]
    point = int(digits, 16)
    if point > 0x10FFFF or 0xD800 <= point < 0xE000 or (len(digits) > 2 and digits.startswith("0")):
        return "\ufffe"
    char = chr(point)
    return char if point >= 0x80 or char in _UNITEXT_ASCII else "\ufffe"


# ---- EHLO


# RFC 5321 §4.1.1.1: ehlo = "EHLO" SP ( Domain / address-literal ) CRLF. Taken are all graphic ASCII characters: what
# clients call themselves is often not their name, and refusing mail for it is policy (`check`), not grammar; and all
# octets that are not ASCII, as computers with such a name send it. What follows a space is information that older
# clients added and is ignored, as the section advises.
_HELLO: Final = re.compile(rb"[!-~\x80-\xff]{1,255}(?: .*)?", re.DOTALL)


def parse_hello(argument: bytes) -> str | None:
    """The argument of EHLO, HELO or LHLO as written, what is not UTF-8 escaped (``\\xfc``), or None if there is none
    that could be."""
    if not _HELLO.fullmatch(argument):
        return None
    return argument.partition(b" ")[0].decode("utf-8", "backslashreplace")
