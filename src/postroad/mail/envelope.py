"""The envelope: who sends, who receives, and how (RFC 5321 §2.3.1 with its extensions), and where it came from.

An Envelope is made once, when a message is accepted, and never changed; the queue knows what becomes of each recipient.
After this a recipient is named by its index in `recipients`.
"""

from __future__ import annotations

import enum

import msgspec

from postroad.mail.address import Address
from postroad.mail.route import Destination
from postroad.mail.tls_details import TlsDetails


class Body(enum.Enum):
    """BODY= of MAIL (RFC 6152, RFC 3030)."""

    SEVEN_BIT = "7BIT"
    EIGHT_BIT_MIME = "8BITMIME"
    BINARY_MIME = "BINARYMIME"


class Ret(enum.Enum):
    """RET= of MAIL (RFC 3461 §4.3); UNSET leaves the choice to us."""

    UNSET = ""
    FULL = "FULL"
    HDRS = "HDRS"


class Notify(enum.IntFlag):
    """NOTIFY= of RCPT (RFC 3461 §4.1). UNSET: failure and delay are told, as if the parameter were absent."""

    UNSET = 0
    NEVER = 1
    SUCCESS = 2
    FAILURE = 4
    DELAY = 8


def asked_by_both(one: Notify, other: Notify) -> Notify:
    """What two recipients that have become one ask for together. UNSET asks for failures and delays (RFC 3461 §4.1)."""
    asked = (_spelled(one) | _spelled(other)) & ~Notify.NEVER
    return asked or Notify.NEVER


def _spelled(notify: Notify) -> Notify:
    return notify if notify else Notify.FAILURE | Notify.DELAY


class Recipient(msgspec.Struct, frozen=True, array_like=True):
    """One forward-path with its parameters.

    `orcpt`: the ORCPT parameter decoded, ``"rfc822;a@example.org"`` (RFC 3461 §4.2), "" if none was given.
    `given`: the mailbox as the client named it if an alias or rewriting changed it, else None.
    `parameters`: further ESMTP parameters of RCPT, (keyword in capitals, value), such as ("RRVS", "...").
    `destination`: where its mail goes, if that had to be asked for when it was accepted; None: it is found each time
    the queue takes it up (`mail.routing`). `released`: an operator lets it go on although its route holds it; only in
    questions about the route, never stored. `sender`: the reverse-path of its mail, if an alias with an owner
    (``owner-list``) gave it another one than the envelope has (RFC 3461 §5.2.7.1).
    """

    address: Address
    notify: Notify = Notify.UNSET
    orcpt: str = ""
    given: Address | None = None
    parameters: tuple[tuple[str, str], ...] = ()
    destination: Destination | None = None
    released: bool = False
    sender: Address | None = None

    @property
    def name(self) -> str:
        """By which log and history know it: the mailbox, or the program or file that an alias names."""
        if self.destination is not None and self.destination.outlet:
            return self.destination.outlet
        return str(self.address)


class Via(msgspec.Struct, frozen=True, array_like=True):
    """By whom we know the client, if the connection is another's: a proxy, or a client that spoke for it.

    `protocol`: ``PROXY v1``, ``PROXY v2`` or ``XCLIENT``; `address` and `port`: of the connection itself.
    `destination`, `destination_port`: whom the client had called. The rest is what a PROXY header may tell: the name
    that the client asked for (SNI), the ALPN protocol, the proxy's id of the connection, the name in a client
    certificate that the proxy found to be good.
    """

    protocol: str
    address: str = ""
    port: int = 0
    destination: str = ""
    destination_port: int = 0
    authority: str = ""
    alpn: str = ""
    unique_id: str = ""
    common_name: str = ""


class Forwarded(msgspec.Struct, frozen=True, array_like=True):
    """What a client told by XFORWARD of the client from which it has the message. Unlike `Via` it changes nothing of
    who is trusted. `ident`: the message's id there; `source`: ``LOCAL`` or ``REMOTE``; "" or 0 is not known."""

    name: str = ""
    address: str = ""
    port: int = 0
    protocol: str = ""
    hello: str = ""
    ident: str = ""
    source: str = ""


class Peer(msgspec.Struct, frozen=True, array_like=True):
    """The client that gave us the message, as trace fields, log and history need it.

    `address` is the IP address as text ("" for mail that we made), `hello` the EHLO or LHLO argument, `protocol` the
    ``with`` type (RFC 3848: ESMTPSA, LMTP, …), `tls` a short text such as "TLSv1.3 TLS_AES_256_GCM_SHA384" or "",
    `identity` the authenticated account or "", `listener` the name of the listener from the configuration. `via`: who
    told us of the client, None if the connection is its own. `name`: the client's name, if we were told one that
    was checked. `forwarded`: what the client told of the one before it, or None. `tls_details`: what else is known of
    its TLS, None without. `trusted`: its listener trusts it, by its address or its certificate.
    """

    address: str = ""
    port: int = 0
    hello: str = ""
    protocol: str = ""
    tls: str = ""
    identity: str = ""
    listener: str = ""
    via: Via | None = None
    name: str = ""
    forwarded: Forwarded | None = None
    tls_details: TlsDetails | None = None
    trusted: bool = False

    @property
    def is_known(self) -> bool:
        """Whether it has authenticated or is trusted; the sender of a stranger may be forged."""
        return self.trusted or self.identity != ""


class Envelope(msgspec.Struct, frozen=True, array_like=True):
    """The envelope of one accepted message.

    `id`: the queue id (see `mail.identifier`). `size`: octets of the message as stored, `prefix` included.
    `accepted_us`: when end-of-data was seen. `message_id`: the Message-ID field's value with its angle brackets, or "".
    `parameters`: further ESMTP parameters of MAIL as (keyword in capitals, value): AUTH, REQUIRETLS, BY, MT-PRIORITY, …
    `parent`: the queue id of the message that this one reports on (a DSN) or was split from, else 0.
    `long_lines`: lines of the content are longer than RFC 5321 wants them sent.
    `prefix`: the fields that we added on top of content that is in a file (Received first), made after the verdict; the
    file has only what the client sent. Content in memory has these fields in front already, and its `prefix` is b"".
    Read envelope and content together, by `store.content`. Messages of older versions have no prefix.
    `classes`: what the message says of itself, as far as routing asked for it when it was accepted (`mail.classes`).
    """

    id: int
    reverse_path: Address | None
    recipients: tuple[Recipient, ...]
    size: int
    accepted_us: int
    peer: Peer = Peer()
    body: Body = Body.SEVEN_BIT
    smtputf8: bool = False
    ret: Ret = Ret.UNSET
    envid: str = ""
    message_id: str = ""
    parameters: tuple[tuple[str, str], ...] = ()
    parent: int = 0
    long_lines: bool = False
    prefix: bytes = b""
    classes: tuple[str, ...] = ()

    def of(self, recipient: Recipient) -> Envelope:
        """The envelope of one recipient's mail: that of the message, or of the list that the message went through."""
        if recipient.sender is None:
            return self
        return msgspec.structs.replace(self, reverse_path=recipient.sender, ret=Ret.UNSET, envid="")
