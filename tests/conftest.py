"""What all tests share: hypothesis' profiles, and the tests that need root.

In CI, hypothesis draws the same examples in every run: a failure there is a change, not luck.
"""

import os

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("ci", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("dev", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ci" if os.environ.get("CI") else "dev")

LEFT_OUT = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "root: it makes namespaces or containers; without root it is named, not run")


@pytest.hookimpl(trylast=True)  # when every test has its markers
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if os.geteuid() == 0:
        return
    out = [item for item in items if any(item.iter_markers("root"))]
    if out:
        config.stash[LEFT_OUT] = [item.nodeid for item in out]
        config.hook.pytest_deselected(items=out)
        items[:] = [item for item in items if item not in out]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    left_out = config.stash.get(LEFT_OUT, [])
    if left_out:
        terminalreporter.section("left out: these need root")
        terminalreporter.write_line("\n".join(f"  {name}" for name in left_out))
        terminalreporter.write_line("Run them with:  sudo make test   (those of tests/lab alone: sudo make lab)")
