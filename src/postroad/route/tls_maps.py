"""How much TLS a destination demands, if maps say so: `routing.tls_policy_maps`, as smtp_tls_policy_maps of Postfix.

The maps are asked when a connection must be opened, so a message costs nothing, and an answer that changes holds from
the next connection on. Keys: for mail by MX the domain, then the domains above it (``.example.org``); for a server that
was set ``[host]:port``, then ``[host]``, ``host:port`` and ``host``.

A value is a word of the settings (`mail.route.TlsDemand`) or ``secure``, then perhaps attributes: ``match=``,
``servername=``, ``protocols=``, ``ciphers=``, ``exclude=``; those that name a policy for reports (``policy_…``) count
for nothing. How it fails: a value that cannot be used, or a map that cannot answer, is a deferral with 4.3.0 that names
the map: mail never goes with less TLS than somebody may have demanded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Final

import msgspec

from postroad.mail.attempt import Attempt
from postroad.mail.route import (
    BELOW_NEXT_HOP,
    HOST_NAME,
    NEXT_HOP,
    TLS_OPTIONAL,
    Destination,
    TlsDemand,
    TlsTerms,
    Transport,
)
from postroad.mail.routing import not_now
from postroad.maps.asked import Asked, Entry, answered
from postroad.maps.face import Map, NoAnswer, NotNow
from postroad.maps.steps import KeyStep, domain_steps
from postroad.route.demand import PROVING
from postroad.world.tls import INTERMEDIATE, Version

_SHOWN_MAX: Final = 60  # characters of a value that is told
_SEPARATORS: Final = re.compile(r"[\s,]+")
_BRACES: Final = re.compile(r"\{[^{}]*\}")  # attributes with spaces, which only name a policy for reports
_IGNORED: Final = frozenset({"connection_reuse", "mx_host_pattern", "ttl"})
_GRADES: Final = {"high": INTERMEDIATE, "medium": "", "low": "", "export": ""}
_VERSIONS: Final = {
    "sslv2": 0, "sslv3": 1, "tlsv1": 2, "tlsv1.0": 2, "tlsv1.1": 3, "tlsv1.2": 4, "tlsv1.3": 5,
}  # fmt: skip
_MINIMUM: Final = {2: Version.TLS_1_0, 3: Version.TLS_1_1, 4: Version.TLS_1_2, 5: Version.TLS_1_3}


class TlsPolicyValue(msgspec.Struct, frozen=True):
    """What a value means. `terms.source` is not set."""

    demand: TlsDemand
    terms: TlsTerms


def parse(value: str) -> TlsPolicyValue | str:
    """A value, or what is wrong with it."""
    words = [word for word in _SEPARATORS.split(_BRACES.sub(" ", value)) if word]
    if not words:
        return "it is empty"
    level, *rest = words
    names: tuple[str, ...] = ()
    if level == "secure":
        demand, names = TlsDemand.VERIFY, (NEXT_HOP, BELOW_NEXT_HOP)
    else:
        try:
            demand = TlsDemand(level)
        except ValueError:
            return f"{level!r} is not a level of TLS"
    terms = TlsTerms()
    given: list[str] = []
    excluded: list[str] = []
    for word in rest:
        key, equals, text = word.partition("=")
        if not equals:
            return f"{word!r} is not an attribute such as match=example.org"
        match key:
            case "match":
                given += text.split("|" if demand is TlsDemand.FINGERPRINT else ":")
            case "servername":
                terms = msgspec.structs.replace(terms, server_name="" if text == HOST_NAME else text.lower())
            case "protocols":
                minimum = oldest(text)
                if " " in minimum:
                    return minimum
                terms = msgspec.structs.replace(terms, minimum=minimum)
            case "ciphers" if text in _GRADES:
                terms = msgspec.structs.replace(terms, ciphers=_GRADES[text])
            case "ciphers":
                return f"ciphers={text} is not one of {', '.join(_GRADES)}"
            case "exclude":
                excluded += [each for each in re.split("[:,]", text) if each]
            case _ if key in _IGNORED or key.startswith("policy_"):
                pass
            case _:
                return f"the attribute {key!r} is not known"
    if excluded:
        wanted = ":".join([terms.ciphers or INTERMEDIATE, *(f"!{each}" for each in excluded)])
        terms = msgspec.structs.replace(terms, ciphers=wanted)
    if demand is TlsDemand.FINGERPRINT:
        prints = tuple(fingerprint(each) for each in given)
        if not prints or "" in prints:
            return "a fingerprint is the SHA-256 of a certificate or key: 64 hexadecimal digits behind match="
        return TlsPolicyValue(demand, msgspec.structs.replace(terms, fingerprints=prints))
    if given:
        names = tuple(each.lower().removesuffix(".") for each in given)
    if names and demand not in (TlsDemand.VERIFY, TlsDemand.IMPLICIT):
        return f"match= means nothing with {level}"
    return TlsPolicyValue(demand, msgspec.structs.replace(terms, names=names))


def fingerprint(text: str) -> str:
    """64 hexadecimal digits in lower case, written with or without colons; "" if it is none."""
    plain = text.replace(":", "").lower()
    return plain if re.fullmatch("[0-9a-f]{64}", plain) else ""


def oldest(protocols: str) -> str:
    """The oldest version that a list such as ``>=TLSv1.2`` or ``!SSLv2:!SSLv3`` allows, in our words, "" for any; a
    text with spaces if that cannot be set."""
    lowest = 2
    refused: set[int] = set()
    allowed: set[int] = set()
    for word in re.split("[:,]", protocols):
        name = word.lstrip("!<>=").lower()
        if name not in _VERSIONS:
            return f"protocols={protocols}: {word!r} is not a version of TLS"
        if word.startswith(">="):
            lowest = max(lowest, _VERSIONS[name])
        elif word.startswith("!"):
            refused.add(_VERSIONS[name])
        elif word.startswith("<="):
            if _VERSIONS[name] < 5:
                return f"protocols={protocols}: only an oldest version can be set"
        else:
            allowed.add(_VERSIONS[name])
    while lowest in refused or (allowed and lowest not in allowed and lowest < 5):
        lowest += 1
    if lowest > 5 or any(each > lowest for each in refused):
        return f"protocols={protocols}: only an oldest version can be set"
    return "" if lowest == 2 else _MINIMUM[lowest].value


def keys(destination: Destination) -> Iterator[KeyStep]:
    """The keys under which a destination with one server may stand."""
    if destination.domain:
        yield from domain_steps(destination.domain, part=False)
        return
    host, port = destination.host, destination.port
    for key in (f"[{host}]:{port}", f"[{host}]", f"{host}:{port}", host):
        yield KeyStep("next hop", key)


class TlsPolicyMaps:
    """Ask it with a destination that has one server (`route.mx.Told`)."""

    def __init__(self, maps: Sequence[Map]) -> None:
        self._maps = tuple(maps)

    async def told(self, destination: Destination) -> Destination | Attempt:
        """The destination with what the maps demand, or a deferral."""
        if destination.transport is not Transport.SMTP:
            return destination
        found = answered(partial(self._find, destination))
        if found is not None and not isinstance(found, tuple | NoAnswer | NotNow):
            found = await found
        if isinstance(found, NotNow):
            return not_now(f"how much TLS {_name(destination)} demands is not known: {found.text}")
        return destination if found is None or isinstance(found, NoAnswer) else _meant(destination, found)

    def _find(self, destination: Destination, asked: Asked) -> Entry | NoAnswer | None:
        return asked.first(keys(destination), self._maps)


def _name(destination: Destination) -> str:
    return destination.domain or f"{destination.host}:{destination.port}"


def _meant(destination: Destination, entry: Entry) -> Destination | Attempt:
    value, key, name = entry
    found = parse(value)
    if isinstance(found, str):
        shown = value if len(value) <= _SHOWN_MAX else f"{value[:_SHOWN_MAX]}…"
        text = f"how much TLS {_name(destination)} demands is not known"
        return not_now(f"{text}: map {name} has {shown!r} for {key}, but {found}")
    tls = found.demand
    if destination.require_tls and tls not in PROVING:
        tls = TlsDemand.VERIFY
    elif destination.key.endswith(TLS_OPTIONAL) and tls in (TlsDemand.DANE, TlsDemand.STS):
        tls = TlsDemand.MAY  # RFC 8689 §4.2.2: the sender does without what the domain publishes
    terms = msgspec.structs.replace(found.terms, source=f"map {name}, {key}")
    return msgspec.structs.replace(destination, tls=tls, terms=terms)
