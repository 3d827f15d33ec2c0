"""What keeps a staging safe, piece by piece: the tally that ends a drill, the journal, the switch's ear, and words."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from chaos.scenario import Fault
from chaos.worlds.staging import StagingWorld, halt
from chaos.worlds.staging import journal as journals
from chaos.worlds.staging.clients import Tally
from chaos.worlds.staging.faults import Deed, mine, touched
from chaos.worlds.staging.file import Place, Staging
from chaos.worlds.staging.journal import Begun, Ended, Journal, JournalError, Lock, Making
from chaos.worlds.staging.preflight import _health
from chaos.worlds.staging.switch import Switch, SwitchError, watch
from chaos.worlds.staging.toxiproxy import Toxic, Toxiproxy, ToxiproxyError
from chaos.worlds.world import Refused
from tests.unit.test_staging_file import GOOD, scenario

BEGUN = Begun(at="", cluster="acme", scenario="x", pid=1, host="h", places={"http://127.0.0.1:1": ("www-a",)})
HOLDER = """\
import sys, time
from pathlib import Path
from chaos.worlds.staging.journal import Lock
lock = Lock(Path(sys.argv[1]), sys.argv[2])
print("held", flush=True)
time.sleep(60)
"""


# ---- the tally


def test_before_the_first_fault_no_request_may_fail() -> None:
    tally = Tally({"www": 60.0}, 0.05)
    assert [tally.take(float(n), "c", "www", False, 0.1) for n in range(5)] == [""] * 5
    why = tally.take(5.0, "c", "www", True, 0.1)
    assert why == "client errors 17% > 5% over the last 10 s, before any fault touched www (c was last)"


def test_what_the_scenario_allows_does_not_count_and_what_is_beyond_does() -> None:
    tally = Tally({"www": 10.0}, 0.05)
    tally.changed(["www"])
    assert [tally.take(float(n), "c", "www", True, 1.0) for n in range(10)] == [""] * 10
    assert "beyond the 10 s that www may be away" in tally.take(10.0, "c", "www", True, 1.0)
    tally.changed(["www"])  # the fault ended: what it moves now is another allowance
    assert tally.take(21.0, "c", "www", True, 1.0) == ""


def test_a_request_that_hangs_counts_as_long_as_it_took() -> None:
    tally = Tally({"www": 10.0}, 0.5)
    tally.changed(["www"])
    assert [bool(tally.take(4.0 * n, "c", "www", True, 4.0)) for n in range(3)] == [False, False, False]
    assert "100%" not in tally.take(12.0, "c", "www", True, 4.0), "what was allowed is in the share, as not failed"


def test_the_share_is_of_all_its_clients_over_ten_seconds() -> None:
    tally = Tally({"www": 0.0}, 0.3)
    tally.changed(["www"])
    for n in range(9):
        assert tally.take(float(n), "a", "www", False, 0.1) == ""
        assert tally.take(float(n), "b", "www", n == 8, 0.1) == ""
    assert [bool(tally.take(9.0 + n, "b", "www", True, 0.1)) for n in range(8)][-1], "good requests are long ago"


def test_a_service_that_is_down_is_not_hidden_by_others_that_are_well() -> None:
    tally = Tally({"www": 0.0, "login": 0.0}, 0.05)
    tally.changed(["www", "login"])
    for n in range(30):
        assert tally.take(0.1 * n, f"c{n}", "www", False, 0.1) == ""
    assert tally.take(3.0, "b", "login", True, 0.1).startswith("client errors 100% > 5%")


def test_an_allowance_begins_anew_only_with_a_fault_that_touches_the_service() -> None:
    tally = Tally({"www": 3.0, "login": 3.0}, 0.05)
    tally.changed(["www"])
    assert [tally.take(float(n), "c", "www", True, 1.0) for n in range(3)] == [""] * 3
    tally.changed(["login"])
    assert "beyond the 3 s that www may be away" in tally.take(3.0, "c", "www", True, 1.0)


def test_whom_a_fault_touches() -> None:
    staging = Staging(
        cluster="acme",
        api=(),
        sites={
            "site-a": Place("http://a", {"www": ("front",), "login": ("login",)}, dns=("ns",)),
            "site-b": Place("http://b", {"www": ("front", "spare"), "shop": ("login",)}),
        },
        clients=(),
    )
    deeds = [Deed("http://a", "front", ()), Deed("http://b", "login", ()), Deed("http://a", "ns", ())]
    found = [touched([deed], staging) for deed in deeds]
    assert found == [{"www"}, {"shop"}, {"www", "login", "shop"}]


def test_a_service_that_nothing_is_known_of_may_not_fail_at_all() -> None:
    tally = Tally({}, 0.0)
    tally.changed(["www"])
    assert "beyond the 0 s" in tally.take(0.0, "c", "www", True, 0.1)


# ---- the journal


def test_a_journal_says_whether_anything_is_left(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "acme-1.jsonl")
    journal.write(BEGUN)
    deed = Deed("http://127.0.0.1:1", "www-a", (Toxic("drill-0", "latency", attributes={"latency": 5}),), off=True)
    journal.write(Making(at="", index=0, text="slow", deeds=(deed,)))
    assert journal.begun() == BEGUN and not journal.healed()
    assert journal.entries()[1] == Making(at="", index=0, text="slow", deeds=(deed,))
    journal.write(Ended(at="", by="switch", why="died", left=("www-a is disabled",)))
    assert not journal.healed()
    journal.write(Ended(at="", by="halt", why="drill halt"))
    assert journal.healed()
    assert journal.path.stat().st_mode & 0o777 == 0o600


def test_a_line_that_was_cut_short_costs_that_line_alone(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "acme-1.jsonl")
    journal.write(BEGUN)
    with journal.path.open("ab") as torn:
        torn.write(b'{"kind":"making","at":"')
    assert journal.entries() == (BEGUN,) and not journal.healed()
    (tmp_path / "other-1.jsonl").write_bytes(b"nonsense\n")
    assert [j.path for j in journals.journals(tmp_path)] == [journal.path]
    assert journals.journals(tmp_path, "other") == []


def test_old_journals_go_unless_something_is_left(tmp_path: Path) -> None:
    for number in range(journals.KEPT + 5):
        journal = Journal(tmp_path / f"acme-{number:03}.jsonl")
        journal.write(BEGUN)
        os.utime(journal.path, (number, number))
        if number != 1:
            journal.write(Ended(at="", by="drill", why=""))
            os.utime(journal.path, (number, number))
    journals.tidy(tmp_path)
    kept = sorted(path.stem for path in tmp_path.glob("*.jsonl"))
    assert len(kept) == journals.KEPT + 1 and kept[0] == "acme-001"


def test_one_drill_at_a_time_and_whose_it_is(tmp_path: Path) -> None:
    assert journals.holder(tmp_path, "acme") is None
    lock = Lock(tmp_path, "acme")
    holder = journals.holder(tmp_path, "acme")
    assert holder is not None and holder.pid == os.getpid() and holder.here
    with pytest.raises(JournalError, match=rf"a drill of acme runs already \(pid {os.getpid()}\)"):
        Lock(tmp_path, "acme")
    Lock(tmp_path, "other").release()
    lock.release()
    assert journals.holder(tmp_path, "acme") is None


def test_the_runner_of_another_machine_is_told_of_and_left_alone(tmp_path: Path) -> None:
    """A pid means nothing elsewhere: with a home directory that two machines share, a signal would hit a stranger."""
    lock = Lock(tmp_path, "acme")
    (tmp_path / "acme.lock").write_text("1 elsewhere\n")
    halted = halt(state_dir=tmp_path)
    assert (halted.stopped, halted.left) == ((), ("a drill of acme goes on (pid 1 on elsewhere): halt it there",))
    lock.release()
    assert halt(state_dir=tmp_path).left == ()


def test_halt_of_a_staging_leaves_other_clusters_alone(tmp_path: Path) -> None:
    file = tmp_path / "acme.staging.yaml"
    text = GOOD.replace(", ca: ca.pem", "").replace("acme-staging", "acme")
    file.write_text(text.replace("10.0.1.5:8474", "127.0.0.1:1").replace("[2001:db8::5]:8474", "127.0.0.1:2"))
    state = tmp_path / "state"
    journals.prepare(state)
    theirs, ours = Journal(state / "other-1.jsonl"), Journal(state / "acme-1.jsonl")
    theirs.write(replace(BEGUN, cluster="other"))
    ours.write(BEGUN)
    stranger = subprocess.Popen((sys.executable, "-c", HOLDER, str(state), "other"), stdout=subprocess.PIPE)
    try:
        assert stranger.stdout is not None and stranger.stdout.readline() == b"held\n"
        halted = halt(file, state_dir=state)
        assert stranger.poll() is None and halted.stopped == ()
        assert theirs.entries() == (replace(BEGUN, cluster="other"),), "its journal is not ours to end"
        assert [type(entry) for entry in ours.entries()] == [Begun, Ended]
        assert not any("other" in line for line in halted.left)
    finally:
        stranger.kill()
        stranger.communicate()


def test_each_journal_is_told_what_is_left_of_its_own_places(tmp_path: Path) -> None:
    first, second = Journal(tmp_path / "a-1.jsonl"), Journal(tmp_path / "b-1.jsonl")
    first.write(replace(BEGUN, cluster="a", places={"http://127.0.0.1:1": ("www-a",)}))
    second.write(replace(BEGUN, cluster="b", places={"http://127.0.0.1:2": ("www-b",)}))
    halted = halt(state_dir=tmp_path)
    left = {journal: entry.left for journal in (first, second) for entry in journal.entries()[1:]}
    assert [len(left[journal]) for journal in (first, second)] == [1, 1]
    assert "127.0.0.1:1" in left[first][0] and "127.0.0.1:2" in left[second][0]
    assert set(halted.left) == {*left[first], *left[second]}


def test_the_journal_of_a_runner_elsewhere_is_left_to_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "acme-1.jsonl")
    journal.write(replace(BEGUN, places={}))
    lock = Lock(tmp_path, "acme")
    (tmp_path / "acme.lock").write_text("1 elsewhere\n")
    assert halt(state_dir=tmp_path).left == ("a drill of acme goes on (pid 1 on elsewhere): halt it there",)
    assert [type(entry) for entry in journal.entries()] == [Begun]
    lock.release()
    halt(state_dir=tmp_path)
    assert journal.healed(), "nobody runs it any more"


def test_who_holds_the_lock_is_known_at_every_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the lock's steps too: a halt that comes then must neither find nobody nor somebody of long ago."""
    (tmp_path / "acme.lock").write_text("99999999 a-host-with-a-long-name\n")
    seen = []
    truncate = os.ftruncate

    def looking(fd: int, length: int) -> None:
        seen.append(journals.holder(tmp_path, "acme"))
        truncate(fd, length)

    monkeypatch.setattr(os, "ftruncate", looking)
    Lock(tmp_path, "acme").release()
    assert [holder.pid if holder else None for holder in seen] == [os.getpid()] * 2
    assert [holder.here if holder else None for holder in seen] == [True] * 2
    assert (tmp_path / "acme.lock").read_text() == "", "the next one's first moment shows nobody's name"


