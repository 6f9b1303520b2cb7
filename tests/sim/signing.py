"""Senders that the node signs (SRS and BATV): the keys, and what hosts must hear.

Each host hears the form of the sender that is due, and in this form the real sender. What comes back to such senders
is in `returning`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from tests.sim.ledger import Delivery, Submitted

if TYPE_CHECKING:
    from tests.sim.house import House

_SRS = re.compile(r"SRS0=[A-Za-z0-9+/]{4}=[A-Z2-7]{2}=([^=@]+)=([^@]+)@srs\.test", re.IGNORECASE)
_BATV = re.compile(r"prvs=[0-9]{4}[0-9a-f]{6}=([^@]+@home\.test)", re.IGNORECASE)
_RELAYED = "@asked.test"  # for a domain that we relay for, nothing is forwarded
_VERP = re.compile(r"([^+@-]+)[+-][^=@]+=[^=@]+@([^=@]+)")
_KEYS = ("first", "second", "third")


def settings(wanted: str, folder: Path, variant: int) -> str:
    """Each reload has another key to sign with; the others still verify."""
    if not wanted:
        return ""
    first = variant % len(_KEYS)
    turned = [*enumerate(_KEYS)][first:] + [*enumerate(_KEYS)][:first]
    (folder / "srs.keys").write_text("".join(f"srs {key}\n" for _, key in turned))
    (folder / "batv.keys").write_text("".join(f"{number} batv {key}\n" for number, key in turned))
    return '[srs]\ndomain = "srs.test"\nkeys_file = "srs.keys"\n[batv]\nkeys_file = "batv.keys"\n'


def plain(sender: str) -> str:
    """The sender, without what names a recipient (VERP, `variable`) and without a signature."""
    found = _VERP.fullmatch(untagged(sender))
    return f"{found[1]}@{found[2]}" if found else untagged(sender)


def untagged(sender: str) -> str:
    """The sender that was signed."""
    if found := _SRS.fullmatch(sender):
        return f"{found[2]}@{found[1]}"
    found = _BATV.fullmatch(sender)
    return found[1] if found else sender


def check(house: House, submitted: dict[str, Submitted]) -> None:
    """What hosts heard. What no client has sent has no return address."""
    for delivery in house.ledger.deliveries:
        sent = submitted.get(delivery.message_id)
        if delivery.said is None or sent is None:
            continue
        heard = "SRS" if _SRS.fullmatch(delivery.said) else "BATV" if _BATV.fullmatch(delivery.said) else ""
        due = _due(house, delivery, sent)
        if heard != due:
            why = f"{due or 'no signature'} is due to {sent.sender}"
            house.ledger.fault(f"{delivery.message_id} came to {delivery.place} from {delivery.said}, and {why}")


def _due(house: House, delivery: Delivery, sent: Submitted) -> str:
    """How the sender is signed for a host."""
    if not house.plan.signed or not sent.sender or delivery.final:
        return ""
    if sent.sender.endswith("@home.test"):
        return "BATV" if sent.is_known else ""
    return "" if delivery.recipient.endswith(_RELAYED) else "SRS"
