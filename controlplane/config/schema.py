"""The JSON Schema of the configuration file, made from the same tables that read it."""

from __future__ import annotations

from typing import Any

from controlplane.config.tables import FILE


def schema() -> dict[str, Any]:
    """JSON Schema, draft 2020-12. It knows structure, not meaning: `failoverctl check` says more."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Failover configuration, version 1",
        **FILE.schema(),
    }
