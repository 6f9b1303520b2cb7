"""Rules of a test beside those that a listener has by its role."""

from __future__ import annotations

from postroad.mail.judging import compose
from postroad.mail.policy import Rules


def with_rules(own: Rules, more: Rules | None) -> Rules:
    """In each phase the rules of `more` are asked after the listener's own."""
    if more is None:
        return own
    return Rules(*[
        compose([rule for rule in (getattr(own, phase), getattr(more, phase)) if rule is not None])
        for phase in Rules.__struct_fields__
    ])  # fmt: skip
