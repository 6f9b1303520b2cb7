"""The kinds of value a setting may have beyond TOML's own: durations, sizes, domains, addresses, networks, files.

Each is an `Annotated` type whose validator turns what the operator wrote into what the rooms take. A wrong value is a
`PydanticCustomError` that says what is wrong and carries the remedy; `load` makes a Problem of it. `ValueKind` stands
beside the validator and gives the reference its words.
"""

from __future__ import annotations

import contextlib
import enum
import ipaddress
import json
import re
import unicodedata
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

from pydantic import BeforeValidator, ValidationInfo
from pydantic_core import PydanticCustomError

from postroad.deliver.mailbox import HOME
from postroad.mail import wishes
from postroad.mail.address import canonical_domain
from postroad.maps.field_patterns import wrong_addition, wrong_change, wrong_removal
from postroad.protocol.grammar import parse_mailbox
from postroad.route import transport
from postroad.trust import opendkim_tables
from postroad.world.dns import parse_server
from postroad.world.problem import Problem

_SECONDS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION_PART: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)\s*")
_OCTETS: Final = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}
_LONG: Final = (("d", 86400), ("h", 3600), ("m", 60))
_LARGE: Final = (("T", 1024**4), ("G", 1024**3), ("M", 1024**2), ("K", 1024))
_SIZE: Final = re.compile(r"(\d+)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)


_MECHANISM: Final = re.compile(r"[A-Z0-9_-]{1,20}")
_URL: Final = re.compile(r"https?://[A-Za-z0-9.\[\]:-]+(?:/[!-~]*)?")


class ValueKind(NamedTuple):
    """What the reference says of a type: its name, and how it is written."""

    name: str
    written: str


def show(value: Any, kind: ValueKind | None) -> str:
    """A value as it is written in the file; "" for None."""
    if value is None:
        return ""
    if isinstance(value, tuple):
        return "[" + ", ".join(show(each, kind) for each in value) + "]"
    match kind.name if kind else "":
        case "duration":
            return _show_unit(float(value), _LONG, "s")
        case "size":
            return _show_unit(float(value), _LARGE, "")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, enum.Enum):
        return show(value.value, kind)
    return str(value) if isinstance(value, int | float) else json.dumps(str(value), ensure_ascii=False)


def _show_unit(value: float, units: tuple[tuple[str, int], ...], smallest: str) -> str:
    for unit, factor in units:
        if value and value % factor == 0:
            return f'"{int(value // factor)}{unit}"'
    number = f"{value:g}" if value < 1e6 else str(int(value))
    return f'"{number}{smallest}"' if smallest and value else number


def wrong(text: str, remedy: str) -> PydanticCustomError:
    """The error of a value that cannot be used. Braces in the texts are kept as they are."""
    return PydanticCustomError("postroad", "{text}", {"text": text, "remedy": remedy})


def duration_s(written: Any) -> float:
    """Seconds of ``30``, ``"30s"``, ``"5m"``, ``"1h 30m"``, ``"5d"``."""
    if isinstance(written, int | float) and not isinstance(written, bool):
        return float(written)
    if isinstance(written, str):
        parts = list(_DURATION_PART.finditer(written.strip()))
        if parts and "".join(part.group() for part in parts) == written.strip():
            return float(sum(float(part[1]) * _SECONDS[part[2]] for part in parts))
    raise wrong(f"{written!r} is not a duration", 'Write seconds as a number, or a text such as "30s", "5m", "4h"')


def octets(written: Any) -> int:
    """Octets of ``1048576``, ``"50M"``, ``"1G"``; K, M, G and T are powers of 1024."""
    if isinstance(written, int) and not isinstance(written, bool):
        return written
    if isinstance(written, str) and (found := _SIZE.fullmatch(written.strip())):
        return int(found[1]) * _OCTETS[found[2].upper()]
    raise wrong(f"{written!r} is not a size", 'Write octets as a number, or a text such as "64K", "50M", "1G"')


def domain(written: Any) -> str:
    """The canonical form of a domain name."""
    if isinstance(written, str):
        try:
            return canonical_domain(written)
        except ValueError:
            pass
    raise wrong(f"{written!r} is not a domain name", 'Write a name such as "example.org"')


