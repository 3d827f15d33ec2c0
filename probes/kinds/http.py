"""http: one request on a connection of its own; status, then body.

Always a new connection, to the target's address (never by DNS, never through a proxy); Host and SNI are the
options' host. The body is read up to `max_body` bytes (0: not at all), and `contains` and `matches` look at
nothing beyond them. A regular expression runs on the event loop: one that backtracks without end stops the
vantage's beat, which is then silent, and says nothing wrong. `max_body` bounds the harm.

Redirects are followed only with `redirects: N`, at the same address, to the same host name, and never from https
back to http; one that would go elsewhere, or is one too many, fails as `redirect`. Headers of the options are sent
to the configured origin only (scheme, host and port), because they may be secrets.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import lru_cache
from typing import Annotated, Literal

import aiohttp
import msgspec
from aiohttp.client_proto import ResponseHandler
from msgspec import Meta, Struct
from yarl import URL

from probes.kinds.base import Failed, Kind, Problem, Progress, Secret
from probes.kinds.sockets import Port, ca_problems, connect, context, explain
from probes.target import Sample, Target

_STATUS = re.compile(r"(\d{3})(?:-(\d{3}))?")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
_PATH = re.compile(r"/[!-~]*")  # visible ASCII: neither blanks nor CR LF
_HOST = re.compile(r"[0-9A-Za-z._-]*|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")  # a name, IPv4, IPv6
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# Headers that by their name carry a secret: Authorization, Cookie, X-Api-Key, X-Auth-Token, ...
_CREDENTIALS = re.compile(r"authorization|cookie|token|secret|passw|credential|signature|api-?key|auth-?key")
_DEFAULT_PORTS = {"http": 80, "https": 443}

Text = Annotated[str, Meta(max_length=1024)]


class Tls(Struct, frozen=True):
    verify: bool = True
    ca: str = ""  # file of PEM certificates to trust; "" = the system's
    server_name: Annotated[str, Meta(max_length=253)] = ""  # SNI, and the name to verify; "" = host


class Options(Struct, frozen=True):
    port: Port | None = None  # None = 80, with tls 443
    path: str = "/"
    method: Literal["GET", "HEAD", "OPTIONS", "POST"] = "GET"
    host: Annotated[str, Meta(max_length=253)] = ""  # Host and SNI; "" = dns.name, else the address
    tls: bool | Tls = False
    status: str | int = "200-299"  # ranges: "200,301-302"
    contains: Text = ""
    matches: Text = ""  # a regular expression
    headers: dict[str, str | Secret] = {}
    redirects: Annotated[int, Meta(ge=0, le=10)] = 0
    max_body: Annotated[int, Meta(ge=0, le=1 << 20)] = 1 << 16  # bytes


class _Hop(Struct, frozen=True):
    url: URL
    method: str
    left: int  # redirects that may still be followed


async def probe(target: Target, options: Options, progress: Progress) -> Sample:
    origin = _origin(target, options)
    hop = _Hop(URL(f"{origin}{options.path}", encoded=True), options.method, options.redirects)
    while True:
        try:
            went = await _ask(target, options, hop, origin, progress)
        except aiohttp.ClientError as err:
            raise _translated(err) from err
        if isinstance(went, Sample):
            return went
        hop = went


async def _ask(target: Target, options: Options, hop: _Hop, origin: URL, progress: Progress) -> Sample | _Hop:
    """One request: the sample, or where it was redirected to."""
    # identity: a compressed body would need a bound of its own
    headers = {"User-Agent": "failover-probe", "Accept-Encoding": "identity"}
    if hop.url.origin() == origin:
        headers |= {name: _text(value) for name, value in options.headers.items()}
    connector = _Connector(target.address, _tls(options) or Tls(), progress)
    async with (
        connector.aborting(),
        aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            headers=headers,
            timeout=aiohttp.ClientTimeout(),  # none of its own
        ) as session,
        session.request(hop.method, hop.url, allow_redirects=False) as reply,
    ):
        if hop.left and reply.status in _REDIRECTS:
            return _next(hop, reply.status, reply.headers.get("Location", ""))
        return await _judge(options, reply, progress)


def _next(hop: _Hop, status: int, location: str) -> _Hop:
    """Where a redirect leads. Raises Failed("redirect") if that is no place to go to."""
    try:
        url = hop.url.join(URL(location))
    except ValueError as err:
        raise Failed("redirect") from err
    downgraded = hop.url.scheme == "https" and url.scheme != "https"
    if not location or url.scheme not in _DEFAULT_PORTS or url.raw_host != hop.url.raw_host or downgraded:
        raise Failed("redirect")
    # RFC 9110, 15.4: 303 asks for another resource; 301 and 302 turn POST into GET in practice.
    to_get = status == 303 or (hop.method == "POST" and status in (301, 302))
    return _Hop(url.with_user(None), "GET" if to_get and hop.method != "HEAD" else hop.method, hop.left - 1)


async def _judge(options: Options, reply: aiohttp.ClientResponse, progress: Progress) -> Sample:
    """The last reply: status first, and then what the body says."""
    if not any(low <= reply.status <= high for low, high in ranges(str(options.status))):
        raise Failed("redirect" if options.redirects and reply.status in _REDIRECTS else f"status {reply.status}")
    progress.stage = "body"
    body = b""
    while len(body) < options.max_body:
        piece = await reply.content.read(options.max_body - len(body))
        if not piece:
            break
        body += piece
    if options.contains and options.contains.encode() not in body:
        raise Failed("body mismatch")
    if options.matches and not re.search(options.matches, body.decode(errors="replace")):
        raise Failed("body mismatch")
    return Sample(passed=True, answered=True, reason=f"status {reply.status}", took_s=0.0)


class _Connector(aiohttp.BaseConnector):
    """Connects to the target's address, whatever the URL says, and tells how far it came."""

    def __init__(self, address: str, tls: Tls, progress: Progress) -> None:
        super().__init__(force_close=True)
        self._address = address
        self._tls = tls
        self._progress = progress
        self._transport: asyncio.Transport | None = None

    @asynccontextmanager
    async def aborting(self) -> AsyncIterator[None]:
        """At the end, close without the TLS goodbye: one that is never answered would keep the socket for 30 s."""
        try:
            yield
        finally:
            if self._transport is not None:
                # Debian 12's Python (3.11.2) raises it where the TLS connection has ended already.
                with suppress(AttributeError):
                    self._transport.abort()

    async def _create_connection(
        self, req: aiohttp.ClientRequest, traces: list[aiohttp.tracing.Trace], timeout: aiohttp.ClientTimeout
    ) -> ResponseHandler:
        trust: ssl.SSLContext | None = None
        name: str | None = None
        if req.url.scheme == "https":
            trust = context(self._tls.verify, self._tls.ca)
            name = self._tls.server_name or req.url.raw_host or self._address
        port = req.url.port or _DEFAULT_PORTS[req.url.scheme]
        sock = await connect(self._address, port, self._progress)
        self._progress.stage = "tls" if trust else "headers"
        try:
            self._transport, protocol = await asyncio.get_running_loop().create_connection(
                self._factory, sock=sock, ssl=trust, server_hostname=name
            )
        except BaseException:
            sock.close()  # harmless if the transport has it already
            raise
        self._progress.stage = "headers"
        return protocol


