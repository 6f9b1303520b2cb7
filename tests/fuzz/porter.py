"""Target `porter`: any octets to the process that delivers as other users, and to who reads its answers.

What must hold: nothing raises; a request that is accepted names a domain of the table, is bounded and printable, and
leads to a user with a plain name, and to a path below the one that the operator has set; the fields on top of the
message are one header section; an answer is a Result with a status of its own class.
"""

from __future__ import annotations

import re

import msgspec

from postroad.deliver import program
from postroad.deliver.mailbox import Folder, folder, mbox_file
from postroad.deliver.options import MaildirOptions, MboxOptions, PorterOptions, ProgramOptions
from postroad.deliver.porter import (
    FRAME_MAX,
    PREFIX_MAX,
    PorterDomain,
    PorterOutlets,
    PorterTable,
    answer_of,
    forward_answer,
    letter_of,
    read_answer,
    read_forward,
    read_request,
    user_of,
)
from postroad.mail.message import header_end
from postroad.mail.route import Transport
from postroad.world.forward_file import INCLUDED_MAX, SIZE_MAX
from tests.fuzz import choices

TABLE = PorterTable(
    "mx.example.org",
    {
        "dir.example": PorterDomain(Transport.MAILDIR, "{local_part}", path="/home/{local_part}/Maildir"),
        "file.example": PorterDomain(Transport.MBOX, "{local_part}", "mail", path="/var/mail/{local_part}"),
        "home.example": PorterDomain(Transport.MAILDIR, "{local_part}", path="{home}/Maildir", forwards=True),
        "prog.example": PorterDomain(Transport.PROGRAM, "vmail", command=("/bin/x", "{recipient}", "--", "{sender}")),
    },
    PorterOptions(), MaildirOptions(), MboxOptions(), ProgramOptions(),
    {
        "aliases": PorterOutlets("nobody", (Transport.PROGRAM, Transport.MBOX)),
        "forward:home.example": PorterOutlets("{local_part}", (Transport.PROGRAM, Transport.MBOX), forwards=True),
    },
    (Transport.PROGRAM, Transport.MBOX),
)
_USER = re.compile(r"[a-z_][a-z0-9_.-]*")


def check(data: bytes, *, hasty: bool = False) -> None:
    """All of it is quick, so that there is nothing to leave out in haste."""
    wire = choices.read(data).wire[:FRAME_MAX]
    _request(wire)
    file = read_forward(wire)
    assert read_forward(forward_answer(file)) == file and len(file.text or "") <= SIZE_MAX
    assert len(file.included) <= INCLUDED_MAX and all(len(text) <= SIZE_MAX for _, text in file.included)
    result = read_answer(wire)
    assert result.status[0] in "245" and len(result.text) <= 2048
    assert read_answer(answer_of(result)) == result


def _request(wire: bytes) -> None:
    found = read_request(wire, TABLE)
    if isinstance(found, str):
        assert found and len(found) <= 200
        return
    request, domain = found
    if request.outlet is None:
        assert TABLE.domains[request.domain] is domain
        assert not request.reads or domain.forwards
    else:
        assert not request.reads and domain.transport is not Transport.MAILDIR
        assert (request.domain, domain.user, domain.forwards) in (
            ("aliases", "nobody", False), ("forward:home.example", "{local_part}", True)
        )
        assert "\0" not in "".join((domain.path, *domain.command)) and domain.owner_of == ""
        named = domain.command[0] if domain.transport is Transport.PROGRAM else domain.path
        assert named.startswith("/") and ".." not in named.split("/")
    assert len(request.prefix) <= PREFIX_MAX and request.size >= 0
    user = user_of(request, domain, TABLE)
    assert user is None or (_USER.fullmatch(user) and len(user) <= 32)
    letter = letter_of(request, -1)
    assert letter.top.endswith(b"\r\n") and header_end(letter.top) == len(letter.top)
    assert letter.top.count(b"\r\n") <= 3 and b"\0" not in letter.top
    for box in (
        folder(TABLE.domains["dir.example"].path, request.address, request.domain, TABLE.maildir),
        mbox_file(TABLE.domains["file.example"].path, request.address, request.domain, TABLE.maildir),
    ):
        if isinstance(box, Folder):
            assert box.base in ("/home", "/var/mail")
            assert all(name not in (".", "..") and "/" not in name and "\0" not in name for name in box.names)
    command = program.arguments(
        TABLE.domains["prog.example"].command,
        program.values_of(request.reverse_path, request.address, request.domain),
    )
    if isinstance(command, tuple):
        assert command[0] == "/bin/x" and len(command) == 4 and not command[1].startswith("-")
    again = read_request(msgspec.msgpack.encode(request), TABLE)
    assert again == found
