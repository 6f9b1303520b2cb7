"""What kind of mail a message says it is, by its header fields: for next hops that take some kinds only. Pure.

What is wanted is a name of below, or a field: ``list-id``, or with its value ``precedence: bulk``, in lower case.
What always holds: only what is wanted is looked for; the answer is some of it, in the same order.
"""

from __future__ import annotations

from typing import Final

from postroad.mail import message

REPORT: Final = "report"  # the null reverse-path: not by header fields
AUTOMATIC: Final = "automatic"  # Auto-Submitted with another value than "no" (RFC 3834 §5)
BULK: Final = "bulk"  # mailings and mailing lists (RFC 2919, RFC 2369, and the old Precedence)

_BULK_FIELDS: Final = frozenset({"list-id", "list-unsubscribe"})
_BULK_PRECEDENCE: Final = frozenset({"bulk", "list", "junk"})
_VALUE_MAX: Final = 1_000  # octets of a value that are looked at


def found(section: bytes, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """Which of these a message is. `section`: its header section."""
    names: set[str] = set()
    pairs: set[str] = set()
    for field in message.fields(section):
        name = field.name.lower()
        text = field.value[:_VALUE_MAX].decode("utf-8", "replace").strip().lower()
        names.add(name)
        pairs.add(f"{name}: {text}")
        if name == "auto-submitted" and text.partition(";")[0].strip() not in ("no", ""):
            pairs.add(AUTOMATIC)
        elif name in _BULK_FIELDS or (name == "precedence" and text in _BULK_PRECEDENCE):
            pairs.add(BULK)
    return tuple(each for each in wanted if each in pairs or each in names)
