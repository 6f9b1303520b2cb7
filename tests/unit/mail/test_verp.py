"""A sender of its own for each recipient (`mail.verp`)."""

from __future__ import annotations

import pytest

from postroad.mail import verp
from postroad.mail.address import Address
from postroad.mail.envelope import Envelope, Recipient
from postroad.mail.job import Sent
from postroad.mail.route import Destination, Transport

LIST = Address("list", "example.org")
ADA = Recipient(Address("ada", "example.net"))
THERE = Destination("example.net", Transport.SMTP)


def envelope(value: str | None, sender: Address | None = LIST) -> Envelope:
    return Envelope(1, sender, (ADA,), 0, 0, parameters=() if value is None else (("BY", "5;R"), ("XVERP", value)))


@pytest.mark.parametrize(
    ("recipient", "delimiters", "expected"),
    [
        (ADA, "+=", "list+ada=example.net@example.org"),
        (ADA, "-+", "list-ada+example.net@example.org"),
        (Recipient(Address("a=b+c", "example.net")), "+=", "list+a=b+c=example.net@example.org"),
        (Recipient(Address("a b", "example.net")), "+=", '"list+a b=example.net"@example.org'),
        # As in Postfix: what the client has named, not what an alias has made of it.
        (Recipient(Address("ada", "elsewhere.example"), given=Address("team", "here.example")), "+=",
         "list+team=here.example@example.org"),
    ],
)  # fmt: skip
def test_the_sender_names_the_recipient(recipient: Recipient, delimiters: str, expected: str) -> None:
    sent = verp.outbound(envelope(delimiters), recipient, THERE)
    assert (str(sent.reverse_path), sent.forward_path) == (expected, recipient.address)


def test_it_comes_behind_the_names_of_a_next_hop() -> None:
    both = verp.after(lambda envelope, recipient, there: Sent(Address("all", "public.example"), Address("x", "y")))
    assert str(both(envelope("+="), ADA, THERE).reverse_path) == "all+ada=example.net@public.example"
    assert str(both(envelope(None), ADA, THERE).reverse_path) == "all@public.example"


def test_names_that_cannot_be_told_now_stay_so() -> None:
    waiting = Sent(LIST, ADA.address, "the map is away")
    assert verp.after(lambda envelope, recipient, there: waiting)(envelope("+="), ADA, THERE) is waiting


@pytest.mark.parametrize("wanted", [envelope(None), envelope("+=", None)])
def test_other_mail_keeps_its_sender(wanted: Envelope) -> None:
    assert verp.delimiters(wanted) == ""
    assert verp.outbound(wanted, ADA, THERE).reverse_path == wanted.reverse_path


@pytest.mark.parametrize(
    ("delimiters", "right"),
    [("+=", True), ("-=", True), ("==", True), ("ab", False), ("+", False), ("", False), ("+=-", False)],
)
def test_which_delimiters_there_are(delimiters: str, right: bool) -> None:
    assert (verp.fault(delimiters) == "") is right
