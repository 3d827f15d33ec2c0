"""The directory on local disk that is one failoverd's own: its journal, and what its pools were told last."""

from __future__ import annotations

import fcntl
import os
import stat
from contextlib import suppress
from pathlib import Path


class StateDirError(Exception):
    """It cannot be used; says why, and what would help."""


class StateDir:
    """Created with mode 0700, and locked until close(): two processes would undo each other's fences. The kernel
    drops the lock however the process ends. Raises StateDirError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise StateDirError(f"--state-dir {path}: others may write there; chmod go-w {path}")
            self._fd = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StateDirError(f"--state-dir {path}: {error.strerror}; give one that is yours") from None
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(self._fd, 32).decode(errors="replace").strip()
            os.close(self._fd)
            whose = f"another failoverd (pid {holder}) uses it" if holder.isdecimal() else "another failoverd uses it"
            raise StateDirError(f"--state-dir {path}: {whose}; give this one a directory of its own") from None
        with suppress(OSError):  # for people only: a full disk must keep nobody from starting
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def close(self) -> None:
        """Let another process have it. The file stays: who opened it before would lock what has no name."""
        os.close(self._fd)
