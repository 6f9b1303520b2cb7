"""PROXY headers as a proxy writes them."""

from __future__ import annotations

import ipaddress

from postroad.protocol.proxy import crc32c

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def v1(source: str = "192.0.2.7", port: int = 51_234, destination: str = "198.51.100.1", to: int = 25) -> bytes:
    family = 6 if ":" in source else 4
    return f"PROXY TCP{family} {source} {destination} {port} {to}\r\n".encode()


def tlv(kind: int, value: bytes) -> bytes:
    return bytes((kind,)) + len(value).to_bytes(2, "big") + value


def tls(version: bytes = b"TLSv1.3", cipher: bytes = b"TLS_AES_256_GCM_SHA384", name: bytes = b"", verify: int = 0,
        client: int = 1) -> bytes:
    inner = tlv(0x21, version) + tlv(0x23, cipher) + (tlv(0x22, name) if name else b"")
    return tlv(0x20, bytes((client,)) + verify.to_bytes(4, "big") + inner)


def v2(
    source: str = "192.0.2.7", port: int = 51_234, *vectors: bytes, destination: str = "198.51.100.1", to: int = 25,
    command: int = 1, family: int | None = None, checked: bool = False,
) -> bytes:
    ends = [ipaddress.ip_address(each) for each in (source, destination)]
    kind = (0x11 if ends[0].version == 4 else 0x21) if family is None else family
    block = ends[0].packed + ends[1].packed + port.to_bytes(2, "big") + to.to_bytes(2, "big") + b"".join(vectors)
    return raw(kind, block, command=command, checked=checked)


def raw(family: int, block: bytes, *, command: int = 1, checked: bool = False, version: int = 2) -> bytes:
    if checked:
        block += tlv(3, bytes(4))
    octets = SIGNATURE + bytes((version << 4 | command, family)) + len(block).to_bytes(2, "big") + block
    return octets[:-4] + crc32c(octets).to_bytes(4, "big") if checked else octets
