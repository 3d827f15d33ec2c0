"""Kinds of messages that are held back or lost, whatever their way (the verbs `delay` and `loss` with `message`)."""

from __future__ import annotations

import random

from msgspec import Struct

from chaos.worlds.sim.network import Undo


class Rule(Struct, frozen=True):
    """node "": everybody's."""

    message: str
    node: str
    late_s: float
    rate: float


class Messages:
    """`rules` is empty while all is well, which is worth asking first."""

    def __init__(self) -> None:
        self.rules: dict[int, Rule] = {}
        self._next = 0

    def delay(self, message: str, node: str, late_s: float) -> Undo:
        return self._add(Rule(message, node, late_s, 0.0))

    def lose(self, message: str, node: str, rate: float) -> Undo:
        return self._add(Rule(message, node, 0.0, rate))

    def late_s(self, message: str, node: str) -> float:
        return max((rule.late_s for rule in self._of(message, node)), default=0.0)

    def lost(self, message: str, node: str, rng: random.Random) -> bool:
        return any(rng.random() < rule.rate for rule in self._of(message, node) if rule.rate)

    def _of(self, message: str, node: str) -> list[Rule]:
        return [rule for rule in self.rules.values() if rule.message == message and rule.node in ("", node)]

    def _add(self, rule: Rule) -> Undo:
        self._next += 1
        mine = self._next
        self.rules[mine] = rule

        def undo() -> None:
            del self.rules[mine]

        return undo
