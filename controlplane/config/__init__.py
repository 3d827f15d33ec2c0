"""YAML -> topology types; every problem at once, with file:line:column.

tables.py is the file key by key; readers.py reads it; build.py fills in defaults; *rules.py judge the whole.
"""

from __future__ import annotations

from controlplane.config.problems import Problem
from controlplane.config.reading import Result, read_config
from controlplane.config.render import render
from controlplane.config.report import bound_document, check_document, human_lines
from controlplane.config.schema import schema

__all__ = [
    "Problem",
    "Result",
    "bound_document",
    "check_document",
    "human_lines",
    "read_config",
    "render",
    "schema",
]
