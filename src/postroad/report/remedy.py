"""Says what a status code means to a person, and what this person can do: the words of DSNs and of `postroad trace`.

A table by enhanced status code (RFC 3463, RFC 5248) without its class: the whole detail first, then its subject alone.
The sentences are written for the sender of a message, who knows nothing of SMTP. Pure.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple


class Advice(NamedTuple):
    """`what` has happened, in one sentence; `remedy`: what the sender can do."""

    what: str
    remedy: str


_SPELLING: Final = "Check the address for typing errors. If it looks right, ask the recipient by other means for it."
_ADMINISTRATOR: Final = (
    "You cannot repair this yourself. Tell the recipient by other means; the recipient's mail administrator can use "
    "the details in this report."
)
_OURS: Final = "Please pass this report on to the contact named below: the cause can be repaired there."
_LATER: Final = "Send the message again later, or reach the recipient by other means."
_POLICY: Final = (
    "The answer of the other side often says why. Ask the recipient by other means to let your address pass, or show "
    "this report to your mail administrator."
)
_SMALLER: Final = "Send it again without its attachments, or offer them by a link."

_BY_DETAIL: Final[dict[str, Advice]] = {
    "1.1": Advice("This mailbox does not exist.", _SPELLING),
    "1.2": Advice(
        "The part of the address after the @ is not a domain that receives mail.",
        "Check the part of the address after the @ for typing errors.",
    ),
    "1.3": Advice("The address is not written in a way that the other side understands.", _SPELLING),
    "1.4": Advice("The address stands for more than one mailbox there.", "Ask the recipient for the exact address."),
    "1.6": Advice("The mailbox has moved, and its new address is not known.", "Ask the recipient for the new address."),
    "1.7": Advice("Your own address was refused as misspelt.", "Check the sender address that your program uses."),
    "1.8": Advice(
        "The domain of your own address was refused.", "Show this report to your mail administrator: it is about you."
    ),
    "1.10": Advice(
        "The domain says that it receives no mail at all.", "Ask the recipient by other means for another address."
    ),
    "2.1": Advice("The mailbox is disabled.", "Ask the recipient by other means for another address."),
    "2.2": Advice("The mailbox is full.", "Tell the recipient by other means, and send the message again later."),
    "2.3": Advice("The message is larger than the mailbox takes.", _SMALLER),
    "2.4": Advice("The mailing list could not be resolved into its members.", _ADMINISTRATOR),
    "3.1": Advice("The mail system of the recipient has no space left.", _LATER),
    "3.2": Advice("The mail system of the recipient takes no mail at present.", _LATER),
    "3.3": Advice("The mail system of the recipient lacks a feature that this message needs.", _ADMINISTRATOR),
    "3.4": Advice("The message is larger than the mail system of the recipient takes.", _SMALLER),
    "3.5": Advice("A mail system on the way is configured wrongly.", _OURS),
    "4.1": Advice(
        "The mail server of the recipient could not be reached.",
        "Check the part of the address after the @. If it is right, send the message again later.",
    ),
    "4.2": Advice("The connection to the mail server of the recipient broke off.", _LATER),
    "4.3": Advice(
        "The directory (DNS) that says where the mail for this domain goes gave no usable answer.",
        "Check the part of the address after the @. If it is right, send the message again later.",
    ),
    "4.4": Advice(
        "No server is known that takes mail for the domain of the recipient.",
        "Check the part of the address after the @ for typing errors.",
    ),
    "4.5": Advice("The mail system of the recipient is overloaded.", _LATER),
    "4.6": Advice("The message went in circles between mail servers.", _ADMINISTRATOR),
    "4.7": Advice("The time allowed for delivery has run out.", _LATER),
    "5.3": Advice("The message had too many recipients for one delivery.", "Send it to fewer recipients at a time."),
    "6.1": Advice("The other side does not take this kind of content.", "Send it in another format."),
    "6.2": Advice("The message would have had to be converted, which was not allowed.", "Send it in another format."),
    "6.3": Advice("The message cannot be converted to what the other side understands.", "Send it in another format."),
    "6.7": Advice(
        "The address holds characters that a mail system on the way cannot handle.",
        "Ask the recipient for an address in plain Latin letters.",
    ),
    "6.9": Advice(
        "The message holds characters in its header that a mail system on the way cannot handle.",
        "Write addresses and file names in plain Latin letters, and send it again.",
    ),
    "7.1": Advice("The other side refused the message by its own rules.", _POLICY),
    "7.2": Advice("You may not send to this mailing list.", "Ask the owner of the list."),
    "7.4": Advice("The connection could not be secured as required.", _ADMINISTRATOR),
    "7.5": Advice("The connection could not be secured as required.", _ADMINISTRATOR),
    "7.8": Advice("Our own sign-in at the next mail server was refused.", _OURS),
    "7.9": Advice("Our own sign-in at the next mail server was refused.", _OURS),
    "7.10": Advice("The connection could not be encrypted as required.", _ADMINISTRATOR),
    "7.11": Advice("Our own sign-in at the next mail server was refused.", _OURS),
    "7.13": Advice("The account is disabled.", "Ask the recipient by other means for another address."),
    "7.17": Advice("The mailbox now belongs to somebody else.", "Ask the recipient by other means for a new address."),
    "7.18": Advice("The domain now belongs to somebody else.", "Ask the recipient by other means for a new address."),
    "7.19": Advice(
        "The other side cannot tell whether the mailbox still belongs to the person whom the message is meant for.",
        "Send it without that demand, or by other means.",
    ),
    "7.20": Advice(
        "The other side found no valid signature (DKIM) of your domain.", "Show this report to your mail administrator."
    ),
    "7.23": Advice(
        "The other side does not take mail of your domain from us (SPF).",
        "Show this report to the administrator of your domain.",
    ),
    "7.25": Advice("The other side distrusts the name of our mail server.", _OURS),
    "7.26": Advice(
        "The other side could not verify that the message comes from your domain.",
        "Show this report to the administrator of your domain.",
    ),
    "7.27": Advice(
        "The domain of your own address says that it receives no mail.", "Show this report to your mail administrator."
    ),
    "7.28": Advice("The other side received too much mail at once.", _LATER),
    "7.30": Advice(
        "The message demands encryption on its whole way, which the other side does not promise.",
        "Send it without that demand, or by other means.",
    ),
}

_SIGN_IN: Final = ("7.8", "7.9", "7.11")

_BY_SUBJECT: Final[dict[str, Advice]] = {
    "0": Advice("The other side refused the message and gave no exact reason.", _POLICY),
    "1": Advice("There is something wrong with the address.", _SPELLING),
    "2": Advice("The mailbox takes no mail.", "Ask the recipient by other means for another address."),
    "3": Advice("The mail system of the recipient could not take the message.", _LATER),
    "4": Advice("The mail system of the recipient could not be reached.", _LATER),
    "5": Advice("Two mail systems did not understand each other.", _ADMINISTRATOR),
    "6": Advice("The other side could not handle the content of the message.", "Send it in another format."),
    "7": Advice("The other side refused the message by its own rules.", _POLICY),
}


@lru_cache(maxsize=256)
def advice(status: str) -> Advice:
    """The words for a status code; for an unknown one those of its subject. Our own sign-in never fails for good: where
    such a code is permanent, the other side has said it of the message (RFC 4954 §6 has it for AUTH alone)."""
    detail = status[2:]
    if status.startswith("5") and detail in _SIGN_IN:
        return _BY_SUBJECT["7"]
    found = _BY_DETAIL.get(detail) or _BY_SUBJECT.get(detail.partition(".")[0])
    return found or _BY_SUBJECT["0"]
