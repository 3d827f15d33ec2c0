"""Scalar readers: numbers, durations, names, addresses. Each message says what would be right."""

from __future__ import annotations

import ipaddress
import json
import math
import re
from datetime import timedelta
from typing import Any

import durationpy

from controlplane.config.countries import COUNTRIES
from controlplane.config.document import Value
from controlplane.config.readers import Scalar, Schema, Wrong, choice

DAY_S = 86400.0
NAME_PATTERN = "[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?"
RESERVED = ("all", "leader", "store_leader")  # words that stand where a site's name may stand
_DURATION = r"([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+"
_ORDER = ("d", "h", "m", "s", "ms")
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_WORDS = {"sec": "s", "secs": "s", "second": "s", "seconds": "s", "min": "m", "mins": "m", "minute": "m"}
_WORDS |= {"minutes": "m", "hour": "h", "hours": "h", "hr": "h", "day": "d", "days": "d", "msec": "ms"}
_THOUSANDS = {"k": 1_000, "m": 1_000_000}
_BIGGEST = 1e15  # beyond it, floats no longer count in ones


def quote(value: Value) -> str:
    return json.dumps(value, ensure_ascii=False)[:60]


def seconds(value_s: float) -> str:
    """A number of seconds as a duration in the file's own syntax: 90.0 -> "1m30s", 0.2 -> "200ms", 60.0 -> "60s"."""
    us = round(value_s * 1e6)
    if us % 1_000_000 and us < 60_000_000:
        return f"{us / 1000:.10g}ms"
    if us == 60_000_000:
        return "60s"
    parts = []
    for unit, size_us in (("d", 86_400_000_000), ("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000)):
        count, us = divmod(us, size_us)
        if count:
            parts.append(f"{count}{unit}")
    if us:
        parts.append(f"{us / 1000:.10g}ms")
    return "".join(parts) or "0s"


def duration(low_s: float = 0.0, high_s: float = 366 * DAY_S, whole: bool = False) -> Scalar:
    """A duration such as 1500ms, 20s, 1h30m or 7d -> seconds. A bare number is an error, except 0."""

    def parse(value: Value) -> float:
        if isinstance(value, int | float) and not isinstance(value, bool) and value != 0:
            raise Wrong(f"expected a duration such as 20s, got {value}; write {_finite(value)}s")
        text = str(value)
        if isinstance(value, bool) or not (text in ("0", "0.0") or re.fullmatch(_DURATION, text)):
            raise Wrong(f"expected a duration such as 20s, got {quote(value)}{_repaired(text)}")
        try:
            found: timedelta = durationpy.from_str("0" if text == "0.0" else text)
        except durationpy.DurationError as error:
            raise Wrong(f"must be at most {seconds(high_s)}, got {text[:60]}") from error
        found_s = found.total_seconds()
        if not low_s <= found_s <= high_s:
            bound = f"at most {seconds(high_s)}" if not low_s else f"{seconds(low_s)} to {seconds(high_s)}"
            raise Wrong(f"must be {bound}, got {text[:60]}")
        if whole and found_s != int(found_s):
            raise Wrong(f"must be whole seconds, got {text}; write {max(1, round(found_s))}s")
        return found_s

    schema: Schema = {"anyOf": [{"const": 0}, {"type": "string", "pattern": f"^({_DURATION}|0)$"}]}
    return Scalar(parse, "a duration such as 20s", schema, empty=max(low_s, 1.0))


def integer(low: int, high: int) -> Scalar:
    def parse(value: Value) -> int:
        if isinstance(value, float) and value.is_integer() and abs(value) < _BIGGEST:
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise Wrong(f"expected a whole number from {low} to {high}, got {_plain(value)}{_number_hint(value)}")
        if not low <= value <= high:
            raise Wrong(f"expected a whole number from {low} to {high}, got {str(value)[:30]}")
        return value

    schema = {"type": "integer", "minimum": low, "maximum": high}
    return Scalar(parse, f"a whole number from {low} to {high}", schema, empty=low)


def number(
    low: float = 0.0, high: float = math.inf, *, above: bool = False, below: bool = False, percent: bool = False
) -> Scalar:
    """A finite number low..high -> float. above, below: the bound itself is not allowed."""
    bounds = f" {'over' if above else 'of at least'} {low:g}" if high == math.inf else f" from {low:g} to {high:g}"
    if high != math.inf and (above or below):
        bounds = f" {'over' if above else 'of at least'} {low:g} and {'under' if below else 'at most'} {high:g}"
    what = ("a percentage" if percent else "a number") + bounds

    def parse(value: Value) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Wrong(f"expected a number, got {_plain(value)}{_number_hint(value)}")
        outside = not (abs(value) < _BIGGEST and low <= value <= high)
        if outside or (above and value == low) or (below and value == high):
            raise Wrong(f"expected {what}, got {str(value)[:30]}")
        return float(value)

    schema: Schema = {"type": "number", "exclusiveMinimum" if above else "minimum": low}
    if high != math.inf:
        schema["exclusiveMaximum" if below else "maximum"] = high
    return Scalar(parse, what, schema, empty=high if above and high != math.inf else low + 1 if above else low)


def boolean() -> Scalar:
    def parse(value: Value) -> bool:
        if isinstance(value, bool):
            return value
        meant = {"yes": "true", "on": "true", "no": "false", "off": "false"}.get(str(value).lower())
        raise Wrong(f"expected true or false, got {_plain(value)}" + (f"; write {meant}" if meant else ""))

    return Scalar(parse, "true or false", {"type": "boolean"}, empty=False)


def string(expected: str = "a string", pattern: str = "", most: int = 1024, least: int = 0) -> Scalar:
    """A string (a bare number is taken for one only if quoted)."""

    def parse(value: Value) -> str:
        if not isinstance(value, str):
            hint = f'; write "{value}"' if isinstance(value, int) and not isinstance(value, bool) else ""
            raise Wrong(f"expected {expected}, got {_plain(value)}{hint}")
        if len(value) > most:
            raise Wrong(f"expected {expected} of at most {most} characters, got {len(value)}")
        if len(value) < least or (pattern and not re.fullmatch(pattern, value)):
            raise Wrong(f"expected {expected}, got {quote(value)}")
        return value

    schema: Schema = {"type": "string", "maxLength": most}
    if pattern:
        schema["pattern"] = f"^({pattern})$"
    if least:
        schema["minLength"] = least
    return Scalar(parse, expected, schema, empty="")


def name(what: str = "a name", reserved: tuple[str, ...] = ()) -> Scalar:
    """A name of a site, region, service, driver or cluster."""
    expected = f"{what} of 1 to 32 lower-case letters, digits and inner hyphens"

    def parse(value: Value) -> str:
        if not isinstance(value, str) or not re.fullmatch(NAME_PATTERN, value):
            better = re.sub(r"[^a-z0-9]+", "-", str(value).lower()).strip("-")[:32].strip("-")
            better = better if isinstance(value, str) else f'"{better}"'
            raise Wrong(f"expected {expected}, got {_plain(value)}" + (f"; write {better}" if better else ""))
        if value in reserved:
            raise Wrong(f'"{value}" has a meaning of its own; choose another name')
        return value

    schema: Schema = {"type": "string", "pattern": f"^{NAME_PATTERN}$"}
    if reserved:
        schema["not"] = {"enum": list(reserved)}
    return Scalar(parse, expected, schema, empty="")


def country() -> Scalar:
    """An ISO 3166-1 alpha-2 code, upper case."""

    def parse(value: Value) -> str:
        if isinstance(value, str) and value in COUNTRIES:
            return value
        if isinstance(value, str) and value.upper() in COUNTRIES:
            raise Wrong(f"expected an upper-case country code, got {quote(value)}; write {value.upper()}")
        hint = "; the United Kingdom is GB" if value == "UK" else ""
        raise Wrong(f"expected a country code of ISO 3166 such as FR, got {_plain(value)}{hint}")

    return Scalar(parse, "a country code such as FR", {"type": "string", "pattern": "^[A-Z]{2}$"}, empty="")


def continent() -> Scalar:
    return choice(("AF", "AN", "AS", "EU", "NA", "OC", "SA"))


def address() -> Scalar:
    """An IPv4 or IPv6 address that one host can have -> its canonical text."""

    def parse(value: Value) -> str:
        try:
            found = ipaddress.ip_address(value if isinstance(value, str) else "")
        except ValueError:
            raise Wrong(f"expected an IP address, got {_plain(value)}") from None
        if found.is_unspecified or found.is_multicast or "%" in str(found):
            raise Wrong(f"{found} is no address of a host that clients could reach")
        return str(found)

    return Scalar(parse, "an IP address", {"type": "string"}, empty="")


def network() -> Scalar:
    """A network in CIDR notation, without host bits."""

    def parse(value: Value) -> str:
        try:
            loose = ipaddress.ip_network(value if isinstance(value, str) else "", strict=False)
        except ValueError:
            raise Wrong(f"expected a network such as 198.51.100.0/24, got {_plain(value)}") from None
        if "/" not in str(value):
            raise Wrong(f"expected a network such as 198.51.100.0/24, got {_plain(value)}; write {loose}")
        if ipaddress.ip_address(str(value).partition("/")[0]) != loose.network_address:
            raise Wrong(f"{value} has host bits; write {loose}")
        return str(loose)

    return Scalar(parse, "a network such as 198.51.100.0/24", {"type": "string"}, empty="")


def domain(wildcard: bool = False, most: int = 253) -> Scalar:
    """A fully qualified domain name -> lower case, without the final dot (RFC 1035; `_` as in RFC 8552)."""

    def parse(value: Value) -> str:
        text = value if isinstance(value, str) else ""
        found = text.lower().removesuffix(".")
        labels = found.split(".")
        if wildcard and labels[0] == "*" and len(labels) > 1:
            labels = labels[1:]
        if not found or len(found) > most or not all(_LABEL.fullmatch(label) for label in labels):
            raise Wrong(f"expected a domain name such as www.example.org, got {_plain(value)}")
        return found

    return Scalar(parse, "a domain name such as www.example.org", {"type": "string"}, empty="")


def host() -> Scalar:
    """A host name or IP address."""
    names = domain()

    def parse(value: Value) -> str:
        if isinstance(value, str):
            try:
                return str(ipaddress.ip_address(value))
            except ValueError:
                labels = value.removesuffix(".").split(".")
                if len(value) <= 253 and all(_LABEL.fullmatch(label) for label in labels) and not labels[-1].isdigit():
                    return value.lower().removesuffix(".")
        raise Wrong(f"expected a host name or an IP address, got {_plain(value)}")

    return Scalar(parse, "a host name or an IP address", names.schema(), empty="")


def socket_address(loopback: bool = False) -> Scalar:
    """ "address:port" or "[IPv6]:port"."""
    example = "127.0.1.1:53" if loopback else "192.0.2.53:53"

    def parse(value: Value) -> str:
        text = value if isinstance(value, str) else ""
        match = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):([0-9]{1,5})", text)
        try:
            found = ipaddress.ip_address((match[1] or match[2]) if match else "")
        except ValueError:
            raise Wrong(f"expected address:port such as {example}, got {_plain(value)}") from None
        port = int(match[3]) if match else 0
        if not port <= 65535:
            raise Wrong(f"expected address:port such as {example}, got {_plain(value)}")
        return f"[{found}]:{port}" if found.version == 6 else f"{found}:{port}"

    return Scalar(parse, f"address:port such as {example}", {"type": "string"}, empty="")


def server() -> Scalar:
    """A name server to ask: an IP address, or address:port."""
    alone, with_port = address(), socket_address()

    def parse(value: Value) -> str:
        for reader in (alone, with_port):
            try:
                return str(reader.parse(value))
            except Wrong:
                continue
        raise Wrong(f"expected an IP address, or address:port, got {_plain(value)}")

    return Scalar(parse, "an IP address, or address:port", {"type": "string"}, empty="")


def const(wanted: int) -> Scalar:
    def parse(value: Value) -> int:
        if value == wanted and isinstance(value, int) and not isinstance(value, bool):
            return wanted
        raise Wrong(f"expected {wanted}, got {_plain(value)}")

    return Scalar(parse, str(wanted), {"const": wanted}, empty=wanted)


def _plain(value: Value) -> str:
    return quote(value) if isinstance(value, str | bool) else "nothing" if value is None else str(value)[:30]


def _finite(value: float) -> str:
    return f"{value:g}" if abs(value) < _BIGGEST else "20"


def _number_hint(value: Any) -> str:
    """'; write 1000' for what was surely meant as a number."""
    match = re.fullmatch(r"([0-9][0-9_,]*(?:\.[0-9]+)?)\s*([kKmM%]?)", value) if isinstance(value, str) else None
    if match is None:
        return ""
    meant = float(re.sub("[_,]", "", match[1])) * _THOUSANDS.get(match[2].lower(), 1)
    if match[2] == "%":
        meant /= 100
    return f"; write {int(meant) if meant.is_integer() else round(meant, 6)}" if meant < _BIGGEST else ""


def _repaired(text: str) -> str:
    """'; write 20s' for "20 s", "20sec", "1 minute", "30s1m"."""
    parts = re.findall(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]+)", text)
    if not parts or re.sub(r"[0-9]+(?:\.[0-9]+)?\s*[A-Za-z]+|\s", "", text):
        return ""
    units = [_WORDS.get(unit.lower(), unit.lower()) for _, unit in parts]
    if not all(unit in _ORDER for unit in units):
        return ""
    return "; write " + "".join(count + unit for (count, _), unit in zip(parts, units, strict=True))
