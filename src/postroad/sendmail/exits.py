"""Exit codes, those of sysexits.h, and how the program ends with one."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

OK: Final = 0
USAGE: Final = 64
DATAERR: Final = 65
NOUSER: Final = 67
UNAVAILABLE: Final = 69
IOERR: Final = 74
TEMPFAIL: Final = 75
NOPERM: Final = 77
CONFIG: Final = 78


class End(Exception):
    """The program ends with this code, and says this on stderr."""

    def __init__(self, code: int, text: str = "") -> None:
        super().__init__(text)
        self.code = code
        self.text = text


def code_of(reply: int, recipient: bool = False) -> int:
    """The exit code for the code of a reply. `recipient`: a recipient was refused, not the message."""
    if reply < 400:
        return OK
    if reply < 500:
        return TEMPFAIL
    if recipient:
        return NOUSER
    if reply == 553:
        return NOPERM
    return DATAERR if reply in (501, 552, 554) else UNAVAILABLE
