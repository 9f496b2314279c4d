"""Tokens: which are taken, what is read from them, and every way of forging one that is known."""

import json
import time
from typing import Any

import pytest

from adapter.access.keys import read_secrets, read_set
from adapter.access.tokens import MAX_REMEMBERED, InvalidToken, NoKeys, TokenRules, Tokens, principal_of
from tests.tokens import (
    AUDIENCE,
    ISSUER,
    KIND_OF,
    SECRET,
    claims,
    compact,
    encoded,
    jwk,
    jwks,
    pem,
    private,
    token,
)

RULES = TokenRules(issuer=ISSUER, audiences=frozenset({AUDIENCE, "other"}))


class Published:
    """Keys that are there, or come when they are asked for."""

    def __init__(self, content: bytes | None, later: bytes | None = None) -> None:
        self.keys = read_set(content) if content else None
        self._later = later
        self.asked: list[str | None] = []

    async def unknown(self, identifier: str | None) -> None:
        self.asked.append(identifier)
        if self._later:
            self.keys = read_set(self._later)


def tokens(rules: TokenRules = RULES, content: bytes | None = None, secret: str | None = SECRET) -> Tokens:
    made = Tokens(rules, Published(content or jwks()))
    if secret is not None:
        made.use_secrets(read_secrets(secret.encode()))
    return made


async def refusal(text: str, judge: Tokens | None = None) -> str:
    with pytest.raises(InvalidToken) as caught:
        await (judge or tokens()).verify(text)
    return str(caught.value)


class TestGoodTokens:
    @pytest.mark.parametrize("algorithm", [*KIND_OF, "HS256", "HS384", "HS512"])
    async def test_every_algorithm_is_understood(self, algorithm: str) -> None:
        principal = await tokens().verify(token(algorithm))
        assert (principal.subject, principal.issuer, principal.scopes) == ("ann", ISSUER, {"predict"})

    async def test_ed448_is_an_eddsa_key_too(self) -> None:
        import jwt

        text = jwt.encode(claims(), private("ed448"), "EdDSA", {"kid": "ed448-0"})
        assert (await tokens().verify(text)).subject == "ann"

    async def test_without_kid_the_only_key_for_the_algorithm_is_meant(self) -> None:
        text = compact({"alg": "ES384"}, claims(), "ES384")
        assert (await tokens().verify(text)).subject == "ann"

    async def test_scopes_are_words_or_a_list(self) -> None:
        assert (await tokens().verify(token(scope="predict admin"))).scopes == {"predict", "admin"}
        rules = TokenRules(scope_claim="roles")
        assert (await tokens(rules).verify(token(roles=["metrics", "docs"]))).scopes == {"metrics", "docs"}
        assert (await tokens(TokenRules(scopes=frozenset({"docs"}))).verify(token(scope=None))).scopes == {"docs"}

    async def test_the_tenant_is_the_claim_that_is_configured(self) -> None:
        rules = TokenRules(tenant_claim="nomad_job_id")
        assert (await tokens(rules).verify(token(nomad_job_id="caller"))).tenant == "caller"
        assert (await tokens(rules).verify(token())).tenant == ""

    async def test_one_of_several_audiences_is_enough(self) -> None:
        await tokens().verify(token(aud=["elsewhere", "other"]))

    async def test_clocks_may_differ_by_the_leeway(self) -> None:
        now = time.time()
        await tokens().verify(token(exp=now - 5, nbf=now + 5, iat=now + 5))

    async def test_a_verified_token_is_remembered_until_it_expires(self) -> None:
        now = [time.time()]
        judge = Tokens(RULES, Published(jwks()), now=lambda: now[0])
        text = token(exp=now[0] + 60)
        assert judge.remembered(text) is None
        principal = await judge.verify(text)
        assert judge.remembered(text) is principal
        now[0] += 71
        assert judge.remembered(text) is None

    async def test_no_token_is_remembered_when_the_keys_change(self) -> None:
        judge = tokens()
        text = token("HS256")
        await judge.verify(text)
        judge.use_secrets(read_secrets(b"x" * 32))
        assert judge.remembered(text) is None
        assert "signature" in await refusal(text, judge)

    async def test_memory_of_tokens_is_bounded(self) -> None:
        judge = tokens()
        first = token("HS256", jti="-1")
        await judge.verify(first)
        for number in range(MAX_REMEMBERED):
            await judge.verify(token("HS256", jti=str(number)))
        assert judge.remembered(first) is None
        assert len(judge._seen) == MAX_REMEMBERED


