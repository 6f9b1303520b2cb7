"""The environment of programs that aliases name."""

from __future__ import annotations

from postroad.deliver.program import values_of
from postroad.deliver.program_variables import variables
from postroad.mail.address import Address


def test_the_names_that_postfix_gives() -> None:
    address = Address("list+x", "example.org")
    values = values_of(Address("s", "example.net"), address, "example.org")
    assert variables(values, address, Address("root", "example.org"), "+-") == {
        "RECIPIENT": "list+x@example.org", "LOCAL_PART": "list+x", "LOCAL": "list+x", "EXTENSION": "x",
        "DOMAIN": "example.org", "SENDER": "s@example.net", "ORIGINAL_RECIPIENT": "root@example.org",
    }  # fmt: skip


def test_nothing_that_a_shell_acts_upon() -> None:
    address = Address("() { :;}; `x` $(y)\n'é", "example.org")
    made = variables(values_of(None, address, "example.org"), address, None, "+")
    assert made["LOCAL"] == "_____:_____x____y___é" and made["SENDER"] == "" and made["EXTENSION"] == ""
    assert made["ORIGINAL_RECIPIENT"] == made["RECIPIENT"]
