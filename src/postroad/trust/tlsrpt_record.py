"""The TLS reporting policy of a domain: the TXT record at `_smtp._tls` (RFC 8460 §3). Pure.

What always holds: no exception whatever the text. Unknown fields are passed over. How it fails: `select` says in words
why the domain has no policy that counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import msgspec

PREFIX: Final = "_smtp._tls."
URIS_MAX: Final = 20

# §3: tlsrpt-version = %s"v=TLSRPTv1", then at least one field
_VERSION: Final = re.compile(r"v=TLSRPTv1[ \t]*;[ \t]*")
_FIELD: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,31})[ \t]*=[ \t]*([!-:<-~ \t]*)")
# RFC 3986 §3; "," ";" and "!" must be encoded
_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:(?:[A-Za-z0-9._~:/?#\[\]@$&'()*+=-]|%[0-9A-Fa-f]{2})+")


class TlsrptRecord(msgspec.Struct, frozen=True):
    """`uris`: where reports go: mailto: and https:, in their order. `faults`: what is wrong with it, for people."""

    uris: tuple[str, ...]
    faults: tuple[str, ...] = ()
    text: str = ""


def select(texts: Iterable[str]) -> TlsrptRecord | str:
    """The policy among the TXT records of the name; or why there is none (§3: exactly one record must be left)."""
    found = [text for text in texts if _VERSION.match(text)]
    if not found:
        return "there is no TLSRPT record"
    if len(found) > 1:
        return f"there are {len(found)} TLSRPT records, so none counts"
    return parse(found[0])


def parse(text: str) -> TlsrptRecord | str:
    """The policy in a text that begins with the version; or why it is none."""
    version = _VERSION.match(text)
    if version is None:
        return "the TLSRPT record does not begin with v=TLSRPTv1;"
    rest = text[version.end() :]
    faults: list[str] = []
    uris: dict[str, None] = {}
    for part in rest.split(";"):
        stripped = part.strip(" \t")
        if not stripped:
            continue
        named = _FIELD.fullmatch(stripped)
        if named is None:
            return f"the TLSRPT record has a part that is no field: {stripped[:60]!a}"
        if named[1] != "rua":  # §3: unknown fields are ignored
            continue
        for each in named[2].split(",", URIS_MAX + 1)[:URIS_MAX]:
            uri = each.strip(" \t")
            if _URI.fullmatch(uri) and uri.partition(":")[0].lower() in ("mailto", "https"):
                uris[uri] = None
            else:
                faults.append(f"{uri[:60]!a} is neither a mailto: nor an https: URI")
    if not uris:
        return "the TLSRPT record names no place for reports that can be used (rua=)"
    return TlsrptRecord(tuple(uris), tuple(faults), text)
