"""Reading mbox files of the simulated nodes, which quote as mboxrd does, so that all of it can be read again."""

from __future__ import annotations

import re

_BEGINS = re.compile(rb"(?:\A|(?<=\n\n))From [^\n]*\n")
_QUOTED = re.compile(rb"(?m)^>(>*From )")


def messages(octets: bytes) -> list[bytes]:
    """The messages of a file, as they were before they were quoted."""
    return [_QUOTED.sub(rb"\1", each.removesuffix(b"\n")) for each in _BEGINS.split(octets)[1:]]
