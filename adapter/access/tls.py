"""TLS of the server, from rendered files that may change: each new connection gets the certificate of that moment.

The listening socket keeps one context for ever; it hands every handshake on to the newest (`sni_callback` runs in each
of them, with a name or without). A client certificate, where an authority for them is set, is asked for and checked in the
handshake, but a connection without one is accepted: health checkers have none. The gate refuses its other requests.
"""

import ssl
from pathlib import Path

from adapter.access.files import Unusable


class ServerTls:
    """`context` is the one to listen with; `load` reads the files again.

    `certificate` is a PEM file of the chain, leaf first, and of the key where `key` is None. `client_authority` is a PEM file
    of the authorities of client certificates; None: they are not asked for.
    """

    def __init__(self, certificate: Path, key: Path | None, client_authority: Path | None) -> None:
        self._files = (certificate, key, client_authority)
        self.asks_for_certificates = client_authority is not None
        self._newest: ssl.SSLContext | None = None
        self.context = _bare(client_authority is not None)
        self.context.sni_callback = self._hand_on

    def load(self, _: bytes = b"") -> None:
        """Use what the files hold now for new connections. Raises Unusable; then those before stay in use."""
        certificate, key, authority = self._files
        context = _bare(authority is not None)
        try:
            # The password is asked for if a key is encrypted: without this, on a terminal.
            context.load_cert_chain(certificate, key, password=_no_password)
            if authority is not None:
                context.load_verify_locations(authority)
        except (ssl.SSLError, OSError, ValueError) as error:
            raise Unusable(getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)) from None
        if self._newest is None:
            self.context.load_cert_chain(certificate, key, password=_no_password)
        self._newest = context

    def _hand_on(self, connection: ssl.SSLObject, _: str | None, __: ssl.SSLContext) -> None:
        if self._newest is not None:
            connection.context = self._newest


def _bare(asks_for_certificates: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    if asks_for_certificates:
        context.verify_mode = ssl.CERT_OPTIONAL
        # A resumed session would carry a certificate past the authorities of today.
        context.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET
    return context


def _no_password() -> str:
    raise ValueError("the key is encrypted")
