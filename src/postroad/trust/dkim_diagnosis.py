"""What has changed since a message was signed, where that can be told: for operators who look into one message. Pure.

A hash does not say what was changed. So this makes guesses at what usually happens on the way (a footer, a tag in the
subject, another charset, another field of the same name), undoes each, and sees whether the signature is right then.
Only what was proved in this way is told as a fact.

It is slow beside a verification, some milliseconds for a megabyte: nothing on the way of a message calls it. Guesses
are limited in number, and a body of more than BODY_MAX octets or LINES_MAX lines is not searched.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from postroad.trust.dkim_body import BodyForm, BodyHashes, Canonicalization, reduced
from postroad.trust.dkim_head import SignedHead, canonical
from postroad.trust.dkim_key import DkimKey
from postroad.trust.dkim_signature import DkimSignature, FaultyTagError, read_tags
from postroad.trust.dkim_verify import DkimResult, is_signed, signed_data
from postroad.trust.tags import compact

BODY_MAX: Final = 16_777_216
LINES_MAX: Final = 500_000  # of a body that is searched; 16 MB in base64 have 220,000
GUESSES_MAX: Final = 200  # forms of the header section that are tried, at some 0.1 ms
_BANNER_MAX: Final = 20  # lines on top of the body that may have been added
_SHOWN_MAX: Final = 60
# "[list] x", "Re: [list] x", "***SPAM*** x"
_SUBJECT_TAG: Final = re.compile(rb"(:[ \t]*+(?:\w{2,3}:[ \t]*+)?)(?:\[[^\]]{1,80}\]|\*{2,9}[^*]{1,80}\*{2,9})[ \t]*+")
_ENCODED: Final = re.compile(rb"=([0-9A-Fa-f]{2})")
_ENCODINGS: Final = (b"7bit", b"8bit", b"quoted-printable", b"base64")


def diagnose(result: DkimResult, section: bytes, body: bytes | None) -> tuple[str, ...]:
    """Sentences on a signature that failed; none if nothing can be told beyond its reason. `body`: None for one of more
    than BODY_MAX octets that nobody has kept."""
    signature, key = result.signature, result.key
    if signature is None or key is None or result.passes:
        return ()
    head = SignedHead(section)
    told = list(_of_body(signature, body))
    if is_signed(key, signature.data, signed_data(head, signature)):
        told.append("The signed header fields are as they were signed.")
    else:
        told += _of_head(signature, key, head)
    return tuple(told)


def _of_body(signature: DkimSignature, body: bytes | None) -> Iterator[str]:
    expected, form = signature.body_hash, signature.body
    if body is None:
        yield f"The body has more than {BODY_MAX} octets and was not searched."
        return
    if _digest(body, form) == expected:
        yield "The body is as it was signed."
    elif len(body) > BODY_MAX:
        yield f"The body has changed. It has more than {BODY_MAX} octets and was not searched."
    elif body.count(b"\n") > LINES_MAX:
        yield f"The body has changed. It has more than {LINES_MAX} lines and was not searched."
    else:
        yield next(_body_guesses(body, form, expected), "The body has changed. How cannot be told from its hash.")


def _body_guesses(body: bytes, form: BodyForm, expected: bytes) -> Iterator[str]:
    lines = _lines(body, form)
    at = _prefix(lines, expected)
    if at is not None:
        added = next((line for line in lines[at:] if line), b"")
        yield f"{len(lines) - at} lines were added at the end of the body, after line {at}: {_shown(added)}"
    for count in range(1, min(_BANNER_MAX, len(lines)) + 1):
        if _digest(b"\r\n".join(lines[count:]), form) == expected:
            yield f"{count} lines were added at the top of the body: {_shown(lines[0])}"
    for name, changed in _recoded(body):
        if _digest(changed, form) == expected:
            yield f"The body was changed on the way: {name}."


def _lines(body: bytes, form: BodyForm) -> list[bytes]:
    canonical = reduced(body) if form.canonicalization is Canonicalization.RELAXED else body
    lines = canonical.split(b"\r\n")
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _prefix(lines: list[bytes], expected: bytes) -> int | None:
    """After how many lines the body that was signed ended; None: it is no first part of this one."""
    running = hashlib.sha256()
    if running.digest() == expected or hashlib.sha256(b"\r\n").digest() == expected:
        return 0
    for number, line in enumerate(lines[:-1], 1):
        running.update(line + b"\r\n")
        if line and running.digest() == expected:
            return number
    return None


def _recoded(body: bytes) -> Iterator[tuple[str, bytes]]:
    """What the body may have been before, and what was done to it then."""
    for signed, now in (("latin-1", "utf-8"), ("utf-8", "latin-1"), ("cp1252", "utf-8"), ("utf-8", "cp1252")):
        try:
            yield f"its charset was {signed} and is {now} now", body.decode(now).encode(signed)
        except UnicodeError:
            continue
    yield "lines that begin with From got a >", re.sub(rb"(?m)^>From ", b"From ", body)
    yield "a dot was doubled at the beginning of lines", re.sub(rb"(?m)^\.\.", b".", body)
    yield "a dot was lost at the beginning of lines", re.sub(rb"(?m)^\.", b"..", body)
    yield "white space was put at the end of lines", re.sub(rb"(?<![ \t])[ \t]++\r\n", b"\r\n", body)
    yield "line ends were made CRLF, which it had as LF when it was signed", body.replace(b"\r\n", b"\n")


def _of_head(signature: DkimSignature, key: DkimKey, head: SignedHead) -> Iterator[str]:
    if isinstance(key.public, RSAPublicKey) and not _made_with(key.public, signature.data):
        yield "The signature was made with another key than the one in the DNS, or b= was changed."
        return
    found = False
    for number, (what, section) in enumerate(_head_guesses(signature, head)):
        if number >= GUESSES_MAX:
            break
        if is_signed(key, signature.data, signed_data(SignedHead(section), signature)):
            yield what
            found = True
            break
    if not found:
        yield "A signed header field, or the signature's own field, has changed. Which cannot be told from a hash."
        fewer = [name.decode() for name in dict.fromkeys(signature.names) if not head.fields(name)]
        if fewer:
            yield f"Signed, and not in the message (removed, or never there): {', '.join(fewer[:20])}."


def _made_with(public: RSAPublicKey, data: bytes) -> bool:
    """Whether the signature holds a hash at all when it is opened with this key."""
    try:
        public.recover_data_from_signature(data, PKCS1v15(), None)
    except (InvalidSignature, ValueError):
        return False
    return True


def _head_guesses(signature: DkimSignature, head: SignedHead) -> Iterator[tuple[str, bytes]]:
    """A sentence on what may have happened, and the header section as it was before."""
    yield from _as_copied(signature, head)
    names = [name for name in dict.fromkeys(signature.names) if head.fields(name)]
    for field in head.fields(b"subject"):
        without = _SUBJECT_TAG.sub(rb"\1", field, count=1)
        if without != field:
            yield f"A tag was put into the subject: {_shown(field)}", _with(head, field, without)
    for name in names:
        for field in head.fields(name):
            yield f"A field was added after the message was signed: {_shown(field)}", _with(head, field, None)
    for field in head.fields(b"content-transfer-encoding"):
        for encoding in _ENCODINGS:
            was = field.partition(b":")[0] + b": " + encoding
            what = f"Content-Transfer-Encoding was {encoding.decode()} when the message was signed."
            yield what, _with(head, field, was)
    for name in names:
        for field in head.fields(name):
            yield (
                f"The lines of a field were put together or cut anew: {_shown(field)}",
                _with(head, field, re.sub(rb"\r\n[ \t]+", b" ", field)),
            )


def _as_copied(signature: DkimSignature, head: SignedHead) -> Iterator[tuple[str, bytes]]:
    """With the fields that the signer has copied into z= (RFC 6376 §3.5)."""
    told, was = [], head
    for name, field in _copied(signature).items():
        there = head.fields(name)
        if name not in signature.names or len(there) > 1:
            continue
        if not there:
            told.append(f"{_shown(field)} was removed")
            was = SignedHead(was.section + b"\r\n" + field + b"\r\n")
        elif canonical(there[0], signature.head) != canonical(field, signature.head):
            told.append(f"{_shown(field)} was changed into {_shown(there[0])}")
            was = SignedHead(_with(was, there[0], field))
    if told:
        yield f"By the copy in z=, {' and '.join(told)}.", was.section + b"\r\n"


def _copied(signature: DkimSignature) -> dict[bytes, bytes]:
    """The fields in z= by their names in lower case. Those that stand there twice are left out."""
    try:
        text = read_tags(signature.field).get("z", "")
    except FaultyTagError:
        return {}
    found: dict[bytes, list[bytes]] = {}
    for part in compact(text).split("|"):
        field = _ENCODED.sub(lambda octet: bytes.fromhex(octet[1].decode()), part.encode())
        name, colon, _ = field.partition(b":")
        if colon:
            found.setdefault(name.strip().lower(), []).append(field)
    return {name: fields[0] for name, fields in found.items() if len(fields) == 1}


def _with(head: SignedHead, field: bytes, instead: bytes | None) -> bytes:
    """The section with another field, or none, in the place of this one."""
    section = b"\r\n" + head.section + b"\r\n"
    new = b"\r\n" if instead is None else b"\r\n" + instead + b"\r\n"
    return section.replace(b"\r\n" + field + b"\r\n", new, 1)[2:]


def _digest(body: bytes, form: BodyForm) -> bytes:
    bodies = BodyHashes([form])
    bodies.feed(body)
    return bodies.results()[form].digest


def _shown(octets: bytes) -> str:
    text = octets.decode("utf-8", "backslashreplace")
    return ascii(text if len(text) <= _SHOWN_MAX else text[:_SHOWN_MAX] + "…")
