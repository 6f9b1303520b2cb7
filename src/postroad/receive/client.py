"""The client that a session speaks with: all that is known and counted of it, in one value.

What always holds: another client is another value. XCLIENT replaces the value by a new one (`named`), so that no client
has the counts or rights of the one before. After a reload its rights are worked out again (`look`); a right that the
new settings do not give is gone.

Not here: the connection itself (`receive.session`), what the machine counts of a session (`protocol.server`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from postroad.mail.envelope import Forwarded, Peer, Via
from postroad.mail.tls_details import TlsDetails, details
from postroad.protocol.command import Xclient
from postroad.receive import forwarding
from postroad.receive.draft import with_type
from postroad.receive.forwarding import XclientFacts
from postroad.receive.options import ListenerTls, Proxy
from postroad.world.tls import NOBODY, ClientCertificatePolicy, ClientCertificates
from postroad.world.tls_facts import TlsFacts

if TYPE_CHECKING:
    from postroad.receive.setup import ListenerSetup

_EXTERNAL: Final = "EXTERNAL"


class Client(msgspec.Struct, eq=False):
    """One client. One writer: the dialog of its session.

    `address`, `port`, `via`: where it is, and through whom it came. `trusted`: by its address or certificate.
    `admitted`: it is counted among the sessions. `since`, `since_us`: loop time and wall time of its beginning.
    `identity`: its account; `source`: the backend that found it to be so, "" if XCLIENT named it; `mechanism`: of
    the last AUTH. `claims`: what XCLIENT told of it. `tls`: None without TLS; `asking`: how certificates were asked for
    in that handshake; `bindable`: the TLS is our own, not a proxy's. `certificate`: names of its certificate that may
    be an account's. `auth_failures`, `refusals`, `unknown`: counts towards limits. `messages`: accepted so far.
    """

    address: str
    port: int
    via: Via | None
    trusted: bool
    since: float
    since_us: int
    admitted: bool = False
    hello: str = ""
    esmtp: bool = False
    identity: str = ""
    source: str = ""
    mechanism: str = ""
    claims: XclientFacts | None = None
    forwarded: Forwarded | None = None
    tls: TlsFacts | None = None
    tls_details: TlsDetails | None = None
    asking: ClientCertificatePolicy = NOBODY
    bindable: bool = False
    certificate: tuple[str, ...] = ()
    auth_failures: int = 0
    refusals: int = 0
    unknown: int = 0
    messages: int = 0
    peer: Peer | None = None  # of these facts, made by `who` when wanted

    # ---- What is told of it

    def who(self, setup: ListenerSetup) -> Peer:
        """The client, as the facts are now."""
        peer = self.peer
        if peer is None:
            peer = self.peer = self.describe(setup, smtputf8=False)
        return peer

    def changed(self) -> None:
        """A fact that `who` tells is another."""
        self.peer = None

    def describe(self, setup: ListenerSetup, *, smtputf8: bool) -> Peer:
        hello, esmtp, name, told = self.hello, self.esmtp, "", self.claims
        if told is not None:
            hello, esmtp, name = told.hello or hello, esmtp and told.protocol != "SMTP", told.name
        tls = self.tls
        protocol = with_type(setup.lmtp, esmtp, tls is not None, bool(self.identity), smtputf8)
        return Peer(
            self.address, self.port, hello, protocol, "" if tls is None else tls.text, self.identity,
            setup.listener.name, self.via, name, self.forwarded, self.tls_details, self.trusted,
        )  # fmt: skip

    @property
    def is_known(self) -> bool:
        """Whether it has authenticated or is trusted."""
        return self.trusted or self.identity != ""

    # ---- What happens to it

    def greeted(self, hello: str, *, esmtp: bool) -> None:
        self.hello, self.esmtp, self.peer = hello, esmtp, None

    def authenticated(self, identity: str, source: str) -> None:
        self.identity, self.source, self.peer = identity, source, None

    def forget_login(self) -> None:
        self.identity = self.source = ""
        self.peer = None

    def forwards(self, forwarded: Forwarded | None) -> None:
        """From whom its next message is (XFORWARD)."""
        self.forwarded, self.peer = forwarded, None

    def secured(self, tls: TlsFacts, asking: ClientCertificatePolicy, *, bindable: bool) -> None:
        """TLS is on: what was said before counts no more (RFC 3207 §4.2)."""
        self.tls, self.tls_details, self.asking, self.bindable = tls, details(tls), asking, bindable
        self.hello, self.esmtp = "", False
        self.forget_login()

    def named(self, command: Xclient, before: Peer, *, since: float, since_us: int) -> Client:
        """The client that XCLIENT names. Without an address in the command it is this one, known better: its counts
        and its trust go on. `before`: `who` of this one."""
        client = forwarding.named(command, before)
        found = Client(client.address, client.port, client.via, trusted=False, since=since, since_us=since_us)
        found.claims = forwarding.facts_after(command, self.claims)
        found.identity = client.identity
        found.tls, found.tls_details = self.tls, self.tls_details
        found.asking, found.bindable = self.asking, self.bindable
        if command.login is None:
            found.source, found.mechanism = self.source, self.mechanism
        if command.address is None:
            found.certificate, found.admitted, found.trusted = self.certificate, self.admitted, self.trusted
            found.auth_failures, found.refusals, found.unknown = self.auth_failures, self.refusals, self.unknown
            found.messages, found.since, found.since_us = self.messages, self.since, self.since_us
        elif self.tls is not None:  # the connection is as secret as before, but the certificate is the proxy's
            found.tls = msgspec.structs.replace(self.tls, certificate=None, verified=False)
            found.tls_details = details(found.tls)
        return found

    # ---- Its rights

    def look(self, setup: ListenerSetup) -> None:
        """Its trust, as these settings give it."""
        self.trusted = self.is_trusted(setup)
        if not self._certificate_counts(setup):
            self.certificate = ()

    def is_trusted(self, setup: ListenerSetup) -> bool:
        if setup.trusts(self.address):
            return True
        return self.tls is not None and self._certificate_counts(setup) and setup.trusts_certificate(self.tls)

    def _certificate_counts(self, setup: ListenerSetup) -> bool:
        """A certificate proves what was looked at when it was shown, and nothing where others are asked for now."""
        return self.asking == setup.listener.asking

    def is_logged_in(self, setup: ListenerSetup) -> bool:
        """Whether its account still counts: who found it so is still asked, and the account is still there."""
        if not self.source:  # XCLIENT named it: it counts as long as that does
            return True
        authenticator = setup.doors.knowing.authenticator
        if authenticator is None or not setup.listener.auth:
            return False
        if self.mechanism == _EXTERNAL and not self._certificate_counts(setup):
            return False
        return authenticator.holds(self.identity, self.source)

    def has_lost_a_right(self, setup: ListenerSetup) -> bool:
        """Whether it had a right that these settings do not give."""
        if self.trusted and not self.is_trusted(setup):
            return True
        return bool(self.identity) and not self.is_logged_in(setup)


def obstacle(client: Client, setup: ListenerSetup, before: ListenerSetup, *, proxy: Via | None, xclient: bool) -> str:
    """Why a session cannot go on under new settings; "" if it can. `proxy`: of whom a PROXY header came; `xclient`:
    whether the other end of the connection may still speak for others."""
    listener, tls = setup.listener, client.tls
    if listener.protocol is not before.listener.protocol:
        return "another protocol is spoken here now"
    if proxy is not None and (listener.proxy is Proxy.NONE or not setup.is_proxy(proxy.address)):
        return "the proxy is not trusted any more"
    if client.claims is not None and not xclient:
        return "XCLIENT is not allowed any more"
    if tls is not None and not client.bindable and not listener.proxy_tls:
        return "TLS of the proxy does not count any more"
    if tls is None and listener.tls is ListenerTls.IMPLICIT:
        return "TLS from the first octet is demanded now"
    demanded = listener.asking.client_certificates is ClientCertificates.DEMANDED
    if demanded and tls is not None and client.bindable and client.asking != listener.asking:
        return "another client certificate is demanded now"
    return ""
