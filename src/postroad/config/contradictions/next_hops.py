"""What the tables [[next_hop]] say against each other: hosts, passwords, tokens."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from postroad.config.finding import Finding
from postroad.config.locate import Path
from postroad.config.routing import NextHopSection
from postroad.config.settings import Settings
from postroad.deliver.credentials import TOKENS
from postroad.mail.route import TlsDemand


def find(settings: Settings) -> Iterator[Finding]:
    """All that is wrong with one table."""
    for index, hop in enumerate(settings.next_hop):
        here = ("next_hop", index)
        keys = tuple((*here, key) for key in ("password", "password_file", "username"))
        if hop.password and hop.password_file:
            yield Finding(keys, "There is a password and also a password_file", "Remove one of the two")
        for key in ("port", "username"):
            if hop.host is None and key in hop.model_fields_set:
                yield Finding(((*here, key), (*here, "host")), "This has no effect without a host", "Add host")
        token = hop.token_file is not None or bool(hop.token_command)
        secret = token or bool(hop.password) or hop.password_file is not None
        if hop.username and not secret and hop.mechanism != "EXTERNAL":
            yield Finding(keys[::-1], "There is a username, but no password", "Add password_file")
        yield from _next_hop_token(here, hop)
        if not hop.username and (hop.password or hop.password_file):
            yield Finding(keys, "There is a password, but no username", "Add username")
        if hop.username and hop.tls is TlsDemand.NEVER and not hop.auth_without_tls:
            yield Finding(
                ((*here, "tls"), *keys, (*here, "auth_without_tls")),
                "Without TLS anybody on the network path could read the password, so it is not sent",
                'Write tls = "verify"; for a server on this machine, auth_without_tls = true',
            )
        if hop.mx and (hop.host is None or _is_address(hop.host)):
            yield Finding(
                ((*here, "mx"), (*here, "host")),
                "mx = true needs a domain as host, to look up its MX records",
                "Write a domain as host, or write mx = false",
            )


def _next_hop_token(here: Path, hop: NextHopSection) -> Iterator[Finding]:
    """A token, a password, and a mechanism that is for one of them."""
    token = hop.token_file is not None or bool(hop.token_command)
    if hop.token_file is not None and hop.token_command:
        yield Finding(
            ((*here, "token_command"), (*here, "token_file")),
            "There is a token_file and also a token_command",
            "Remove one of the two",
        )
    if token and (hop.password or hop.password_file is not None):
        yield Finding(
            ((*here, "token_file"), (*here, "token_command"), (*here, "password_file"), (*here, "password")),
            "There is a token and also a password",
            "Remove one of the two",
        )
    if (token or hop.mechanism) and not hop.username:
        yield Finding(
            ((*here, "token_file"), (*here, "token_command"), (*here, "mechanism"), (*here, "username")),
            "There is no username to authenticate as",
            "Add username",
        )
    if hop.cram_md5 and (token or not hop.username or hop.mechanism not in ("", "CRAM-MD5")):
        yield Finding(
            ((*here, "cram_md5"), (*here, "mechanism"), (*here, "username")),
            "CRAM-MD5 is allowed, but there is no password to use with it",
            "Remove cram_md5, or add username and password_file and no other mechanism",
        )
    if hop.mechanism and hop.mechanism != "EXTERNAL" and (hop.mechanism in TOKENS) is not token:
        yield Finding(
            ((*here, "mechanism"), (*here, "token_file"), (*here, "password_file")),
            f"{hop.mechanism} needs a {'password, but a token is set' if token else 'token, but none is set'}",
            "Remove mechanism, or write one that fits",
        )


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
