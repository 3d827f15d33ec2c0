"""A real toxiproxy server: TCP proxies with faults, driven over HTTP. Not in Debian; `.ci/servers.sh` builds it."""

from __future__ import annotations

import json
import os
import shutil
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from chaos.worlds.servers.process import Missing, Process, free_port

NAME = "toxiproxy-server"


class Upstream(Struct, frozen=True):
    """A proxy: both "address:port"."""

    listen: str
    upstream: str


def server_program() -> str:
    """Its path: beside this Python (a virtual environment), or in PATH. Raises Missing."""
    found = shutil.which(NAME, path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
    if found is None:
        raise Missing(f"{NAME} is not installed. Build it with:  make servers  (it needs Go)")
    return found


class ToxiproxyServer:
    """Listens for its API on host:port (a free one by default); `proxies` are there when it is ready."""

    def __init__(self, directory: Path, name: str, proxies: Mapping[str, Upstream], host: str = "127.0.0.1") -> None:
        self.host, self.port = host, free_port(host)
        self._config = directory / f"{name}.json"
        self._proxies = dict(proxies)
        argv = (server_program(), "-host", host, "-port", str(self.port), "-config", str(self._config))
        self.process = Process(name, argv, directory)

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def start(self) -> None:
        """Raises process.Failed."""
        self._config.parent.mkdir(parents=True, exist_ok=True)
        entries = [{"name": name, "listen": p.listen, "upstream": p.upstream} for name, p in self._proxies.items()]
        self._config.write_text(json.dumps(entries))
        self.process.start()
        self.process.ready(lambda: self._names() >= set(self._proxies))

    def _names(self) -> set[str]:
        try:
            with urllib.request.urlopen(self.url + "/proxies", timeout=2) as reply:
                return set(json.load(reply))
        except (OSError, ValueError):
            return set()

    def kill(self) -> None:
        self.process.kill()
