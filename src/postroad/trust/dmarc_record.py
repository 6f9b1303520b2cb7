"""The DMARC policy record of a domain (RFC 9989 §4.7, §4.8). Pure.

What always holds: no exception whatever the text. Unknown tags are passed over; a tag whose value is not allowed has
its default, and `DmarcRecord.faults` names it. Of a tag that is there twice, the first counts. Names of tags and values
are read without regard to case, but the "DMARC1" of `v=`, as the ABNF says (RFC 5234 §2.3, RFC 7405).
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final
from urllib.parse import unquote

import msgspec

from postroad.trust import tags

PREFIX: Final = "_dmarc."
URIS_MAX: Final = 20  # addresses for reports that one tag may name
FAULTS_MAX: Final = 20

# RFC 3986 §3; RFC 9989 §4.8: "," and "!" must be encoded.
_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:(?:[A-Za-z0-9._~:/?#\[\]@$&'()*+=-]|%[0-9A-Fa-f]{2})+")
_SIZE: Final = re.compile(r"!([0-9]+)([kmgt]?)\Z", re.IGNORECASE)  # obs-dmarc-report-size
_UNITS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_DIGITS_MAX: Final = 12  # of a size
_REPORT_OPTIONS: Final = ("0", "1", "d", "s")
_OLD: Final = frozenset(("pct", "rf", "ri"))  # of RFC 7489; RFC 9989 §C.5.2
_SHOWN_MAX: Final = 60
_KEPT_LENGTH_MAX: Final = 500  # characters of a record that is kept in memory when it has been read


class Policy(enum.IntEnum):
    """What a domain asks to do with mail that fails. The higher, the stricter."""

    NONE = 0
    QUARANTINE = 1
    REJECT = 2

    @property
    def word(self) -> str:
        return self.name.lower()


class Psd(enum.Enum):
    """Whether the domain is a public suffix domain."""

    YES = "y"
    NO = "n"
    UNKNOWN = "u"


class DmarcRecord(msgspec.Struct, frozen=True):
    """`policy`, `subdomains`, `nonexistent`: p=, sp=, np=; None: there is no such tag. `usable`: whether DMARC applies
    (RFC 9989 §4.10.1); a record that is not usable still takes part in a tree walk. `aggregate`, `failure`: the URIs of
    rua= and ruf=. `options`: fo=. `faults`: what is wrong with it, for people. `sizes`: URIs of rua= with the most
    octets that they take (RFC 7489 §6.2; RFC 9989 §4.8 lets reporters ignore it)."""

    policy: Policy = Policy.NONE
    subdomains: Policy | None = None
    nonexistent: Policy | None = None
    testing: bool = False
    psd: Psd = Psd.UNKNOWN
    dkim_strict: bool = False
    spf_strict: bool = False
    aggregate: tuple[str, ...] = ()
    failure: tuple[str, ...] = ()
    options: tuple[str, ...] = ("0",)
    usable: bool = True
    faults: tuple[str, ...] = ()
    text: str = ""
    sizes: tuple[tuple[str, int], ...] = ()

    def size_max(self, uri: str) -> int:
        """The most octets that this URI of rua= takes; 0: it does not say."""
        return next((size for each, size in self.sizes if each == uri), 0)


def is_record(text: str) -> bool:
    """Whether it begins with the tag v= of this version (RFC 9989 §4.7); if not, it is no DMARC record."""
    name, equals, value = text.partition(";")[0].partition("=")
    return bool(equals) and name.strip(" \t").lower() == "v" and value.strip(" \t") == "DMARC1"


def select(texts: Iterable[str]) -> DmarcRecord | str:
    """The record among the TXT records of a name; or why there is none (RFC 9989 §4.10)."""
    found = [text for text in texts if is_record(text)]
    if len(found) > 1:
        return f"there are {len(found)} DMARC records, so none counts"
    if not found:
        return "there is no DMARC record"
    return parse(found[0])


def parse(text: str) -> DmarcRecord:
    """A text that `is_record`."""
    return _kept(text) if len(text) <= _KEPT_LENGTH_MAX else _parsed(text)


@lru_cache(maxsize=1024)
def _kept(text: str) -> DmarcRecord:
    """Large domains send much mail under one record."""
    return _parsed(text)


def _parsed(text: str) -> DmarcRecord:
    listed, tag_faults = tags.gather(text)
    faults = [fault.text for fault in tag_faults]
    found: dict[str, str] = {}
    for name, value in listed.items():
        if name.lower() in found:
            faults.append(f"the tag {name.lower()}= is there twice")
        found.setdefault(name.lower(), value)
    reader = _Reader(found, faults)
    policy, subdomains, nonexistent = reader.policy("p"), reader.policy("sp"), reader.policy("np")
    aggregate = reader.uris("rua")
    failure = reader.uris("ruf")
    usable = True
    if policy is None or (subdomains is None and "sp" in found) or (nonexistent is None and "np" in found):
        # RFC 9989 §4.10.1: as if it were p=none, if somebody wants reports.
        usable = bool(aggregate)
        policy, subdomains, nonexistent = Policy.NONE, None, None
        if "p" not in found:
            faults.append("the tag p= is missing")
    faults += [f"the tag {name}= is of RFC 7489 and has no effect any more" for name in sorted(_OLD & found.keys())]
    return DmarcRecord(
        policy=policy,
        subdomains=subdomains,
        nonexistent=nonexistent,
        testing=reader.one_of("t", "ny") == "y",
        psd=Psd(reader.one_of("psd", "uny")),
        dkim_strict=reader.one_of("adkim", "rs") == "s",
        spf_strict=reader.one_of("aspf", "rs") == "s",
        aggregate=aggregate,
        failure=failure,
        options=reader.options() if failure else ("0",),
        usable=usable,
        faults=tuple(faults[:FAULTS_MAX]),
        text=text,
        sizes=reader.sizes("rua"),
    )


def mail_address(uri: str) -> str | None:
    """The address of a mailto: URI (RFC 6068); None if it is none or names several."""
    scheme, _, rest = uri.partition(":")
    if scheme.lower() != "mailto":
        return None
    try:
        address = unquote(rest.partition("?")[0], errors="strict")
    except UnicodeDecodeError:
        return None
    return address if "@" in address and "," not in address and address.isprintable() else None


class _Reader:
    """The values of single tags. What is wrong goes into `faults`."""

    __slots__ = ("_faults", "_found")

    def __init__(self, found: dict[str, str], faults: list[str]) -> None:
        self._found = found
        self._faults = faults

    def policy(self, name: str) -> Policy | None:
        value = self._found.get(name)
        if value is None:
            return None
        for policy in Policy:
            if policy.word == value.lower():
                return policy
        self._fault(name, value, "must be none, quarantine or reject")
        return None

    def one_of(self, name: str, allowed: str) -> str:
        """One letter of `allowed`; the first one is the default."""
        value = self._found.get(name, allowed[0])
        if len(value) == 1 and value.lower() in allowed:
            return value.lower()
        self._fault(name, value, f"must be one of {', '.join(sorted(allowed))}")
        return allowed[0]

    def uris(self, name: str) -> tuple[str, ...]:
        value = self._found.get(name)
        if value is None:
            return ()
        found: dict[str, None] = {}
        for each in value.split(",", URIS_MAX + 1)[:URIS_MAX]:
            uri = _SIZE.sub("", each.strip(" \t"))
            if _URI.fullmatch(uri):
                found[uri] = None
            else:
                self._fault(name, each.strip(" \t"), "must be URIs, such as mailto:reports@example.org")
        if value.count(",") >= URIS_MAX:
            self._faults.append(f"the tag {name}= has more than {URIS_MAX} URIs")
        return tuple(found)

    def sizes(self, name: str) -> tuple[tuple[str, int], ...]:
        """The URIs with a size. It is only called if `uris` has been."""
        found: list[tuple[str, int]] = []
        for each in self._found.get(name, "").split(",", URIS_MAX + 1)[:URIS_MAX]:
            written = each.strip(" \t")
            size = _SIZE.search(written)
            if size is not None and len(size[1]) <= _DIGITS_MAX:
                found.append((written[: size.start()], int(size[1]) * _UNITS[size[2].lower()]))
        return tuple(found)

    def options(self) -> tuple[str, ...]:
        value = self._found.get("fo", "0")
        parts = [part.strip(" \t").lower() for part in value.split(":", len(_REPORT_OPTIONS))]
        if len(set(parts)) < len(parts) or not set(parts) <= set(_REPORT_OPTIONS) or {"0", "1"} <= set(parts):
            self._fault("fo", value, 'must be some of 0, 1, d, s with ":" between them, and not both 0 and 1')
            return ("0",)
        return tuple(parts)

    def _fault(self, name: str, value: str, rule: str) -> None:
        shown = value if len(value) <= _SHOWN_MAX else value[:_SHOWN_MAX] + "…"
        self._faults.append(f"the tag {name}= {rule}, not {shown!a}")
