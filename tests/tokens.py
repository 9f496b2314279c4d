"""An issuer of tokens for tests: keys of every kind, their JWK set, a server of it that can fail, and tokens good and bad."""

import base64
import gzip
import json
import threading
import time
from collections.abc import Callable, Mapping
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import get_default_algorithms

ISSUER = "https://issuer.example.com"
AUDIENCE = "digits"
SECRET = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
ALGORITHMS = get_default_algorithms()
KINDS: Mapping[str, Callable[[], Any]] = {
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "p521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "ed448": ed448.Ed448PrivateKey.generate,
}
KIND_OF = dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), "rsa") | {
    "ES256": "p256",
    "ES384": "p384",
    "ES512": "p521",
    "EdDSA": "ed25519",
}


def private(kind: str, number: int = 0) -> Any:
    """A private key; with another number, another one."""
    return _private(kind, number)


@cache
def _private(kind: str, _: int) -> Any:
    return KINDS[kind]()


def jwk(kind: str, number: int = 0, **members: Any) -> dict[str, Any]:
    """The public key as a member of a JWK set, called `KIND-NUMBER`."""
    public = private(kind, number).public_key()
    name = "RS256" if kind == "rsa" else "EdDSA" if kind.startswith("ed") else "ES256"
    described: dict[str, Any] = ALGORITHMS[name].to_jwk(public, as_dict=True)  # type: ignore[attr-defined]
    return {**described, "kid": f"{kind}-{number}", "use": "sig", **members}


def jwks(*members: Mapping[str, Any]) -> bytes:
    """A JWK set of these, or of one key of each kind."""
    return json.dumps({"keys": list(members) or [jwk(kind) for kind in KINDS]}).encode()


def pem(kind: str) -> bytes:
    """The public key as a PEM file."""
    encoded: bytes = private(kind).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return encoded


def claims(**changes: Any) -> dict[str, Any]:
    """Claims of a good token, with changes; None leaves one out."""
    now = int(time.time())
    good = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "scope": "predict", "iat": now, "exp": now + 600}
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


def token(algorithm: str = "ES256", headers: Mapping[str, Any] | None = None, number: int = 0, **changes: Any) -> str:
    """A token signed with the issuer's key for `algorithm` (HS: with SECRET)."""
    if algorithm.startswith("HS"):
        return jwt.encode(claims(**changes), SECRET, algorithm, dict(headers or {}))
    kind = KIND_OF[algorithm]
    return jwt.encode(
        claims(**changes), private(kind, number), algorithm, {"kid": f"{kind}-{number}", **(headers or {})}
    )


def compact(header: bytes | Mapping[str, Any], payload: bytes | Mapping[str, Any], sign: bytes | str = b"") -> str:
    """A token of raw parts. `sign`: the signature itself, or the name of the algorithm to sign with the issuer's key by."""
    parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, payload)]
    signed = b".".join(map(encoded, parts))
    if isinstance(sign, str):
        algorithm: Any = ALGORITHMS[sign]
        key = SECRET.encode() if sign.startswith("HS") else private(KIND_OF[sign])
        sign = algorithm.sign(signed, key)
    return (signed + b"." + encoded(sign)).decode()


def encoded(part: bytes) -> bytes:
    """base64url without padding."""
    return base64.urlsafe_b64encode(part).rstrip(b"=")


class JwksServer:
    """A JWK set over HTTP, as a context manager. `content` and `status` may be changed; `hold` makes it wait for `let_go`."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.status = 200
        self.headers: dict[str, str] = {}
        self.asked = 0
        self._more = threading.Condition()
        self._open = threading.Event()
        self._open.set()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                with server._more:
                    server.asked += 1
                    server._more.notify_all()
                server._open.wait(30)
                content = server.content
                self.send_response(server.status)
                if "gzip" in self.headers.get("Accept-Encoding", ""):  # as Nomad's agents do
                    content = gzip.compress(content)
                    self.send_header("Content-Encoding", "gzip")
                for name, value in server.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}/.well-known/jwks.json"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Be gone: connections are refused from now on."""
        if self._thread.is_alive():
            self._open.set()
            self._http.shutdown()
            self._http.server_close()
            self._thread.join()

    def hold(self) -> None:
        """Answer nobody until `let_go`."""
        self._open.clear()

    def let_go(self) -> None:
        """Answer again."""
        self._open.set()

    def wait_until_asked(self, times: int) -> None:
        """Wait until it was asked so often in all."""
        with self._more:
            assert self._more.wait_for(lambda: self.asked >= times, 30), f"asked {self.asked} times"
