"""A node's settings (DESIGN 6): flags and environment of failoverd, validated together.

What a whole cluster shares is in the configuration, which is applied; here is what one node has to know to join.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from msgspec import Struct

from controlplane.api.guard import is_loopback
from controlplane.config.scalars import NAME_PATTERN, RESERVED
from controlplane.node import ROLES
from controlplane.store.etcd import Credentials, unfit, unreadable

API = "api"
ALL_ROLES = (*ROLES, API)
LISTEN = "127.0.0.1:8600"
ETCD_PORT = 2379
LOG_FORMATS = ("auto", "human", "json")
LOG_LEVELS = ("debug", "info", "warning", "error")

T = TypeVar("T")


class Given(Struct, frozen=True, kw_only=True):
    """As they were written; "" = not given."""

    site: str = ""
    cluster: str = ""
    roles: str = ""
    etcd: str = ""
    etcd_ca: str = ""
    etcd_cert: str = ""
    etcd_key: str = ""
    listen: str = ""
    state_dir: str = ""
    log_format: str = ""
    log_level: str = ""


class Settings(Struct, frozen=True, kw_only=True):
    """roles: of ALL_ROLES; etcd: URLs; credentials None: plain text, to this machine's own etcd; host, port: of the
    API; log_level: of logging."""

    site: str
    cluster: str
    roles: tuple[str, ...]
    etcd: tuple[str, ...]
    credentials: Credentials | None
    host: str
    port: int
    state_dir: Path
    log_format: str
    log_level: int


class SettingsError(Exception):
    """Everything that is wrong, each with its flag and what would be right."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


class _Wrong(ValueError):
    """One problem, without its flag."""


def read_settings(given: Given, environ: Mapping[str, str], *, root: bool) -> Settings:
    """`environ` and `root` choose the default state directory. Reads the certificate files, nothing else.

    Raises SettingsError with every problem.
    """
    problems: list[str] = []

    def take(flag: str, read: Callable[[], T], otherwise: T) -> T:
        try:
            return read()
        except _Wrong as wrong:
            problems.append(f"{flag}: {wrong}")
            return otherwise

    cluster = take("--cluster", lambda: _name(given.cluster, "the cluster's, as in the configuration"), "")
    no_address: tuple[str, int] = ("", 0)
    host, port = take("--listen", lambda: _listen(given.listen or LISTEN), no_address)
    no_endpoints: tuple[str, ...] = ()
    endpoints = take("--etcd", lambda: _endpoints(given.etcd), no_endpoints)
    credentials, faults = _credentials(given, endpoints)
    problems += faults
    settings = Settings(
        site=take("--site", lambda: _name(given.site, "this site's, as in the configuration", RESERVED), ""),
        cluster=cluster,
        roles=take("--roles", lambda: _roles(given.roles), ALL_ROLES),
        etcd=endpoints,
        credentials=credentials,
        host=host,
        port=port,
        state_dir=_state_dir(given.state_dir, cluster, environ, root),
        log_format=take("--log-format", lambda: _choice(given.log_format or "auto", LOG_FORMATS), ""),
        log_level=logging.getLevelNamesMapping()[
            take("--log-level", lambda: _choice(given.log_level or "info", LOG_LEVELS), "info").upper()
        ],
    )
    if problems:
        raise SettingsError(sorted(problems))
    return settings


def _name(text: str, whose: str, reserved: Sequence[str] = ()) -> str:
    if not text:
        raise _Wrong(f"not given; it is {whose}")
    if not re.fullmatch(NAME_PATTERN, text) or text in reserved:
        raise _Wrong(f"{text[:60]!r} cannot be a name; use up to 32 of a-z, 0-9 and -, such as acme-1")
    return text


def _choice(text: str, choices: Sequence[str]) -> str:
    if text not in choices:
        raise _Wrong(f"{text[:60]!r} is none; choose one of {', '.join(choices)}")
    return text


