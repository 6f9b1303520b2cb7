"""What the table [dkim] says against itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from postroad.config.finding import Finding
from postroad.config.locate import Path
from postroad.config.settings import Settings

# They come, go or change on the way (RFC 6376 §5.4): a signature over them would break.
_NEVER: Final = frozenset((
    "return-path", "received", "dkim-signature", "authentication-results", "arc-seal", "arc-message-signature",
    "arc-authentication-results", "bcc", "resent-bcc",
))  # fmt: skip
_BOTH: Final = "Set key_table and signing_table together: the one names the keys, the other says who signs with which"


def find(settings: Settings) -> Iterator[Finding]:
    section = settings.dkim
    tables: tuple[Path, Path] = (("dkim", "key_table"), ("dkim", "signing_table"))
    if bool(section.key_table) != bool(section.signing_table):
        missing = "signing_table" if section.key_table else "key_table"
        yield Finding(tables if section.key_table else tables[::-1], f"[dkim] has no {missing}", _BOTH)
    if section.all_matches and not section.signing_table:
        yield Finding(
            (("dkim", "all_matches"), ("dkim", "signing_table")),
            "The key all_matches is about a signing_table, and none is set",
            "Remove it: all keys of a domain sign in any case",
        )
    yield from _same_keys(settings)
    for key in ("signed_fields", "oversigned_fields"):
        for place, name in enumerate(getattr(section, key)):
            if name.lower() in _NEVER:
                yield Finding(
                    (("dkim", key, place),), f"The field {name} must not be signed: it changes on the way", "Remove it"
                )


def _same_keys(settings: Settings) -> Iterator[Finding]:
    seen: dict[tuple[str, str], int] = {}
    for index, key in enumerate(settings.dkim.key):
        before = seen.setdefault((key.domain, key.selector), index)
        if before != index:
            yield Finding(
                (("dkim", "key", index, "selector"), ("dkim", "key", before, "selector")),
                f"Two keys of {key.domain} have the selector {key.selector}", "Give each key a selector of its own",
            )  # fmt: skip