def domain_or_none(written: Any) -> str:
    """The same, or "" for none."""
    return "" if written == "" else domain(written)


def pattern_or_none(written: Any) -> str:
    """A pattern of domains, or "" for none."""
    return "" if written == "" else domain_pattern(written)


def field_rule(fault: Callable[[str], str], written: Any) -> str:
    """A rule about header fields. `fault`: what is wrong with it."""
    found = fault(written) if isinstance(written, str) else "it is not a text"
    if found:
        raise wrong(f"{written!r} cannot be used: {found}", "See docs/rewriting.md for how such rules are written")
    return str(written)


def hidden_domain(written: Any) -> str:
    """A domain whose hosts are hidden, or with ``!`` one whose hosts are not."""
    if isinstance(written, str) and written.startswith("!"):
        return "!" + domain(written[1:])
    return domain(written)


def domain_pattern(written: Any) -> str:
    """A domain, ``.example.org`` for all domains below it, or ``*`` for all domains."""
    if written == "*":
        return "*"
    if isinstance(written, str) and written.startswith("."):
        try:
            return "." + canonical_domain(written[1:])
        except ValueError:
            pass
    if isinstance(written, str) and written.startswith("*."):
        raise wrong(f"{written!r} is not a domain name", f'For all domains below it write "{written[1:]}"')
    return domain(written)


def mailbox_pattern(written: Any) -> str:
    """A mailbox as routing compares it: its local-part in lower case and without quotes."""
    parsed = parse_mailbox(written) if isinstance(written, str) else None
    if parsed is None or not parsed.domain:
        raise wrong(f"{written!r} is not a mailbox", 'Write a mailbox such as "ada@example.org"')
    return f"{unicodedata.normalize('NFC', parsed.local_part).lower()}@{parsed.domain}"


def sender_pattern(written: Any) -> str:
    """A mailbox, a domain, ``.example.org`` for all domains below it, or ``<>`` for the null reverse-path."""
    if written == "<>":
        return "<>"
    if written == "*":
        raise wrong("'*' is not a pattern of senders", "Leave it out: a table without senders is for all senders")
    if isinstance(written, str) and written.startswith("@"):
        raise wrong(f"{written!r} is not a sender", f'For all senders of the domain write "{written[1:]}"')
    return mailbox_pattern(written) if isinstance(written, str) and "@" in written else domain_pattern(written)


def generic_entry(written: Any) -> str:
    """An entry of a table of names: a mailbox or ``@example.org``, and the name that it gets instead."""
    words = written.split() if isinstance(written, str) else []
    if len(words) != 2 or "" in map(generic_name, words):
        remedy = 'Write two names, such as "ada@host.local ada@example.org" or "@host.local @example.org"'
        raise wrong(f"{written!r} does not say which name becomes which", remedy)
    return " ".join(words)


def generic_name(word: str) -> str:
    """A mailbox, or ``@example.org`` for all of a domain, in its canonical form; "" if it is neither."""
    if not word.startswith("@"):
        parsed = parse_mailbox(word)
        return str(parsed) if parsed is not None and parsed.domain else ""
    try:
        return f"@{canonical_domain(word[1:])}"
    except ValueError:
        return ""


# [host], [host]:port and host:port, as Postfix writes a relayhost
_HOST_AND_PORT: Final = re.compile(r"(?:\[([^\[\]\s]+)\]|([^\[\]:\s]+)(?=:))(?::([0-9]{1,5}))?")


def host(written: Any) -> str:
    """The name or the IP address of a host."""
    try:
        return ip_address(written)
    except PydanticCustomError:
        pass
    found = _HOST_AND_PORT.fullmatch(written) if isinstance(written, str) else None
    if found is not None:
        name, port = found[1] or found[2], found[3]
        set_port = f" and port = {port}" if port else ""
        raise wrong(f"{written!r} is not a host alone", f'Write host = "{name}"{set_port}')
    try:
        return domain(written)
    except PydanticCustomError:
        raise wrong(f"{written!r} is not a host", 'Write a name such as "mail.example.org" or an IP address') from None


