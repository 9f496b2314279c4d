"""JWK sets and files of secrets: which keys are taken for what."""

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from adapter.access.files import Unusable
from adapter.access.keys import read_secrets, read_set, signed_with
from tests.tokens import ALGORITHMS, jwk, jwks, pem


def test_every_kind_of_key_has_its_algorithms() -> None:
    found = {key.identifier: key.algorithms for key in read_set(jwks()).keys}
    assert found["rsa-0"] == {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
    assert [found[f"{curve}-0"] for curve in ("p256", "p384", "p521")] == [{"ES256"}, {"ES384"}, {"ES512"}]
    assert found["ed25519-0"] == found["ed448-0"] == {"EdDSA"}


def weak() -> dict[str, object]:
    key = rsa.generate_private_key(65537, 1024).public_key()
    return {**ALGORITHMS["RS256"].to_jwk(key, as_dict=True), "kid": "weak"}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "member",
    [
        {"kty": "oct", "k": "c2VjcmV0", "kid": "shared"},
        {"kty": "RSA", "kid": "no numbers"},
        {"kty": "RSA", "n": "AQ", "e": "AQAB", "kid": "one"},
        {"kty": "EC", "crv": "secp256k1", "x": "AQ", "y": "AQ"},
        {"kty": "EC", "crv": "P-256", "x": "AQ", "y": "AQ", "kid": "not on the curve"},
        {"kty": "EC", "crv": ["P-256"]},
        {"kty": "OKP", "crv": "X25519", "x": "AQ"},
        {"kty": "new"},
        "no object",
        jwk("rsa", use="enc"),
        jwk("rsa", key_ops=["sign"]),
        jwk("rsa", key_ops="verify"),
        jwk("rsa", alg="RSA-OAEP"),
        jwk("rsa", alg="HS256"),
        jwk("rsa", alg="none"),
        jwk("rsa", kid=7),
    ],
)
def test_keys_that_cannot_verify_are_passed_over(member: object) -> None:
    assert [key.identifier for key in read_set(jwks(member, jwk("p256"))).keys] == ["p256-0"]  # type: ignore[arg-type]


def test_an_rsa_key_below_2048_bits_is_passed_over() -> None:
    assert [key.identifier for key in read_set(jwks(weak(), jwk("p256"))).keys] == ["p256-0"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"<html>", "no JSON"),
        (b"[]", "no JWK set"),
        (b'{"keys": {}}', "no JWK set"),
        (b'{"keys": []}', "no public key"),
        (b'{"keys": [' + b",".join([b"{}"] * 101) + b"]}", "at most 100"),
        (jwks(jwk("rsa"), jwk("rsa", 1, kid="rsa-0")), "same kid"),
        (jwks({"kty": "oct", "k": "c2VjcmV0"}), "no public key"),
    ],
)
def test_a_set_that_cannot_be_used_says_why(content: bytes, says: str) -> None:
    with pytest.raises(Unusable, match=says):
        read_set(content)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n \n",
        b"x" * 31,
        b"x" * 32 + b"\nshort",
        b"\n".join([b"x" * 32] * 9),
        pem("rsa"),
        b"ssh-rsa " + b"A" * 99,
        b'{"kty": "oct", "k": "0123456789abcdef0123456789abcdef"}',
    ],
)
def test_what_is_no_list_of_long_secrets_is_refused_without_being_repeated(content: bytes) -> None:
    with pytest.raises(Unusable) as caught:
        read_secrets(content)
    assert "xxx" not in str(caught.value)


def test_old_and_new_secret_are_both_in_force() -> None:
    old, new = b"o" * 32, b"n" * 32
    secrets = read_secrets(old + b"\n" + new + b"\n")
    hs256 = ALGORITHMS["HS256"]
    assert signed_with(secrets, "HS256", b"text", hs256.sign(b"text", old))
    assert signed_with(secrets, "HS256", b"text", hs256.sign(b"text", new))
    assert not signed_with(secrets, "HS256", b"text", hs256.sign(b"text", b"x" * 32))


def test_a_secret_is_not_used_for_an_algorithm_with_a_longer_hash() -> None:
    secret = b"s" * 40
    assert not signed_with(read_secrets(secret), "HS384", b"text", ALGORITHMS["HS384"].sign(b"text", secret))
