"""The users of this machine, who hand over mail by calling `sendmail`."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BeforeValidator

from postroad.config.field import Section, setting, several
from postroad.config.values import Domain, File, Seconds, one_or_more
from postroad.receive.options import LocalListing, LocalOptions, LocalSender

_LOCAL: Final = LocalOptions()


class SendmailSection(Section):
    """The users of this machine who call the program `sendmail` (docs/sendmail.md). Root and the user of the node have
    no limits, and may name any sender."""

    folder: File | None = setting(
        None,
        "The folder that the node shares with all users: its socket for them, and the drop folder, which keeps mail "
        "while the node does not take it. Unset: users cannot call `sendmail`. Every user must be able to enter the "
        "folders above it, so it is not in `state_dir`.",
        example='"/var/spool/postroad"',
    )
    domain: Domain | None = setting(
        None,
        "The domain of addresses that are written without one, such as `root`, in the envelope and in the header "
        "section. Unset: `hostname`.",
        example='"example.org"',
    )
    users: Annotated[tuple[str, ...], BeforeValidator(one_or_more)] = several(
        _LOCAL.users, "The login names of the users who may send mail. Empty: everybody may.", example='["www-data"]'
    )
    sender: LocalSender = setting(
        _LOCAL.sender,
        "Which sender of the envelope a user may name with -f. `any`: each. `own`: the user's login name at `domain`, "
        "what the account of this name may use (docs/authentication.md), and the null sender. `forced`: the sender is "
        "always the login name at `domain`.",
        word=True,
    )
    mailq: LocalListing = setting(
        _LOCAL.mailq,
        "Whose mail `mailq` shows to a user. `own`: the mail that the user has handed over. `all`: all mail. `none`: "
        "no mail.",
        word=True,
    )
    flush: bool = setting(_LOCAL.flush, "Whether a user may have all waiting mail tried with `sendmail -q`.")
    messages_max: int = setting(
        _LOCAL.messages_max,
        "The most messages that the node takes of one user within `window_s`. Mail beyond it waits in the drop folder. "
        "0: no limit.",
        unit="messages",
        least=0,
    )
    window_s: Seconds = setting(_LOCAL.window_s, "Within what time `messages_max` counts.", least=1)
    at_once_max: int = setting(
        _LOCAL.at_once_max,
        "The most messages that the node takes of one user at the same time.",
        unit="messages",
        least=1,
        most=20,
    )