def hello_name(written: Any) -> str:
    """The name for EHLO, a domain or an address literal (RFC 5321 §4.1.1.1); "" for none."""
    if written == "":
        return ""
    if isinstance(written, str) and written[:1] == "[" and written[-1:] == "]":
        bare = written[1:-1]
        address = ip_address(bare[5:] if bare[:5].lower() == "ipv6:" else bare)
        return f"[IPv6:{address}]" if ":" in address else f"[{address}]"
    return domain(written)


def own_address(written: Any) -> str:
    """An IP address to connect from, perhaps with the name for EHLO behind it."""
    words = written.split() if isinstance(written, str) else []
    if not 0 < len(words) < 3:
        raise wrong(f"{written!r} is not an IP address", 'Write "192.0.2.7", or "192.0.2.7 mail.example.org"')
    return " ".join((ip_address(words[0]), *map(hello_name, words[1:])))


_WEIGHTED: Final = ("port", "priority", "weight")


def server_entry(written: Any) -> str:
    """A server of several: ``a.example``, ``[a.example]:587``, ``example.net mx``, ``a.example:25 priority=10
    weight=5``, or a table with these keys. As text, in this order."""
    if isinstance(written, dict):
        return _server_table(written)
    words = written.split() if isinstance(written, str) else []
    if not words:
        raise wrong(f"{written!r} is not a server", _SERVER_REMEDY)
    found: dict[str, Any] = {"host": words[0]}
    bracketed = _HOST_AND_PORT.fullmatch(words[0])
    if bracketed is not None:
        found["host"] = bracketed[1] or bracketed[2]
        if bracketed[3]:
            found["port"] = int(bracketed[3])
    for word in words[1:]:
        key, _, value = word.partition("=")
        if word == "mx":
            found["mx"] = True
        elif key in _WEIGHTED and value.isdecimal():
            found[key] = int(value)
        else:
            raise wrong(f"{word!r} says nothing of a server", _SERVER_REMEDY)
    return _server_table(found)


def _server_table(written: dict[str, Any]) -> str:
    unknown = [key for key in written if key not in ("host", "mx", *_WEIGHTED)]
    if unknown or "host" not in written:
        text = f"a server has no key {unknown[0]!r}" if unknown else "a server needs a host"
        raise wrong(text, _SERVER_REMEDY)
    for key in _WEIGHTED:
        least, most = (1, 65_535) if key == "port" else (0, 65_535)
        value = written.get(key, least)
        if type(value) is not int or not least <= value <= most:
            raise wrong(f"{value!r} is not a {key} of a server", f"Write a number from {least} to {most}")
    if type(written.get("mx", False)) is not bool:
        raise wrong(f"{written['mx']!r} is neither true nor false", "Write mx = true, or leave it out")
    words = [host(written["host"])]
    words += [f"{key}={written[key]}" for key in _WEIGHTED if key in written]
    return " ".join([*words, "mx"] if written.get("mx") else words)


_SERVER_REMEDY: Final = (
    'Write "a.example", "[a.example]:587", or { host = "a.example", port = 587, priority = 10, weight = 5 }; '
    "mx = true if the MX records of this domain are meant"
)


_FIELD: Final = re.compile(r"[!-9;-~]{1,77}")  # RFC 5322 §3.6.8, and no longer than a line


def field_pattern(written: Any) -> str:
    """The name of a header field, perhaps with its value: ``X-Campaign``, ``Precedence: bulk``."""
    name, colon, value = written.partition(":") if isinstance(written, str) else ("", "", "")
    if _FIELD.fullmatch(name.strip()) and (value.strip() or not colon) and value.isprintable():
        return f"{name.strip()}: {value.strip()}" if colon else name.strip()
    raise wrong(f"{written!r} is not a header field", 'Write "X-Campaign", or with a value "Precedence: bulk"')


def field_name(written: Any) -> str:
    """The name of a header field alone."""
    if isinstance(written, str) and _FIELD.fullmatch(written):
        return written
    raise wrong(f"{written!r} is not the name of a header field", 'Write a name such as "List-Id"')


def selector(written: Any) -> str:
    """The selector of a DKIM key, without `_domainkey` and the domain."""
    if isinstance(written, str):
        alone, within, _ = written.lower().partition("._domainkey")
        if within:
            raise wrong(f"{written!r} is the whole name in the DNS", f'Write the selector alone: "{alone}"')
        with contextlib.suppress(ValueError):
            return canonical_domain(written)
    raise wrong(f"{written!r} is not a selector", 'Write a name such as "mail2026"')


