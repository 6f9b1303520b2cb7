"""Applies effects to a header section, and to the next question. Pure.

What always holds: effects are applied in their order. A section of whole fields stays a section of whole fields, so the
content keeps its meaning. How it fails: `fault` says what is wrong with an effect; then nothing of it is applied.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, assert_never

import msgspec

from postroad.mail import message
from postroad.mail.policy import (
    EFFECTS_MAX,
    AddRecipient,
    Append,
    DropRecipient,
    Effect,
    Evaluate,
    HeaderEffect,
    Prepend,
    Question,
    Record,
    Redirect,
    RemoveField,
    ReplaceBody,
    SetField,
    SetReversePath,
)

TEXT_MAX: Final = 1_000  # characters of a Record's text that the history keeps
_NAME: Final = re.compile(rf"[!-9;-~]{{1,{message.FIELD_NAME_MAX}}}")
# RFC 5322 §2.2, §2.2.3: no CR or LF but in a CRLF that white space follows; RFC 5321 §4.5.2 knows no NUL in mail.
_VALUE: Final = re.compile(rb"(?:[^\r\n\0]|\r\n[ \t](?=[^\r]))*")


class Sections(msgspec.Struct, frozen=True):
    """Header fields of a message from its top: those that rules put on top (above Received), those that we add, and
    those that stand in its content."""

    top: bytes
    added: bytes
    head: bytes


def fault(effects: tuple[Effect, ...], body_max: int) -> str:
    """What is wrong with these effects, "" for nothing. `body_max`: octets of a body."""
    if len(effects) > EFFECTS_MAX:
        return f"more than {EFFECTS_MAX} effects on one message"
    octets = 0
    for effect in effects:
        match effect:
            case Prepend() | Append() | SetField():
                if not _NAME.fullmatch(effect.name):
                    return f"{effect.name[:40]!r} is not the name of a header field"
                if not _VALUE.fullmatch(effect.value):
                    return f"the value of {effect.name} has a line end that is not folding, or a NUL"
                octets += len(effect.name) + len(effect.value)
            case RemoveField():
                if not _NAME.fullmatch(effect.name):
                    return f"{effect.name[:40]!r} is not the name of a header field"
            case ReplaceBody():
                if len(effect.octets) > body_max:
                    return f"the body has more than {body_max} octets"
                if not message.only_crlf(effect.octets):
                    return "the body has a CR or an LF that is not a line end"
            case AddRecipient() | DropRecipient() | Redirect() | SetReversePath() | Record() | Evaluate():
                pass
            case _:
                assert_never(effect)
    return "" if octets <= message.HEADER_MAX else f"more than {message.HEADER_MAX} octets of header fields"


def applied(sections: Sections, effects: Iterable[HeaderEffect]) -> Sections:
    """The sections with these effects."""
    top, added, head = sections.top, sections.added, sections.head
    for effect in effects:
        match effect:
            case Prepend():
                top = _field(effect) + top
            case Append():
                head = _closed(head) + _field(effect)
            case RemoveField():
                name = effect.name.lower().encode()
                wanted = effect.only
                top, added, head = (message.without(section, name, wanted) for section in (top, added, head))
            case SetField():
                top, added, head = _set(effect, top, added, head)
            case _:
                assert_never(effect)
    return Sections(top, added, head)


def _set(effect: SetField, top: bytes, added: bytes, head: bytes) -> tuple[bytes, bytes, bytes]:
    name, field = effect.name.lower().encode(), _field(effect)
    found: list[bytes] = []
    is_set = False
    for section in (top, added, head):
        if is_set or message.first(section, name) is None:
            found.append(message.without(section, name) if is_set else section)
        else:
            found.append(message.replaced(section, name, field))
            is_set = True
    top, added, head = found
    return (top, added, head) if is_set else (top, added, _closed(head) + field)


def _field(effect: Prepend | Append | SetField) -> bytes:
    return effect.name.encode() + b": " + effect.value + b"\r\n"


def _closed(section: bytes) -> bytes:
    return section if not section or section.endswith(b"\r\n") else section + b"\r\n"


def amended(question: Question, effects: tuple[Effect, ...]) -> Question:
    """The question as it stands after these effects, for who is asked next."""
    fields = tuple(each for each in effects if isinstance(each, HeaderEffect))
    head, path = question.head, question.reverse_path
    if fields:
        sections = applied(Sections(b"", b"", head), fields)
        head = sections.top + sections.head
    for effect in effects:
        if isinstance(effect, SetReversePath):
            path = effect.address
    return msgspec.structs.replace(question, head=head, reverse_path=path)


def said(effect: Effect) -> str:
    """What an effect did, in words, for log and history; "" for what has an event of its own."""
    match effect:
        case Prepend():
            return f"added {effect.name}" if effect.told else ""
        case Append():
            return f"added {effect.name}"
        case SetField():
            return f"set {effect.name}"
        case RemoveField():
            return f"removed {effect.name}"
        case ReplaceBody():
            return f"replaced the body by one of {len(effect.octets)} octets"
        case AddRecipient():
            return f"added the recipient <{effect.address}>"
        case DropRecipient():
            return f"dropped the recipient <{effect.address}>"
        case Redirect():
            return f"redirected to <{effect.address}>"
        case SetReversePath():
            return f"set the sender to <{'' if effect.address is None else effect.address}>"
        case Record() | Evaluate():
            return ""
        case _:
            assert_never(effect)
