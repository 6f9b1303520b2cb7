"""Makes a recipient's folder of a template, and makes sure that a local-part is safe as a part of a path.

A local-part that cannot be used in a path as it is, is refused (5.1.3), never encoded: two mailboxes must not share a
folder, and an owner must be able to recognise the name of the folder. Refused are an empty local-part, one with ``/``,
NUL or unprintable characters, one that begins with ``.`` or ``-`` (``..`` is one of them), and one of more than 255
octets. Before this test the address extension is taken off and the case is folded, as the options say; folding gives
the lower case of the NFC form.
"""

from __future__ import annotations

import re
import unicodedata
from base64 import b64encode
from functools import lru_cache
from typing import Final

import msgspec

from postroad.deliver.options import PATH_PLACEHOLDERS, MaildirOptions
from postroad.mail.address import Address
from postroad.mail.extension import extension_of, without_extension

HOME: Final = "{home}"  # in a path: of the user as whom mail is delivered
LOCAL_PART: Final = "{local_part}"  # as the user of a domain: the recipient
_PLACEHOLDER: Final = re.compile(rf"\{{({'|'.join(PATH_PLACEHOLDERS)})\}}")
_NAME_MAX: Final = 255  # octets, NAME_MAX of the file systems in use


class Folder(msgspec.Struct, frozen=True):
    """`base`: what the operator wrote and answers for. `names`: folders below it that depend on the address."""

    base: str
    names: tuple[str, ...]

    def __str__(self) -> str:
        return "/".join((self.base.rstrip("/"), *self.names))


@lru_cache(maxsize=16384)
def folder(template: str, address: Address, domain: str, options: MaildirOptions) -> Folder | str:
    """The Maildir of a recipient, or why there is none. `domain`: for an address that has none (``<Postmaster>``)."""
    local_part = mailbox_name(address.local_part, options)
    # The porter alone knows homes, and puts them in the place of {home} before it asks.
    values = {"local_part": local_part, "domain": address.domain or domain, "home": "~"}
    for name, value in values.items():
        fault = fault_of(value)
        if fault and f"{{{name}}}" in template:
            return f"{'local-part' if name == 'local_part' else name} {fault}"
    components = template.split("/")
    first = next((at for at, part in enumerate(components) if _PLACEHOLDER.search(part)), len(components) - 1)
    names = tuple(
        _PLACEHOLDER.sub(lambda found: values[found[1]], part) for part in components[first:] if part not in ("", ".")
    )
    if any(len(name.encode("utf-8", "replace")) > _NAME_MAX for name in names):
        return "name is too long for a folder"
    return Folder("/".join(components[:first]) or ("/" if template.startswith("/") else "."), names)


def mbox_file(template: str, address: Address, domain: str, options: MaildirOptions) -> Folder | str:
    """The mbox file of a recipient: the last of the names. No file may have the name of another one's lock."""
    found = folder(template, address, domain, options)
    if isinstance(found, Folder) and _LOCK.search(found.names[-1]):
        return "name would be that of a lock file"
    return found


_LOCK: Final = re.compile(r"\.lock(?:\.|\Z)")


def detail_folder(local_part: str, options: MaildirOptions) -> str:
    """The subfolder of a Maildir++ that an address extension names, such as ``.lists`` for ``ada+lists``; "" for none.
    The name on the disk is that of the IMAP folder in modified UTF-7 (RFC 3501 §5.1.3)."""
    detail = extension_of(local_part, options.detail_delimiter)[1:]
    if not detail or fault_of(detail) or detail.endswith(".") or ".." in detail:
        return ""
    name = "." + _NOT_PLAIN.sub(lambda found: _shifted(found[0]), detail)
    return name if len(name) <= _NAME_MAX else ""


_NOT_PLAIN: Final = re.compile(r"&|[^\x20-\x7e]+")


def _shifted(text: str) -> str:
    if text == "&":
        return "&-"
    return "&" + b64encode(text.encode("utf-16-be"), b"+,").decode().rstrip("=") + "-"


def mailbox_name(local_part: str, options: MaildirOptions) -> str:
    """The local-part without its address extension (RFC 5233 calls it detail), folded."""
    name = without_extension(local_part, options.detail_delimiter)
    return unicodedata.normalize("NFC", name).lower() if options.fold_case else name


def fault_of(name: str) -> str:
    """Why a name cannot be that of a folder (CVE-2020-7247 and its kin); "" if it can."""
    if not name:
        return "is empty"
    if "/" in name or not name.isprintable():
        return "holds a character that no folder may have in its name"
    if name[0] in ".-":
        return f"begins with {name[0]!r}"
    if len(name.encode("utf-8", "replace")) > _NAME_MAX:
        return "is too long for a folder"
    return ""
