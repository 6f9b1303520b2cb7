"""What is signed on the way out, and with whose keys: the settings of `[dkim]` that are neither about the fields
(`trust.dkim_sign.SigningOptions`) nor about the store of keys (`trust.key_store`)."""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec
from msgspec import Meta

from postroad.trust.dkim_sign import SigningOptions


class SignedOrigin(enum.Enum):
    """Whose mail is signed."""

    ACCOUNTS = "accounts"
    TRUSTED = "trusted"
    OWN = "own"


class KeyTrouble(enum.Enum):
    """What becomes of a message if there is a key for it, and none can be used."""

    SEND = "send"
    WAIT = "wait"


class NamedKey(msgspec.Struct, frozen=True):
    """A key whose file the settings name."""

    domain: Annotated[str, Meta(description="The domain that signs (`d=`).")]
    selector: Annotated[
        str,
        Meta(description="The selector: the DNS has the public key at `SELECTOR._domainkey.DOMAIN`."),
    ]
    file: Annotated[
        str,
        Meta(
            description="The private key, PEM: RSA with at least 1024 bits, or Ed25519. A file that all users may read "
            "or write is not used.",
        ),
    ]


class SignAs(msgspec.Struct, frozen=True):
    """Which other domain signs for some author domains."""

    authors: Annotated[
        tuple[str, ...],
        Meta(
            min_length=1,
            description="The author domains: `example.org`, `.example.org` for all names below it, `*` for all.",
        ),
    ]
    domain: Annotated[str, Meta(description="The domain that signs for them (`d=`). It must have a key.")]
    beside: Annotated[
        bool,
        Meta(
            description="Whether it also signs if the author domain has a key of its own. Such mail then has the "
            "signatures of both.",
        ),
    ] = False


class DkimOutOptions(msgspec.Struct, frozen=True):
    """See the module. `keys`, `sign_as`: in the order of the file. `authserv_id`: in our Authentication-Results;
    `arc_listeners`: the listeners that write such fields with a result of ARC, and remove those that others forge, but
    for mail from `unchecked_networks`."""

    sign: Annotated[
        bool,
        Meta(
            description="Whether mail is signed with DKIM on its way out. Mail whose author domain has no key is sent "
            "as it is.",
        ),
    ] = True
    origins: Annotated[
        tuple[SignedOrigin, ...],
        Meta(
            min_length=1,
            description="Whose mail is signed. `accounts`: of clients that have logged in. `trusted`: of clients in "
            "trusted networks or with trusted certificates, and of users of this machine. `own`: what the node writes "
            "itself, such as reports to senders. Mail of strangers is never signed.",
        ),
    ] = (SignedOrigin.ACCOUNTS, SignedOrigin.TRUSTED, SignedOrigin.OWN)
    parent_domains: Annotated[
        bool,
        Meta(
            description="If an author domain has no key, whether the nearest domain above it signs that has one. "
            "DMARC takes this as the author's own signature unless the domain asks for `adkim=s`.",
        ),
    ] = True
    lmtp: Annotated[
        bool,
        Meta(description="Whether mail is also signed on its way to LMTP servers. Maildirs and programs get none."),
    ] = False
    key_trouble: Annotated[
        KeyTrouble,
        Meta(
            description="What happens to a message if there is a key for it, but no such key can be read. `send`: it "
            "is sent without a signature. `wait`: it waits with 4.7.5 until a key can be read. Both are logged.",
        ),
    ] = KeyTrouble.SEND
    key_table: Annotated[
        str,
        Meta(
            description="A KeyTable of OpenDKIM, a path with or without `file:` or `refile:` in front. It is used "
            'together with `signing_table`. "": none.',
        ),
    ] = ""
    signing_table: Annotated[
        str,
        Meta(
            description="A SigningTable of OpenDKIM, written in the same way. Authors that are not in it sign with "
            'the other keys. "": none.',
        ),
    ] = ""
    all_matches: Annotated[
        bool,
        Meta(
            description="Whether all lines of the SigningTable sign that fit an author, and not only the first one "
            "(MultipleSignatures of OpenDKIM).",
        ),
    ] = False
    arc_seal: Annotated[
        str,
        Meta(
            description="The domain whose key seals (ARC) mail of strangers that is forwarded. Only mail is sealed "
            "that came by a listener which checks ARC, and not from `checks.exempt_networks`. \"\": nothing is sealed.",
        ),
    ] = ""
    authserv_id: str = ""
    arc_listeners: frozenset[str] = frozenset()
    unchecked_networks: tuple[str, ...] = ()
    keys: tuple[NamedKey, ...] = ()
    sign_as: tuple[SignAs, ...] = ()
    fields: SigningOptions = SigningOptions()
