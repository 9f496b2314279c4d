"""Tokens at the gate of a real adapter: what is asked for, how refusals are told, and keys that come, change and fail."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.adapters import Adapter, Answer, event, refused
from tests.metrics import read_text, value
from tests.tokens import AUDIENCE, ISSUER, SECRET, JwksServer, jwk, jwks, token

NOWHERE = "127.0.0.1:1"
ASKED = {"jwt_issuer": ISSUER, "jwt_audience": AUDIENCE}
CLOSED = {
    "/metrics": "metrics",
    "/docs": "docs",
    "/docs/start.js": "docs",
    "/openapi.json": "docs",
    "/v1/models/m": "predict",
    "/V1/models/m": "predict",
    "/v2": "predict",
    "/v2/models/m": "predict",
}


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(SECRET)
    return path


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Adapter]:
    """An adapter that takes HS tokens and those of a JWK set in a file; no test changes it."""
    directory = tmp_path_factory.mktemp("keys")
    (directory / "secret").write_text(SECRET)
    (directory / "jwks.json").write_bytes(jwks())
    with Adapter(
        tfs_grpc=NOWHERE, jwt_secret_file=directory / "secret", jwt_jwks=directory / "jwks.json", **ASKED
    ) as running:
        yield running


def bearer(text: str | None = None, **claims: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {text or token(**claims)}"}


def metric(adapter: Adapter, name: str, **labels: str) -> float | None:
    return value(read_text(adapter.request("GET", "/metrics", headers=bearer(scope="metrics")).body), name, **labels)


class TestWhatIsAskedFor:
    @pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready", "/health/startup", "/v2/health/live"])
    def test_health_is_open(self, shared: Adapter, path: str) -> None:
        assert shared.request("GET", path).status in (200, 503)

    @pytest.mark.parametrize(("path", "scope"), CLOSED.items())
    def test_everything_else_needs_a_token_of_its_scope(self, shared: Adapter, path: str, scope: str) -> None:
        others = " ".join({"predict", "admin", "metrics", "docs"} - {scope})
        assert shared.request("GET", path).status == 401
        assert shared.request("GET", path, headers=bearer(scope=others)).status == 403
        assert shared.request("GET", path, headers=bearer(scope=scope)).status not in (401, 403)

    def test_what_does_not_exist_is_told_to_who_has_a_token(self, shared: Adapter) -> None:
        for method, path in (("GET", "/nope"), ("DELETE", "/metrics"), ("GET", "//metrics"), ("GET", "/metrics/")):
            assert shared.request(method, path).status == 401
        assert shared.request("GET", "/nope", headers=bearer(scope="")).status == 404

    def test_shutdown_needs_the_admin_scope(self, secret: Path) -> None:
        with Adapter(tfs_grpc=NOWHERE, jwt_secret_file=secret) as adapter:
            assert adapter.request("POST", "/shutdown", "{}").status == 401
            assert adapter.request("POST", "/shutdown", "{}", bearer(token("HS256", scope="predict"))).status == 403
            assert adapter.request("GET", "/health/live").status == 200
            assert adapter.request("POST", "/shutdown", "{}", bearer(token("HS256", scope="admin"))).status == 202
            assert adapter.wait() == 0

    def test_the_policy_can_open_and_close_resources(self, secret: Path) -> None:
        with Adapter(tfs_grpc=NOWHERE, jwt_secret_file=secret, policy="/docs=open,/metrics=closed") as adapter:
            assert adapter.request("GET", "/docs").status == 200
            assert (
                adapter.request("GET", "/metrics", headers=bearer(token("HS256", scope="metrics closed"))).status == 403
            )

    def test_browsers_preflights_need_no_token_where_cors_is_on(self, secret: Path) -> None:
        with Adapter(tfs_grpc=NOWHERE, jwt_secret_file=secret, cors=True) as adapter:
            asked = {"Origin": "https://a.example.com", "Access-Control-Request-Method": "POST"}
            assert adapter.request("OPTIONS", "/v1/models/m:predict", headers=asked).status == 200
        with Adapter(tfs_grpc=NOWHERE, jwt_secret_file=secret) as adapter:
            assert adapter.request("OPTIONS", "/v1/models/m:predict").status == 401


class TestHowRefusalsAreTold:
    def test_without_a_token_the_challenge_names_the_scheme_alone(self, shared: Adapter) -> None:
        answer = shared.request("GET", "/metrics")
        assert (answer.status, answer.headers["www-authenticate"]) == (401, 'Bearer realm="tandem"')
        assert answer.headers["content-type"] == "application/problem+json"

    def test_a_bad_token_is_told_why(self, shared: Adapter) -> None:
        answer = shared.request("GET", "/metrics", headers=bearer(exp=1))
        assert answer.status == 401
        said = 'Bearer realm="tandem", error="invalid_token", error_description="it has expired"'
        assert answer.headers["www-authenticate"] == said

    def test_a_missing_scope_is_named(self, shared: Adapter) -> None:
        answer = shared.request("GET", "/metrics", headers=bearer(scope="predict"))
        assert answer.status == 403
        assert answer.headers["www-authenticate"].endswith(
            'error="insufficient_scope", error_description="The token lacks the scope metrics", scope="metrics"'
        )

    def test_v1_keeps_tensorflow_servings_envelope(self, shared: Adapter) -> None:
        for headers, status in (({}, 401), (bearer(scope=""), 403)):
            answer = shared.request("POST", "/v1/models/m:predict", "{}", headers)
            assert (answer.status, list(answer.json)) == (status, ["error"])
            assert "www-authenticate" in answer.headers

    @pytest.mark.parametrize(
        "given", ["Basic YTpi", "Bearer", "Bearer ", "bearer", "Token x", "Negotiate", "Bearer\tx", "x", "Bearer, x"]
    )
    def test_another_scheme_or_none_is_401(self, shared: Adapter, given: str) -> None:
        answer = shared.request("GET", "/metrics", headers={"Authorization": given})
        assert (answer.status, answer.headers["www-authenticate"]) == (401, 'Bearer realm="tandem"')

    def test_the_scheme_has_no_case(self, shared: Adapter) -> None:
        for scheme in ("bearer", "BEARER", "Bearer "):
            headers = {"Authorization": f"{scheme} {token(scope='metrics')}"}
            assert shared.request("GET", "/metrics", headers=headers).status == 200

    @pytest.mark.parametrize("path", ["/metrics?access_token={}", "/metrics?token={}"])
    def test_a_token_in_the_query_is_not_looked_at(self, shared: Adapter, path: str) -> None:
        assert shared.request("GET", path.format(token(scope="metrics"))).status == 401

    @pytest.mark.parametrize("name", ["Cookie", "Proxy-Authorization", "X-Authorization", "X-Forwarded-Access-Token"])
    def test_a_token_in_another_header_is_not_looked_at(self, shared: Adapter, name: str) -> None:
        for text in (f"Bearer {token(scope='metrics')}", f"Authorization={token(scope='metrics')}"):
            assert shared.request("GET", "/metrics", headers={name: text}).status == 401

    def test_two_authorization_headers_are_400(self, shared: Adapter) -> None:
        good = f"Bearer {token(scope='metrics')}"
        for first, second in ((good, good), (good, "Bearer x"), ("Basic x", good)):
            connection = shared.connection()
            connection.putrequest("GET", "/metrics")
            connection.putheader("Authorization", first)
            connection.putheader("authorization", second)
            connection.endheaders()
            answer = connection.getresponse()
            assert answer.status == 400
            assert 'error="invalid_request"' in str(answer.headers["WWW-Authenticate"])
            connection.close()

    def test_a_token_longer_than_any_header_is_431_and_a_long_one_401(self, shared: Adapter) -> None:
        assert shared.request("GET", "/metrics", headers=bearer("x" * 7000)).status == 401
        assert shared.request("GET", "/metrics", headers=bearer("x" * 20_000)).status == 431

    def test_refusals_are_counted_by_reason(self, shared: Adapter) -> None:
        reasons = {"token": {}, "scope": bearer(scope="")}
        for reason, headers in reasons.items():
            before = metric(shared, "tandem_access_denied_total", reason=reason) or 0
            shared.request("GET", "/docs", headers=headers)
            assert metric(shared, "tandem_access_denied_total", reason=reason) == before + 1

    def test_a_body_is_not_waited_for_before_the_refusal(self, shared: Adapter) -> None:
        started = time.monotonic()
        connection = shared.connection(timeout=10)
        connection.putrequest("POST", "/v1/models/m:predict")
        connection.putheader("Content-Length", "1000000")
        connection.endheaders()
        assert connection.getresponse().status == 401
        assert time.monotonic() - started < 5
        connection.close()


class TestKeysByUrl:
    def adapter(self, url: str, **settings: Any) -> Adapter:
        return Adapter(tfs_grpc=NOWHERE, jwt_jwks=url, **ASKED, **settings)

    def ask(self, adapter: Adapter, **token_of: Any) -> Answer:
        return adapter.request("GET", "/docs", headers=bearer(token(**{"scope": "docs", **token_of})))

    def test_an_unknown_key_is_fetched_and_a_flood_of_them_is_not(self) -> None:
        with JwksServer(jwks(jwk("rsa"))) as server, self.adapter(server.url) as adapter:
            assert self.ask(adapter, algorithm="RS256").status == 200
            server.content = jwks(jwk("rsa", 1))
            soon = time.monotonic() + 20  # two fetches are APART seconds from each other
            while self.ask(adapter, algorithm="RS256", number=1).status == 401:
                assert time.monotonic() < soon
            assert self.ask(adapter, algorithm="RS256").status == 401, "a key that is gone counts no longer"
            asked = server.asked
            for number in range(50):
                assert self.ask(adapter, headers={"kid": f"made-up-{number}"}).status == 401
            assert server.asked <= asked + 1

    def test_known_keys_outlive_the_servers_outage(self) -> None:
        with JwksServer(jwks()) as server, self.adapter(server.url, jwt_jwks_refresh=5) as adapter:
            assert self.ask(adapter).status == 200
            server.stop()
            adapter.wait_for(lambda record: record["body"].startswith("Keys for tokens cannot be had"), timeout=20)
            assert self.ask(adapter, jti="another").status == 200

    @pytest.mark.parametrize(
        ("content", "status", "headers"),
        [(b"<html>", 200, {}), (jwks(), 500, {}), (b" " * (2 << 20), 200, {}), (b"", 302, {"Location": "/elsewhere"})],
        ids=["html", "500", "too-large", "redirect"],
    )
    def test_an_answer_that_is_no_key_set_leaves_it_without_keys_and_unready(
        self, content: bytes, status: int, headers: dict[str, str]
    ) -> None:
        with JwksServer(content) as server:
            server.status, server.headers = status, headers
            with self.adapter(server.url) as adapter:
                adapter.wait_for(lambda record: record["body"].startswith("Keys for tokens cannot be had"))
                answer = self.ask(adapter)
                assert (answer.status, answer.headers["retry-after"]) == (503, "1")
                keys = adapter.request("GET", "/health").json["checks"]["keys"]
                assert (keys["status"], keys["reason"]) == ("fail", "no key to check tokens with could be had yet")
                assert server.asked == 1

    def test_a_server_that_hangs_keeps_no_request_waiting_for_long(self) -> None:
        with JwksServer(jwks()) as server:
            server.hold()
            with self.adapter(server.url) as adapter:
                server.wait_until_asked(1)
                started = time.monotonic()
                assert self.ask(adapter).status == 503
                assert time.monotonic() - started < 4
                assert adapter.request("GET", "/health/live").status == 200
                server.let_go()
                adapter.wait_for(lambda _: self.ask(adapter).status == 200)


class TestRenderedFiles:
    def test_a_new_secret_is_in_force_and_the_old_one_is_not(self, secret: Path) -> None:
        with Adapter(tfs_grpc=NOWHERE, jwt_secret_file=secret) as adapter:
            old = bearer(token("HS256", scope="docs"))
            assert adapter.request("GET", "/docs", headers=old).status == 200
            rendered = secret.with_name("rendered")
            rendered.write_text("n" * 64)
            rendered.replace(secret)
            adapter.wait_for(event("tandem.reload"))
            assert adapter.request("GET", "/docs", headers=old).status == 401

    def test_a_key_set_in_a_file_is_read_again(self, tmp_path: Path) -> None:
        path = tmp_path / "jwks.json"
        path.write_bytes(jwks(jwk("p256")))
        with Adapter(tfs_grpc=NOWHERE, jwt_jwks=path) as adapter:
            new = bearer(token(number=1, scope="docs"))
            assert adapter.request("GET", "/docs", headers=new).status == 401
            path.write_bytes(jwks(jwk("p256"), jwk("p256", 1)))
            adapter.wait_for(event("tandem.reload"))
            assert adapter.request("GET", "/docs", headers=new).status == 200


class TestMistakes:
    def test_production_starts_with_tokens_for_itself_alone(self, secret: Path) -> None:
        assert "tokens are asked for" in refused(production=True)[0]
        assert "ADAPTER_JWT_AUDIENCE is missing" in refused(production=True, jwt_secret_file=secret)[0]
        with Adapter(tfs_grpc=NOWHERE, production=True, jwt_secret_file=secret, jwt_audience="digits") as adapter:
            assert adapter.request("GET", "/docs").status == 401

    def test_without_tokens_everything_is_open_and_said_to_be(self) -> None:
        with Adapter(tfs_grpc=NOWHERE) as adapter:
            adapter.wait_for(lambda record: record["body"].startswith("No token is asked for"))
            assert adapter.request("GET", "/docs").status == 200

    def test_every_mistake_is_named_before_it_listens(self, tmp_path: Path) -> None:
        (tmp_path / "short").write_text("too short")
        lines = refused(
            jwt_jwks=tmp_path / "nowhere.json",
            jwt_secret_file=tmp_path / "short",
            policy="/metric=open",
            jwt_scopes="root",
        )
        assert [line.split(":")[1].strip() for line in lines] == [
            "ADAPTER_JWT_SCOPES",
            "ADAPTER_POLICY",
            "ADAPTER_JWT_JWKS",
            "ADAPTER_JWT_SECRET_FILE",
        ]
        assert "too short" not in "".join(lines)
        assert "no token is asked for" in refused(jwt_issuer=ISSUER, tenants="/x")[0]
        assert "http(s)" in refused(jwt_jwks="ftp://x/y")[0]


class TestTenants:
    def test_each_uses_its_own_and_no_more(self, secret: Path, tmp_path: Path) -> None:
        tenants = tmp_path / "tenants.toml"
        tenants.write_text(
            '[tenants.small]\nrate = 0.01\nburst = 2\n[tenants.one]\nmodels = ["m"]\nmax_body = 1024\nscopes = ["predict"]\n'
        )
        with Adapter(tfs_grpc=NOWHERE, jwt_secret_file=secret, tenants=tenants) as adapter:

            def ask(tenant: str | None, path: str = "/v1/models/m", body: str | None = None, **claims: Any) -> Answer:
                headers = bearer(token("HS256", tenant=tenant, **claims))
                return adapter.request("POST" if body else "GET", path, body, headers)

            assert [ask("small").status for _ in range(3)] == [503, 503, 429]
            answer = ask("small")
            assert int(answer.headers["retry-after"]) >= 90
            assert answer.headers["ratelimit-policy"] == '"rate";q=2;w=200'
            assert answer.headers["ratelimit"].startswith('"rate";r=0;t=')
            assert list(answer.json) == ["error"]
            assert ask("one").status == 503, "one tenant's use is not another's"
            assert ask("one", scope=None).status == 503, "its quota's scopes"
            assert ask("one", scope="").status == 403, "a token that says it has no scope has none"
            assert ask("small", scope=None).status == 403
            assert ask("one", "/v1/models/other").status == 403
            assert ask("one", "/v2/models/other").status == 403
            assert ask("one", "/v1/models/m:predict", json.dumps({"instances": [1] * 1000})).status == 413
            assert [ask(tenant).status for tenant in ("nobody", None, "small ")] == [403] * 3
            page = read_text(adapter.request("GET", "/metrics", headers=bearer(token("HS256", scope="metrics"))).body)
            count = "tandem_tenant_request_duration_seconds_count"
            assert value(page, count, tenant="small", http_response_status_code="429") == 2
            assert value(page, "tandem_tenant_active_requests", tenant="small") == 0
            names = {sample.labels["tenant"] for sample in page["tandem_tenant_request_duration_seconds"].samples}
            assert names == {"small", "one"}
            record = adapter.wait_for(lambda record: record["attributes"].get("http.response.status_code") == 429)
            assert record["attributes"]["tandem.tenant"] == "small"
            assert record["attributes"]["enduser.id"] == "ann"


def test_the_check_of_keys_passes_once_they_are_there() -> None:
    with JwksServer(jwks()) as server:
        server.hold()
        with Adapter(tfs_grpc=NOWHERE, jwt_jwks=server.url) as adapter:
            server.wait_until_asked(1)
            assert adapter.request("GET", "/health").json["checks"]["keys"]["status"] == "fail"
            server.let_go()
            adapter.wait_for(lambda _: adapter.request("GET", "/health").json["checks"]["keys"]["status"] == "pass")
