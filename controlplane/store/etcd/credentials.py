"""The files by which etcd knows us, and we it."""

from __future__ import annotations

import ssl

from msgspec import Struct


class Credentials(Struct, frozen=True):
    """Paths of PEM files. With `--client-cert-auth` the certificate's CN is the etcd user: there is no password."""

    ca: str
    cert: str
    key: str

    def context(self) -> ssl.SSLContext:
        """To ask etcd over HTTP. Raises OSError (ssl.SSLError among them)."""
        context = ssl.create_default_context(cafile=self.ca)
        context.load_cert_chain(self.cert, self.key)
        return context


def unfit(files: Credentials) -> dict[str, str]:
    """Why a TLS library would not take these files: "ca", "cert" or "key" -> what is wrong; {} = it would. Their dates
    and names are for the peer to judge."""
    named = {"ca": files.ca, "cert": files.cert, "key": files.key}
    return {name: why for name, file in named.items() if (why := unreadable(file))} or _refused(files)


def unreadable(file: str) -> str:
    """Why it cannot be read, or ""."""
    try:
        with open(file, "rb") as opened:
            opened.read(1)
    except OSError as error:
        return f"cannot read {file}: {error.strerror}"
    return ""


def _refused(files: Credentials) -> dict[str, str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    faults: dict[str, str] = {}
    try:
        context.load_verify_locations(files.ca)
    except (ssl.SSLError, OSError, ValueError):
        faults["ca"] = f"{files.ca} is no certificate in PEM"
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(files.cert)
    except (ssl.SSLError, OSError, ValueError):
        return {**faults, "cert": f"{files.cert} is no certificate in PEM"}
    no_key = f"{files.key} is no private key in PEM without a password"
    try:
        context.load_cert_chain(files.cert, files.key, password=_no_password)
    except ssl.SSLError as error:
        mismatch = error.reason == "KEY_VALUES_MISMATCH"
        faults["key"] = f"{files.key} is not the key of {files.cert}" if mismatch else no_key
    except (OSError, ValueError):
        faults["key"] = no_key
    return faults


def _no_password() -> str:
    # Without this, OpenSSL asks at the terminal, and a service waits for ever.
    raise ValueError("a password")
