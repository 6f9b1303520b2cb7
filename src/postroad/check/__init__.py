"""The check stage: rules by phase (connect, hello, mail, rcpt, message).

A rule is a plain function `Question -> Verdict | Awaitable[Verdict]` (`mail.policy`). `check.policy` puts together the
rules of a listener; what a rule must ask of other rooms is a function handed to its maker.
"""
