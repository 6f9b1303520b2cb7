"""Senders that are signed on the way out (docs/senders.md)."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator

from postroad.config.field import Section, of
from postroad.config.values import Domain, DomainPattern, File, Host, Mailbox, one_or_more
from postroad.route.batv import BatvOptions
from postroad.route.srs import Separator, SrsOptions


class SrsSection(Section):
    """The senders of mail that is forwarded: an alias leads to another host, and the sender is not ours. With SRS the
    sender becomes one of `domain`, so that SPF does not fail, and reports come back through this node."""

    domain: Domain | None = of(SrsOptions.domain, default=None, source="SRS, postsrsd", example='"example.org"')
    keys_file: File | None = of(SrsOptions.keys_file, default=None, example='"srs.keys"')
    days_max: int = of(SrsOptions.days_max, unit="days")
    hash_length: int = of(SrsOptions.hash_length, unit="characters")
    hash_length_min: int = of(SrsOptions.hash_length_min, unit="characters")
    separator: Separator = of(SrsOptions.separator, word=True)
    excluded_domains: Annotated[tuple[DomainPattern, ...], BeforeValidator(one_or_more)] = of(
        SrsOptions.excluded_domains, example='["example.net"]'
    )


class BatvSection(Section):
    """Tags on our own senders (BATV), for each `[[domain]]` whose `batv` is `sign` or `require`."""

    keys_file: File | None = of(
        BatvOptions.keys_file, default=None, source="draft-levine-smtp-batv", example='"batv.keys"'
    )
    days: int = of(BatvOptions.days, unit="days")
    plain_to: Annotated[tuple[DomainPattern, ...], BeforeValidator(one_or_more)] = of(
        BatvOptions.plain_to, example='["lists.example.net"]'
    )
    plain_next_hops: Annotated[tuple[Host, ...], BeforeValidator(one_or_more)] = of(
        BatvOptions.plain_next_hops, example='["filter.example.org"]'
    )
    unsigned: Annotated[tuple[Mailbox, ...], BeforeValidator(one_or_more)] = of(
        BatvOptions.unsigned, example='["ada@example.org"]'
    )
