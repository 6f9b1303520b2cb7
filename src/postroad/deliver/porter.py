"""Delivery as another user: what a worker may ask of the porter, and the delivery itself.

The porter (`node.porter`) is a small process that keeps the rights of root. A worker asks it by one frame for each
recipient. The frame names a domain of the porter's own table, and nothing else about where the mail goes: user, path
and command come from the table, which the porter got before the node gave up its rights. `read_request` checks a frame;
`deliver` runs in a child that has become the user.

What always holds: a frame that is accepted names a domain of the table, and its texts are bounded and printable; the
fields on top of the message are made here. How it fails: `read_request` returns a text, `deliver` a Result.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from postroad.deliver import program
from postroad.deliver.files import write_message
from postroad.deliver.folders import deferred, guarded
from postroad.deliver.letter import Letter
from postroad.deliver.mailbox import HOME, LOCAL_PART, detail_folder, folder, mailbox_name, mbox_file
from postroad.deliver.maildir import Writer
from postroad.deliver.mbox import Locked, MboxGate, MboxWriter
from postroad.deliver.options import MaildirOptions, MboxOptions, PorterOptions, ProgramOptions
from postroad.deliver.program_variables import variables
from postroad.mail import loop
from postroad.mail.address import Address
from postroad.mail.attempt import Outcome, Reach
from postroad.mail.route import MailboxRules, Quota, Transport
from postroad.mail.trace import delivered_to, return_path
from postroad.protocol.sending import Result
from postroad.world.files import Posix
from postroad.world.forward_file import INCLUDED_MAX, SIZE_MAX, ForwardFile
from postroad.world.identity import owner
from postroad.world.programs import Programs

FRAME_MAX: Final = 65_536  # octets of a request or an answer
PREFIX_MAX: Final = 32_768  # octets of fields of the envelope that a request carries
_AGAIN_S: Final = 0.2  # between two tries of a locked mailbox
_PIECE: Final = 262_144
_MARK: Final = re.compile(r"[A-Za-z0-9_-]{16}")
_USER: Final = re.compile(r"[a-z_][a-z0-9_.-]{0,31}")
_KINDS: Final = (Transport.MAILDIR, Transport.MBOX, Transport.PROGRAM)

_Text = Annotated[str, Meta(max_length=1024)]
_Path = Annotated[str, Meta(max_length=4096)]
_IncludedText = Annotated[str, Meta(max_length=SIZE_MAX)]


class PorterDomain(msgspec.Struct, frozen=True):
    """How the mail of a domain is delivered: as a domain of the settings says it. `forwards`: its users may have a file
    ``.forward``; of a program or file: it must stand there."""

    transport: Transport
    user: str
    group: str = ""
    path: str = ""
    command: tuple[str, ...] = ()
    rules: MailboxRules = MailboxRules()
    owner_of: str = ""
    forwards: bool = False


class PorterOutlets(msgspec.Struct, frozen=True):
    """As whom programs and files that aliases name are used, and which kinds of them. `owner_of`: a file whose owner it
    is instead, if his number is not below `uid_min`; "" for none. `forwards`: they stand in files ``.forward``."""

    user: str
    kinds: tuple[Transport, ...]
    owner_of: str = ""
    forwards: bool = False


class PorterTable(msgspec.Struct, frozen=True):
    """All that the porter knows of the settings. `host`: for the names of files. `forward_kinds`: which targets other
    than mailboxes the files ``.forward`` may name; `forward_includes`: whether they may include other files, and
    `included_kinds`: which targets other than mailboxes these may name."""

    host: str
    domains: dict[str, PorterDomain]
    options: PorterOptions
    maildir: MaildirOptions
    mbox: MboxOptions
    program: ProgramOptions
    outlets: dict[str, PorterOutlets] = {}
    forward_kinds: tuple[Transport, ...] = ()
    forward_includes: bool = False
    included_kinds: tuple[Transport, ...] = ()


class PorterOutlet(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A program or file that an alias names."""

    transport: Transport
    path: Annotated[str, Meta(max_length=4096)] = ""
    command: Annotated[tuple[Annotated[str, Meta(max_length=4096)], ...], Meta(max_length=100)] = ()