def opendkim_table(written: Any, info: ValidationInfo) -> str:
    """A table of OpenDKIM: a path, perhaps with ``file:`` or ``refile:`` in front; "" for none."""
    if written == "":
        return ""
    source = opendkim_tables.source_of(written) if isinstance(written, str) else "it is not a text"
    if isinstance(source, str):
        raise wrong(f"{written!r} is not a table: {source}", 'Write "/etc/opendkim/key.table" or "refile:PATH"')
    path, patterns = source
    return f"{'refile:' if patterns else ''}{file_path(path, info)}"


def action(written: Any) -> str:
    """What becomes of mail that is not to be sent, in the words of a transport map; "" if it is sent."""
    if isinstance(written, str) and (not written or transport.action(written) is not None):
        return written.strip()
    raise wrong(
        f"{written!r} is none of the actions", 'Write "hold:TEXT", "error:5.7.1 TEXT", "retry:4.7.1 TEXT" or "discard:"'
    )


def mailbox(written: Any) -> str:
    """A mailbox in its wire form; "" for none."""
    if written == "":
        return ""
    parsed = parse_mailbox(written) if isinstance(written, str) else None
    if parsed is None or not parsed.domain:
        raise wrong(f"{written!r} is not a mailbox", 'Write a mailbox such as "postmaster@example.org"')
    return str(parsed)


def help_text(written: Any) -> str:
    """One line of a reply (RFC 5321 §4.2: textstring), which is at most 512 octets with its code."""
    if isinstance(written, str) and 0 < len(written) <= 480 and written.isascii() and written.isprintable():
        return written
    raise wrong("this is not one line of printable ASCII", "Write one line of at most 480 printable ASCII characters")


def ip_address(written: Any) -> str:
    """An IP address in its shortest form."""
    try:
        if isinstance(written, str):
            return str(ipaddress.ip_address(written))
    except ValueError:
        pass
    raise wrong(f"{written!r} is not an IP address", 'Write an address such as "192.0.2.1" or "2001:db8::1"')


def network(written: Any) -> str:
    """A network, or a single address as a network of its own."""
    try:
        if isinstance(written, str):
            return str(ipaddress.ip_network(written))
    except ValueError as error:
        if "host bits" in str(error):
            wider = ipaddress.ip_network(written, strict=False)
            raise wrong(
                f"{written!r} is an address inside a network", f'Write "{wider}" for the network, or the address alone'
            ) from None
    raise wrong(f"{written!r} is not a network", 'Write a network such as "192.0.2.0/24" or "2001:db8::/32"')


def trusted_network(written: Any) -> str:
    """A network, or ``unix`` for the clients of a Unix socket."""
    return "unix" if written == "unix" else network(written)


_CERTIFICATE_WORDS: Final = ("hostname", "nexthop", "dot-nexthop")


def certificate_name(written: Any) -> str:
    """A name that a certificate may have."""
    text = canonical_domain(str(written).removeprefix(".")) if isinstance(written, str) else ""
    if written in _CERTIFICATE_WORDS:
        return str(written)
    if not text or "*" in text:
        raise wrong(
            f"{written!r} is not a name that a certificate can have",
            'Write a name such as "mail.example.net", ".example.net" for all names below it, or one of the words '
            f"{', '.join(_CERTIFICATE_WORDS)}",
        )
    return f".{text}" if written.startswith(".") else text


def fingerprint(written: Any) -> str:
    """A SHA-256 fingerprint in lower-case hexadecimal without colons."""
    if isinstance(written, str):
        plain = written.replace(":", "").lower()
        if len(plain) == 64 and not set(plain) - set("0123456789abcdef"):
            return plain
    raise wrong(f"{written!r} is not a SHA-256 fingerprint", "Write 64 hexadecimal digits, with or without colons")


def listening_address(written: Any) -> str:
    """An IP address to listen on, or ``unix:`` and the path of a socket."""
    if isinstance(written, str) and written.startswith("unix:"):
        if not written.removeprefix("unix:").startswith("/"):
            raise wrong(f"{written!r} has no absolute path", 'Write "unix:" and the absolute path of the socket')
        return written
    if isinstance(written, str) and written.startswith("/"):
        raise wrong(f"{written!r} is not an IP address", f'For a Unix socket write "unix:{written}"')
    return ip_address(written)


