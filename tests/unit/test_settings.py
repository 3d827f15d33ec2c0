"""failoverd's flags: every problem at once, each with what would be right; nothing is started on half of them."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import trustme

from controlplane.settings import ALL_ROLES, Given, Settings, SettingsError, read_settings
from controlplane.state_dir import StateDir, StateDirError

GOOD = {"site": "site-a", "cluster": "acme", "etcd": "http://127.0.0.1:2379"}


def read(root: bool = False, **given: str) -> Settings:
    return read_settings(Given(**{**GOOD, **given}), {"HOME": "/home/ana"}, root=root)


def problems(**given: str) -> str:
    with pytest.raises(SettingsError) as error:
        read(**given)
    return "\n".join(error.value.problems)


def certificates(directory: Path, name: str = "site-a") -> dict[str, str]:
    authority = trustme.CA()
    leaf = authority.issue_cert(common_name=name)
    files = {part: directory / f"{name}.{part}" for part in ("ca", "cert", "key")}
    authority.cert_pem.write_to_path(files["ca"])
    leaf.cert_chain_pems[0].write_to_path(files["cert"])
    leaf.private_key_pem.write_to_path(files["key"])
    return {f"etcd_{part}": str(file) for part, file in files.items()}


def test_what_is_left_out_has_a_default() -> None:
    settings = read()
    assert settings.roles == ALL_ROLES == ("vantage", "controller", "agent", "api")
    assert (settings.host, settings.port) == ("127.0.0.1", 8600)
    assert settings.state_dir == Path("/home/ana/.local/state/failover/acme")
    assert settings.credentials is None and settings.etcd == ("http://127.0.0.1:2379",)
    assert (settings.log_format, settings.log_level) == ("auto", logging.INFO)


def test_the_member_on_this_machine_is_asked_first(tmp_path: Path) -> None:
    far = ("https://203.0.113.9:2379", "https://etcd.example.org:2379")
    settings = read(etcd=f"{far[0]},https://127.0.0.1:2379,{far[1]}", **certificates(tmp_path))
    assert settings.etcd == ("https://127.0.0.1:2379", *far)


def test_state_goes_where_the_platform_keeps_it() -> None:
    assert read(root=True).state_dir == Path("/var/lib/failover/acme")
    given = Given(**GOOD)
    assert read_settings(given, {"XDG_STATE_HOME": "/x"}, root=False).state_dir == Path("/x/failover/acme")
    relative = read_settings(given, {"XDG_STATE_HOME": "x", "HOME": "/h"}, root=False)
    assert relative.state_dir == Path("/h/.local/state/failover/acme"), "a relative one is to be ignored"
    assert read(state_dir="/srv/state").state_dir == Path("/srv/state")


def test_all_of_it(tmp_path: Path) -> None:
    settings = read(
        etcd="https://198.51.100.1, https://[2001:db8::1]:12379/",
        roles="api,agent",
        listen="[::1]:0",
        log_format="json",
        log_level="debug",
        **certificates(tmp_path),
    )
    assert settings.etcd == ("https://198.51.100.1:2379", "https://[2001:db8::1]:12379")
    assert settings.roles == ("agent", "api") and (settings.host, settings.port) == ("::1", 0)
    assert settings.credentials is not None and settings.credentials.key == str(tmp_path / "site-a.key")
    assert (settings.log_format, settings.log_level) == ("json", logging.DEBUG)


def test_every_problem_is_reported_at_once() -> None:
    with pytest.raises(SettingsError) as error:
        read(site="", cluster="Acme!", roles="judge", etcd="http://198.51.100.1:2379", listen="0.0.0.0:8600",
             log_format="xml", log_level="loud")  # fmt: skip
    found = error.value.problems
    assert [problem.split(":")[0] for problem in found] == [
        "--cluster", "--etcd", "--listen", "--log-format", "--log-level", "--roles", "--site",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"site": "all"}, "--site: 'all' cannot be a name"),
        ({"site": "x" * 33}, "--site"),
        ({"etcd": ""}, "--etcd: not given"),
        ({"etcd": "127.0.0.1:2379"}, "--etcd: '127.0.0.1:2379' is no URL"),
        ({"etcd": "http://127.0.0.1:99999"}, "is no URL"),
        ({"etcd": "http://127.0.0.1:2379/x"}, "is no URL of etcd"),
        ({"etcd": "http://etcd.example.org:2379"}, "use https"),
        ({"etcd": "http://127.0.0.1:2379,https://198.51.100.1:2379"}, "some are http and some https"),
        ({"etcd": "https://root:geheim@198.51.100.1:2379"}, "see --etcd-cert"),
        ({"etcd": "https://root:geheim,@198.51.100.1:2379"}, "see --etcd-cert"),
        ({"etcd": "https://root:geheim@[::1"}, "see --etcd-cert"),
        ({"etcd": "https://127.0.0.1:2379"}, "--etcd-ca: not given; https needs it"),
        ({"etcd_key": "/x"}, "--etcd-key: etcd is asked over http"),
        ({"listen": "8600"}, "--listen: '8600' is no address and port"),
        ({"listen": "198.51.100.1:8600"}, "has no authentication yet; write 127.0.0.1:8600"),
        ({"listen": "127.0.0.1:8600/x"}, "is no address and port"),
        ({"roles": ","}, "names none"),
        ({"roles": "vantage,judge"}, "there is no role 'judge'; there are vantage, controller, agent, api"),
    ],
)
def test_each_says_what_would_be_right(given: dict[str, str], said: str) -> None:
    found = problems(**given)
    assert said in found and "geheim" not in found


def test_certificates_are_read_before_anything_starts(tmp_path: Path) -> None:
    mine, other = certificates(tmp_path), certificates(tmp_path, "site-b")
    https = {"etcd": "https://198.51.100.1:2379"}
    assert read(**https, **mine).credentials is not None
    assert problems(**https, **{**mine, "etcd_key": other["etcd_key"]}) == (
        f"--etcd-key: {other['etcd_key']} is not the key of {mine['etcd_cert']}"
    )
    missing = {**mine, "etcd_ca": "/nowhere/ca.pem", "etcd_cert": ""}
    assert problems(**https, **missing).splitlines() == [
        "--etcd-ca: cannot read /nowhere/ca.pem: No such file or directory",
        "--etcd-cert: not given; https needs it",
    ]
    junk = tmp_path / "junk"
    junk.write_text("no certificate")
    for part, said in (("ca", "no certificate in PEM"), ("cert", "no certificate in PEM"), ("key", "no private key")):
        found = problems(**https, **{**mine, f"etcd_{part}": str(junk)})
        assert found == f"--etcd-{part}: {junk} is {said}" or found.startswith(f"--etcd-{part}: {junk} is {said}")


def test_the_command_line_says_it_all_and_ends_with_2(tmp_path: Path) -> None:
    env = {**os.environ, "FAILOVERD_CLUSTER": "Acme", "FAILOVERD_STATE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "controlplane.failoverd", "--listen", "0.0.0.0:1"]
    result = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30)
    assert result.returncode == 2 and "Traceback" not in result.stderr and result.stdout == ""
    assert "4 problems" in result.stderr
    for flag in ("--cluster: 'Acme'", "--etcd: not given", "--listen: 0.0.0.0", "--site: not given"):
        assert flag in result.stderr


def test_help_teaches() -> None:
    command = [sys.executable, "-m", "controlplane.failoverd", "--help"]
    env = {**os.environ, "COLUMNS": "120", "NO_COLOR": "1"}
    result = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30)
    assert result.returncode == 0
    for word in ("--site", "FAILOVERD_ETCD", "failoverctl apply acme.yaml", "SIGHUP", "last good answer", "readyz"):
        assert word in result.stdout, word


def test_a_state_directory_is_one_process_own(tmp_path: Path) -> None:
    path = tmp_path / "a" / "state"
    first = StateDir(path)
    assert path.stat().st_mode & 0o777 == 0o700
    with pytest.raises(StateDirError, match=f"another failoverd \\(pid {os.getpid()}\\) uses it"):
        StateDir(path)
    first.close()
    StateDir(path).close()


@pytest.mark.parametrize("call", ["ftruncate", "pwrite"])
def test_a_full_disk_keeps_nobody_from_starting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    first = StateDir(tmp_path)
    with pytest.raises(StateDirError, match="another failoverd uses it"):
        StateDir(tmp_path)
    first.close()
    StateDir(tmp_path).close()


def test_a_state_directory_that_cannot_be_one(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(StateDirError, match="--state-dir"):
        StateDir(file)
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    with pytest.raises(StateDirError, match="others may write there; chmod go-w"):
        StateDir(open_to_all)