def test_a_directory_that_others_may_write_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_to_all = tmp_path / "drills"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    with pytest.raises(JournalError, match="not yours alone"):
        journals.prepare(open_to_all)
    with pytest.raises(Refused, match="not yours alone"):
        halt(state_dir=open_to_all)
    with pytest.raises(JournalError, match="not a directory"):
        (tmp_path / "file").write_text("")
        journals.prepare(tmp_path / "file" / "drills")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert journals.directory() == tmp_path / "failoverctl" / "drills"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert journals.directory() == Path.home() / ".local" / "state" / "failoverctl" / "drills"


def test_an_earlier_drill_that_was_not_healed_keeps_the_next_one_from_starting(tmp_path: Path) -> None:
    file = tmp_path / "acme.staging.yaml"
    file.write_text(GOOD.replace(", ca: ca.pem", "").replace("acme-staging", "acme"))
    world = StagingWorld(file, yes_on="acme", state_dir=tmp_path / "state")
    journals.prepare(tmp_path / "state")
    Journal(tmp_path / "state" / "acme-1.jsonl").write(BEGUN)
    with pytest.raises(Refused, match=r"an earlier drill was not healed to its end \(.*acme-1\.jsonl\)"):
        world.play(scenario(Fault(verb="cut", at_s=1, one="site-a", other="*")), 0, lambda record: None)
    assert journals.holder(tmp_path / "state", "acme") is None, "the lock was given back"