def dns_server(written: Any) -> str:
    """``192.0.2.1``, ``192.0.2.1:53``, ``2001:db8::1``, ``[2001:db8::1]:53``, as `world.dns` reads it."""
    if not isinstance(written, str) or isinstance(parse_server(written), Problem):
        raise wrong(f"{written!r} is not the address of a server", 'Write "192.0.2.1:53" or "[2001:db8::1]:53"')
    return written


def mechanism(written: Any) -> str:
    """The name of a SASL mechanism, in capitals (RFC 4422 §3.1: sasl-mech = 1*20mech-char)."""
    if isinstance(written, str) and _MECHANISM.fullmatch(written.upper()):
        return written.upper()
    raise wrong(f"{written!r} is not a SASL mechanism", 'Write a name such as "SCRAM-SHA-256" or "PLAIN"')


def url(written: Any) -> str:
    """A URL of HTTP or HTTPS."""
    if isinstance(written, str) and _URL.fullmatch(written):
        return written
    raise wrong(f"{written!r} is not an HTTP URL", 'Write a URL such as "https://login.example.org/introspect"')


def file_path(written: Any, info: ValidationInfo) -> Path:
    """A path; a relative one counts from the folder of the configuration file. It need not exist."""
    if isinstance(written, str) and written.startswith(HOME) and "\0" not in written:
        return Path(written)  # it becomes absolute when mail comes
    if isinstance(written, str) and written and "\0" not in written:
        return Path(info.context["folder"] if info.context else ".", written)
    raise wrong(f"{written!r} is not a path", "Write the path of a file as a text in quotes")


def moment(written: Any) -> str:
    """A date, or a date-time of RFC 3339."""
    if isinstance(written, str) and wishes.date_or_time_us(written) is not None:
        return written
    raise wrong(f"{written!r} is not a date", 'Write a date such as "2014-04-03", or "2014-04-03T12:00:00Z"')


def one_or_more(written: Any) -> Any:
    """A single value where a list of them may stand."""
    return written if isinstance(written, list) else [written]


_NET: Final = ValueKind("network", '`"192.0.2.0/24"`, `"2001:db8::/32"` or a single address')

