"""Ed25519 signatures over a bundle, in minisign's formats (https://jedisct1.github.io/minisign/): either tool can check
what the other has signed.

    NAME.key                  the secret key, not encrypted (as `minisign -G -W` writes it): keep it where secrets are kept
    NAME.pub                  the public key, one line of base64 below a comment
    BUNDLE.tar.zst.minisig    signature over the file's BLAKE2b-512, and one over that signature and a trusted comment
"""

import base64
import binascii
import hashlib
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from adapter.bundle.manifest import BundleError

SUFFIX = ".minisig"

_KEY, _PREHASHED, _NO_KDF, _BLAKE2 = b"Ed", b"ED", b"\0\0", b"B2"
_COMMENT, _TRUSTED = "untrusted comment: ", "trusted comment: "


@dataclass(frozen=True)
class PublicKey:
    """Checks signatures."""

    id: bytes
    key: Ed25519PublicKey

    @property
    def name(self) -> str:
        """As minisign shows it."""
        return self.id[::-1].hex().upper()


@dataclass(frozen=True)
class SecretKey:
    """Makes signatures."""

    id: bytes
    key: Ed25519PrivateKey

    @property
    def public(self) -> PublicKey:
        """What checks them."""
        return PublicKey(self.id, self.key.public_key())


def generate(secret: Path, public: Path) -> PublicKey:
    """A new pair of keys in two new files. Raises BundleError where one exists already."""
    made = SecretKey(secrets.token_bytes(8), Ed25519PrivateKey.generate())
    seed, point = made.key.private_bytes_raw(), made.key.public_key().public_bytes_raw()
    check = hashlib.blake2b(_KEY + made.id + seed + point, digest_size=32).digest()
    lines = {
        secret: (
            "minisign secret key, not encrypted",
            _KEY + _NO_KDF + _BLAKE2 + bytes(48) + made.id + seed + point + check,
        ),
        public: (f"minisign public key {made.public.name}", _KEY + made.id + point),
    }
    if found := [str(path) for path in lines if path.exists()]:
        raise BundleError(f"{' and '.join(found)} exists already, and keys are never overwritten")
    for path, (comment, content) in lines.items():
        with os.fdopen(
            os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if path is secret else 0o644), "w"
        ) as file:
            file.write(f"{_COMMENT}{comment}\n{_encoded(content)}\n")
    return made.public


def secret_key(path: Path) -> SecretKey:
    """The key in a file. Raises BundleError."""
    content = _decoded(_second_line(path), str(path), 158)
    algorithm, kdf = content[:2], content[2:4]
    if algorithm != _KEY:
        raise BundleError(f"{path}: not a minisign secret key")
    if kdf != _NO_KDF:
        raise BundleError(f"{path}: the key is encrypted; sign with minisign itself, or use a key made with -W")
    return SecretKey(content[54:62], Ed25519PrivateKey.from_private_bytes(content[62:94]))


def public_key(given: str) -> PublicKey:
    """The key in the file of this name, or the key itself in base64. Raises BundleError."""
    path = Path(given)
    text = _second_line(path) if path.is_file() else given.strip()
    content = _decoded(text, given, 42)
    if content[:2] != _KEY:
        raise BundleError(f"{given}: not a minisign public key")
    return PublicKey(content[2:10], Ed25519PublicKey.from_public_bytes(content[10:]))


def sign(digest: bytes, key: SecretKey, comment: str) -> str:
    """The signature file of what has this BLAKE2b-512."""
    signature = key.key.sign(digest)
    whole = key.key.sign(signature + comment.encode())
    return (
        f"{_COMMENT}signature from tandem\n{_encoded(_PREHASHED + key.id + signature)}\n"
        f"{_TRUSTED}{comment}\n{_encoded(whole)}\n"
    )


def check(digest: bytes, path: Path, key: PublicKey) -> str:
    """The trusted comment of the signature file at `path`, which must be over this BLAKE2b-512 and by this key.

    Raises:
        BundleError: it is missing, damaged, by another key, or over something else.
    """
    try:
        lines = path.read_text("utf-8").removesuffix("\n").split("\n") if path.stat().st_size < 1 << 16 else []
    except FileNotFoundError:
        raise BundleError(f"{path} is missing: the bundle is not signed") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{path}: {error}") from None
    if len(lines) != 4 or not lines[2].startswith(_TRUSTED):
        raise BundleError(f"{path}: not a minisign signature")
    content, whole = _decoded(lines[1], str(path), 74), _decoded(lines[3], str(path), 64)
    if content[:2] != _PREHASHED:
        raise BundleError(f"{path}: not a signature over the file's BLAKE2b-512")
    if content[2:10] != key.id:
        raise BundleError(f"{path}: signed by the key {content[2:10][::-1].hex().upper()}, not by {key.name}")
    comment = lines[2].removeprefix(_TRUSTED)
    try:
        key.key.verify(content[10:], digest)
        key.key.verify(whole, content[10:] + comment.encode())
    except InvalidSignature:
        raise BundleError(f"{path}: the signature is not over this file") from None
    return comment


def _second_line(path: Path) -> str:
    """What stands below the comment in a key's file."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{path}: {error}") from None
    if len(lines) < 2 or not lines[0].startswith(_COMMENT):
        raise BundleError(f"{path}: not a minisign key")
    return lines[1]


def _encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _decoded(text: str, where: str, length: int) -> bytes:
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise BundleError(f"{where}: no such file, and not base64 either") from None
    if _encoded(content) != text:  # base64 has several spellings of some values
        raise BundleError(f"{where}: not minisign's format: not plain base64")
    if len(content) != length:
        raise BundleError(f"{where}: not minisign's format: {len(content)} bytes instead of {length}")
    return content
