"""The limits of promise 5, looked at while a run goes on: what the node holds is never more than its settings say.

Connections are counted where they are opened: towards one host at most `queue.concurrency` for each domain that has
ever led there, whatever the number of workers; one that has said QUIT counts no more, as the host hears that before
it hears of the next one. What is in memory is looked at whenever something happens outside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.sim.house import House
    from tests.sim.names import Zone

_PAUSE_S = 0.05  # between two looks at memory


class Measure:
    def __init__(self, house: House) -> None:
        self._house = house
        self._domains: dict[str, set[str]] = {}  # host → domains that lead to it, or did
        self._next = 0.0
        self.peak = 0  # of connections to one host
        self.led(house.names.zones)
        house.wires.opening = self._opening

    def led(self, zones: dict[str, Zone]) -> None:
        """Which hosts these zones name."""
        for domain, zone in zones.items():
            for _, host in zone.mx:
                self._domains.setdefault(host, set()).add(domain)

    def _opening(self, place: str) -> None:
        """A connection of the node to a place has been made."""
        house = self._house
        host = next((each for each in house.hosts if place.startswith(f"{each.address}:")), None)
        if host is None or house.plan.reloads:  # a reload changes the limit, and what leads where
            return
        domains = len(self._domains.get(host.name, ())) or 1  # 1: a next hop that the settings name
        most = house.node.settings.queue.concurrency * domains
        ends = [end for end in house.wires.ends if end.place == place and not end.is_closing()]
        open_now = sum(not end.leaving for end in ends)
        self.peak = max(self.peak, open_now)
        if open_now > most:
            house.ledger.fault(f"{open_now} connections to {host.name}, at most {most} are allowed")

    def look(self) -> None:
        """What each worker has in memory."""
        house = self._house
        if house.base.now < self._next:
            return
        self._next = house.base.now + _PAUSE_S
        queue = house.node.settings.queue
        for worker in house.node.workers:
            if not worker.up or worker.assembly is None:
                continue
            held = worker.assembly.queue
            mails = held._capacity.mails.values()
            content = sum(len(mail.content) for mail in mails if isinstance(mail.content, bytes))
            for what, count, most in (
                ("octets of content", content, queue.memory_max),
                ("outcomes not committed", held._settling.unsettled, queue.unsettled_max + held.status.carrying + 30),
                ("messages", held.status.in_memory, 2 * queue.messages_max + queue.load_max + 30),
            ):
                if count > most:
                    house.ledger.fault(f"worker {worker.number} holds {count} {what}, at most {most} are allowed")
            for key, lane in held._capacity.lanes.items():
                most = 2 * queue.ready_max + lane.couriers + 2
                if len(lane.ready) > most:
                    house.ledger.fault(f"{len(lane.ready)} messages to {key} are in memory, at most {most} may be")
