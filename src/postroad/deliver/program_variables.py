"""The environment of programs that aliases name, as Postfix's local(8) gives it. Pure.

LOCAL, EXTENSION, DOMAIN, RECIPIENT, ORIGINAL_RECIPIENT (as the client named it) and SENDER. What always holds: a value
has nothing that a shell acts upon if a script lets a shell read it again: letters, digits and `_PLAIN` stay, all else
is "_". An empty value is there, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from postroad.mail.address import Address
from postroad.mail.extension import extension_of

_PLAIN: Final = frozenset("!@%-_=+:,./")  # as in Postfix's command_expansion_filter


def variables(values: Mapping[str, str], address: Address, given: Address | None, delimiters: str) -> dict[str, str]:
    """`values`: of the placeholders; `given`: the recipient as the client named it, if that is another one."""
    made = {key.upper(): value for key, value in values.items()}
    made["LOCAL"] = address.local_part
    made["EXTENSION"] = extension_of(address.local_part, delimiters)[1:]
    made["ORIGINAL_RECIPIENT"] = str(given or address)
    return {key: _plain(value) for key, value in made.items()}


def _plain(value: str) -> str:
    return "".join(char if char.isalnum() or char in _PLAIN else "_" for char in value)
