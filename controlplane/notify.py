"""What systemd is told: sd_notify(3). Does nothing where there is no NOTIFY_SOCKET."""

from __future__ import annotations

import logging
import os
import re
import socket
import time
from contextlib import suppress

from systemd_watchdog.systemd_watchdog import WatchDog

log = logging.getLogger(__name__)

LEAST_S = 0.01
_MICROSECONDS = re.compile(r"0*[1-9][0-9]{0,14}")


class Notifier(WatchDog):
    """READY, STATUS and WATCHDOG are WatchDog's; its clock is not used (a wall clock that steps would starve it)."""

    def __init__(self) -> None:
        self._own = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._own.setblocking(False)  # a manager that does not read must not stop the event loop
        self._failed = False
        with suppress(OverflowError, ValueError):  # of a patience that is none; the rest is set by then
            super().__init__(sock=self._own)
        text = os.environ.get("WATCHDOG_USEC", "")
        self._asked = bool(_MICROSECONDS.fullmatch(text))
        if text and not self._asked and self.is_enabled:
            log.warning("WATCHDOG_USEC=%.40s is not a number of microseconds: ignored", text)

    @property
    def every_s(self) -> float | None:
        """How often to ping; None if no watchdog waits for it. A third of its patience: sd_watchdog_enabled(3) asks
        for at most half."""
        asked = self.is_enabled and self._asked
        return max(LEAST_S, self.timeout_td.total_seconds() / 3) if asked else None

    def status(self, msg: str) -> None:
        """One line."""
        super().status(" ".join(msg.split()))

    def reloading(self) -> None:
        """To be followed by ready()."""
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000  # asked for by Type=notify-reload
        self._send(f"RELOADING=1\nMONOTONIC_USEC={now_us}\n")

    def stopping(self) -> None:
        self._send("STOPPING=1\n")

    def close(self) -> None:
        self._own.close()

    def _send(self, msg: str) -> None:
        try:
            super()._send(msg)
        except OSError as error:
            if not self._failed:
                log.warning("systemd cannot be told anything: %s", error.strerror or error)
            self._failed = True
        else:
            self._failed = False