Seconds = Annotated[
    float, BeforeValidator(duration_s), ValueKind("duration", '`"30s"`, `"5m"`, `"4h"`, `"5d"`, or seconds')
]
Octets = Annotated[
    int, BeforeValidator(octets), ValueKind("size", '`"64K"`, `"50M"`, `"1G"` (powers of 1024), or octets')
]
Domain = Annotated[str, BeforeValidator(domain), ValueKind("domain", '`"example.org"`; U-labels are accepted, too')]
DomainPattern = Annotated[
    str,
    BeforeValidator(domain_pattern),
    ValueKind("domain pattern", '`"example.org"`, `".example.org"` for all names below it, `"*"` for all'),
]
DomainOrNone = Annotated[
    str, BeforeValidator(domain_or_none), ValueKind("domain", '`"example.org"`; U-labels are accepted, too')
]
DomainPatternOrNone = Annotated[
    str,
    BeforeValidator(pattern_or_none),
    ValueKind("domain pattern", '`"example.org"`, `".example.org"` for all names below it, `"*"` for all'),
]
RemovedField = Annotated[
    str,
    BeforeValidator(partial(field_rule, wrong_removal)),
    ValueKind("field", '`"User-Agent"`, or a pattern such as `"/^Received: .*with ESMTPSA/"`'),
]
ReplacedField = Annotated[
    str,
    BeforeValidator(partial(field_rule, wrong_change)),
    ValueKind("pattern with a text", '`"/^User-Agent: (.*)/ X-Agent: $1"`'),
]
AddedField = Annotated[
    str, BeforeValidator(partial(field_rule, wrong_addition)), ValueKind("field", '`"Reply-To: help@example.org"`')
]
HiddenDomain = Annotated[
    str,
    BeforeValidator(hidden_domain),
    ValueKind("domain", '`"example.org"`; `"!lab.example.org"` for one that stays as it is'),
]
MailboxPattern = Annotated[
    str, BeforeValidator(mailbox_pattern), ValueKind("mailbox", '`"ada@example.org"`; capitals do not matter')
]
SenderPattern = Annotated[
    str,
    BeforeValidator(sender_pattern),
    ValueKind("sender", '`"ada@example.org"`, `"example.org"`, `".example.org"`, or `"<>"` for reports'),
]
GenericEntry = Annotated[
    str,
    BeforeValidator(generic_entry),
    ValueKind("pair of names", '`"ada@host.local ada@example.org"`, `"@host.local @example.org"`'),
]
IpAddress = Annotated[
    str,
    BeforeValidator(lambda written: written and ip_address(written)),
    ValueKind("IP address", '`"192.0.2.1"`, `"2001:db8::1"`'),
]
OwnAddressEntry = Annotated[
    str,
    BeforeValidator(own_address),
    ValueKind("own address", '`"192.0.2.7"`, or with the name for EHLO `"192.0.2.7 mail.example.org"`'),
]
HelloName = Annotated[
    str, BeforeValidator(hello_name), ValueKind("name", '`"mail.example.org"` or an address literal')
]
ServerEntry = Annotated[
    str,
    BeforeValidator(server_entry),
    ValueKind(
        "server", '`"a.example"`, `"[a.example]:587"`, `{ host = "a.example", priority = 10, weight = 5 }`'
    ),
]
FieldPattern = Annotated[
    str, BeforeValidator(field_pattern), ValueKind("header field", '`"X-Campaign"`, `"Precedence: bulk"`')
]
Action = Annotated[
    str, BeforeValidator(action), ValueKind("action", '`"hold:TEXT"`, `"error:5.7.1 TEXT"`, `"retry:…"`, `"discard:"`')
]
Network = Annotated[str, BeforeValidator(network), _NET]
ListeningAddress = Annotated[
    str, BeforeValidator(listening_address), ValueKind("address", '`"0.0.0.0"`, `"::"` or `"unix:/run/postroad/lmtp"`')
]
TrustedNetwork = Annotated[
    str, BeforeValidator(trusted_network), ValueKind("network", f'{_NET.written}; `"unix"` for a Unix socket')
]
CertificateName = Annotated[
    str,
    BeforeValidator(certificate_name),
    ValueKind("name of a certificate", "a name, `.example.net` for all names below it, or a word"),
]
Fingerprint = Annotated[
    str,
    BeforeValidator(fingerprint),
    ValueKind("fingerprint", '`"AB:CD:…"`, 64 hexadecimal digits, with or without colons'),
]
DnsServer = Annotated[
    str, BeforeValidator(dns_server), ValueKind("server", '`"127.0.0.1:53"`, `"[::1]:53"`; without a port: 53')
]
Mechanism = Annotated[str, BeforeValidator(mechanism), ValueKind("SASL mechanism", '`"SCRAM-SHA-256"`, `"PLAIN"`')]
Url = Annotated[str, BeforeValidator(url), ValueKind("URL", '`"https://login.example.org/introspect"`')]
HelpText = Annotated[str, BeforeValidator(help_text), ValueKind("text", "one line of printable ASCII")]
Host = Annotated[str, BeforeValidator(host), ValueKind("host", '`"mail.example.org"` or an IP address')]
Mailbox = Annotated[str, BeforeValidator(mailbox), ValueKind("mailbox", '`"postmaster@example.org"`')]
File = Annotated[
    Path, BeforeValidator(file_path), ValueKind("path", "relative paths start from the configuration's folder")
]
Moment = Annotated[
    str,
    BeforeValidator(lambda written: written and moment(written)),
    ValueKind("date", '`"2014-04-03"` (its beginning in UTC) or `"2014-04-03T12:00:00Z"`'),
]
Port = Annotated[int, ValueKind("port", "1 to 65535")]
MapNames = Annotated[tuple[str, ...], BeforeValidator(one_or_more)]
RemovedFields = Annotated[tuple[RemovedField, ...], BeforeValidator(one_or_more)]
ReplacedFields = Annotated[tuple[ReplacedField, ...], BeforeValidator(one_or_more)]
AddedFields = Annotated[tuple[AddedField, ...], BeforeValidator(one_or_more)]
