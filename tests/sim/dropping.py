"""Mail that users of the machine leave in the drop folder, whether a node runs or not: each is taken once."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import TYPE_CHECKING

from postroad.sendmail import places
from tests.sim.ledger import Submitted

if TYPE_CHECKING:
    from tests.sim.house import House

_RECIPIENTS = ("ann@home.test", "bob@home.test", "eve@box.test", "u1@r0.test", "gus@prog.test", "nobody@home.test")


def shared_folder(folder: Path) -> Path:
    """The folder that the node shares with users."""
    return folder / "shared"


def make(folder: Path) -> None:
    (shared_folder(folder) / places.DROP).mkdir(parents=True)


def leave(house: House, number: int) -> None:
    """A user calls sendmail while no node listens. It is given a 0 as other clients a 250."""
    chance = random.Random(f"left {house.plan.seed} {number}")
    message_id = f"<left{number}@home.test>"
    to = chance.sample(_RECIPIENTS, chance.choice((1, 1, 2, 3)))
    body = "left here\r\n" * chance.choice((1, 1, 50, 2000))
    fields = f"From: ann@home.test\r\nDate: Fri, 15 Jan 2027 08:00:00 +0000\r\nMessage-ID: {message_id}\r\n"
    content = f"{fields}Subject: left {number}\r\n\r\n{body}".encode()
    lines = "".join(f"to {each}\n" for each in to)
    request = f"submit 1\nfrom ann@home.test\n{lines}size {len(content)}\n\n".encode()
    drop = shared_folder(house.folder) / places.DROP
    (drop / f"{places.PART}{number:04x}").write_bytes(request + content)
    now_s = house.node.clock.now_us() / 1e6
    os.utime(drop / f"{places.PART}{number:04x}", (now_s, now_s))
    (drop / f"{places.PART}{number:04x}").rename(drop / f"{places.WHOLE}{number:04x}")
    house.ledger.submitted.append(
        Submitted(
            message_id, "ann@home.test", content, content, dict.fromkeys(to, ""), to, is_known=True, is_left=True
        )
    )
    house.trace(f"user: {message_id} is left for {to}")
    _have_it_taken(house, chance)


def _have_it_taken(house: House, chance: random.Random) -> None:
    """The worker looks into the folder now and, if this run has crashes, dies at some step of that, or later."""
    worker = house.node.workers[0]
    process, assembly = worker.process, worker.assembly
    if not worker.up or process is None or assembly is None or house.healed or chance.random() < 0.2:
        return
    if house.plan.crashes:
        step = chance.randint(1, 40)
        process.die_at(step, lambda: house.node.crash(worker, f"killed at step {step} of taking left mail"))
    process.run(assembly.look)


def check(house: House) -> None:
    """At the end nothing waits in the folder."""
    if house.plan.dropped:
        left = sorted(path.name for path in (shared_folder(house.folder) / places.DROP).iterdir())
        if left:
            house.ledger.fault(f"files are left in the drop folder: {left}")
