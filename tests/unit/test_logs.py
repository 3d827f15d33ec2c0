"""The log: one line each, whole, without secrets, and never a reason to wait."""

from __future__ import annotations

import json
import logging
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from controlplane.cli.dev_config import template
from controlplane.config import read_config
from controlplane.logs import QUEUED, HumanFormatter, JsonFormatter, Lines, Redactor, secrets_of, set_up
from policies.topology import Config


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    levels = {name: logging.getLogger(name).level for name in ("controlplane", "probes")}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


def written(form: str, *calls: tuple[int, str, dict[str, object]]) -> list[str]:
    with tempfile.TemporaryFile("w+") as file:
        lines, redact = set_up(file.fileno(), form, logging.INFO, "site-a")
        redact.learn(keyed())
        log = logging.getLogger("controlplane.test")
        for level, message, more in calls:
            try:
                if more.pop("bug", None):
                    raise ValueError("a key: geheim-42")
            except ValueError as error:
                more["exc_info"] = error
            log.log(level, message, **more)  # type: ignore[arg-type]
        lines.close()
        file.seek(0)
        return file.read().splitlines()


def keyed() -> Config:
    """A configuration whose TSIG key is in FAILOVER_TEST_KEY."""
    text = template(5300, 8080).replace(
        "  dns:\n",
        "  dns:\n"
        "    - {driver: rfc2136, site: site-a, address: 198.51.100.53, zones: [x.test],\n"
        "       tsig: {name: failover, key: {env: FAILOVER_TEST_KEY}}}\n",
    )
    result = read_config(text, "t.yaml")
    assert result.config is not None, result.problems
    return result.config


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAILOVER_TEST_KEY", "geheim-42")


def test_json_lines_have_the_keys_that_programs_read() -> None:
    first, second, third = map(
        json.loads,
        written(
            "json",
            (logging.INFO, "d-7 www moved", {"extra": {"decision": "d-7"}}),
            (logging.DEBUG, "not heard", {}),
            (logging.WARNING, "two\nlines", {}),
            (logging.ERROR, "a bug", {"bug": True}),
        ),
    )
    assert first == {"at": first["at"], "level": "info", "node": "site-a", "msg": "d-7 www moved", "decision": "d-7"}
    assert first["at"].endswith("Z") and len(first["at"]) == 24
    assert second["msg"] == "two\nlines" and second["level"] == "warning" and "decision" not in second
    assert third["msg"] == "a bug" and "ValueError" in third["error"] and "test_logs.py" in third["error"]


def test_people_read_one_line_each_and_no_control_characters() -> None:
    lines = written(
        "human",
        (logging.INFO, "d-7 www moved", {"extra": {"decision": "d-7"}}),
        (logging.INFO, "applied www", {"extra": {"decision": "d-7"}}),
        (logging.WARNING, "two\nlines \x1b[31m", {}),
        (logging.ERROR, "it broke", {"bug": True}),
    )
    assert [line[13:] for line in lines[:3]] == [
        "d-7 www moved",
        "applied www [d-7]",
        "WARNING two\\nlines \\x1b[31m",
    ]
    assert lines[3][13:].startswith("ERROR it broke: ValueError: a key: *** (test_logs.py:") and len(lines) == 4


def test_a_terminal_gets_words_and_a_pipe_gets_json() -> None:
    ours, terminal = os.openpty()
    lines, _ = set_up(terminal, "auto", logging.INFO, "n")
    logging.getLogger("controlplane.test").info("hello")
    lines.close()
    assert os.read(ours, 100).rstrip().endswith(b" hello")
    os.close(ours)
    os.close(terminal)
    assert json.loads(written("auto", (logging.INFO, "hello", {}))[0])["msg"] == "hello"


def test_no_line_contains_a_secret(tmp_path: Path) -> None:
    said = written("json", (logging.INFO, "the key is geheim-42!", {}), (logging.ERROR, "geheim-42", {"bug": True}))
    assert "geheim" not in "".join(said) and json.loads(said[0])["msg"] == "the key is ***!"
    file = tmp_path / "key"
    file.write_text("another-one\n")
    config = keyed()
    options = msgspec.json.decode(config.dns[0].options)
    options["tsig"]["key"] = {"env": "", "file": str(file)}
    driver = msgspec.structs.replace(config.dns[0], options=msgspec.json.encode(options).decode())
    config = msgspec.structs.replace(config, dns=(driver,))
    assert [secret.file for secret in secrets_of(config)] == [str(file)]
    redact = Redactor()
    redact.learn(config)
    assert redact("another-one, geheim-42") == "***, geheim-42"
    file.unlink()
    redact.learn(config)
    assert redact("another-one") == "another-one", "what cannot be read cannot be hidden, and stops nobody"


def test_a_reader_that_is_stuck_stops_nobody() -> None:
    read, write = os.pipe()
    lines = Lines(write, JsonFormatter("n", Redactor()))
    record = logging.LogRecord("x", logging.INFO, __file__, 1, "x" * 100, None, None)
    for _ in range(QUEUED + 2000):
        lines.emit(record)
    assert lines.lost > 100, "nobody has read, and nobody has waited"
    said = bytearray()

    def reader() -> None:
        while part := os.read(read, 65536):
            said.extend(part)

    thread = threading.Thread(target=reader)
    thread.start()
    lines.close()
    os.close(write)
    thread.join(20)
    os.close(read)
    assert b"lines of this log were lost" in said.splitlines()[-1]


def test_a_reader_that_is_gone_stops_nobody() -> None:
    read, write = os.pipe()
    os.close(read)
    lines = Lines(write, HumanFormatter(Redactor()))
    lines.emit(logging.LogRecord("x", logging.INFO, __file__, 1, "line", None, None))
    lines.close()
    os.close(write)
    assert lines.lost == 1
