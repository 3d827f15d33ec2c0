"""What systemd is told, whatever stands in the environment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from controlplane.notify import LEAST_S, Notifier


@contextmanager
def notifier(monkeypatch: pytest.MonkeyPatch, patience_us: str | None) -> Iterator[Notifier]:
    monkeypatch.setenv("NOTIFY_SOCKET", "@nobody-listens-here")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    if patience_us is None:
        monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    else:
        monkeypatch.setenv("WATCHDOG_USEC", patience_us)
    found = Notifier()
    try:
        yield found
    finally:
        found.close()


def test_a_third_of_its_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    with notifier(monkeypatch, "3000000") as found:
        assert found.every_s == 1.0
    with notifier(monkeypatch, "1") as found:
        assert found.every_s == LEAST_S, "and no busy loop"
    with notifier(monkeypatch, None) as found:
        assert found.every_s is None


@pytest.mark.parametrize("text", ["9" * 40, "9" * 5000, "0", "-5", "abc", "\u00b2"])
def test_a_patience_that_is_none_is_ignored(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    with notifier(monkeypatch, text) as found:
        assert found.every_s is None
        found.ready()
    assert [r.message[:13] for r in caplog.records if r.name == "controlplane.notify"][:1] == ["WATCHDOG_USEC"]