def _translated(err: aiohttp.ClientError) -> Exception:
    """What aiohttp raises, in the kinds' own words; what is not the target's doing as it is."""
    if isinstance(err, aiohttp.ServerDisconnectedError):
        return Failed("closed")
    if isinstance(err, aiohttp.ClientPayloadError):
        return Failed("body cut short")
    if isinstance(err, aiohttp.ClientResponseError):
        return Failed("bad reply")
    # aiohttp's own class hides whether it was a refusal or a certificate; its cause does not.
    cause = err.__cause__ if isinstance(err.__cause__, OSError) else err
    return (explain(cause) if isinstance(cause, OSError) else None) or cause


def _tls(options: Options) -> Tls | None:
    if isinstance(options.tls, Tls):
        return options.tls
    return Tls() if options.tls else None


def _origin(target: Target, options: Options) -> URL:
    """Scheme, host and port of the request, without the port where it is the scheme's own."""
    scheme = "https" if options.tls else "http"
    return URL.build(scheme=scheme, host=options.host or target.address, port=options.port).origin()


def _text(value: str | Secret) -> str:
    return value.resolve() if isinstance(value, Secret) else value


@lru_cache(maxsize=256)
def ranges(status: str) -> tuple[tuple[int, int], ...]:
    """ "200,301-302" as pairs of first and last. Raises ValueError with what would be right."""
    found = []
    for part in status.split(","):
        match = _STATUS.fullmatch(part.strip())
        low, high = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 100 <= low <= high <= 599:
            raise ValueError(f'"{part.strip()}" is not a status or a range from 100 to 599, such as 200-299')
        found.append((low, high))
    return tuple(found)


def complete(options: Options, name: str) -> Options:
    tls = _tls(options)
    return msgspec.structs.replace(
        options,
        port=options.port or (443 if tls else 80),
        host=options.host or name,
        tls=tls or False,
        status=str(options.status),
    )


def check_name(options: Options) -> str:
    return f"http:{options.port}"


def problems(options: Options) -> Sequence[Problem]:
    found: list[Problem] = []
    if not _PATH.fullmatch(options.path):
        found.append(Problem(("path",), 'starts with "/" and has no blanks; write them as %20'))
    if not _HOST.fullmatch(options.host):
        found.append(Problem(("host",), "a host name or address, without port"))
    try:
        ranges(str(options.status))
    except ValueError as err:
        found.append(Problem(("status",), str(err)))
    try:
        re.compile(options.matches)
    except re.error as err:
        found.append(Problem(("matches",), f"not a regular expression: {err}"))
    if options.method == "HEAD" and (options.contains or options.matches):
        key = "contains" if options.contains else "matches"
        found.append(Problem((key,), "a reply to HEAD has no body; use method GET"))
    tls = _tls(options)
    if tls and not tls.verify:
        message = "verify: false accepts any certificate; give ca to trust your own"
        found.append(Problem(("tls", "verify"), message, warning=True))
    elif tls and tls.ca:
        found += ca_problems(tls.ca, ("tls", "ca"))
    for name, value in options.headers.items():
        found += _header_problems(name, value)
    return found


def _header_problems(name: str, value: str | Secret) -> Sequence[Problem]:
    path = ("headers", name)
    if not _TOKEN.fullmatch(name):
        return (Problem(path, "not a header name"),)
    if isinstance(value, Secret):
        if bool(value.env) == bool(value.file):
            return (Problem(path, "exactly one of env and file"),)
    elif _CREDENTIALS.search(name.lower().replace("_", "-")):
        return (Problem(path, "a secret in clear; write {env: NAME} or {file: PATH}"),)
    elif not value.isprintable():
        return (Problem(path, "no line breaks or control characters"),)
    return ()


KIND = Kind(options=Options, probe=probe, complete=complete, check_name=check_name, problems=problems)