def _roles(text: str) -> tuple[str, ...]:
    wanted = _parts(text)
    unknown = [role for role in wanted if role not in ALL_ROLES]
    if unknown:
        raise _Wrong(f"there is no role {unknown[0][:60]!r}; there are {', '.join(ALL_ROLES)}")
    if text and not wanted:
        raise _Wrong(f"names none; there are {', '.join(ALL_ROLES)}")
    return tuple(role for role in ALL_ROLES if role in wanted) or ALL_ROLES


def _listen(text: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or port is None or parts.netloc != text or "@" in text:
        raise _Wrong(f"{text[:60]!r} is no address and port; write {LISTEN}")
    if not is_loopback(host):
        raise _Wrong(f"{host} can be reached by others, and the API has no authentication yet; write {LISTEN}")
    return host, port


def _endpoints(text: str) -> tuple[str, ...]:
    if "@" in text:  # not quoted: a password may be in it
        raise _Wrong("a URL has a user in it; etcd's users are the CNs of certificates: see --etcd-cert")
    urls = _parts(text)
    if not urls:
        raise _Wrong("not given; name etcd's members, such as https://198.51.100.1:2379,https://198.51.100.2:2379")
    found = tuple(_endpoint(url) for url in urls)
    if len({url.partition(":")[0] for url in found}) > 1:
        raise _Wrong("some are http and some https; write the same for all")
    # The first one is asked first: with one list for all sites, all nodes would miss a member that dies far away.
    return tuple(sorted(dict.fromkeys(found), key=lambda url: not _is_here(urlsplit(url).hostname or "")))


def _is_here(host: str) -> bool:
    """Is that an address of this machine? A name is not looked up."""
    try:
        family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0))
    except (OSError, ValueError):
        return False
    return True


def _endpoint(url: str) -> str:
    example = "write one such as https://198.51.100.1:2379"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or ETCD_PORT
    except ValueError:
        raise _Wrong(f"{url[:60]!r} is no URL; {example}") from None
    if parts.scheme not in ("http", "https") or not host or parts.path not in ("", "/") or parts.query:
        raise _Wrong(f"{url[:60]!r} is no URL of etcd; {example}")
    if parts.scheme == "http" and not is_loopback(host):
        raise _Wrong(
            f"{host} is not this machine, and whoever is on the way could change what is served; "
            "use https, and give --etcd-ca, --etcd-cert and --etcd-key"
        )
    return f"{parts.scheme}://{f'[{host}]' if _is_v6(host) else host}:{port}"


def _is_v6(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).version == 6
    except ValueError:
        return False


def _credentials(given: Given, endpoints: Sequence[str]) -> tuple[Credentials | None, list[str]]:
    """The certificate files, and what is wrong with them."""
    files = {"--etcd-ca": given.etcd_ca, "--etcd-cert": given.etcd_cert, "--etcd-key": given.etcd_key}
    if endpoints and not endpoints[0].startswith("https"):
        useless = [flag for flag, file in files.items() if file]
        return None, [f"{flag}: etcd is asked over http, where it is not used; write https" for flag in useless]
    if not endpoints and not any(files.values()):
        return None, []
    missing = [f"{flag}: not given; https needs it" for flag, file in files.items() if not file]
    if missing:
        faults = [f"{flag}: {why}" for flag, file in files.items() if file and (why := unreadable(file))]
        return None, missing + faults
    credentials = Credentials(*files.values())
    return credentials, faults_of(credentials)


def faults_of(files: Credentials) -> list[str]:
    """Why a TLS library would not take these files, each with its flag; [] = it would."""
    return [f"--etcd-{name}: {why}" for name, why in unfit(files).items()]


def _state_dir(given: str, cluster: str, environ: Mapping[str, str], root: bool) -> Path:
    if given:
        return Path(given).absolute()
    if root:
        return Path("/var/lib/failover") / cluster
    # XDG Base Directory Specification 0.8: relative paths are to be ignored.
    base = Path(environ.get("XDG_STATE_HOME", ""))
    home = Path(environ.get("HOME", "/"))
    return (base if base.is_absolute() else home / ".local" / "state") / "failover" / cluster


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
