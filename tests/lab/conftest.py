"""A lab for each file of scenarios: each begins when all is well again. It needs root, for network namespaces."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.worlds.lab import measure
from chaos.worlds.lab.observer import Observer
from chaos.worlds.lab.play import LabWorld
from chaos.worlds.lab.profile import DEFAULTS
from chaos.worlds.lab.world import Lab
from tests.lab import beside

HERE = Path(__file__).parent
ROWS = pytest.StashKey[list[measure.Row]]()
COMPARED = pytest.StashKey[list[beside.Row]]()
TABLE, BOTH = "lab.txt", "lab-and-simulator.txt"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--goals", action="store_true", help="Assert what is measured against the goals, too: `make lab`.")


@pytest.fixture
def goals(pytestconfig: pytest.Config) -> bool:
    """Are times tighter than the promise asserted? Not among the other tests, which share the machine with anything."""
    return bool(pytestconfig.getoption("--goals", default=False))


def pytest_configure(config: pytest.Config) -> None:
    config.stash.setdefault(ROWS, [])
    config.stash.setdefault(COMPARED, [])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    mine = [item for item in items if HERE in item.path.parents]
    for item in mine:
        if not any(item.iter_markers("timeout")):
            item.add_marker(pytest.mark.timeout(300))  # also for the time in which all has to become well again
        item.add_marker(pytest.mark.root)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = config.stash.get(ROWS, [])
    if rows:
        terminalreporter.section("the lab's measurements, in seconds (measured of worst case)")
        terminalreporter.write_line(measure.table(rows))
    compared = config.stash.get(COMPARED, [])
    if compared:
        terminalreporter.section("the lab beside the simulator, in seconds (* = over a second apart)")
        terminalreporter.write_line(beside.table(compared))


@pytest.fixture(scope="module")
def whole_lab(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[Lab]:
    """Built for a file, with its PROFILE. Its logs are kept where pytest keeps its files; all else is removed."""
    lab = Lab(Path(tempfile.mkdtemp(prefix="failover-lab-")))
    kept = tmp_path_factory.mktemp("lab")
    try:
        lab.up(getattr(request.module, "PROFILE", DEFAULTS))
        yield lab
    finally:
        try:
            _keep_logs(lab.directory, kept)
        finally:
            lab.down()
    (tmp_path_factory.getbasetemp() / TABLE).write_text(measure.table([*pytestconfig.stash[ROWS]]) + "\n")


def _keep_logs(directory: Path, kept: Path) -> None:
    for pattern in ("*.log", "*.jsonl", "*.yaml", "*.cfg", "*.conf"):
        for file in directory.rglob(pattern):
            target = kept / file.relative_to(directory)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)


@pytest.fixture(scope="session")
def lab_world(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[LabWorld]:
    """Plays one scenario after the other. Its logs are kept."""
    kept = tmp_path_factory.mktemp("lab")
    with LabWorld() as world:
        yield world
        if world.directory is not None:
            _keep_logs(world.directory, kept)
    (tmp_path_factory.getbasetemp() / BOTH).write_text(beside.table(pytestconfig.stash[COMPARED]) + "\n")


@pytest.fixture(scope="session")
def compared(pytestconfig: pytest.Config) -> list[beside.Row]:
    """The second table that is printed at the end."""
    return pytestconfig.stash[COMPARED]


@pytest.fixture(scope="module")
def observer(whole_lab: Lab) -> Observer:
    return Observer(whole_lab)


@pytest.fixture
def lab(whole_lab: Lab, observer: Observer) -> Lab:
    """All is well, whatever the test before has left."""
    whole_lab.heal()
    whole_lab.until(whole_lab.agreed, "all agree", 60)
    observer.fresh()
    return whole_lab


@pytest.fixture(scope="session")
def rows(pytestconfig: pytest.Config) -> list[measure.Row]:
    """The table that is printed at the end."""
    return pytestconfig.stash[ROWS]
