"""Mail as files: a message as ``<queue id>.eml`` with its envelope as ``<queue id>.json`` beside it.

The .eml holds the content to the octet, as it stands in the spool. The .json holds the envelope, of its recipients
those that still wait, with what is known of each, and the size and hash of the content. What always holds: what `read`
gives is as strict as what came over the wire: addresses that can be written in a command, content of CRLF lines (but
for BINARYMIME), size and hash as said. How it fails: `UnfitFile` says which file, what, and what to do; OSError.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from postroad.mail import identifier
from postroad.mail.address import Address
from postroad.mail.envelope import Body, Envelope, Forwarded, Notify, Peer, Recipient, Ret, Via
from postroad.mail.message import (
    FIELD_NAME_MAX,
    LINE_MAX,
    MESSAGE_ID_MAX,
    Content,
    ContentFile,
    joins,
    lines_fit,
)
from postroad.mail.tls_details import TlsDetails
from postroad.protocol.grammar import parse_mailbox
from postroad.store import content as contents
from postroad.store.values import Waiting

FORMAT: Final = "postroad-mail-1"
ENVELOPE_MAX: Final = 67_108_864  # octets of a .json that are read
TOP_MAX: Final = 2 * FIELD_NAME_MAX + 2  # octets of the content that say how it begins
RECIPIENTS_MAX: Final = 1_000_000
DONE: Final = ".imported"  # behind the name of a .json that has been imported, with the new queue id in it


class UnfitFile(Exception):
    """A file that cannot be imported; the text says which, why, and what to do."""


class ExportedRecipient(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One recipient that waits. From `held` to `text`: what the queue knew of it. `sender`: the owner of the list by
    which the mail came to him; "" for the sender of the message. `released`: an operator has let the mail go on."""

    address: str
    notify: list[str] = []
    orcpt: str = ""
    given: str = ""
    parameters: list[tuple[str, str]] = []
    held: bool = False
    attempts: int = 0
    destination: str = ""
    due_us: int = 0
    told: bool = False
    status: str = ""
    text: str = ""
    sender: str = ""
    released: bool = False
    remote: str = ""


