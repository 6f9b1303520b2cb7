"""Makes events of refusals for log and history: which mail or log-in of a client was refused, and why.

What always holds: every refusal of MAIL, RCPT, DATA, BDAT, AUTH, the greeting or the content has an event, or is
counted in the next one that has (`receive.refusal_notes`). A refusal that needs a rule, a password or content always
has its own event; the limits of the session bound their number.

Not here: what is refused (`dialog`, `protocol.server`, `acceptance`).
"""

from __future__ import annotations

import re
from typing import Final

from postroad.mail.envelope import Peer
from postroad.mail.event import Refused
from postroad.mail.reply import Reply, said
from postroad.protocol.command import Declined
from postroad.receive.doors import Doors
from postroad.receive.refusal_notes import counted

_PATH_MAX: Final = 320  # octets of a path that could not be read that are told
_PATH: Final = re.compile(rb"<(.*?)(?:>(?:[ \t]|$)|$)", re.DOTALL)


def tell(
    doors: Doors, peer: Peer, answer: Reply | None, reason: str, phase: str, *, known: bool, sender: str = "",
    recipients: tuple[str, ...] = (), why: str = "",
) -> bool:
    """The event of a refusal of which a client can bring about any number. Whether there is one. `reason`: as in
    Refused; `known`: the client is no stranger."""
    code = "" if answer is None else f"{answer.code} {answer.status}"
    left_out = doors.limiting.turned.left_out(
        peer.address, f"{phase} {code}", doors.loop.time(), names=len(recipients), stranger=not known
    )
    if left_out is None:
        return False
    if phase == "AUTH":  # there the reason is the account
        why = counted(why, left_out)
    else:
        reason = counted(reason, left_out)
    text = "" if answer is None else said(answer)
    one, several = ("", recipients) if phase != "RCPT" or len(recipients) != 1 else (recipients[0], ())
    doors.record((Refused(doors.now_us(), 0, peer, phase, text, sender, one, reason, several, why),))
    return True


def path_of(declined: Declined) -> str:
    """The path in a refused MAIL or RCPT, as far as it can be read."""
    text = declined.line.partition(b":")[2].strip()
    found = _PATH.match(text)
    path = found[1] if found is not None else text.partition(b" ")[0]
    return path[:_PATH_MAX].decode("utf-8", "replace")
