"""An Attempt: one try to deliver to one recipient, or to the next hop, with its outcome in the words of RFC 3464.

An Attempt has all that a DSN, the log, the history and the retry schedule need to know.
"""

from __future__ import annotations

import enum

import msgspec

from postroad.mail.reply import Reply
from postroad.mail.route import HostProof
from postroad.mail.tls_details import TlsDetails
from postroad.mail.tls_policy import TlsOutcome


class Outcome(enum.Enum):
    """RFC 3464 §2.3.3 action-field, where DEFERRED becomes ``delayed`` once it is told."""

    DELIVERED = "delivered"  # final delivery: into a Maildir, to an LMTP server, a program
    RELAYED = "relayed"  # another MTA has taken it
    DEFERRED = "deferred"  # to be tried again
    FAILED = "failed"

    __hash__ = object.__hash__  # each is there once; that of Enum is a function in Python


class Reach(enum.Enum):
    """How far a failure reaches: what else need not be tried now for the same reason."""

    SESSION = "session"  # this connection is of no use any more
    HOP = "hop"  # this host cannot be used now
    DESTINATION = "destination"  # no host of the destination can
    MESSAGE = "message"  # this message for all its recipients here
    RECIPIENT = "recipient"  # this recipient only

    __hash__ = object.__hash__


class Try(msgspec.Struct, frozen=True, array_like=True):
    """One host for which a connection could not be made ready. `tls` and `proof`: what there was of TLS by then, and
    what the certificate had shown; `reply`: what the host said, or None. `took_us`: from the first packet to the end.
    `policy`: the TLS policy that held for the host, and whether it was satisfied; None if there was none to judge.
    `signed`: where the DNS has the keys whose DKIM signatures were put on top, ``SELECTOR._domainkey.DOMAIN``.
    `unsigned`: why a message that is to be signed was not signed, or not by all keys; "" for no reason.
    """

    name: str
    address: str
    port: int
    outcome: Outcome
    status: str
    text: str = ""
    reply: Reply | None = None
    tls: str = ""
    proof: HostProof = HostProof.NOTHING
    started_us: int = 0
    took_us: int = 0
    policy: TlsOutcome | None = None


class Attempt(msgspec.Struct, frozen=True, array_like=True):
    """The outcome for one recipient. `status`: enhanced code, always set. `text`: what we say of it, for people.

    `reply`: what the remote said (its Diagnostic-Code, type smtp), None if it said nothing and the finding is ours.
    `remote_name`, `remote_address`, `remote_port`: the remote MTA or "" for local work. `tls`: as in Peer, "" without,
    and so `tls_details`. `dsn_passed`: the remote offers DSN, so success reports are its duty from here on (RFC 3461
    §5.2). `by_passed`: the same of DELIVERBY and the time within which the message is wanted (RFC 2852).
    `started_us` wall time; `took_us` duration of this transaction (connecting is in `connect_us`, 0 if kept).
    `transport`: of the destination; "operator" if an operator has ended it, "discard" if mail was
    thrown away. `auth`: the mechanism and the account by which we authenticated or tried to (``PLAIN as ada``), ""
    without AUTH. `tries`: the hosts that did not take the connection before this outcome, in order; none if there was
    only the remote that is named here.
    `not_before_us`: the remote wants no other attempt before this time, 0 if it has said nothing.
    `policy`: the TLS policy that held for the remote, and whether it was satisfied; None if there was none to judge.
    """

    outcome: Outcome
    reach: Reach
    status: str
    text: str = ""
    reply: Reply | None = None
    remote_name: str = ""
    remote_address: str = ""
    remote_port: int = 0
    tls: str = ""
    dsn_passed: bool = False
    started_us: int = 0
    took_us: int = 0
    connect_us: int = 0
    transport: str = "smtp"
    by_passed: bool = False
    tls_details: TlsDetails | None = None
    auth: str = ""
    tries: tuple[Try, ...] = ()
    not_before_us: int = 0
    policy: TlsOutcome | None = None
    signed: tuple[str, ...] = ()
    unsigned: str = ""

    @property
    def reason(self) -> str:
        """What the remote said and what we say of it, each as far as there is something, and nothing twice."""
        said = str(self.reply) if self.reply is not None else ""
        if said and self.text and said not in self.text and not self.text.startswith(_REFUSED):
            return f"{said} ({self.text})"
        return self.text if said and said in self.text else said or self.text


_REFUSED = "the remote refused "  # a command: the reply says all