class PorterRequest(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One message for one recipient. `domain`: of the table; `local_part` and `at`: the recipient; `sender`: the
    reverse-path as local-part and domain, None for the null one. `mark`: against loops, or "". `prefix`: fields that
    stand in front of the content, which has `size` octets. `quota`: of the mailbox. `outlet`: a program or file that an
    alias names; then `domain` is one of `PorterTable.outlets`. `given`: the recipient as the client named it, if
    that is another one. `reads`: nothing is delivered; the file ``.forward`` of the user is wanted."""

    domain: Annotated[str, Meta(max_length=255)]
    local_part: Annotated[str, Meta(max_length=512)]
    at: Annotated[str, Meta(max_length=255)]
    sender: tuple[_Text, _Text] | None
    mark: Annotated[str, Meta(max_length=16)]
    id: Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
    now_us: Annotated[int, Meta(ge=0, le=1 << 62)]
    binary: bool
    prefix: Annotated[bytes, Meta(max_length=PREFIX_MAX)]
    size: Annotated[int, Meta(ge=0, le=1 << 50)]
    quota: Quota = Quota()
    outlet: PorterOutlet | None = None
    given: tuple[_Text, _Text] | None = None
    reads: bool = False

    @property
    def address(self) -> Address:
        return Address(self.local_part, self.at)

    @property
    def reverse_path(self) -> Address | None:
        return None if self.sender is None else Address(*self.sender)


class PorterAnswer(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What became of it."""

    outcome: Outcome
    status: Annotated[str, Meta(pattern=r"^[245]\.\d{1,3}\.\d{1,3}\Z")]
    text: Annotated[str, Meta(max_length=2048)]

    @property
    def result(self) -> Result:
        return Result(self.outcome, Reach.RECIPIENT, self.status, self.text)


def answer_of(result: Result) -> bytes:
    return msgspec.msgpack.encode(PorterAnswer(result.outcome, result.status, result.text[:2048]))


def read_answer(octets: bytes) -> Result:
    if not octets:
        return deferred("4.3.0", "the process that delivers as another user ended without an answer")
    try:
        return msgspec.msgpack.decode(octets, type=PorterAnswer).result
    except (msgspec.DecodeError, ValueError):
        return deferred("4.3.0", "the process that delivers as another user gave no answer that can be read")


def read_request(octets: bytes, table: PorterTable) -> tuple[PorterRequest, PorterDomain] | str:
    """A request with its domain, or what is wrong with it."""
    try:
        request = msgspec.msgpack.decode(octets, type=PorterRequest)
    except (msgspec.DecodeError, ValueError) as error:
        return f"the request cannot be read: {error}"[:200]
    domain = table.domains.get(request.domain) if request.outlet is None else _of_outlet(request, table)
    if isinstance(domain, str):
        return domain
    if domain is None:
        return "the domain is not one that is delivered as another user: restart the node if that has changed"
    texts = (request.local_part, request.at, *(request.sender or ()), *(request.given or ()))
    if not all(map(_is_clean, texts)):
        return "an address holds what cannot be printed"
    if request.mark and not _MARK.fullmatch(request.mark):
        return "the mark is none"
    if request.reads and (request.outlet is not None or not domain.forwards):
        return "the files of its users are not read: restart the node if that has changed"
    return request, domain


def _of_outlet(request: PorterRequest, table: PorterTable) -> PorterDomain | str:
    """How a program or a file of an alias is delivered to, or what is wrong with it."""
    outlet, known = request.outlet, table.outlets.get(request.domain)
    if outlet is None or known is None or outlet.transport not in known.kinds:
        return "targets of this kind are not used as another user: restart the node if that has changed"
    if not all(map(_is_clean, (outlet.path, *outlet.command))):
        return "a target holds what cannot be printed"
    named = outlet.command[0] if outlet.command else ""
    if outlet.transport is not Transport.PROGRAM:
        named = outlet.path
    parts = named.split("/")
    if len(parts) < 2 or parts[0] or ".." in parts or "{" in outlet.path:
        return "a target has no whole path"
    return PorterDomain(
        outlet.transport, known.user, path=outlet.path, command=outlet.command, owner_of=known.owner_of,
        forwards=known.forwards,
    )


def _is_clean(text: str) -> bool:
    return text.isprintable() and "\ufffe" not in text


def user_of(request: PorterRequest, domain: PorterDomain, table: PorterTable) -> str | None:
    """The name of the user as whom the mail is delivered; None if the recipient cannot be one."""
    if domain.owner_of:
        return owner(domain.owner_of, table.options.uid_min) or domain.user
    if domain.user != LOCAL_PART:
        return domain.user
    name = mailbox_name(request.local_part, table.maildir)
    return name if _USER.fullmatch(name) else None


def deliver(
    request: PorterRequest, domain: PorterDomain, table: PorterTable, content: int, home: str, programs: Programs,
    posix: Posix,
) -> Result:
    """In a child that is the user. `content`: a descriptor of the content; `home`: of the user."""
    letter = letter_of(request, content)
    if HOME in domain.path:
        domain = msgspec.structs.replace(domain, path=domain.path.replace(HOME, home.rstrip("/")))
    match domain.transport:
        case Transport.MAILDIR:
            return _into_maildir(request, domain, table, letter, posix)
        case Transport.MBOX:
            return _into_mbox(request, domain, table, letter, posix)
        case Transport.PROGRAM:
            return guarded(domain.command[:1], lambda: _to_program(request, domain, table, letter, home, programs))
        case _:
            return deferred("4.3.5", f"nothing is delivered as another user by {domain.transport.value}")


def letter_of(request: PorterRequest, content: int) -> Letter:
    """The message of a request; `content`: a descriptor."""
    address = request.address
    fields = return_path(request.reverse_path) + delivered_to(address)
    if request.mark:
        fields += loop.field((request.mark,))
    size = len(fields) + len(request.prefix) + request.size
    return Letter(
        request.id, fields, lambda: _read(request, content), size, request.binary, request.reverse_path
    )


def _read(request: PorterRequest, content: int) -> Iterator[bytes]:
    if request.prefix:
        yield request.prefix
    at = 0
    while at < request.size:
        piece = os.pread(content, min(_PIECE, request.size - at), at)
        if not piece:
            raise OSError(errno.EIO, f"the content is shorter than its {request.size} octets")
        at += len(piece)
        yield piece


class PorterForward(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What the file ``.forward`` says (`world.forward_file.ForwardFile`)."""

    text: Annotated[str, Meta(max_length=SIZE_MAX)] | None = None
    fault: Annotated[str, Meta(max_length=2048)] = ""
    not_now: Annotated[str, Meta(max_length=2048)] = ""
    included: Annotated[tuple[tuple[_Path, _IncludedText], ...], Meta(max_length=INCLUDED_MAX)] = ()


def forward_answer(found: ForwardFile) -> bytes:
    return msgspec.msgpack.encode(PorterForward(found.text, found.fault[:2048], found.not_now[:2048], found.included))


def read_forward(octets: bytes) -> ForwardFile:
    """An answer to a request that reads."""
    if not octets:
        return ForwardFile(not_now="the process that reads it ended without an answer")
    try:
        found = msgspec.msgpack.decode(octets, type=PorterForward)
    except (msgspec.DecodeError, ValueError):
        return ForwardFile(not_now="the process that reads it gave no answer that can be read")
    return ForwardFile(found.text, found.fault, found.not_now, found.included)


def _no_mailbox(why: str) -> Result:
    return Result(Outcome.FAILED, Reach.RECIPIENT, "5.1.3", f"there can be no such mailbox: its {why}")


def _into_maildir(
    request: PorterRequest, domain: PorterDomain, table: PorterTable, letter: Letter, posix: Posix
) -> Result:
    box = folder(domain.path, request.address, request.domain, table.maildir)
    if isinstance(box, str):
        return _no_mailbox(box)
    writer = Writer(table.host, table.maildir, posix)
    below = detail_folder(request.local_part, table.maildir) if domain.rules.detail_folders else ""
    return guarded(box, lambda: writer.put(box, below, letter, request.now_us, domain.rules, request.quota))


def _into_mbox(
    request: PorterRequest, domain: PorterDomain, table: PorterTable, letter: Letter, posix: Posix
) -> Result:
    box = mbox_file(domain.path, request.address, request.domain, table.maildir)
    if isinstance(box, str):
        return _no_mailbox(box)
    if domain.group:
        os.umask(0o007)
    writer = MboxWriter(
        table.mbox, posix, MboxGate(), make_folders=table.maildir.make_folders, group_may_read=bool(domain.group)
    )

    def put() -> Result | Locked:
        return writer.put(box, letter, request.now_us, domain.rules, request.quota.size)

    found = guarded(box, put)
    for _ in range(int(table.mbox.lock_s / _AGAIN_S)):
        if not isinstance(found, Locked):
            break
        time.sleep(_AGAIN_S)
        found = guarded(box, put)
    return deferred("4.2.0", f"the mailbox is locked: {found.by}") if isinstance(found, Locked) else found


def _to_program(
    request: PorterRequest, domain: PorterDomain, table: PorterTable, letter: Letter, home: str, programs: Programs
) -> Result:
    options = table.program
    values = program.values_of(request.reverse_path, request.address, request.domain)
    command = program.arguments(domain.command, values)
    if isinstance(command, Result):
        return command
    with tempfile.TemporaryFile() as file:
        if not (options.return_path and options.delivered_to):
            mark = loop.field((request.mark,)) if request.mark else b""
            top = program.fields_on_top(options, request.reverse_path, request.address) + mark
            letter = msgspec.structs.replace(letter, top=top, size=letter.size - len(letter.top) + len(top))
        write_message(Posix(), file.fileno(), letter.octets(), binary=letter.binary)
        ended = asyncio.run(programs.run(
            command,
            stdin=Path(f"/proc/self/fd/{file.fileno()}"),
            environment={
                "PATH": options.path, "LANG": "C.UTF-8", "HOME": home, "USER": user_of(request, domain, table) or "",
                "LOGNAME": user_of(request, domain, table) or "", "SHELL": "/bin/sh",
                **_variables(request, table, values),
            },
            directory=options.directory,
            timeout_s=options.time_s,
            output_max=options.output_max,
        ))
    return program.finding(ended, options.time_s)


def _variables(request: PorterRequest, table: PorterTable, values: dict[str, str]) -> dict[str, str]:
    if request.outlet is None:
        return {key.upper(): value for key, value in values.items()}
    given = None if request.given is None else Address(*request.given)
    return variables(values, request.address, given, table.maildir.detail_delimiter)
