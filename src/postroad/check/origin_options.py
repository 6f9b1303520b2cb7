"""Settings of the checks where mail comes from: SPF, DKIM, DMARC, ARC and iprev."""

from __future__ import annotations

import enum
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from postroad.trust.asking import AskingLimits
from postroad.trust.dkim_verify import DkimOptions

LOOPBACK: Final = ("127.0.0.0/8", "::1/128")


class CheckMode(enum.Enum):
    """What is done with what a check finds."""

    OFF = "off"  # it is not made
    MARK = "mark"  # Authentication-Results and the history tell it
    ENFORCE = "enforce"  # the same, and mail that fails is refused


class Quarantine(enum.Enum):
    """What becomes of mail that fails DMARC if its policy is quarantine."""

    HOLD = "hold"
    FIELD = "field"
    REDIRECT = "redirect"


class TemporaryFailure(enum.Enum):
    """What becomes of mail about which the DNS says nothing now."""

    ACCEPT = "accept"
    DEFER = "defer"


class OriginChecks(msgspec.Struct, frozen=True):
    """The checks of one listener."""

    spf: Annotated[
        CheckMode,
        Meta(
            description="What the listener does with SPF. `off`: nothing. `mark`: it writes the result into "
            "Authentication-Results and into the history. `enforce`: it also refuses each recipient (550 5.7.23) if "
            "the domain of the sender, or the name in HELO, forbids the client. Unset: `mark` for the role `mx`, "
            "otherwise `off`."
        ),
    ] = CheckMode.OFF
    dkim: Annotated[
        CheckMode,
        Meta(
            description="The same for DKIM. `enforce` refuses a message that has signatures of which none is right "
            "(550 5.7.20). A message without signatures is not refused."
        ),
    ] = CheckMode.OFF
    dmarc: Annotated[
        CheckMode,
        Meta(
            description="The same for DMARC. `enforce` does what the domain in From asks for: a message whose policy "
            "is reject is refused (550 5.7.1); what happens with the policy quarantine says `quarantine`. A message "
            "with more than 4 author domains is refused, too, because not all of them are looked at. For this "
            "check the node always looks at SPF and DKIM, too."
        ),
    ] = CheckMode.OFF
    arc: Annotated[
        CheckMode,
        Meta(
            description="The same for ARC. `enforce` refuses a message with a broken chain (550 5.7.29). RFC 8617 "
            "advises against that: mailing lists break chains."
        ),
    ] = CheckMode.OFF
    iprev: Annotated[
        CheckMode,
        Meta(
            description="The same for the name of the client's address in the DNS. `enforce` refuses each recipient "
            "(550 5.7.25) if the address has no name, or none that leads back to it."
        ),
    ] = CheckMode.OFF
    quarantine: Annotated[
        Quarantine,
        Meta(
            description="What happens to a message that fails DMARC if its policy is quarantine and `dmarc` is "
            "`enforce`. `hold`: it is accepted and waits until an operator releases it. `field`: it gets the field "
            "`quarantine_field`. `redirect`: it goes to `quarantine_to` instead of its recipients."
        ),
    ] = Quarantine.HOLD
    quarantine_field: Annotated[
        str, Meta(description="The header field for `field` and `redirect`. Filters of mailboxes can look for it.")
    ] = "X-Spam-Flag: YES"
    quarantine_to: Annotated[str, Meta(description="The mailbox for `redirect`.")] = ""
    temporary_failure: Annotated[
        TemporaryFailure,
        Meta(
            description="What happens if a check with `enforce` has no result because the DNS does not answer. "
            "`accept`: the message is accepted, and marked `temperror`. `defer`: it is answered 451 4.7.x, so that "
            "the client tries again. Some domains never answer; their mail is then never accepted."
        ),
    ] = TemporaryFailure.ACCEPT

    @property
    def wanted(self) -> bool:
        """Whether any check is made."""
        return not all(each is CheckMode.OFF for each in (self.spf, self.dkim, self.dmarc, self.arc, self.iprev))


class OriginOptions(msgspec.Struct, frozen=True):
    """What holds for all listeners. `receiver`: our name. `dkim`, `asking`: limits of a message."""

    receiver: str = "localhost"
    dkim: DkimOptions = DkimOptions()
    asking: AskingLimits = AskingLimits()
    authserv_id: Annotated[
        str,
        Meta(
            description="The name by which the node signs its Authentication-Results. All nodes that give mail to "
            "the same filters can have the same name. Fields with this name are removed from mail of strangers. Unset: "
            "`hostname`."
        ),
    ] = ""
    believed_authserv_ids: Annotated[
        tuple[str, ...],
        Meta(
            description="Names of hosts of yours that have made the checks before: their Authentication-Results are "
            "believed in mail of trusted or exempt networks, for SPF, iprev and DKIM. Fields with these names are "
            "removed from mail of others."
        ),
    ] = ()
    exempt_networks: Annotated[
        tuple[str, ...],
        Meta(
            description="Networks whose mail is not checked, such as those of your own servers, and of hosts that "
            "forward mail to you. The `trusted_networks` of a listener are exempt in any case."
        ),
    ] = LOOPBACK
    exempt_accounts: Annotated[
        tuple[str, ...],
        Meta(description="Accounts whose mail is not checked. `*`: all accounts."),
    ] = ("*",)
    exempt_domains: Annotated[
        tuple[str, ...],
        Meta(
            description="Domains in whose name mail is never refused or quarantined by these checks: for SPF and iprev "
            "the domain of the sender, for all others each domain in the field From. Their mail is still marked."
        ),
    ] = ()
    arc_forwarders: Annotated[
        tuple[str, ...],
        Meta(
            description="Domains of forwarders and mailing lists whose ARC seals you believe. Mail that they have "
            "sealed, and that passed DMARC when they got it, is not refused by DKIM or DMARC. It needs `arc` other "
            "than `off`."
        ),
    ] = ()
    received_spf: Annotated[
        bool,
        Meta(description="Whether the field Received-SPF is added, too, for programs that read no other field."),
    ] = False
