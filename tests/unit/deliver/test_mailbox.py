"""A recipient's mailbox as a folder."""

from __future__ import annotations

import pytest

from postroad.deliver.mailbox import Folder, folder, mailbox_name
from postroad.deliver.options import MaildirOptions
from postroad.mail.address import Address

DEFAULT = MaildirOptions()
TEMPLATE = "/var/mail/{domain}/{local_part}"


@pytest.mark.parametrize(
    ("template", "address", "path", "names"),
    [
        (TEMPLATE, Address("ada", "example.org"), "/var/mail", ("example.org", "ada")),
        (TEMPLATE, Address("Ada+Lists", "example.org"), "/var/mail", ("example.org", "ada")),
        (TEMPLATE, Address("+lists", "example.org"), "/var/mail", ("example.org", "+lists")),
        (TEMPLATE, Address("a b'$(x);`y`", "example.org"), "/var/mail", ("example.org", "a b'$(x);`y`")),
        (TEMPLATE, Address("{domain}", "example.org"), "/var/mail", ("example.org", "{domain}")),
        (TEMPLATE, Address("Ju\u0308rgen", "example.org"), "/var/mail", ("example.org", "jürgen")),
        (TEMPLATE, Address("postmaster", ""), "/var/mail", ("local.test", "postmaster")),
        (TEMPLATE, Address("a", "[192.0.2.1]"), "/var/mail", ("[192.0.2.1]", "a")),
        ("/home/{local_part}/Maildir", Address("ada", "x"), "/home", ("ada", "Maildir")),
        ("mail/{local_part}@{domain}/", Address("ada", "x"), "mail", ("ada@x",)),
        ("{domain}", Address("ada", "x"), ".", ("x",)),
        ("/{domain}", Address("ada", "x"), "/", ("x",)),
        ("/var/mail/all", Address("ada", "x"), "/var/mail", ("all",)),
    ],
)
def test_folder(template: str, address: Address, path: str, names: tuple[str, ...]) -> None:
    assert folder(template, address, "local.test", DEFAULT) == Folder(path, names)


@pytest.mark.parametrize(
    "local_part",
    ["", ".", "..", ".hidden", "../x", "a/b", "/etc", "a\0b", "a\nb", "a\x1b", "-rf", "x" * 256, "ü" * 128, "\u202ex"],
)
def test_a_local_part_that_is_no_folder(local_part: str) -> None:
    found = folder(TEMPLATE, Address(local_part, "example.org"), "", DEFAULT)
    assert isinstance(found, str) and found.startswith("local-part ")


@pytest.mark.parametrize("domain", ["", "..", "a/b"])
def test_a_domain_that_is_no_folder(domain: str) -> None:
    assert isinstance(folder(TEMPLATE, Address("ada", domain), "", DEFAULT), str)
    assert isinstance(folder("/m/{local_part}", Address("ada", domain), "", DEFAULT), Folder)  # it is not asked for


def test_options() -> None:
    assert mailbox_name("Ada+x", MaildirOptions(fold_case=False, detail_delimiter="")) == "Ada+x"
    assert mailbox_name("ada-x-y+z", MaildirOptions(detail_delimiter="-")) == "ada"
    assert mailbox_name("-ada-x", MaildirOptions(detail_delimiter="-")) == "-ada"
