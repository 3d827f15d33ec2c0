"""Heal at once whatever drills have broken, end those that run here, and say what is left."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from chaos.worlds.staging import journal as journals
from chaos.worlds.staging.faults import heal, places_of
from chaos.worlds.staging.file import read_staging
from chaos.worlds.staging.journal import Begun, Ended, Holder, Journal, JournalError
from chaos.worlds.staging.switch import now
from chaos.worlds.world import Refused

GENTLE_S = 10.0  # a runner that is asked to end heals first
LOOK_S = 0.1
Places = Mapping[str, tuple[str, ...]]  # a toxiproxy's address -> its proxies


class Halted(Struct, frozen=True):
    """stopped: drills that ran here, and have ended. healed: proxies that were not as they should be. left: what could
    not be healed, each with what to do. Lines for people; all empty: there was nothing to do."""

    stopped: tuple[str, ...]
    healed: tuple[str, ...]
    left: tuple[str, ...]


def halt(
    file: Path | None = None, *, state_dir: Path | None = None, say: Callable[[str], None] = lambda line: None
) -> Halted:
    """Of all drills that this machine's journals know; with a staging file, of those of its cluster alone, and of the
    file's proxies, whoever broke them. A second time there is nothing to do. `say` is told what happens. Raises Refused
    for a file that is not right, or journals that cannot be read."""
    where = journals.directory() if state_dir is None else state_dir
    cluster, of_file = _asked(file)
    known = _known(where, cluster)
    every = [of_file, *(begun.places for begun in known.values())]
    running = _running(where, cluster)
    ours = {name: holder.pid for name, holder in running.items() if holder.here}
    for name, pid in ours.items():
        say(f"ending the drill of {name} (pid {pid})")
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    first = heal(_together(every))  # at once: the runner may hang
    for line in first.healed:
        say(f"healed {line}")
    _wait(where, ours, say)
    last = [heal(of_file)]  # of what it did in the meantime
    for journal, begun in known.items():
        last.append(heal(begun.places))  # each has its own places, and what is left of those
        if begun.cluster in ours or begun.cluster not in running:  # a runner elsewhere goes on, and ends its own
            with suppress(OSError):
                journal.write(Ended(at=now(), by="halt", why="drill halt", left=last[-1].left))
    return Halted(
        stopped=tuple(f"{name} (pid {pid})" for name, pid in ours.items()),
        healed=_once([line for healing in (first, *last) for line in healing.healed]),
        left=(
            *_once([line for healing in last for line in healing.left]),
            *(f"a drill of {n} goes on ({h}): halt it there" for n, h in running.items() if not h.here),
        ),
    )


def _asked(file: Path | None) -> tuple[str, Places]:
    """(the cluster, its proxies) of a staging file; ("", {}) = all that the journals know. Raises Refused."""
    if file is None:
        return "", {}
    read = read_staging(file)
    if read.staging is None:
        raise Refused([str(problem) for problem in read.problems])
    return read.staging.cluster, places_of(read.staging)


def _known(where: Path, cluster: str) -> dict[Journal, Begun]:
    """The journals of drills that are not over. Raises Refused."""
    try:
        if where.exists():
            journals.prepare(where)  # what is in it is acted upon
        found = {journal: journal.begun() for journal in journals.journals(where, cluster) if not journal.healed()}
    except (OSError, JournalError) as error:
        raise Refused([f"{where} cannot be read: {error}"]) from None
    return {journal: begun for journal, begun in found.items() if begun is not None}


def _together(every: Sequence[Places]) -> Places:
    found: dict[str, dict[str, None]] = {}
    for places in every:
        for url, proxies in places.items():
            found.setdefault(url, {}).update(dict.fromkeys(proxies))
    return {url: tuple(proxies) for url, proxies in found.items()}


def _once(lines: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(lines))


def _running(where: Path, cluster: str) -> dict[str, Holder]:
    """cluster -> who runs a drill of it."""
    names = [cluster] if cluster else sorted(path.stem for path in where.glob("*.lock"))
    found = {name: journals.holder(where, name) for name in names}
    return {name: holder for name, holder in found.items() if holder is not None and holder.pid != os.getpid()}


def _wait(where: Path, pids: dict[str, int], say: Callable[[str], None]) -> None:
    """Until they have ended; those that do not are killed."""

    def gone(name: str, pid: int, until: float) -> bool:
        while (holder := journals.holder(where, name)) is not None and holder.pid == pid:
            if time.monotonic() > until:
                return False
            time.sleep(LOOK_S)
        return True

    until = time.monotonic() + GENTLE_S
    for name, pid in pids.items():
        if not gone(name, pid, until):
            say(f"the drill of {name} does not end: killing pid {pid}")
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            gone(name, pid, time.monotonic() + GENTLE_S)