# ---- the switch


def heard(*said: bytes, close: bool = True) -> str:
    """What the switch makes of what its runner writes."""
    reading, writing = os.pipe()
    found: list[str] = []
    ear = threading.Thread(target=lambda: found.append(watch(reading, 0.2)))
    ear.start()
    for line in said:
        os.write(writing, line)
    if close:
        os.close(writing)
    ear.join(10)
    os.close(reading)
    if not close:
        os.close(writing)
    return found[0]


def test_the_switch_hears_the_end_and_the_death_of_its_runner() -> None:
    assert heard(b"alive\n", b"alive\n", b"done\n") == ""
    assert heard(b"alive\n", b"do", b"ne\n") == ""
    assert heard(b"alive\n") == "the runner of the drill died"
    assert heard() == "the runner of the drill died"
    assert heard(b"done\n", b"alive\n") == "the runner of the drill died"
    assert heard(b"alive\n", close=False) == "the runner of the drill stood still for 0.2 s"


def test_a_switch_that_cannot_read_its_journal_does_not_start(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "acme-1.jsonl")
    journal.path.write_text("nonsense\n")
    with pytest.raises(SwitchError, match=r"did not start; .*acme-1\.log may say why"):
        Switch(journal)
    assert "does not say what to heal" in (tmp_path / "acme-1.log").read_text()