class ExportedVia(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """As `mail.envelope.Via`."""

    protocol: str
    address: str = ""
    port: int = 0
    destination: str = ""
    destination_port: int = 0
    authority: str = ""
    alpn: str = ""
    unique_id: str = ""
    common_name: str = ""


class ExportedForwarded(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """As `mail.envelope.Forwarded`."""

    name: str = ""
    address: str = ""
    port: int = 0
    protocol: str = ""
    hello: str = ""
    ident: str = ""
    source: str = ""


class ExportedTls(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """As `mail.tls_details.TlsDetails`."""

    bits: int = 0
    server_name: str = ""
    subject: str = ""
    issuer: str = ""
    sha256: str = ""
    verified: bool = False


class ExportedPeer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The client that the message came from, as in `mail.envelope.Peer`."""

    address: str = ""
    port: int = 0
    hello: str = ""
    protocol: str = ""
    tls: str = ""
    identity: str = ""
    listener: str = ""
    via: ExportedVia | None = None
    name: str = ""
    forwarded: ExportedForwarded | None = None
    tls_details: ExportedTls | None = None
    trusted: bool = False


class Exported(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The .json. `reverse_path`: an address, or "" for the null reverse-path. `sha256`: of the .eml; "" with a `size`
    of -1 if the content could not be read, and there is no .eml."""

    format: str
    id: str
    reverse_path: str
    recipients: list[ExportedRecipient]
    accepted_us: int
    size: int
    sha256: str
    message_id: str = ""
    body: str = "7BIT"
    smtputf8: bool = False
    ret: str = ""
    envid: str = ""
    parameters: list[tuple[str, str]] = []
    parent: str = ""
    peer: ExportedPeer = ExportedPeer()
    classes: list[str] = []


def write(folder: Path, envelope: Envelope, waiting: tuple[Waiting, ...], content: Content | None) -> Path:
    """Writes both files, synced; the .json last, so that it is there only with its .eml. Raises OSError."""
    name = identifier.text(envelope.id)
    size, digest = -1, ""
    if content is not None:
        size, digest = _write_content(folder / f"{name}.eml", envelope, content)
    exported = msgspec.json.format(msgspec.json.encode(_exported(envelope, waiting, size, digest)), indent=2)
    path = folder / f"{name}.json"
    _write_all(path, iter((exported + b"\n",)))
    contents.sync_directory(folder)
    return path


def _write_content(path: Path, envelope: Envelope, content: Content) -> tuple[int, str]:
    digest = hashlib.sha256()
    size = 0

    def pieces() -> Iterator[bytes]:
        nonlocal size
        for piece in contents.pieces(envelope, content):
            digest.update(piece)
            size += len(piece)
            yield piece

    _write_all(path, pieces())
    return size, digest.hexdigest()


def _write_all(path: Path, pieces: Iterator[bytes]) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as file:
        try:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(handle)
        except BaseException:
            os.unlink(path)
            raise


def _exported(envelope: Envelope, waiting: tuple[Waiting, ...], size: int, digest: str) -> Exported:
    rows: dict[int, Waiting | None] = {row.index: row for row in waiting} or dict.fromkeys(
        range(len(envelope.recipients))
    )
    return Exported(
        FORMAT, identifier.text(envelope.id), str(envelope.reverse_path or ""),
        [_recipient(envelope.recipients[index], row) for index, row in rows.items()],
        envelope.accepted_us, size, digest, envelope.message_id, envelope.body.value, envelope.smtputf8,
        envelope.ret.value, envelope.envid, list(envelope.parameters),
        identifier.text(envelope.parent) if envelope.parent else "",
        _twin(envelope.peer), list(envelope.classes),
    )  # fmt: skip


_TWINS: Final[dict[type, type]] = {
    Peer: ExportedPeer, Via: ExportedVia, Forwarded: ExportedForwarded, TlsDetails: ExportedTls,
}  # fmt: skip
_TWINS_BACK: Final = {twin: kind for kind, twin in _TWINS.items()}


def _twin(value: Any) -> Any:
    """A peer, or a part of it, as it stands in the .json, where fields have names."""
    kind = _TWINS.get(type(value))
    if kind is None:
        return value
    return kind(**{name: _twin(each) for name, each in msgspec.structs.asdict(value).items()})


def _of_twin(value: Any) -> Any:
    """The other way."""
    kind = _TWINS_BACK.get(type(value))
    if kind is None:
        return value
    return kind(**{name: _of_twin(each) for name, each in msgspec.structs.asdict(value).items()})


def _recipient(recipient: Recipient, row: Waiting | None) -> ExportedRecipient:
    row = row or Waiting(0, 0, "")
    key = row.destination if recipient.destination is None else recipient.destination.key
    return ExportedRecipient(
        str(recipient.address), [each.name or "" for each in recipient.notify], recipient.orcpt,
        str(recipient.given or ""), list(recipient.parameters), row.held, row.attempts, key, row.due_us,
        row.delay_reported, row.status, row.text, str(recipient.sender or ""), row.released, row.remote,
    )  # fmt: skip


class ExportedMail(msgspec.Struct, frozen=True):
    """What was read: the envelope still bears its old queue id. `held`: indexes of recipients, and why."""

    path: Path
    envelope: Envelope
    waiting: tuple[Waiting, ...]
    content: ContentFile


def found(paths: tuple[Path, ...]) -> list[Path]:
    """The .json files that are named, or stand in folders that are named. Raises UnfitFile."""
    files: list[Path] = []
    for path in map(Path.absolute, paths):
        try:
            if stat.S_ISDIR(path.stat().st_mode):
                files += [path / name for name in sorted(os.listdir(path)) if name.endswith(".json")]
                continue
        except OSError as error:
            raise UnfitFile(f"{path}: {error.strerror or error}") from None
        if path.suffix != ".json":
            raise UnfitFile(f"{path}: neither a folder nor an envelope (.json)")
        files.append(path)
    return files


def read(path: Path) -> ExportedMail:
    """One message. The .eml is read once, through. Raises UnfitFile, OSError."""
    if path.stat().st_size > ENVELOPE_MAX:
        raise UnfitFile(f"{path}: is not an envelope: it is larger than {ENVELOPE_MAX} octets")
    try:
        exported = msgspec.json.decode(path.read_bytes(), type=Exported)
    except msgspec.MsgspecError as error:
        raise UnfitFile(f"{path}: is not an envelope of `postroad spool export`: {error}") from None
    if exported.format != FORMAT:
        raise UnfitFile(f"{path}: its format is {exported.format!r}; this version reads {FORMAT!r}")
    envelope, waiting = _envelope(path, exported)
    eml = path.with_suffix(".eml")
    if exported.size < 0 and not eml.exists():
        raise UnfitFile(f"{path}: was exported without its content; put the content beside it as {eml.name}")
    found = _checked_content(eml, exported, envelope)
    if not joins(contents.head(envelope, found, TOP_MAX)):  # what delivery puts on top would get another meaning
        raise UnfitFile(f"{eml}: does not begin with a header field: put a field or an empty line at the top")
    if envelope.body is not Body.BINARY_MIME and _has_long_line(envelope, found):
        envelope = msgspec.structs.replace(envelope, long_lines=True)
    return ExportedMail(path, envelope, waiting, found)


def _envelope(path: Path, exported: Exported) -> tuple[Envelope, tuple[Waiting, ...]]:
    if not 0 < len(exported.recipients) <= RECIPIENTS_MAX:
        raise UnfitFile(f"{path}: recipients: there must be 1 to {RECIPIENTS_MAX}")
    if not 0 < exported.accepted_us < 1 << 62:
        raise UnfitFile(f"{path}: accepted_us: is not a time")
    try:
        recipients = tuple(_read_recipient(path, each) for each in exported.recipients)
        body, ret = Body(exported.body), Ret(exported.ret)
    except ValueError as error:
        raise UnfitFile(f"{path}: {error}") from None
    old = identifier.parse(exported.id)
    if old is None:
        raise UnfitFile(f"{path}: id: {exported.id!r} is not a queue id")
    _check_texts(path, exported)
    envelope = Envelope(
        old, _address(path, "reverse_path", exported.reverse_path) if exported.reverse_path else None, recipients,
        exported.size, exported.accepted_us, _of_twin(exported.peer), body, exported.smtputf8, ret,
        exported.envid, exported.message_id[:MESSAGE_ID_MAX], tuple(exported.parameters), 0,
        classes=tuple(exported.classes),
    )  # fmt: skip
    waiting = tuple(
        Waiting(index, max(0, each.due_us), each.destination, max(0, each.attempts), each.held, each.told,
                each.status, each.text, each.remote, released=each.released)
        for index, each in enumerate(exported.recipients)
    )  # fmt: skip
    return envelope, waiting


def _check_texts(path: Path, exported: Exported) -> None:
    """What goes into commands, fields or the log holds no control octet."""
    texts = {"envid": exported.envid, "message_id": exported.message_id}
    texts |= {f"classes[{index}]": text for index, text in enumerate(exported.classes)}
    texts |= dict(_texts("peer", exported.peer))
    texts |= {f"parameters.{name}": f"{name}={value}" for name, value in exported.parameters}
    for index, each in enumerate(exported.recipients):
        texts |= {f"recipients[{index}].orcpt": each.orcpt, f"recipients[{index}].text": each.text}
        texts |= {f"recipients[{index}].remote": each.remote, f"recipients[{index}].status": each.status}
        texts |= {f"recipients[{index}].destination": each.destination}
        texts |= {f"recipients[{index}].parameters.{name}": f"{name}={value}" for name, value in each.parameters}
    for name, text in texts.items():
        if any(char < " " or char == "\x7f" for char in text):
            raise UnfitFile(f"{path}: {name}: holds a control character")


def _texts(name: str, value: object) -> Iterator[tuple[str, str]]:
    """The texts in a structure, by their names."""
    if isinstance(value, msgspec.Struct):
        for inner, each in msgspec.structs.asdict(value).items():
            yield from _texts(f"{name}.{inner}", each)
    elif isinstance(value, str):
        yield name, value


def _read_recipient(path: Path, each: ExportedRecipient) -> Recipient:
    try:
        notify = Notify(sum({Notify[name].value for name in each.notify}))
    except KeyError as error:
        raise UnfitFile(f"{path}: notify: {error.args[0]!r} is not one of NEVER, SUCCESS, FAILURE, DELAY") from None
    given = _address(path, "given", each.given) if each.given else None
    sender = _address(path, "sender", each.sender) if each.sender else None
    return Recipient(
        _address(path, "address", each.address), notify, each.orcpt, given, tuple(each.parameters), sender=sender
    )


def _address(path: Path, name: str, text: str) -> Address:
    if text.lower() == "postmaster":  # RFC 5321 §4.1.1.3: without a domain
        return Address(text, "")
    address = parse_mailbox(text)
    if address is None:
        raise UnfitFile(f"{path}: {name}: {text!r} is not an address")
    return address


def _has_long_line(envelope: Envelope, content: ContentFile) -> bool:
    line = 0
    for piece in contents.pieces(envelope, content):
        if not lines_fit(piece, LINE_MAX + 2, line):
            return True
        last = piece.rfind(b"\n") + 1
        line = len(piece) - last + (0 if last else line)
    return False


def _checked_content(eml: Path, exported: Exported, envelope: Envelope) -> ContentFile:
    try:
        size = eml.stat().st_size
    except OSError as error:
        raise UnfitFile(f"{eml}: {error.strerror}: each envelope needs its content beside it") from None
    found = ContentFile(str(eml), size)
    digest, ends_cr, bare = hashlib.sha256(), False, False
    for piece in contents.pieces(envelope, found):
        digest.update(piece)
        whole = (b"\r" if ends_cr else b"") + piece
        ends_cr = whole.endswith(b"\r")
        whole = whole[:-1] if ends_cr else whole
        pairs = whole.count(b"\r\n")
        bare = bare or whole.count(b"\n") != pairs or whole.count(b"\r") != pairs
    if exported.size >= 0 and (size != exported.size or digest.hexdigest() != exported.sha256):
        raise UnfitFile(f"{eml}: is not what was exported: it has changed since, or the copy is not whole")
    if (bare or ends_cr) and envelope.body is not Body.BINARY_MIME:
        raise UnfitFile(f"{eml}: lines must end with CRLF, and CR or LF may not stand alone (unix2dos mends that)")
    return found
