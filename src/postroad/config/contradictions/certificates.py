"""Finds contradictions among the settings of TLS: our certificates, and those that clients are asked for."""

from __future__ import annotations

from collections.abc import Iterator

from postroad.config.finding import Finding
from postroad.config.settings import Settings
from postroad.receive.options import ListenerTls
from postroad.world.tls import NOBODY, ClientCertificates


def ours(settings: Settings) -> Iterator[Finding]:
    """A listener needs a certificate, or a further one is named, but there is no first one."""
    for index, listener in enumerate(settings.listener):
        if listener.tls not in (None, ListenerTls.NONE) and settings.tls.certificate is None:
            yield Finding(
                (("listener", index, "tls"), ("tls", "certificate")),
                f"The listener {listener.name!r} needs TLS, but there is no certificate",
                'Add certificate and key under [tls], or write tls = "none"',
            )
    if settings.tls.certificate is None:
        for key in ("key", "further"):
            if getattr(settings.tls, key):
                yield Finding(
                    (("tls", key), ("tls", "certificate")),
                    f"{key!r} is set, but there is no first certificate",
                    "Add certificate under [tls]",
                )


def of_clients(settings: Settings) -> Iterator[Finding]:
    """A listener asks for client certificates without TLS, or trusts some without asking."""
    for index, listener in enumerate(settings.listener):
        here = ("listener", index)
        asked = listener.client_certificates not in (None, ClientCertificates.NEVER)
        if asked and settings.tls_of(listener) is ListenerTls.NONE:
            yield Finding(
                ((*here, "client_certificates"), ("tls", "certificate")),
                f"The listener {listener.name!r} asks for client certificates, but has no TLS",
                "Give it TLS, or remove client_certificates",
            )
        if listener.trusted_certificates and settings.asking_of(listener) == NOBODY:
            yield Finding(
                ((*here, "trusted_certificates"), (*here, "client_certificates")),
                f"The listener {listener.name!r} trusts client certificates, but does not ask for them",
                'Write client_certificates = "asked"',
            )
