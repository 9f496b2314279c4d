"""After a full run, no secret is in any log line, metric, error, page or environment."""

import base64
import ssl
from pathlib import Path

import pytest

from tests.adapters import Adapter, event, refused
from tests.certificates import Authority, client_context
from tests.tokens import JwksServer, jwks, token

OLD, NEW = "the-first-secret-" * 4, "the-second-secret-" * 4
PASSWORD = "password-of-the-key-server"
PAGES = [
    "/health",
    "/metrics",
    "/docs",
    "/docs/start.js",
    "/openapi.json",
    "/v2",
    "/changes",
    "/changes/current",
    "/nope",
]
QUERY = "secret-of-a-query"
# Whatever a path is, or isn't, here: what stands behind a question mark may be somebody's token.
ASKED_WITH_A_QUERY = [
    "/nope",
    "/v1",
    "/v1/foo",
    "/v1/models",
    "/v1/models/m",
    "/v1/models/m/",
    "/v1/models/m/metadata",
    "/v1/models/m/labels/",
    "/v1/models/m/versions/x",
    "/v1/models/m:predict",
    "/v1/models/m:nope",
    "/v2",
    "/v2/models/m",
    "/v2/models/m/infer",
    "/v2/models/m/nope",
    "/changes",
    "/health",
    "/metrics",
    "/predict",
    "/shutdown/",
]


@pytest.mark.parametrize("level", ["DEBUG"])
def test_no_secret_leaves_the_process(tmp_path: Path, level: str) -> None:
    authority = Authority("tests")
    certificate, secret = tmp_path / "tls", tmp_path / "secret"
    certificate.write_bytes(authority.certificate("first"))
    secret.write_text(OLD)
    key_lines = certificate.read_text().partition("PRIVATE KEY-----\n")[2].splitlines()[:2]
    sent: list[str] = []
    seen: list[str] = []

    with JwksServer(jwks()) as server:
        url = server.url.replace("http://", f"http://reader:{PASSWORD}@")
        with Adapter(
            tfs_grpc="127.0.0.1:1",
            jwt_secret_file=secret,
            jwt_jwks=url,
            jwt_jwks_refresh=5,
            tls_certificate=certificate,
            log_level=level,
        ) as adapter:
            context = client_context(authority)

            def ask(method: str, path: str, text: str, body: str | None = None) -> None:
                sent.append(text)
                seen.append(asked(adapter, context, method, path, text, body))

            scope = "predict admin metrics docs"
            for text in (
                token(scope=scope),
                token("HS256", scope=scope),
                token(exp=1),
                token(scope=""),
                "x" * 5000,
                "a.b.c",
            ):
                for path in PAGES:
                    ask("GET", path, text)
                ask("POST", "/v1/models/m:predict", text, '{"instances": [1]}')
                ask("POST", "/v1/models/m:predict", text, "{")
                ask("POST", "/v2/models/m/infer", text, "{")
            for path in ASKED_WITH_A_QUERY:
                for method in ("GET", "POST", "DELETE", "OPTIONS"):
                    ask(method, f"{path}?access_token={QUERY}", token(scope=scope), "{}")
                    ask(method, f"{path}?{QUERY}", "x", "{}")
            for content in (NEW, "short-" + NEW[:20], f"-----BEGIN {NEW}"):
                before = len(adapter.records)
                secret.write_text(content)
                adapter.wait_for(lambda record: str(secret) in record["body"], after=before)
                ask("GET", "/metrics", token(scope=scope))
            server.stop()
            adapter.wait_for(lambda record: record["body"].startswith("Keys for tokens cannot be had"), timeout=20)
            certificate.write_bytes(certificate.read_bytes()[:-100])
            adapter.wait_for(lambda record: str(certificate) in record["body"])
            ask("POST", "/shutdown", token(scope=scope), '{"reason": "over"}')
            seen.append(Path(f"/proc/{adapter.pid}/environ").read_text().replace(url, ""))
            adapter.wait_for(event("tandem.state"))
            adapter.wait()
            seen += [str(record) for record in adapter.records]
            assert adapter.process.stderr is not None
            seen.append(adapter.process.stderr.read().decode())
    seen += refused(jwt_secret_file=secret, jwt_jwks=tmp_path / "none")

    hidden = [OLD, NEW, OLD[:17], NEW[:18], PASSWORD, QUERY, *key_lines]
    hidden += [base64.b64encode(text.encode()).decode()[:20] for text in (OLD, NEW)]
    hidden += [text.rpartition(".")[2] for text in sent if len(text.rpartition(".")[2]) > 8]
    assert len(seen) > 60
    assert [(text, place) for text in hidden for place in seen if text in place] == []


def asked(adapter: Adapter, context: ssl.SSLContext, method: str, path: str, text: str, body: str | None) -> str:
    """The whole answer, head and body."""
    import http.client

    connection = http.client.HTTPSConnection("127.0.0.1", adapter.port, timeout=10, context=context)
    connection.request(method, path, body, {"Authorization": f"Bearer {text}"})
    answer = connection.getresponse()
    whole = f"{answer.status} {answer.getheaders()}\n{answer.read().decode('utf-8', 'replace')}"
    connection.close()
    return whole
