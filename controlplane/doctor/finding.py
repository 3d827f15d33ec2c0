"""What doctor found out about one thing."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from msgspec import Struct

Wall = Callable[[], float]  # seconds since 1970

CALL_S = 3.0  # patience with one part
CLOCK_S = 5.0  # two clocks that differ by more are told of, as by the alarm clock_suspect
WARN_LEFT_S = 14 * 86400.0  # of a certificate


class Severity(StrEnum):
    OK = "ok"
    WARNING = "warning"
    ERROR = "error"
    UNKNOWN = "unknown"  # could not be found out


class Finding(Struct, frozen=True):
    """answered: did the part that was asked answer? None = nobody had to be asked. remedy None: nothing to do."""

    what: str
    subject: str
    severity: Severity
    detail: str
    remedy: str | None = None
    answered: bool | None = None


class Findings:
    """Collects them; `what` and `subject` first, as they are read."""

    def __init__(self) -> None:
        self.all: list[Finding] = []

    def ok(self, what: str, subject: str, detail: str, answered: bool | None = True) -> None:
        self.all.append(Finding(what, subject, Severity.OK, detail, None, answered))

    def warn(self, what: str, subject: str, detail: str, remedy: str, answered: bool | None = True) -> None:
        self.all.append(Finding(what, subject, Severity.WARNING, detail, remedy, answered))

    def error(self, what: str, subject: str, detail: str, remedy: str, answered: bool | None = True) -> None:
        self.all.append(Finding(what, subject, Severity.ERROR, detail, remedy, answered))

    def unknown(self, what: str, subject: str, detail: str, remedy: str, answered: bool | None = None) -> None:
        self.all.append(Finding(what, subject, Severity.UNKNOWN, detail, remedy, answered))

    def clock(self, subject: str, ahead_s: float, precision_s: float) -> None:
        """ahead_s: of the other's clock, against ours."""
        about = f"within {max(precision_s, 1.0):.0f} s of ours"
        if abs(ahead_s) <= CLOCK_S + precision_s:
            self.ok("clock", subject, about if abs(ahead_s) <= precision_s else f"{ahead_s:+.0f} s against ours")
            return
        remedy = "run NTP (chrony, systemd-timesyncd) on both machines; TSIG refuses over 300 s"
        self.warn("clock", subject, f"{ahead_s:+.0f} s against ours", remedy)

    def certificate(self, subject: str, left_s: float, renew: str) -> None:
        days = f"good for {left_s / 86400:.0f} more days"
        if left_s <= 0:
            self.error("certificate", subject, f"expired {-left_s / 86400:.0f} days ago", renew)
        elif left_s < WARN_LEFT_S:
            self.warn("certificate", subject, days, renew)
        else:
            self.ok("certificate", subject, days)
