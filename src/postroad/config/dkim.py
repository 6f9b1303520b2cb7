"""DKIM: the keys that sign mail, and what is signed on its way out (docs/signing.md)."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Strict

from postroad.config.field import UNSET, Section, of, tables
from postroad.config.values import (
    Domain,
    DomainOrNone,
    DomainPattern,
    File,
    Seconds,
    ValueKind,
    field_name,
    one_or_more,
    opendkim_table,
    selector,
)
from postroad.deliver.signing_options import DkimOutOptions, KeyTrouble, NamedKey, SignAs, SignedOrigin
from postroad.trust.dkim_body import Canonicalization
from postroad.trust.dkim_sign import SigningOptions
from postroad.trust.key_store import KeyOptions
from postroad.trust.rotation import RotationOptions

FieldName = Annotated[str, BeforeValidator(field_name)]
Origins = Annotated[tuple[Annotated[SignedOrigin, Strict(False)], ...], BeforeValidator(one_or_more)]
Selector = Annotated[str, BeforeValidator(selector), ValueKind("selector", '`"mail2026"`')]
OpenDkimTable = Annotated[str, BeforeValidator(opendkim_table)]


class NamedKeySection(Section):
    """A key that signs, from a file. Give one table `[[dkim.key]]` for each key. Keys that `postroad dkim add` has made
    need no table."""

    domain: Domain = of(NamedKey.domain, default=UNSET, source="RFC 6376 §3.5", example='"example.org"')
    selector: Selector = of(NamedKey.selector, default=UNSET, source="RFC 6376 §3.1", example='"mail2026"')
    file: File = of(NamedKey.file, default=UNSET, source="RFC 8301, RFC 8463", example='"dkim/example.org.pem"')


class SignAsSection(Section):
    """Another domain signs for some authors, as a service does for its customers. Give one table `[[dkim.sign_as]]` for
    each such domain; the first table that fits an author counts."""

    authors: Annotated[tuple[DomainPattern, ...], BeforeValidator(one_or_more)] = of(
        SignAs.authors, default=UNSET, example='["*"]'
    )
    domain: Domain = of(SignAs.domain, default=UNSET, source="RFC 6376 §3.5", example='"example.net"')
    beside: bool = of(SignAs.beside)


class DkimSection(Section):
    """DKIM signatures on mail that goes out, and the keys that make them (docs/signing.md). The private keys stay with
    the node; the DNS has the public ones."""

    folder: File | None = of(KeyOptions.folder, default=None, example='"/var/lib/postroad/dkim"')
    rotate_days: int = of(RotationOptions.rotate_days, unit="days")
    seen_for_s: Seconds = of(RotationOptions.seen_for_s)
    sign: bool = of(DkimOutOptions.sign, source="RFC 6376")
    origins: Origins = of(DkimOutOptions.origins, source="RFC 6376 §5.1")
    parent_domains: bool = of(DkimOutOptions.parent_domains, source="RFC 9989")
    lmtp: bool = of(DkimOutOptions.lmtp)
    key_trouble: KeyTrouble = of(DkimOutOptions.key_trouble, word=True)
    signed_fields: tuple[FieldName, ...] = of(SigningOptions.signed, source="RFC 6376 §5.4.1, RFC 8058 §4")
    oversigned_fields: tuple[FieldName, ...] = of(SigningOptions.oversigned, source="RFC 6376 §8.15")
    header_canonicalization: Canonicalization = of(SigningOptions.head, source="RFC 6376 §3.4", word=True)
    body_canonicalization: Canonicalization = of(SigningOptions.body, source="RFC 6376 §3.4", word=True)
    lifetime_s: Seconds = of(SigningOptions.lifetime_s, source="RFC 6376 §3.5")
    arc_seal: DomainOrNone = of(DkimOutOptions.arc_seal, source="RFC 8617", example='"example.org"')
    key_table: OpenDkimTable = of(DkimOutOptions.key_table, example='"/etc/opendkim/key.table"')
    signing_table: OpenDkimTable = of(DkimOutOptions.signing_table, example='"refile:/etc/opendkim/signing.table"')
    all_matches: bool = of(DkimOutOptions.all_matches)
    key: tuple[NamedKeySection, ...] = tables()
    sign_as: tuple[SignAsSection, ...] = tables()
