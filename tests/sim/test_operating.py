"""failoverctl's commands in virtual time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.worlds.sim.operator import Operating, problems
from controlplane.documents import decode
from policies.topology import Override
from tests.sim.setting import Story, config, settled

WHY = ("--reason", "test")


@pytest.fixture
def world() -> Iterator[Story]:
    with settled() as found:
        yield found


class Desk:
    """An operator who waits for each command. Gives (exit code, what was said, virtual seconds)."""

    def __init__(self, world: Story, folder: Path = Path()) -> None:
        self.world = world
        self.operating = Operating(world.nodes, world.kernel, folder)

    def do(self, *argv: str) -> tuple[int, str, float]:
        ended: list[tuple[int, str]] = []
        began = self.world.kernel.now
        self.operating.run(argv, lambda code, said: ended.append((code, said)))
        assert not ended, "it begins at a moment of the kernel's"
        self.world.run_until(lambda: bool(ended), 200.0)
        return (*ended[0], self.world.kernel.now - began)


def overrides(world: Story) -> list[Override]:
    found = world.store.under(world.keys.overrides).items
    return [decode(Override, kv.value) for kv in found if kv.key != world.keys.overrides_rev]


def test_a_drain_is_preflighted_stored_waited_for_and_ended(world: Story) -> None:
    desk = Desk(world)
    code, said, took_s = desk.do("drain", "site-a", "--for", "1h", *WHY)
    assert (code, said[:11]) == (0, "DRAINED in ") and "3/3 name servers" in said
    assert 20.0 < took_s < 23.0  # until old TTLs are over
    (made,) = overrides(world)
    assert (made.command, made.sites, made.author, made.for_s) == ("drain", ("site-a",), "operator", 3600.0)
    assert world.all_serve("site-b")
    code, said, _ = desk.do("undrain", "site-a")
    assert (code, overrides(world)) == (0, [])
    assert "site-a ramp" in said


def test_without_waiting_it_ends_with_the_commit(world: Story) -> None:
    code, said, took_s = Desk(world).do("drain", "site-a", "--no-wait", *WHY)
    assert (code, took_s < 0.3) == (0, True)
    assert said.startswith("In force as ov-1.")


def test_a_dry_run_changes_nothing_and_tells_nothing_that_depends_on_the_day(world: Story) -> None:
    assert Desk(world).do("drain", "site-a", "--dry-run", *WHY)[:2] == (0, "")
    assert overrides(world) == []


def test_the_same_seed_says_the_same() -> None:
    told = []
    for _ in range(2):
        with settled() as world:
            desk = Desk(world)
            told.append([desk.do("drain", "site-a", *WHY), desk.do("overrides"), desk.do("undrain", "site-a")])
            told[-1].append((0, world.hash, 0.0))
    assert told[0] == told[1]


def test_a_guard_refuses_and_says_what_would_accept_it(world: Story) -> None:
    desk = Desk(world)
    for site in ("site-b", "site-c"):
        assert desk.do("drain", site, "--no-wait", *WHY)[0] == 0
    code, said, _ = desk.do("drain", "site-a", *WHY)
    assert code == 1 and "--accept" in said
    assert len(overrides(world)) == 2


def test_a_service_that_is_drained_while_its_name_server_is_silent_is_not_said_to_be_done(world: Story) -> None:
    world.messages.delay("watch", "", 30.0)
    world.run(3.0)
    code, said, _ = Desk(world).do("drain", "site-a", "--patience", "5s", *WHY)
    assert code == 4 and "not current" in said


def test_nobody_to_ask(world: Story) -> None:
    for site in world.nodes:
        world.kill(site)
    code, said, _ = Desk(world).do("drain", "site-b", *WHY)
    assert code == 4 and "connection refused" in said


def test_a_node_that_stands_still_is_not_asked(world: Story) -> None:
    world.nodes["site-a"].loop.pause()
    assert Desk(world).do("freeze", *WHY, "--no-wait")[0] == 0


def test_no_reply_after_it_was_sent_is_looked_for(world: Story) -> None:
    """The node stops while it works on the request; another one knows that the freeze is in force."""
    desk, ended = Desk(world), list[int]()
    desk.operating.run(("freeze", *WHY, "--no-wait"), lambda code, said: ended.append(code))
    world.run_until(lambda: bool(overrides(world)), 1.0)
    world.nodes["site-a"].loop.pause()
    world.run_until(lambda: bool(ended), 30.0)
    assert ended == [0] and len(overrides(world)) == 1


def test_a_command_under_way_ends_with_the_world() -> None:
    said: list[int] = []
    with settled() as world:
        operating = Operating(world.nodes, world.kernel)
        operating.run(("drain", "site-a", *WHY), lambda code, _: said.append(code))
        world.run(5.0)
    assert said == []
    assert not any(talk.alive for talk in operating._talks)


def test_a_bug_in_a_command_is_raised(world: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("controlplane.cli.deeds.carry_out", broken)
    Operating(world.nodes, world.kernel).run(("drain", "site-a", *WHY), lambda code, said: None)
    with pytest.raises(ZeroDivisionError):
        world.run(1.0)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("drain site-b --reason r --for 2h --service www --accept capacity --yes", ""),
        ("pin site-b out --reason r --no-expiry", ""),
        ("undrain site-b", ""),
        ("overrides cancel ov-1", ""),
        ("unfreeze", ""),
        ("failback site-a", ""),
        ("adopt --all", ""),
        ("", "no failoverctl command ''; a scenario can have adopt, apply, drain,"),
        ("drian site-b", "no failoverctl command 'drian'"),
        ("drain --reason r", "Missing argument 'SITE'"),
        ("drain site-b", "drain needs a reason"),
        ("drain site-x --reason r", "no site 'site-x'; there are site-a"),
        ("drain witness --reason r", "witness is a witness"),
        ("drain site-b --reason r --service mail", "no service 'mail'; there are www"),
        ("freeze --reason r --service mail", "no service 'mail'"),
        ("drain site-b --reason r --for 5", "'5' is not a duration; write 5s"),
        ("drain site-b --reason r --for 80h", "at most 72h"),
        ("drain site-b --reason r --accept nothing", "'nothing' is not a guard to accept"),
        ("drain site-b --force", "No such option"),
        ("pin site-b sideways --reason r", "'sideways' is not one of"),
        ("adopt", "name one incarnation"),
        ("apply none.yaml", "none.yaml:1:1: error: cannot read the file"),
        ("drain --help", "does nothing"),
    ],
)
def test_a_wrong_command_line_is_found_without_a_cluster(line: str, found: str, tmp_path: Path) -> None:
    said = problems(line.split(), config(), tmp_path)
    assert (found in said[0] and str(tmp_path) not in said[0]) if found else said == []
