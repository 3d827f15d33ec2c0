"""The demo web servers of one site: each says which site it is, and can be told to fail. Runs as a process:

    python -m chaos.worlds.lab.web --site site-a --control PATH --service shop=198.51.100.10:8080 ...

`--control` is a unix socket; it takes lines "SERVICE MODE AMOUNT" and answers each with "ok"; `told()` is its client.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import socket
import ssl
import struct
from collections.abc import Sequence
from contextlib import suppress
from enum import StrEnum
from pathlib import Path

CONTROL_S = 5.0  # patience with the control socket


class Mode(StrEnum):
    OK = "ok"
    REFUSE = "refuse"  # nobody listens
    HANG = "hang"  # accepts, and never answers
    ERROR = "error"  # 500
    WRONG = "wrong-certificate"  # one that is for another name
    SLOW = "slow"  # answers `amount` seconds later
    FLAKY = "flaky"  # 500 to so many of the requests: `amount`, 0 to 1
    RESET = "reset"  # a TCP reset in the place of an answer


class Service:
    """One listening address. `contexts`: None for plain HTTP, else those of the right and the wrong certificate."""

    def __init__(
        self, site: str, address: str, port: int, contexts: tuple[ssl.SSLContext, ssl.SSLContext] | None
    ) -> None:
        self.site, self.address, self.port, self._contexts = site, address, port, contexts
        self.mode, self.amount = Mode.OK, 0.0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def turn(self, mode: Mode, amount: float = 0.0) -> None:
        """Existing connections end, as they would with a server that is replaced by a sick one; but not on the way
        to OK or ERROR and back, which is the same server in another mood."""
        listening = (mode is not Mode.REFUSE, mode is Mode.WRONG)
        before = (self._server is not None, self.mode is Mode.WRONG)
        self.mode, self.amount = mode, amount
        if listening == before:
            return
        if self._server is not None:
            self._server.close()
            self._server = None
            for writer in list(self._open):
                writer.transport.abort()
        if mode is not Mode.REFUSE:
            context = self._contexts[mode is Mode.WRONG] if self._contexts else None
            self._server = await asyncio.start_server(
                self._serve, self.address, self.port, ssl=context, reuse_address=True, backlog=256
            )

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                if self.mode is Mode.HANG:
                    await reader.read()  # until the other side gives up
                    return
                if self.mode is Mode.RESET:
                    _reset(writer)
                    return
                if self.mode is Mode.SLOW:
                    await asyncio.sleep(self.amount)
                sick = self.mode is Mode.ERROR or (self.mode is Mode.FLAKY and random.random() < self.amount)
                status = "500 Internal Server Error" if sick else "200 OK"
                body = f"{self.site} is sick\n" if sick else f"{self.site} ok\n"
                writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the other side went away, or is no HTTP client
        finally:
            self._open.discard(writer)
            writer.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Lingering for no time, a socket that is closed sends RST in the place of FIN (socket(7), SO_LINGER)."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def told(control: Path, service: str, mode: Mode, amount: float = 0.0) -> None:
    """Tell a running process; returns when it is so. A unix socket works across network namespaces."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(CONTROL_S)
        client.connect(str(control))
        client.sendall(f"{service} {mode} {amount:g}\n".encode())
        reply = client.recv(256)
    if reply != b"ok\n":
        raise OSError(f"{service} {mode}: {reply.decode(errors='replace')}")


async def _serve_all(control: Path, services: dict[str, Service]) -> None:
    async def obey(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := (await reader.readline()).decode():
            try:
                service, mode, amount = line.split()
                await services[service].turn(Mode(mode), float(amount))
                writer.write(b"ok\n")
            except (KeyError, ValueError, OSError) as error:
                writer.write(f"{type(error).__name__}: {error}\n".encode())
            with suppress(OSError):
                await writer.drain()
        writer.close()

    for service in services.values():
        service.mode = Mode.REFUSE
        await service.turn(Mode.OK)
    async with await asyncio.start_unix_server(obey, str(control)) as server:
        await server.serve_forever()


def _context(certificate: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    return context


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--site", required=True)
    parser.add_argument("--control", type=Path, required=True)
    parser.add_argument("--service", action="append", required=True, help="NAME=ADDRESS:PORT or NAME=tls:ADDRESS:PORT")
    parser.add_argument("--right", type=Path, help="certificate of the TLS services; its .key lies beside it")
    parser.add_argument("--wrong", type=Path, help="one for another name")
    given = parser.parse_args(argv)
    contexts = (_context(given.right), _context(given.wrong)) if given.right else None
    services = {}
    for entry in given.service:
        name, _, where = entry.partition("=")
        tls = where.startswith("tls:")
        address, _, port = where.removeprefix("tls:").rpartition(":")
        services[name] = Service(given.site, address, int(port), contexts if tls else None)
    asyncio.run(_serve_all(given.control, services))


if __name__ == "__main__":
    main()