class TestForgedTokens:
    @pytest.mark.parametrize(
        "algorithm", ["none", "None", "NONE", "nOnE", "", None, 0, ["RS256"], "HS1", "RS256\n", "ES256K"]
    )
    async def test_no_algorithm_is_none_of_ours(self, algorithm: Any) -> None:
        for signature in (b"", b"x"):
            text = compact({"alg": algorithm, "typ": "JWT"}, claims(), signature or b"\0")
            assert await refusal(text) == "its algorithm is not one of RS, PS, ES, EdDSA and HS"

    async def test_a_token_without_a_signature_is_refused(self) -> None:
        head, body, _ = token().split(".")
        assert await refusal(f"{head}.{body}.") == "not three parts of base64url"

    @pytest.mark.parametrize("kind", ["rsa", "p256", "ed25519"])
    async def test_a_public_key_is_no_hmac_secret(self, kind: str) -> None:
        import hashlib
        import hmac

        for key in (pem(kind), json.dumps(jwk(kind)).encode(), jwk(kind).get("n", jwk(kind).get("x")).encode()):
            head, body = (
                encoded(json.dumps({"alg": "HS256", "kid": f"{kind}-0"}).encode()),
                encoded(json.dumps(claims()).encode()),
            )
            forged = hmac.new(key, head + b"." + body, hashlib.sha256).digest()
            text = (head + b"." + body + b"." + encoded(forged)).decode()
            assert "signature" in await refusal(text)
            assert "signature" in await refusal(text, tokens(secret=None))

    @pytest.mark.parametrize(
        ("says", "signs"), [("RS256", "PS256"), ("PS256", "RS256"), ("RS512", "RS256"), ("ES256", "ES384")]
    )
    async def test_the_signature_is_of_the_algorithm_that_is_named(self, says: str, signs: str) -> None:
        header = {"alg": says, "kid": f"{KIND_OF[signs]}-0"}
        assert "signature" in await refusal(compact(header, claims(), signs))

    async def test_a_key_is_used_for_its_own_algorithm_only(self) -> None:
        judge = tokens(content=jwks(jwk("rsa", alg="PS256")))
        await judge.verify(token("PS256"))
        assert "signature" in await refusal(token("RS256"), judge)

    async def test_a_strangers_key_with_a_known_name_is_refused(self) -> None:
        for algorithm, kind in (("RS256", "rsa"), ("ES256", "p256"), ("EdDSA", "ed25519")):
            text = token(algorithm, {"kid": f"{kind}-0"}, number=1)
            assert "signature" in await refusal(text)

    async def test_a_changed_payload_is_refused(self) -> None:
        head, _, signature = token().split(".")
        body = encoded(json.dumps(claims(scope="admin")).encode()).decode()
        assert "signature" in await refusal(f"{head}.{body}.{signature}")

    async def test_an_ecdsa_signature_of_zeros_is_refused(self) -> None:
        """CVE-2022-21449: r = s = 0 was taken for a signature of anything."""
        assert "signature" in await refusal(compact({"alg": "ES256", "kid": "p256-0"}, claims(), bytes(64)))

    @pytest.mark.parametrize("size", [1, 63, 65, 4000])
    async def test_a_signature_of_another_length_is_refused(self, size: int) -> None:
        for algorithm in ("ES256", "RS256", "EdDSA", "HS256"):
            header = {"alg": algorithm, "kid": f"{KIND_OF.get(algorithm, 'x')}-0"}
            assert "signature" in await refusal(compact(header, claims(), bytes(size)))

    @pytest.mark.parametrize(
        "kid",
        [
            "nope",
            "../../../dev/null",
            "/dev/null",
            "rsa-0' OR '1'='1",
            "rsa-0\0",
            "http://evil.example.com/k",
            "",
            "*",
            "RSA-0",
        ],
    )
    async def test_a_kid_is_a_name_and_nothing_else(self, kid: str) -> None:
        assert "signature" in await refusal(token("RS256", {"kid": kid}))

    async def test_an_empty_secret_that_a_kid_could_point_to_is_never_tried(self) -> None:
        import hashlib
        import hmac

        head = encoded(json.dumps({"alg": "HS256", "kid": "/dev/null"}).encode())
        body = encoded(json.dumps(claims()).encode())
        forged = hmac.new(b"", head + b"." + body, hashlib.sha256).digest()
        assert "signature" in await refusal((head + b"." + body + b"." + encoded(forged)).decode())

    @pytest.mark.parametrize("kid", [1, ["rsa-0"], {"a": 1}, True, "k" * 513])
    async def test_a_kid_that_is_no_short_string_is_refused(self, kid: Any) -> None:
        assert await refusal(compact({"alg": "RS256", "kid": kid}, claims(), "RS256")) == "its kid is no short string"

    async def test_without_kid_nothing_is_guessed_among_several_keys(self) -> None:
        judge = tokens(content=jwks(jwk("rsa"), jwk("rsa", 1)))
        assert "signature" in await refusal(compact({"alg": "RS256"}, claims(), "RS256"), judge)

    @pytest.mark.parametrize("member", ["jwk", "jku", "x5u", "x5c"])
    async def test_a_key_that_the_token_brings_itself_is_not_looked_at(self, member: str) -> None:
        value: Any = {"jwk": jwk("rsa", 1), "x5c": ["MIIB"]}.get(member, "http://127.0.0.1:1/keys")
        text = token("RS256", {member: value, "kid": "rsa-1"}, number=1)
        assert "signature" in await refusal(text)

    @pytest.mark.parametrize(
        "members", [{"crit": ["exp"]}, {"crit": []}, {"b64": False, "crit": ["b64"]}, {"b64": True}]
    )
    async def test_critical_members_are_refused(self, members: dict[str, Any]) -> None:
        header = {"alg": "RS256", "kid": "rsa-0", **members}
        assert "critical" in await refusal(compact(header, claims(), "RS256"))

    @pytest.mark.parametrize("kind", ["dpop+jwt", "logout+jwt", "secevent+jwt", "JWE", 1, None])
    async def test_a_token_of_another_type_is_refused(self, kind: Any) -> None:
        header = {"alg": "RS256", "kid": "rsa-0", "typ": kind}
        assert "type" in await refusal(compact(header, claims(), "RS256"))

    @pytest.mark.parametrize(
        "header",
        [
            b'{"alg":"none","alg":"RS256","kid":"rsa-0"}',
            b'{"alg":"RS256","kid":"rsa-0","kid":"rsa-1"}',
            b'{"alg":"RS256","kid":"rsa-0",}',
            b'{"alg":"RS256","kid":NaN}',
            b'["RS256"]',
            b'"RS256"',
            b"null",
            b"\xff\xfe",
            b"[" * 4000,
        ],
    )
    async def test_a_header_that_can_be_read_in_two_ways_or_none_is_refused(self, header: bytes) -> None:
        assert "header" in await refusal(compact(header, claims(), "RS256"))

    @pytest.mark.parametrize(
        "payload", [b'{"sub":"ann","sub":"bob","exp":9e9}', b"[1]", b"{", b'{"exp":1e999}', b'{"a":' * 900]
    )
    async def test_a_signed_payload_that_is_no_plain_object_is_refused(self, payload: bytes) -> None:
        assert await refusal(compact({"alg": "HS256"}, payload, "HS256"))

    @pytest.mark.parametrize(
        "text", ["", ".", "..", "a.b", "a.b.c.d", "a b.c.d", "é.b.c", "a.b.c\n", "=.=.=", "a+b.c/d.e"]
    )
    async def test_what_is_not_three_parts_of_base64url_is_refused(self, text: str) -> None:
        assert await refusal(text)

    async def test_an_encrypted_token_is_refused(self) -> None:
        assert await refusal(".".join(["YQ"] * 5)) == "not three parts of base64url"

    async def test_a_long_token_is_refused_unread(self) -> None:
        assert await refusal(token("HS256", more="x" * 6000)) == "longer than 6144 bytes"


