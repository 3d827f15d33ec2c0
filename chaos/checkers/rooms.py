"""capacity: nobody is given more than he can carry while another has room (DESIGN 4.5). Pure."""

from __future__ import annotations

from chaos.history import Committed, Configured, History
from chaos.loads import ROUNDED, WORTH, Rooms, demand, loads, spare
from chaos.report import Invariant
from chaos.scenario import Scenario
from chaos.trace import Findings, Timed, before, by_time, optional


def capacity(scenario: Scenario, history: History) -> Invariant:
    """No move gives a site more than it can carry while another that may take it has room; no overload without a
    shortfall that says so."""
    found = Findings("capacity", "no generation is recorded")
    timed = Timed(history)
    rooms = Rooms(history.config)
    for _, records in by_time(history):
        made = [record for record in records if isinstance(record, Committed)]
        for record in records:
            if isinstance(record, Configured):
                rooms.config = record.config
        for record in made:
            rooms.take(record.decision)
        for record in made:
            config = timed.of(record.decision, record.at)
            if record.decision.new_generation and record.decision.service in config.services:
                rooms.config = config
                found.looked()
                _judge(record, rooms, found)
    return found.invariant()


def _judge(record: Committed, rooms: Rooms, found: Findings) -> None:
    decision, config = record.decision, rooms.config
    service, room, all_ = decision.service, rooms.left(decision.service), demand(config, decision.service)
    coarse = rooms.coarse(service)
    now = loads(config, service, decision.desired.shares)
    was = loads(config, service, before(decision))
    over = {site: amount - max(0.0, room.get(site, 0.0)) for site, amount in now.items()}
    too_much = sum(amount for amount in over.values() if amount > 0)
    said = decision.desired.shortfall
    if too_much > said + all_ * ROUNDED + coarse:
        says = f"says {said:g}" if said else "does not say so"
        text = f"{decision.id} sends {too_much:g} of {all_:g} of {service} where there is no room, and {says}"
        found.wrong(record.at, text)
    if decision.desired.tier or decision.input.ahead is not None:
        return
    grown = {s: o for s, o in over.items() if o > all_ * WORTH + coarse and now[s] > was.get(s, 0.0) + coarse}
    free = {s: left for s, left in spare(config, decision, room).items() if left > all_ * WORTH + coarse}
    kind = "an optional" if optional(decision) else "a forced"
    for site in sorted(grown) if free else ():
        where = ", ".join(f"{other} has room for {left:g}" for other, left in sorted(free.items()))
        text = f"{decision.id}, {kind} move of {service}, gives {site} {grown[site]:g} more than its room"
        found.wrong(record.at, f"{text}, while {where}")
