"""How failoverctl in a second terminal finds the cluster that `failoverctl dev` runs.

A running cluster keeps `failoverctl-<uid>/<cluster>.json` under $XDG_RUNTIME_DIR (else the temporary
directory) and holds a lock on it. The kernel drops the lock however the process ends, so a file without a lock
is a dead cluster's, whoever has its pid by now. The directory has to be the user's own, mode 0700, and no
symbolic link: elsewhere under /tmp somebody else could tell us whom to obey.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
from msgspec import Struct

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_MAX_BYTES = 65536


class DiscoveryError(Exception):
    """The directory cannot be trusted, or a cluster of that name already runs."""


class Running(Struct, frozen=True):
    """A cluster that runs on this machine. `started` is ISO 8601 UTC, for people."""

    cluster: str
    pid: int
    api: tuple[str, ...]
    started: str
    dev: str = ""  # where a dev cluster can be broken and healed


class Announcement:
    """Holds the file and its lock for as long as the cluster runs."""

    def __init__(self, running: Running, fd: int) -> None:
        self.running = running
        self._fd = fd

    def remove(self) -> None:
        """Take the file away; a second call does nothing."""
        if self._fd < 0:
            return
        with suppress(DiscoveryError), _directory() as directory, suppress(FileNotFoundError):
            name = _file(self.running.cluster)
            there = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if os.path.samestat(there, os.fstat(self._fd)):
                os.unlink(name, dir_fd=directory)
        os.close(self._fd)
        self._fd = -1
        with suppress(OSError):
            directory_path().rmdir()  # unless another cluster is in it


def announce(running: Running) -> Announcement:
    """Let others find this cluster, until `remove` or the end of this process.

    Raises DiscoveryError if one of that name already runs, or if the directory cannot be trusted.
    """
    name = _file(running.cluster)
    for last in (False, False, True):
        try:
            return Announcement(running, _write(name, running))
        except FileNotFoundError as error:
            if last:  # else another cluster ended, and took the empty directory with it
                raise DiscoveryError(f"{directory_path()} cannot be used: {error.strerror}") from None
        except OSError as error:
            raise DiscoveryError(f"{directory_path()} cannot be used: {error.strerror}") from None
    raise AssertionError("the last turn returns or raises")


def _write(name: str, running: Running) -> int:
    with _directory(create=True) as directory:
        draft = f".{name}.{os.getpid()}"
        with suppress(FileNotFoundError):
            os.unlink(draft, dir_fd=directory)
        fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory)
        try:
            os.write(fd, msgspec.json.encode(running))
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _take_name(directory, draft, name, running.cluster)
        except BaseException:
            os.close(fd)
            raise
        finally:
            os.unlink(draft, dir_fd=directory)
    return fd


def taken(there: Running) -> DiscoveryError:
    """The name is that of a cluster that runs."""
    return DiscoveryError(
        f"cluster {there.cluster} already runs here (pid {there.pid}); stop it, or give this one another name"
    )


def find() -> tuple[Running, ...]:
    """The clusters that run on this machine as this user, by name. Raises DiscoveryError for a directory that
    is not the user's own."""
    found = []
    try:
        with _directory() as directory:
            for name in sorted(os.listdir(directory)):
                if name.endswith(".json") and _NAME.fullmatch(name.removesuffix(".json")):
                    running = _read(directory, name)
                    if running is not None:
                        found.append(running)
    except FileNotFoundError:
        return ()
    return tuple(found)


def directory_path() -> Path:
    """Where the files are. Does not create it."""
    base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    return Path(base) / f"failoverctl-{os.getuid()}"


def _file(cluster: str) -> str:
    if not _NAME.fullmatch(cluster):
        raise DiscoveryError(f"{cluster!r} cannot be the name of a cluster")
    return f"{cluster}.json"


@contextmanager
def _directory(*, create: bool = False) -> Iterator[int]:
    """The directory, checked and locked: takers of a name come one after the other."""
    path = directory_path()
    if create:
        with suppress(FileExistsError):
            try:
                path.mkdir(mode=0o700)
            except FileNotFoundError:
                raise DiscoveryError(f"{path.parent} does not exist; set XDG_RUNTIME_DIR or TMPDIR") from None
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DiscoveryError(f"{path} cannot be used: {error.strerror}; remove it") from None
    try:
        info = os.fstat(fd)
        if info.st_uid != os.getuid() or stat.S_IMODE(info.st_mode) & 0o077:
            raise DiscoveryError(f"{path} is not yours alone (it should be yours, mode 0700); remove it")
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield fd
    finally:
        os.close(fd)


def _take_name(directory: int, draft: str, name: str, cluster: str) -> None:
    """Give the locked draft its name, unless a live cluster has it."""
    with suppress(FileNotFoundError):
        there = _read(directory, name)
        if there is not None:
            raise taken(there)
        os.unlink(name, dir_fd=directory)
    # A link fails where something is there already; a rename would replace it.
    os.link(draft, name, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)


def _open(directory: int, name: str) -> int:
    # NONBLOCK: a pipe of that name must not hang us.
    return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)


def _read(directory: int, name: str) -> Running | None:
    """The live cluster of that file; None if it is dead, or no such file of ours."""
    try:
        fd = _open(directory, name)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode) or _unlocked(fd):
            return None
        return msgspec.json.decode(os.read(fd, _MAX_BYTES), type=Running)
    except (OSError, msgspec.MsgspecError):
        return None
    finally:
        os.close(fd)


def _unlocked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(fd, fcntl.LOCK_UN)
    return True