class TestClaims:
    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"exp": None}, "exp is missing"),
            ({"exp": 1}, "expired"),
            ({"exp": -1}, "expired"),
            ({"exp": time.time() - 11}, "expired"),
            ({"exp": "9999999999"}, "no date"),
            ({"exp": True}, "no date"),
            ({"exp": 1e300}, "no date"),
            ({"exp": [9999999999]}, "no date"),
            ({"nbf": time.time() + 86_400}, "not valid yet"),
            ({"nbf": "tomorrow"}, "no date"),
            ({"iat": time.time() + 86_400}, "in the future"),
            ({"iss": None}, "issuer"),
            ({"iss": ISSUER + "/"}, "issuer"),
            ({"iss": ISSUER.upper()}, "issuer"),
            ({"iss": [ISSUER]}, "no short string"),
            ({"aud": None}, "audience"),
            ({"aud": "elsewhere"}, "audience"),
            ({"aud": []}, "audience"),
            ({"aud": {"digits": 1}}, "audience"),
            ({"aud": [["digits"]]}, "audience"),
            ({"aud": "digits other"}, "audience"),
            ({"sub": 7}, "no short string"),
            ({"sub": "x" * 513}, "no short string"),
            ({"tenant": ["a", "b"]}, "no short string"),
            ({"scope": 7}, "no list of words"),
            ({"scope": [["admin"]]}, "no list of words"),
            ({"scope": {"admin": True}}, "no list of words"),
        ],
    )
    async def test_a_claim_that_breaks_a_rule_is_named(self, changes: dict[str, Any], says: str) -> None:
        assert says in await refusal(compact({"alg": "HS256"}, claims(**changes), "HS256"))

    @pytest.mark.parametrize("scope", ["", " ", "PREDICT", "predict,admin", "predict\tadmin", "predictadmin"])
    async def test_scopes_are_exact_words(self, scope: str) -> None:
        assert not {"predict", "admin"} & (await tokens().verify(token("HS256", scope=scope))).scopes

    async def test_what_is_required_must_be_there(self) -> None:
        rules = TokenRules(required=("exp", "jti"))
        assert "jti is missing" in await refusal(token(), tokens(rules))
        await tokens(rules).verify(token(jti="1"))

    def test_dates_are_judged_to_the_second(self) -> None:
        rules = TokenRules(leeway=0)
        assert principal_of({"exp": 100}, rules, 99.9).expires == 100
        with pytest.raises(InvalidToken, match="expired"):
            principal_of({"exp": 100}, rules, 100)


class TestKeysThatCome:
    async def test_an_unknown_key_is_asked_for_once_and_used(self) -> None:
        published = Published(jwks(jwk("rsa")), later=jwks(jwk("rsa", 1)))
        judge = Tokens(RULES, published)
        await judge.verify(token("RS256", number=1))
        assert published.asked == ["rsa-1"]

    async def test_without_any_key_no_token_is_judged(self) -> None:
        with pytest.raises(NoKeys):
            await Tokens(RULES, Published(None)).verify(token())

    async def test_an_hs_token_needs_no_public_key(self) -> None:
        judge = Tokens(RULES, None)
        judge.use_secrets(read_secrets(SECRET.encode()))
        await judge.verify(token("HS256"))
        assert "signature" in await refusal(token("RS256"), judge)
