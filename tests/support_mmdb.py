"""A MaxMind file for tests, as real tools write it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mmdb_writer import MMDBWriter
from netaddr import IPSet


def write_mmdb(path: Path, places: Mapping[str, tuple[str, str]]) -> Path:
    """places: network -> (country, continent), such as {"127.0.1.0/24": ("FR", "EU")}."""
    writer = MMDBWriter(ip_version=6, database_type="GeoLite2-City", ipv4_compatible=True)
    for network, (country, continent) in places.items():
        record = {"country": {"iso_code": country}, "continent": {"code": continent}}
        writer.insert_network(IPSet([network]), record)
    writer.to_db_file(str(path))
    return path
