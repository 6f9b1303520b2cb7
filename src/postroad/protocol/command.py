"""Commands: the values that the server machine hands to its host, one for each legal command (RFC 5321 §4.1.1).

The machine has parsed and bounded each of them and checked their order: its host never sees an illegal command. Content
comes as `Content`, in any number of pieces; the last one is marked.
"""

from __future__ import annotations

import msgspec

from postroad.mail.address import Address
from postroad.mail.envelope import Body, Notify, Ret
from postroad.mail.reply import Reply


class Connected(msgspec.Struct, frozen=True):
    """The first command of every session: the host answers with the greeting (220, 421 or 554)."""


class Hello(msgspec.Struct, frozen=True):
    """EHLO, HELO or LHLO (`verb`) with its argument, a domain or an address literal, as written."""

    verb: str
    name: str


class Mail(msgspec.Struct, frozen=True):
    """MAIL FROM. `size` is SIZE= (0 if absent); `auth` the mailbox of AUTH= ("" absent, "<>" for ``AUTH=<>``);
    `parameters` all others that were announced, (keyword in capitals, value)."""

    reverse_path: Address | None
    size: int = 0
    body: Body = Body.SEVEN_BIT
    smtputf8: bool = False
    ret: Ret = Ret.UNSET
    envid: str = ""
    auth: str = ""
    parameters: tuple[tuple[str, str], ...] = ()


class Rcpt(msgspec.Struct, frozen=True):
    """RCPT TO. A source route was parsed and ignored (RFC 5321 §4.1.1.3); `orcpt` is decoded: "rfc822;a@b"."""

    forward_path: Address
    notify: Notify = Notify.UNSET
    orcpt: str = ""
    parameters: tuple[tuple[str, str], ...] = ()


class Data(msgspec.Struct, frozen=True):
    """DATA: the host answers 354 or refuses."""


class Content(msgspec.Struct, frozen=True):
    """Octets of content, dots unstuffed, line ends checked. `last`: the content is complete, the host answers.

    Over LMTP the host then answers once per accepted recipient, in order (RFC 2033 §4.2).
    """

    octets: bytes
    last: bool


class Chunk(msgspec.Struct, frozen=True):
    """The end of one BDAT chunk that is not the last (RFC 3030 §2): the host answers 250, or refuses the transaction.

    The octets of chunks come as `Content` (last=False), some perhaps after it, when there is enough for a piece; BDAT
    LAST ends with Content(last=True).
    """

    size: int


class Overflow(msgspec.Struct, frozen=True):
    """The content has ended but broke a limit or a rule on its way; all of it was swallowed. The machine has already
    given `answer` (552 5.3.4 too big, 550 5.5.2 bare CR or LF, …) and dropped the transaction; the host must drop its
    own."""

    answer: Reply


class Reset(msgspec.Struct, frozen=True):
    """RSET, answered by the machine (250 2.0.0): the transaction is dropped."""


class StartTls(msgspec.Struct, frozen=True):
    """STARTTLS: the machine has answered 220; when its output is flushed the host starts TLS and tells the machine
    `tls_started()`. Nothing that came behind it in plaintext is kept (RFC 3207 §4, CVE-2011-0411)."""


class Auth(msgspec.Struct, frozen=True):
    """AUTH: a mechanism that was offered, and the initial response decoded (None if absent)."""

    mechanism: str
    initial: bytes | None


class AuthResponse(msgspec.Struct, frozen=True):
    """A line of an AUTH exchange, decoded. A cancel ("*") and bad base64 are answered by the machine."""

    response: bytes


class AuthCancelled(msgspec.Struct, frozen=True):
    """The exchange was cancelled or broken; the machine has answered 501."""


class Vrfy(msgspec.Struct, frozen=True):
    """`smtputf8`: the client takes UTF-8 in the reply (RFC 6531 §3.7.4.2)."""

    verb: str  # VRFY or EXPN
    argument: str
    smtputf8: bool = False


class Help(msgspec.Struct, frozen=True):
    argument: str


class Etrn(msgspec.Struct, frozen=True):
    argument: str


class Xclient(msgspec.Struct, frozen=True):
    """XCLIENT: who the client really is. None: not told; "": not known. The host answers with
    `ServerMachine.begin_anew`, or refuses."""

    name: str | None = None
    address: str | None = None
    port: str | None = None
    protocol: str | None = None
    hello: str | None = None
    login: str | None = None
    destination: str | None = None
    destination_port: str | None = None


class Xforward(msgspec.Struct, frozen=True):
    """XFORWARD: from whom the client has the next message. None: not told; "": not known."""

    name: str | None = None
    address: str | None = None
    port: str | None = None
    protocol: str | None = None
    hello: str | None = None
    ident: str | None = None
    source: str | None = None


class Quit(msgspec.Struct, frozen=True):
    """QUIT, answered 221 by the machine: the host closes when its output is flushed."""


class TooManyErrors(msgspec.Struct, frozen=True):
    """The session broke a limit, or what it sends cannot be told from content any more; the machine has answered 421
    (554 5.5.0 for improper pipelining): the host closes when its output is flushed. `offence`: no honest client does
    that; else it only had its share. `answer`: what was said."""

    text: str
    offence: bool = True
    answer: Reply | None = None


class Declined(msgspec.Struct, frozen=True):
    """No command, but what the machine has refused by itself of those that bring mail or log in: `verb`, `line` as it
    came, `reverse_path` of the transaction that it was in (None: in none), and `answer`."""

    verb: str
    line: bytes
    answer: Reply
    reverse_path: Address | None = None


Command = (
    Connected | Hello | Mail | Rcpt | Data | Content | Chunk | Overflow | Reset | StartTls | Auth | AuthResponse
    | AuthCancelled | Vrfy | Help | Etrn | Xclient | Xforward | Quit | TooManyErrors
)