def test_the_names_of_toxics_tell_whose_they_are() -> None:
    assert [mine(1)(Toxic(name, "noop")) for name in ("drill-1", "drill-1-off", "drill-10", "drill-10-off", "x")] == [
        True,
        True,
        False,
        False,
        False,
    ]
    assert not Toxic("latency_downstream", "latency").ours


# ---- toxiproxy's and the control plane's words


@pytest.mark.parametrize(
    ("reply", "version"),
    [(b'{"version": "2.12.0"}\n', "2.12.0"), (b'{"version": "git"}', "git"), (b"2.1.4", "2.1.4"), (b"[]", "[]")],
)
def test_a_version_in_both_of_its_forms(reply: bytes, version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    toxiproxy = Toxiproxy("http://127.0.0.1:1")
    monkeypatch.setattr(toxiproxy, "_call", lambda method, path: reply)
    assert toxiproxy.version() == version


def test_what_is_no_toxiproxy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    toxiproxy = Toxiproxy("http://127.0.0.1:1")
    monkeypatch.setattr(toxiproxy, "_call", lambda method, path: b'{"www": 1}')
    with pytest.raises(ToxiproxyError, match="not an answer of toxiproxy"):
        toxiproxy.proxies()


def test_every_reason_why_a_cluster_is_not_well(tmp_path: Path) -> None:
    file = tmp_path / "acme.staging.yaml"
    file.write_text(GOOD.replace(", ca: ca.pem", ""))
    status: dict[str, Any] = {
        "source": {"age_s": 9.0, "current": True},
        "leader": None,
        "alarms": [
            {"name": "late", "subject": "ns-a", "remedy": "look at it"},
            {"name": "x", "subject": "y", "remedy": ""},
        ],
        "overrides": [{"id": "ov-1", "command": "freeze", "sites": []}],
        "services": {
            "www": {
                "state": "propagating",
                "standing": {
                    "site-a": {"rule": "ready", "reason": ""},
                    "site-b": {"rule": "soak", "reason": "soaking"},
                },
            }
        },
    }
    assert list(_health(status, StagingWorld(file).staging)) == [
        "no API of http://10.0.1.11:8600 is current; doctor says more",
        "nobody leads the cluster",
        "alarm late ns-a: look at it",
        "alarm x y",
        "override ov-1 (freeze all) is in force; end it first",
        "service www is propagating, not converged",
        "service www at site-b is soak: soaking",
    ]
