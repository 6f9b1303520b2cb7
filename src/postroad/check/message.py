"""Rules about the content: loops."""

from __future__ import annotations

from postroad.mail import trace
from postroad.mail.context import Context, Rule
from postroad.mail.verdict import ACCEPT, Verdict, reject


def hop_limit(hops_max: int) -> Rule:
    """RFC 5321 §6.3: a message with more Received fields than this goes round in circles (554 5.4.6)."""

    def rule(context: Context) -> Verdict:
        if trace.hops(context.head) > hops_max:
            return reject(554, "5.4.6", f"Mail loop: more than {hops_max} Received fields", "mail loop")
        return ACCEPT

    return rule
