"""The node's own secret: octets that stay the same over restarts and for all workers, made at the first start.

The keys of accounts that do not exist are made from it (`protocol.sasl.scram_keys.decoy`). What always holds: the file
has mode 0600 and its whole content from the first moment; if several workers make it at once, all get the same.

How it fails: with OSError if the state folder cannot be written or read.
"""

from __future__ import annotations

import contextlib
import os
import random
from pathlib import Path
from typing import Final

NAME: Final = "secret"
SIZE: Final = 32


def node_secret(state_dir: Path, chance: random.Random) -> bytes:
    """The secret of this state folder."""
    path = state_dir / NAME
    with contextlib.suppress(FileNotFoundError):
        octets = path.read_bytes()
        if len(octets) == SIZE:
            return octets
        path.unlink()  # half of one: a crash of long ago
    state_dir.mkdir(parents=True, exist_ok=True)
    unfinished = state_dir / f".{NAME}.{os.getpid()}"
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(chance.randbytes(SIZE))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(unfinished, path)
    finally:
        unfinished.unlink()
    return path.read_bytes()
