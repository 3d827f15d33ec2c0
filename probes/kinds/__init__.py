"""The probe kinds: one file and one line here for each."""

from __future__ import annotations

from probes.kinds import http, tcp, tls
from probes.kinds.base import Kind

KINDS: dict[str, Kind] = {
    "tcp": tcp.KIND,
    "http": http.KIND,
    "tls": tls.KIND,
}
