"""Finds numbers that exceed another one although they may not, contradictions among paces, and the rest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from postroad.config.finding import Finding
from postroad.config.settings import Settings
from postroad.queue.pace import AUTOMATIC

# The first may not be more than the second.
_ORDERED: Final[tuple[tuple[str, str, str], ...]] = (
    ("dns", "timeout_s", "total_s"),
    ("dns", "ttl_min_s", "ttl_max_s"),
    ("queue", "retry_first_s", "retry_max_s"),
    ("queue", "backoff_first_s", "backoff_max_s"),
    ("queue", "delay_notice_s", "lifetime_s"),
    ("log", "batch_max", "buffer_max"),
    ("limits", "command_s", "session_s"),
    ("limits", "data_block_s", "message_s"),
    ("limits", "data_block_s", "refused_content_s"),
    ("limits", "message_s", "session_s"),
    ("limits", "sessions_per_client_max", "sessions_max"),
    ("limits", "header_size_max", "size_max"),
)


def ordered(settings: Settings) -> Iterator[Finding]:
    """A number that exceeds the one that bounds it."""
    for section, less, more in _ORDERED:
        values = getattr(settings, section)
        if getattr(values, less) > getattr(values, more):
            blame = less if less in values.model_fields_set else more
            yield Finding(
                ((section, blame), (section, less), (section, more)),
                f"This is more than {more}" if blame == less else f"This is less than {less}",
                f"Set {section}.{less} to at most {section}.{more}",
            )


def pace(settings: Settings) -> Iterator[Finding]:
    """A table [[pace]] that names nobody, or names somebody again."""
    seen: dict[tuple[str, str, str], int] = {}
    for index, each in enumerate(settings.pace):
        here = ("pace", index)
        if not each.domain and not each.mx and each.provider != AUTOMATIC:
            yield Finding(
                ((*here, "domain"), (*here, "mx")), "This table names neither domains nor MX hosts", "Add domain or mx"
            )
        if each.domain and each.provider == AUTOMATIC:
            yield Finding(
                ((*here, "domain"), (*here, "provider")),
                f'With provider = "{AUTOMATIC}" domains are grouped by their MX hosts',
                "Remove domain, or write the name of a provider",
            )
        if 0 < each.connections_max < each.connections_start:
            yield Finding(
                ((*here, "connections_start"), (*here, "connections_max")),
                "This is more than connections_max",
                "Set connections_start to at most connections_max",
            )
        kind = "each" if not each.provider else "set" if each.provider == AUTOMATIC else "group"
        names = [("domain", name) for name in each.domain] + [("mx", name) for name in each.mx]
        if kind == "group":
            names.append(("provider", each.provider))
        for key, name in names:
            before = seen.setdefault((kind, key, name), index)
            if before != index:
                yield Finding(
                    ((*here, key), ("pace", before, key)),
                    f"{name!r} already has another table [[pace]]",
                    "Join the two tables",
                )


def dns(settings: Settings) -> Iterator[Finding]:
    """No IP version is left."""
    if not settings.dns.ipv4 and not settings.dns.ipv6:
        yield Finding(
            (("dns", "ipv6"), ("dns", "ipv4")), "Without IPv4 and IPv6 no host can be reached", "Allow one of them"
        )


def group(settings: Settings) -> Iterator[Finding]:
    """A group without a user."""
    if settings.group and not settings.user:
        yield Finding((("group",), ("user",)), "A group is set, but no user", "Add user, or remove group")
