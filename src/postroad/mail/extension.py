"""Address extensions: ``ada+lists`` is ``ada`` with the extension ``+lists`` (RFC 5233 calls it detail).

`delimiters` are the characters of which the first one in a local-part begins its extension; "" for no extensions. At
the beginning a character begins none: ``+lists`` is a mailbox of that name. If ``-`` is among them, names that have
always been written with it stay whole: ``mailer-daemon``, ``double-bounce``, ``owner-list`` and ``list-request``.
"""

from __future__ import annotations

from typing import Final

_WHOLE: Final = frozenset(("mailer-daemon", "double-bounce"))


def extension_at(local_part: str, delimiters: str) -> int:
    """Where the extension begins, with its delimiter; -1 if there is none."""
    if len(delimiters) < 2 and delimiters != "-":
        return local_part.find(delimiters, 1) if delimiters else -1
    found = [at for at in (local_part.find(each, 1) for each in delimiters) if at > 0]
    return min(found) if found and not ("-" in delimiters and _is_whole(local_part.lower())) else -1


def _is_whole(name: str) -> bool:
    return name in _WHOLE or name.startswith("owner-") or (name.endswith("-request") and name != "-request")


def without_extension(local_part: str, delimiters: str) -> str:
    at = extension_at(local_part, delimiters)
    return local_part[:at] if at > 0 else local_part


def extension_of(local_part: str, delimiters: str) -> str:
    """The extension with its delimiter, "" for none."""
    at = extension_at(local_part, delimiters)
    return local_part[at:] if at > 0 else ""
