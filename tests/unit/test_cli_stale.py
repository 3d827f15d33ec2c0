"""failoverctl against nodes whose view is not current: what they know is shown as old, and settles nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from controlplane.view import View
from tests.unit.api_cluster import Cluster, running
from tests.unit.test_cli_cluster import cli, doc_of


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, Path]]:
    with running(tmp_path_factory.mktemp("cli")) as found:
        yield found


@pytest.fixture
def cluster(world: tuple[Cluster, Path]) -> Cluster:
    world[0].catch_up()
    return world[0]


@pytest.mark.parametrize(
    "args",
    [
        ("undrain", "site-b"),
        ("overrides", "cancel", "ov-999"),
        ("unfreeze",),
        ("apply", "FILE"),
        ("adopt", "--all"),
    ],
    ids=lambda args: args[0],
)
def test_nothing_to_do_is_said_only_by_who_knows(
    world: tuple[Cluster, Path], cluster: Cluster, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...]
) -> None:
    args = tuple(str(world[1]) if arg == "FILE" else arg for arg in args)
    told = cli(cluster, *args, "--yes").output
    blind = property(lambda view: view is not cluster.nodes["cloud"].view)
    with monkeypatch.context() as patched:
        patched.setattr(View, "current", blind)
        # site-a's view is current: it is asked instead.
        assert cli(cluster, *args, "--yes").output.replace("cloud", "site-a") == told.replace("cloud", "site-a")
        patched.setattr(View, "current", property(lambda view: False))
        result = cli(cluster, *args, "--yes", "--json")
    assert result.exit_code == 4 and "view is not current" in doc_of(result)["error"], result.output


def test_a_list_from_a_view_that_is_not_current_says_so(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli(cluster, "overrides").stdout.endswith("no override is in force\n")
    with monkeypatch.context() as patched:
        patched.setattr(View, "current", property(lambda view: False))
        result = cli(cluster, "overrides")
    assert result.exit_code == 0 and "STALE" in result.stdout and "no override was in force then" in result.stdout
