"""XML of a stranger, read element by element.

What always holds: a document type declaration ends the reading, so there are no entities but the five of XML, and
nothing is fetched; depth, elements and text have limits; all is read in one pass, and only the element that is being
read is held. An element of another namespace than that of the root is an extension, and passed over with all that is
in it. How it fails: `UnreadableReport`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final
from xml.parsers import expat

from postroad.trust.inbound.limits import UnreadableReport
from postroad.trust.inbound.values import TEXT_MAX

DEPTH_MAX: Final = 30
NODES_MAX: Final = 2_000  # elements in one that is held
ELEMENTS_MAX: Final = 4_000_000
_CHARACTERS_MAX: Final = TEXT_MAX * 4  # of an element's text; what follows is dropped
TOKEN_MAX: Final = 262_144  # octets of a tag, comment or CDATA section: each is read in one uninterrupted step
MENDED_MAX: Final = 4_194_304  # octets of XML that is mended
_PIECE: Final = 65_536
_DECLARATIONS: Final = re.compile(rb"\A(?:\s{0,50}<\?xml[^>]{0,200}>){1,5}", re.IGNORECASE)
_STRAY: Final = re.compile(rb"&(?!(?:amp|lt|gt|quot|apos|#\d{1,7}|#x[0-9a-fA-F]{1,6});)")
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")


class XmlElement:
    """An element with its text and the elements in it."""

    __slots__ = ("children", "name", "text")

    def __init__(self, name: str) -> None:
        self.name = name
        self.text = ""
        self.children: list[XmlElement] = []

    def child(self, *names: str) -> XmlElement | None:
        """The first element that has one of these names."""
        return next((each for each in self.children if each.name in names), None)

    def all(self, name: str) -> list[XmlElement]:
        return [each for each in self.children if each.name == name]

    def said(self, name: str) -> str:
        """The text of the first element of this name; "" if there is none."""
        found = self.child(name)
        return "" if found is None else found.text.strip()


class _Reading:
    """One pass. `parts`: elements of this name in the root are handed to `on_part` and not held."""

    def __init__(
        self, part: str, on_part: Callable[[XmlElement], None], namespaces: bool
    ) -> None:
        self._part = part
        self._on_part = on_part
        self._separator = " " if namespaces else ":"
        self._namespace = ""
        self.root: XmlElement | None = None
        self._open: list[XmlElement] = []
        self._passed = 0  # how many elements of extensions are open
        self._elements = 0
        self._held = 0  # in the root's child that is open
        self._kept = 0  # children of the root, and what is in them
        self.parser = parser = expat.ParserCreate(namespace_separator=" " if namespaces else None)
        parser.buffer_text = True
        parser.ordered_attributes = True
        parser.StartDoctypeDeclHandler = self._doctype
        parser.EntityDeclHandler = self._doctype
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text

    def _doctype(self, *_: Any) -> None:
        raise UnreadableReport("its XML has a document type declaration, which a report may not have")

    def _start(self, name: str, _: Any) -> None:
        self._elements += 1
        if self._elements > ELEMENTS_MAX:
            raise UnreadableReport(f"its XML has more than {ELEMENTS_MAX} elements")
        namespace, _, local = name.rpartition(self._separator)
        if len(self._open) + self._passed >= DEPTH_MAX:
            raise UnreadableReport(f"the elements of its XML are nested more than {DEPTH_MAX} deep")
        if self.root is None:
            self._namespace = namespace
        elif self._passed or namespace not in ("", self._namespace):
            self._passed += 1
            return
        node = XmlElement(local[:100])
        if self._open:
            self._held += 1
            if self._held > NODES_MAX:
                raise UnreadableReport(f"one element of its XML has more than {NODES_MAX} elements in it")
            self._open[-1].children.append(node)
        else:
            self.root = node
        self._open.append(node)

    def _end(self, _: str) -> None:
        if self._passed:
            self._passed -= 1
            return
        node = self._open.pop()
        if len(self._open) != 1:
            return
        if node.name == self._part:
            self._open[0].children.pop()
            self._held = self._kept
            self._on_part(node)
        else:
            self._kept = self._held

    def _text(self, text: str) -> None:
        if self._open and not self._passed:
            node = self._open[-1]
            if len(node.text) < _CHARACTERS_MAX:
                node.text += text[:_CHARACTERS_MAX]


def read(
    octets: bytes, part: str, on_part: Callable[[XmlElement], None], breathe: Callable[[], None] = lambda: None,
    *, namespaces: bool = True,
) -> XmlElement:
    """The root element, without the elements `part` directly in it, each of which goes to `on_part`. `breathe` is
    called now and then."""
    try:
        reading = _Reading(part, on_part, namespaces)
        parser = reading.parser
        for at in range(0, len(octets), _PIECE):
            parser.Parse(octets[at : at + _PIECE], False)
            if at + _PIECE - max(parser.CurrentByteIndex, 0) > TOKEN_MAX:
                raise UnreadableReport(f"its XML has a tag or comment of more than {TOKEN_MAX} octets")
            breathe()
        parser.Parse(b"", True)
    except expat.ExpatError as error:
        text = expat.ErrorString(error.code) or "error"
        raise UnreadableReport(f"its XML is not well-formed: {text} in line {error.lineno}") from None
    except (LookupError, ValueError) as error:  # an encoding that Python does not know, or that is none
        raise UnreadableReport(f"its XML cannot be decoded: {error}"[:200]) from None
    assert reading.root is not None, "a document has a root"
    return reading.root


def mended(octets: bytes) -> bytes:
    """The XML without what careless writers do: white space or a second declaration in front, an encoding that is not
    the one in use, control characters, a bare "&". Raises UnreadableReport."""
    if len(octets) > MENDED_MAX:
        raise UnreadableReport("it is too large to be mended")
    octets = octets.removeprefix(b"\xef\xbb\xbf")
    found = _DECLARATIONS.match(octets)
    if found is not None:
        octets = octets[found.end() :]
    text = octets.strip().decode("utf-8", "replace")
    return _STRAY.sub(b"&amp;", _CONTROLS.sub("", text).encode("utf-8", "replace"))
