"""The image of Containerfile, built on a base made with debootstrap, runs read-only and without root."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from chaos.worlds.servers.process import free_port, program

ROOT = Path(__file__).parents[2]
BASE = "localhost/failover-test-base:latest"
IMAGE = "localhost/failover-test:latest"
RUN = ("--runtime", "runc", "--cgroup-manager=cgroupfs", "run")
# Only this machine's loopback is used, and the limits are those that a container without privileges may ask for.
BOUNDS = (
    *("--network", "host", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--pull=never"),
    *("--read-only", "--cap-drop", "all", "--security-opt", "no-new-privileges"),
)

pytestmark = pytest.mark.root  # debootstrap


class Containers:
    """podman with a storage of its own: nothing of the machine's images is seen or left behind."""

    def __init__(self, directory: Path) -> None:
        conf = directory / "storage.conf"
        conf.write_text(
            f'[storage]\ndriver = "overlay"\ngraphroot = "{directory}/storage"\nrunroot = "{directory}/run"\n'
        )
        self.env = {**os.environ, "CONTAINERS_STORAGE_CONF": str(conf)}
        self.podman = program("podman")

    def __call__(self, *arguments: str, within_s: float = 60.0) -> str:
        """Runs podman; its standard output. Fails the test with what it said."""
        return self.run((self.podman, *arguments), within_s)

    def run(self, argv: Sequence[str], within_s: float, **env: str) -> str:
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=within_s, check=False, env={**self.env, **env}
        )
        assert done.returncode == 0, f"{' '.join(argv)}: {done.stdout}{done.stderr}"
        return done.stdout

    def start(self, name: str, *argv: str, **env: str) -> None:
        variables = [word for key, value in env.items() for word in ("--env", f"{key}={value}")]
        self(*RUN, "--detach", "--name", name, *BOUNDS, *variables, IMAGE, *argv)

    def inside(self, name: str, *argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            (self.podman, "--runtime", "runc", "exec", name, *argv),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            env=self.env,
        )

    def logs(self, name: str) -> str:
        done = subprocess.run((self.podman, "logs", name), capture_output=True, text=True, check=False, env=self.env)
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def containers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containers]:
    """A storage that has the image."""
    directory = tmp_path_factory.mktemp("image")
    found = Containers(directory)
    debootstrap, script = program("debootstrap"), ROOT / "examples/deploy/image.sh"
    program("buildah")
    try:
        base = directory / "base"
        # Python in the base: then nothing has to be installed during the build.
        packages = "--include=python3,python3-venv"
        found.run((debootstrap, "--variant=minbase", packages, "bookworm", str(base)), 300)
        found.run(("tar", "-C", str(base), "-cf", f"{base}.tar", "."), 60)
        shutil.rmtree(base)
        found("import", f"{base}.tar", BASE)
        found.run((str(script), IMAGE), 400, BASE=BASE, BUILD_FLAGS="--pull=never")
        yield found
    finally:
        for arguments in (("rm", "--all", "--force"), ("rmi", "--all", "--force")):
            subprocess.run((found.podman, *arguments), capture_output=True, timeout=60, check=False, env=found.env)
        # containers/storage mounts this directory onto itself, and leaves it so.
        subprocess.run((program("umount"), f"{directory}/storage/overlay"), capture_output=True, check=False)
        shutil.rmtree(directory)


def eventually(what: str, look: Callable[[], bool], told: Callable[[], str], within_s: float = 30.0) -> None:
    until = time.monotonic() + within_s
    while not look():
        assert time.monotonic() < until, f"{what} did not happen within {within_s:g} s:\n{told()}"
        time.sleep(0.2)


@pytest.mark.timeout(900)
def test_the_image_has_both_commands_and_neither_root_nor_pip(containers: Containers) -> None:
    image = json.loads(containers("image", "inspect", IMAGE))[0]
    print(f"\nimage: {image['Size'] / 2**20:.0f} MiB, of which the base {_size(containers, BASE):.0f} MiB")
    assert image["Config"]["User"] == "8600"
    assert image["Healthcheck"]["Test"][0] == "CMD"
    version = containers(*RUN, "--rm", *BOUNDS, IMAGE, "failoverctl", "--version").strip()
    assert version == "failoverctl 0.1.0"
    assert containers(*RUN, "--rm", *BOUNDS, IMAGE, "failoverd", "--version").strip() == "failoverd 0.1.0"
    tried = "id -u; touch /opt/failover/x 2>/dev/null && echo wrote; command -v pip; touch /var/lib/failover/x"
    assert containers(*RUN, "--rm", *BOUNDS, IMAGE, "sh", "-c", tried).split() == ["8600"]


def test_its_packages_are_those_of_constraints_txt(containers: Containers) -> None:
    script = "import importlib.metadata as m; print(*(f'{d.name}=={d.version}' for d in m.distributions()))"
    installed = containers(*RUN, "--rm", *BOUNDS, IMAGE, "python3", "-c", script).split()
    pinned = {line.partition(";")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines()}
    ours = {
        f"{name.lower().replace('_', '-').replace('.', '-')}=={v}" for name, v in (p.split("==") for p in installed)
    }
    assert ours - pinned == {"failover-control-plane==0.1.0"}


def test_a_whole_cluster_runs_in_it(containers: Containers) -> None:
    containers.start("dev", "failoverctl", "dev", "--fast")

    def status() -> dict[str, object]:
        done = containers.inside("dev", "failoverctl", "status", "--json")
        document: dict[str, object] = json.loads(done.stdout) if done.returncode == 0 else {}
        return document

    def served() -> bool:
        services = status().get("services")
        return isinstance(services, dict) and any(s.get("state") == "converged" for s in services.values())

    eventually("a service being served", served, lambda: containers.logs("dev"))
    asked = containers.inside("dev", "failoverctl", "verify", "--json")
    assert json.loads(asked.stdout)["ok"] is True, asked.stdout + asked.stderr
    containers("stop", "--time", "10", "dev")
    ended = json.loads(containers("inspect", "dev"))[0]["State"]
    assert ended["ExitCode"] in (0, 130, 143), containers.logs("dev")


def test_failoverd_in_it_is_healthy_before_there_is_an_etcd(containers: Containers) -> None:
    listen, etcd = f"127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}"
    containers.start(
        "node", FAILOVERD_SITE="site-a", FAILOVERD_CLUSTER="acme", FAILOVERD_ETCD=etcd, FAILOVERD_LISTEN=listen
    )

    def healthy() -> bool:
        done = subprocess.run(
            (containers.podman, "--runtime", "runc", "healthcheck", "run", "node"),
            capture_output=True,
            timeout=30,
            check=False,
            env=containers.env,
        )
        return done.returncode == 0

    eventually("the health check passing", healthy, lambda: containers.logs("node"))
    assert "etcd" in containers.logs("node")
    containers("stop", "--time", "10", "node")
    assert json.loads(containers("inspect", "node"))[0]["State"]["ExitCode"] == 0, containers.logs("node")


def _size(containers: Containers, image: str) -> float:
    size: int = json.loads(containers("image", "inspect", image))[0]["Size"]
    return size / 2**20
