"""What an alias may name in the place of a mailbox: a program, a file, a Maildir, or a file with more targets. Pure.

    |/usr/bin/program argument      "|/usr/bin/program argument"
    /var/mail/archive               an mbox file; /dev/null throws the mail away
    /home/ada/Maildir/              a Maildir
    :include:/etc/mail/members      all targets in this file

Each is used only if the settings allow it: the places are the alias file (with maps that are files), files that are
included, and maps that ask a database or a service. A program is started without a shell: its command is divided into
words here, once, and what only a shell could do is refused. What was allowed when a message was accepted must still be
allowed when it is delivered (`permitted`). How it fails: with a text.
"""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from postroad.mail.route import NULL_DEVICE, Destination, MailboxRules, Transport

INCLUDE: Final = ":include:"
_WORDS_MAX: Final = 100  # of a command
_LENGTH_MAX: Final = 4096  # of a command or path, in characters
_PLACEHOLDERS: Final = re.compile(r"\{(?:recipient|local_part|domain|sender)\}")
_SHELL: Final = frozenset(";<>|&$`*?[]()\\")  # outside of quotation marks: a shell's to understand


Place = Literal["aliases", "includes", "services", "forwards"]
"""Where a target stands."""

_Places = tuple[Place, ...]


class OutletOptions(msgspec.Struct, frozen=True):
    """Where programs, files and includes may stand, and as whom they are used."""

    programs: Annotated[
        _Places,
        Meta(
            description="Where programs (`|/usr/bin/program`) may stand. `aliases`: in the alias file, and in maps of "
            "`alias_maps` that are files. `includes`: in included files. "
            "`services`: in maps that ask a database or a service, and in patterns. `forwards`: in the .forward files "
            "of users, if the domain has `forward_files`.",
        ),
    ] = ()
    files: Annotated[
        _Places,
        Meta(
            description="Where files (`/var/mail/archive`) and Maildirs (`/home/ada/Maildir/`) may stand. `/dev/null` "
            "may stand everywhere.",
        ),
    ] = ()
    includes: Annotated[
        _Places, Meta(description="Where `:include:/path` may stand.")
    ] = ()
    user: Annotated[
        str,
        Meta(
            description="The user of this machine as whom programs and files of aliases are used. The node must be "
            "started as root. Unset: the user of the node.",
        ),
    ] = ""
    as_owner: Annotated[
        bool,
        Meta(
            description="Whether programs and files are used as the owner of the alias file, or of the file of the "
            "map, in which they stand. If the number of the owner is below `[other_users] uid_min`, as that of root "
            "is, they are used as `user`. An included file counts as a part of the file that includes it.",
        ),
    ] = False
    owners: Annotated[
        bool,
        Meta(
            description="Whether mail through an alias `list` has the sender `owner-list`, if there is an alias of "
            "this name. The owner then gets the reports.",
        ),
    ] = True


class TargetSource(msgspec.Struct, frozen=True):
    """Where targets come from. `by`: the name by which the porter knows it. `user`: "" for that of the node. `of`: the
    user in whose file they stand; files of several users are several destinations."""

    place: Place | Literal["keys"]
    by: str = "aliases"
    user: str = ""
    of: str = ""


NOTHING: Final = OutletOptions()
ALIASES: Final = TargetSource("aliases")
KEYS: Final = TargetSource("keys")  # values of patterns with parts of the key, such as $1
SERVICES: Final = TargetSource("services")


def source_of(options: OutletOptions, place: Place, file: str = "") -> TargetSource:
    """`file`: the file of aliases, or of a map; "" for none."""
    by = f"owner:{file}" if options.as_owner and file else "aliases"
    return TargetSource(place, by, options.user)


def is_outlet(word: str) -> bool:
    return word.startswith(("|", "/", '"|', '"/'))


def outlet(word: str, source: TargetSource, options: OutletOptions) -> Destination | str:
    """The destination that a program, a file or a Maildir is, or what is wrong with it."""
    text = _plain(word)
    if text is None or not text.isprintable() or len(text) > _LENGTH_MAX:
        return f"{word[:60]!r} is neither a program nor a file: a quotation mark is missing, or it is too long"
    if text.startswith("|"):
        if source.place not in options.programs:
            return _not_allowed(text, "programs", source.place)
        command = words(text[1:].strip())
        if isinstance(command, str):
            return f"{text[:60]!r}: {command}"
        return _destination(Transport.PROGRAM, f"|{text[1:].strip()}", source, command=command)
    if text == NULL_DEVICE:
        return Destination(f"discard:{NULL_DEVICE}", Transport.MBOX, path=NULL_DEVICE, outlet=NULL_DEVICE)
    if source.place not in options.files:
        return _not_allowed(text, "files", source.place)
    if fault := _path_fault(text):
        return f"{text[:60]!r} {fault}"
    kind = Transport.MAILDIR if text.endswith("/") else Transport.MBOX
    return _destination(kind, text, source, path=text.rstrip("/"))


