"""BIND 9: one zone, or one zone a view with a TSIG key for each."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from chaos.worlds.servers.nameserver import Key, NameServer, zone_text
from chaos.worlds.servers.process import Process

CONFIG = """\
options {{
  directory "{directory}";
  pid-file none;
  session-keyfile none;
  listen-on port {port} {{ {v4}; }};
  listen-on-v6 port {port} {{ {v6}; }};
  recursion no;
  dnssec-validation no;
  notify no;
  minimal-responses yes;
  empty-zones-enable no;
  geoip-directory "{directory}";
}};
controls {{ }};
"""

ZONE = """\
zone "{zone}" {{
  type primary;
  file "{file}";
  allow-update {{ key "{key}"; }};
  allow-transfer {{ key "{key}"; {readers} }};
}};
"""


class View(Struct, frozen=True):
    """clients: what BIND takes in `match-clients`, such as "203.0.113.0/24" or "geoip continent EU"."""

    key: Key
    clients: tuple[str, ...]


class Bind(NameServer):
    """Give `key`, or `views` (name -> view; a client belongs to the first that matches): they may write and transfer
    the zone. reader: a key that may only transfer it (without views). A zone file that is in `directory` already is
    served as it is. mmdb: a MaxMind city file for views that ask for countries."""

    ready_line = b" running\n"

    def __init__(
        self,
        directory: Path,
        address: str,
        port: int,
        zone: str,
        *,
        ns: Mapping[str, Sequence[str]],
        key: Key | None = None,
        views: Mapping[str, View] | None = None,
        reader: Key | None = None,
        mmdb: Path | None = None,
        netns: str = "",
    ) -> None:
        assert (key is None) != (not views), "a key, or views"
        argv = ("named", "-g", "-c", str(directory / "named.conf"))
        super().__init__(directory, address, port, zone, Process("bind", argv, directory, netns=netns))
        self.ns, self.key, self.views, self.reader, self.mmdb = ns, key, dict(views or {}), reader, mmdb

    def file(self, view: str = "") -> Path:
        """The zone file; its journal is beside it with ".jnl"."""
        return self.directory / f"{self.zone}{'.' + view if view else ''}.zone"

    def start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        if self.mmdb is not None:
            shutil.copyfile(self.mmdb, self.directory / "GeoLite2-City.mmdb")  # a name that BIND looks for
        for view in self.views or ("",):
            if not self.file(view).exists():
                self.file(view).write_text(zone_text(self.zone, self.ns))
        (self.directory / "named.conf").write_text(self._config())
        super().start()

    def _config(self) -> str:
        six = ":" in self.address
        v4, v6 = ("none", self.address) if six else (self.address, "none")
        text = CONFIG.format(directory=self.directory, port=self.port, v4=v4, v6=v6)
        keys = [self.key] if self.key else [view.key for view in self.views.values()]
        for key in [*keys, self.reader] if self.reader else keys:
            text += f'key "{key.name}" {{ algorithm {key.algorithm}; secret "{key.secret}"; }};\n'
        if self.key is not None:
            readers = f'key "{self.reader.name}";' if self.reader else ""
            return text + ZONE.format(zone=self.zone, file=self.file(), key=self.key.name, readers=readers)
        for name, view in self.views.items():
            # The other views' keys must not land here, from wherever they are used.
            others = [f'!key "{other.key.name}"' for other in self.views.values() if other is not view]
            clients = "; ".join([f'key "{view.key.name}"', *others, *view.clients])
            zone = ZONE.format(zone=self.zone, file=self.file(name), key=view.key.name, readers="")
            text += f'view "{name}" {{\nmatch-clients {{ {clients}; }};\n{zone}}};\n'
        return text
