"""TLS as a server."""

from __future__ import annotations

from postroad.config.field import UNSET, Section, of, setting, several, tables
from postroad.config.values import (
    File,
    Seconds,
)
from postroad.world.tls import ClientCertificatePolicy, ClientCertificates, Purpose, ServerTlsOptions, Version
from postroad.world.tls import Profile as TlsProfile


class FurtherCertificateSection(Section):
    """A certificate in addition to the first one. Give one table `[[tls.further]]` for each. A client that asks for a
    name (SNI, RFC 6066 §3) gets the certificate that holds this name."""

    certificate: File = setting(UNSET, "The certificate with its chain, PEM.", example='"tls/example.net.pem"')
    key: File | None = setting(
        None,
        "The private key of the certificate, PEM. Unset: it is in the certificate's file.",
        example='"tls/example.net.key"',
    )


class TlsSection(Section):
    """TLS as a server. The node reads the files again when they change; no session is dropped."""

    certificate: File | None = setting(
        None,
        "The certificate with its chain, PEM, the server's own certificate first. Without a certificate there is no "
        "TLS.",
        example='"tls/mail.pem"',
    )
    key: File | None = setting(
        None,
        "The private key of the certificate, PEM. Unset: it is in the certificate's file.",
        example='"tls/mail.key"',
    )
    profile: TlsProfile = of(ServerTlsOptions.profile, source="RFC 9325", word=True)
    minimum: Version | None = of(ServerTlsOptions.minimum, example='"TLSv1.3"', word=True)
    ciphers: str = of(ServerTlsOptions.ciphers)
    groups: tuple[str, ...] = of(ServerTlsOptions.groups, source="RFC 8446 §4.2.7", example='["X25519"]')
    tickets: int = of(ServerTlsOptions.tickets, unit="tickets", source="RFC 8446 §4.6.1")
    ticket_s: Seconds = of(ServerTlsOptions.ticket_s)
    client_certificates: ClientCertificates = of(ClientCertificatePolicy.client_certificates, word=True)
    client_ca_file: File | None = setting(
        None,
        "The root certificates that client certificates must lead to, PEM. Unset: the system's.",
        example='"tls/clients.pem"',
    )
    client_certificate_purpose: Purpose = of(ClientCertificatePolicy.purpose, source="RFC 5280 §4.2.1.12", word=True)
    further: tuple[FurtherCertificateSection, ...] = tables()
    next_certificates: tuple[File, ...] = several(
        (),
        "Certificates, requests for certificates or keys, PEM, that will be used next. The node does not use them; "
        "`postroad dns show` has TLSA records for them, so that these are in the DNS before the change.",
        source="RFC 7671 §8.1",
        example='["tls/next.key"]',
    )