def include(word: str, source: TargetSource, options: OutletOptions) -> str | None:
    """What is wrong with ``:include:/path``; None if nothing is."""
    path = include_path(word)
    if source.place not in options.includes:
        return _not_allowed(word, "includes", source.place)
    return f"{word[:60]!r}: the path must begin with /" if not path.startswith("/") else None


def is_include(word: str) -> bool:
    return word.startswith((INCLUDE, f'"{INCLUDE}'))


def include_path(word: str) -> str:
    return (_plain(word) or word).removeprefix(INCLUDE).strip()


def _not_allowed(text: str, key: str, place: str) -> str:
    kind = {"programs": "programs", "files": "files", "includes": "included files"}[key]
    if place == "keys":
        return f"{text[:60]!r}: {kind} are not allowed in a value with $1 and the like: a stranger may have written it"
    return f'{text[:60]!r}: {kind} are not allowed here; write {key} = ["{place}"] under [alias_targets]'


def _destination(
    kind: Transport, text: str, source: TargetSource, *, path: str = "", command: tuple[str, ...] = ()
) -> Destination:
    among = "" if source.by == "aliases" else f"{source.by}:"
    if source.of:
        among += f"{source.of}:"
    return Destination(
        f"{kind.value}:{among}{text}", kind, domain=source.by, path=path, command=command,
        rules=MailboxRules(user=source.user), outlet=text, place=source.place,
    )


def permitted(stored: Destination, options: OutletOptions) -> Destination | str:
    """A program or file that was stored with a recipient, as it is used now; or why it is not used any more."""
    key = "programs" if stored.transport is Transport.PROGRAM else "files"
    places = options.programs if stored.transport is Transport.PROGRAM else options.files
    if stored.place not in places and (stored.place or not places):
        lacking = f'does not have "{stored.place}"' if stored.place else "is empty"
        return f"{key} of aliases are not allowed any more: {key} under [alias_targets] {lacking}"
    if stored.place == "forwards":
        return stored  # the porter reads the file again
    by = stored.domain if options.as_owner else ALIASES.by
    if by == stored.domain and stored.rules.user == options.user:
        return stored
    source = TargetSource("aliases", by, options.user)
    made = _destination(stored.transport, stored.outlet, source, path=stored.path, command=stored.command)
    return msgspec.structs.replace(made, place=stored.place)


def _plain(word: str) -> str | None:
    """Without its quotation marks, which may stand around all of it, or behind the ``|``; None if one is missing."""
    bar = "|" if word.startswith('|"') else ""
    quoted = word.removeprefix(bar)
    if not quoted.startswith('"'):
        return word
    if len(quoted) < 2 or not quoted.endswith('"'):
        return None
    return bar + _ESCAPED.sub(r"\1", quoted[1:-1])


_ESCAPED: Final = re.compile(r'\\(["\\])')


def _path_fault(path: str) -> str:
    """Why a file cannot be one to deliver to; "" if it can."""
    parts = path.rstrip("/").split("/")[1:]
    if not parts or not all(parts) or ".." in parts or "." in parts:
        return "is not written as the path of a file: it has an empty part, or . or .."
    if "{" in path:
        return "holds a brace: placeholders are for `path` of a [[domain]]"
    if ".lock" in parts[-1]:
        return "has the name of a lock file"
    return ""


def words(command: str) -> tuple[str, ...] | str:
    """The words of a command, as a shell would divide it, or what is wrong with it. Quotation marks keep words
    together; whatever else a shell would act upon is refused."""
    made: list[str] = []
    word: str | None = None
    quote = ""
    for char in command:
        if quote:
            if char == quote:
                quote = ""
            elif quote == '"' and char in "$`\\":
                return _for_a_shell(char)
            else:
                word = (word or "") + char
        elif char in "'\"":
            quote, word = char, word or ""
        elif char in " \t":
            if word is not None:
                made.append(word)
            word = None
        elif char in _SHELL or (char in "~#" and word is None):
            return _for_a_shell(char)
        else:
            word = (word or "") + char
    if quote:
        return "a quotation mark of the command is missing"
    if word is not None:
        made.append(word)
    return _checked(tuple(made))


def _checked(made: tuple[str, ...]) -> tuple[str, ...] | str:
    if not made or len(made) > _WORDS_MAX:
        return f"a command has 1 to {_WORDS_MAX} words"
    if not made[0].startswith("/") or ".." in made[0].split("/"):
        return "write the whole path of the program, beginning with /"
    for each in made:
        if _PLACEHOLDERS.search(each) and not _PLACEHOLDERS.fullmatch(each):
            return f"a placeholder must be a whole argument: {each!r}"
    return made


def _for_a_shell(char: str) -> str:
    return f"{char!r} is for a shell, and no shell is started: put the command into a script"
