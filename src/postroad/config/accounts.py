"""Accounts and bans."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator

from postroad.accounts.authenticate import AuthOptions, CertificateName
from postroad.accounts.introspection import IntrospectionOptions
from postroad.check.client import BanOptions, ClientOptions
from postroad.config.field import Section, of, setting, several, table
from postroad.config.values import (
    Domain,
    File,
    MapNames,
    Mechanism,
    Seconds,
    TrustedNetwork,
    Url,
    one_or_more,
)


class IntrospectionSection(Section):
    """Bearer tokens (OAUTHBEARER, XOAUTH2). The node checks them with the authorization server (RFC 7662)."""

    url: Url | None = of(
        IntrospectionOptions.url, default=None, example='"https://login.example.org/oauth2/introspect"'
    )
    client_id: str = of(IntrospectionOptions.client_id, source="RFC 6749 §2.3.1", example='"mail"')
    client_secret_file: File | None = setting(
        None, "A file whose first line is the secret of `client_id`.", example='"introspection.secret"'
    )
    account_claim: str = of(IntrospectionOptions.account_claim)
    scope: str = of(IntrospectionOptions.scope, example='"smtp"')
    audience: str = of(IntrospectionOptions.audience, example='"mail"')
    ca_file: File | None = of(IntrospectionOptions.ca_file, default=None, example='"tls/roots.pem"')


class AuthSection(Section):
    """Accounts: who may authenticate (AUTH, under TLS), and what verifies them: the users file, Dovecot or a function
    (docs/authentication.md)."""

    users: File | None = setting(
        None,
        "The file of accounts: a text file with one line `name:hash:addresses:keys` for each account, written by "
        "`postroad user`. The node reads it again when it changes. With `dovecot` or `function` it only says which "
        "addresses an account may send from.",
        example='"users"',
    )
    dovecot: File | None = setting(
        None,
        "Dovecot's auth socket. The node offers Dovecot's mechanisms, and Dovecot verifies all passwords.",
        example='"/run/dovecot/auth-client"',
    )
    function: str = setting(
        "",
        "A Python function that decides who a client is: `module:function` or `/path/file.py:function`.",
        example='"/etc/postroad/accounts.py:check"',
    )
    sender_maps: MapNames = several(
        (),
        "Maps that say who may send as whom: an address, the address without its extension or `@domain` gets a list "
        "of accounts. An account may use what the users file gives it, too. If a map cannot answer, the client is told "
        "to try again later (451 4.3.0).",
        source="Postfix, smtpd_sender_login_maps",
        example='["senders"]',
    )
    introspection: IntrospectionSection = table(IntrospectionSection)
    mechanisms: Annotated[tuple[Mechanism, ...], BeforeValidator(one_or_more)] = of(
        AuthOptions.mechanisms, source="RFC 4954 §3", example='["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN"]'
    )
    certificate_name: CertificateName = of(AuthOptions.certificate_name, source="RFC 4422 appendix A", word=True)
    account_domain: Domain | None = of(AuthOptions.account_domain, default=None, example='"example.org"')
    timeout_s: Seconds = of(AuthOptions.timeout_s)
    threads: int = of(AuthOptions.threads, unit="threads")
    queue_max: int = of(AuthOptions.queue_max, unit="authentications")
    client_max: int = of(AuthOptions.client_max, unit="authentications")
    network_max: int = of(AuthOptions.network_max, unit="authentications")
    waiting_max: int = of(AuthOptions.waiting_max, unit="authentications")
    cache_s: Seconds = of(AuthOptions.cache_s)
    cache_max: int = of(AuthOptions.cache_max, unit="passwords")
    failure_delay_s: Seconds = of(AuthOptions.failure_delay_s)
    failure_delay_max_s: Seconds = of(ClientOptions.failure_delay_max_s)


class BansSection(Section):
    """When the node bans a client or an account by itself. `postroad bans` lists, adds and lifts bans."""

    failures_max: int = of(BanOptions.failures_max, unit="failures")
    network_failures_max: int = of(BanOptions.network_failures_max, unit="failures")
    account_failures_max: int = of(BanOptions.account_failures_max, unit="failures")
    offences_max: int = of(BanOptions.offences_max, unit="sessions")
    window_s: Seconds = of(BanOptions.window_s)
    time_s: Seconds = of(BanOptions.time_s)
    exempt: Annotated[tuple[TrustedNetwork, ...], BeforeValidator(one_or_more)] = of(BanOptions.exempt)
