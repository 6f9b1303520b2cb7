"""Finds contradictions among the settings of accounts, and between them and the listeners."""

from __future__ import annotations

from collections.abc import Iterator

from postroad.accounts.authenticate import CertificateName
from postroad.config.finding import Finding
from postroad.config.settings import Settings
from postroad.receive.options import ListenerTls
from postroad.world.tls import NOBODY


def offered(settings: Settings) -> Iterator[Finding]:
    """AUTH is offered, but nobody can use it."""
    for index, listener in enumerate(settings.listener):
        if not listener.offers_auth:
            continue
        here = ("listener", index)
        auth = settings.auth
        if auth.users is None and auth.dovecot is None and not auth.function and auth.introspection.url is None:
            blame = (*here, "auth") if listener.auth else (*here, "role")
            yield Finding(
                (blame, (*here, "auth"), ("auth", "users")),
                f"The listener {listener.name!r} offers AUTH, but no accounts are configured",
                'Add users = "users" under [auth] and create an account with `postroad user add`',
            )
        if settings.tls_of(listener) is ListenerTls.NONE and not listener.auth_without_tls:
            yield Finding(
                ((*here, "tls"), (*here, "auth"), (*here, "role"), ("tls", "certificate")),
                f"The listener {listener.name!r} offers AUTH only under TLS, but has no TLS",
                "Add certificate and key under [tls]; in a trusted network, auth_without_tls = true allows it",
            )


def verifiers(settings: Settings) -> Iterator[Finding]:
    """More than one verifies passwords, or introspection is half configured."""
    auth, tokens = settings.auth, settings.auth.introspection
    if auth.dovecot is not None and auth.function:
        yield Finding(
            (("auth", "function"), ("auth", "dovecot")),
            "There is a function and also a Dovecot socket",
            "Only one of them can verify passwords: remove the other",
        )
    if tokens.url is None:
        for key in ("client_id", "client_secret_file", "scope", "audience", "ca_file"):
            if key in tokens.model_fields_set:
                yield Finding((("auth", "introspection", key),), "This has no effect without a url", "Add url")
    elif bool(tokens.client_id) != (tokens.client_secret_file is not None):
        yield Finding(
            (("auth", "introspection", "client_id"), ("auth", "introspection", "client_secret_file")),
            "client_id and client_secret_file belong together",
            "Set both, or none of them",
        )


def certificate_names(settings: Settings) -> Iterator[Finding]:
    """Accounts are named by client certificates that no listener asks for, or that anybody can buy."""
    if settings.auth.certificate_name is CertificateName.NONE:
        return
    asked = [settings.asking_of(listener) for listener in settings.listener if listener.offers_auth]
    if not any(asking.ca_file for asking in asked) or any(asking != NOBODY and not asking.ca_file for asking in asked):
        yield Finding(
            (("auth", "certificate_name"), ("tls", "client_certificates"), ("tls", "client_ca_file")),
            "Accounts go by client certificates, but a listener asks for none, or accepts those of any public CA",
            'Write client_certificates = "asked" and client_ca_file under [tls]',
        )
