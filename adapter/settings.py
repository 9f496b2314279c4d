"""Environment → typed settings. Every mistake is found before anything starts, and all are reported at once."""

import difflib
import os
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

Port = Annotated[int, Meta(ge=0, le=65535)]
Seconds = Annotated[float, Meta(ge=0, le=3600)]
PositiveSeconds = Annotated[float, Meta(gt=0, le=3600)]
MIB = 1 << 20

# Under Nomad these come from the task's environment (NOMAD_* variables, client/taskenv/env.go).
NOMAD_DEFAULTS = {
    "ADAPTER_PORT": "{NOMAD_PORT_http}",
    "ADAPTER_TFS_GRPC": "unix://{NOMAD_ALLOC_DIR}/tmp/tfs.sock",
    "ADAPTER_TFS_LOGS": "{NOMAD_ALLOC_DIR}/logs",
    "ADAPTER_ALLOC_DATA": "{NOMAD_ALLOC_DIR}/data",
    "ADAPTER_ALLOC_ID": "{NOMAD_ALLOC_ID}",
    "ADAPTER_TASK_API": "{NOMAD_SECRETS_DIR}/api.sock",
    "ADAPTER_AUDIT_DIR": "{NOMAD_ALLOC_DIR}/data/audit",
    "ADAPTER_CONSUL_ADDR": "{CONSUL_HTTP_ADDR}",
    "ADAPTER_CONSUL_CA_FILE": "{CONSUL_CACERT}",
    "ADAPTER_CONSUL_TOKEN_FILE": "{CONSUL_HTTP_TOKEN_FILE}",
}


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """One field for each `ADAPTER_*` variable, named alike; each is followed by what it means."""

    host: Annotated[str, Meta(min_length=1)] = "0.0.0.0"  # noqa: S104 - the group's network namespace is the border
    """Address to listen on."""
    port: Port = 8080
    """Port to listen on; 0 takes a free one and the log names it."""
    listen_fd: Annotated[int, Meta(ge=-1)] = -1
    """A listening socket to take over in the place of `host` and `port`, as `tandem run --watch` gives it; -1 = none."""
    tfs_grpc: str = "127.0.0.1:8500"
    """TensorFlow Serving's gRPC address: `unix:///path` or `host:port`."""
    tfs_client: Literal["h2", "grpc"] = "h2"
    """What carries calls to it: our own HTTP/2 client, or gRPC's (`grpc.aio`)."""
    tfs_metrics_url: str = ""
    """TensorFlow Serving's monitoring page; empty = it has none (host networking)."""
    tfs_logs: str = ""
    """Directory of the allocation's task log files; empty = not under an allocation."""
    tfs_hang_limit: PositiveSeconds = 30.0
    """Seconds that TensorFlow Serving may hang before `/health/live` fails, for the platform to restart both tasks."""
    alloc_id: str = ""
    """The allocation; empty = not under an allocation."""
    alloc_data: str = ""
    """Directory that the allocation's tasks share, and that outlives a restart; empty = not under an allocation."""
    task_api: str = ""
    """Socket of Nomad's task API, by which `/shutdown` stops the allocation; empty = it fails it."""
    tfs_max_calls: Annotated[int, Meta(ge=2, le=65536)] = msgspec.field(
        default_factory=lambda: 4 * len(os.sched_getaffinity(0))
    )
    """Calls in flight to TensorFlow Serving at most: its `--grpc_max_threads` or less (default: TFS's, 4 for each CPU)."""
    bundle: str = ""
    """Directory of the unpacked bundle; empty = plain gateway to every model on that TensorFlow Serving."""
    model_version: Annotated[int, Meta(ge=0)] | None = None
    """The version that the job says it runs; must be the bundle's."""
    coalesce: str = ""
    """Models (comma-separated) whose rows are independent of each other, in gateway mode; a bundle declares its own."""
    max_memory: Annotated[int, Meta(ge=0, le=1 << 24)] = 0
    """MiB that a service with a handler may hold before it drains and is started anew; 0 = nine tenths of its cgroup's bound."""
    request_timeout: PositiveSeconds = 30.0
    """Deadline of a request that brings none, in seconds (TFS's `--rest_api_timeout_in_ms` default)."""
    max_body: Annotated[int, Meta(ge=1024, le=2048 * MIB)] = 64 * MIB
    """Largest request body in bytes, after decompression; beyond it 413."""
    max_body_total: Annotated[int, Meta(ge=1024)] = 512 * MIB
    """Bytes of request bodies that have come and are not answered yet, after decompression; beyond it 503."""
    max_connections: Annotated[int, Meta(ge=1)] = 4096
    """Open connections at most; beyond it 503 and close."""
    head_timeout: PositiveSeconds = 30.0
    """Seconds that a request's head may take from its first byte to its last; then the connection is cut off."""
    max_queue: Annotated[int, Meta(ge=1)] = 1024
    """Requests that may wait for a call to TensorFlow Serving; beyond it 503."""
    cors: bool = False
    """Send TensorFlow Serving's CORS headers on `/v1` (its `--rest_api_enable_cors_support`)."""
    shutdown_delay: Seconds = 0.0
    """Seconds between unready and closing the port, for callers that still hold our address."""
    shutdown_grace: Seconds = 20.0
    """Seconds that requests in flight have to finish once the port is closed."""
    allow: str = ""
    """Addresses that get in, as CIDRs (comma-separated) or `@file`; empty = every address."""
    allow_health: str = ""
    """Addresses beside them that get in on `/health` alone, such as the checker's (in bridge mode, the bridge gateway's)."""
    trusted_proxies: str = ""
    """Proxies whose `Forwarded` or `X-Forwarded-For` names the client, as CIDRs or `@file`; empty = none."""
    jwt_jwks: str = ""
    """JWK set that tokens are checked with (RS, PS, ES, EdDSA): `http(s)://…` or a file; empty = none."""
    jwt_jwks_refresh: Annotated[float, Meta(ge=5, le=86400)] = 300.0
    """Seconds after which a JWK set by URL is fetched anew; an unknown key has it fetched at once."""
    jwt_secret_file: str = ""
    """File of the secrets that HS tokens are checked with, one a line; empty = none."""
    jwt_issuer: str = ""
    """The `iss` that tokens must have; empty = not looked at."""
    jwt_audience: str = ""
    """The `aud` that tokens must have one of, comma-separated; empty = not looked at."""
    jwt_leeway: Annotated[float, Meta(ge=0, le=300)] = 10.0
    """Seconds that the issuer's clock may be off."""
    jwt_required: str = "exp"
    """Claims that tokens must have, comma-separated."""
    jwt_scope_claim: Annotated[str, Meta(min_length=1)] = "scope"
    """The claim that holds a token's scopes: words in a string, or a list."""
    jwt_scopes: str = ""
    """Scopes of tokens that have no such claim, such as Nomad's workload identities; comma-separated."""
    jwt_tenant_claim: Annotated[str, Meta(min_length=1)] = "tenant"
    """The claim that names a token's tenant."""
    policy: str = ""
    """Changes to what resources ask for: `/metrics=open, /docs=open` (adapter/access/policy.py has the table)."""
    tenants: str = ""
    """TOML file of the tenants and what each may use; empty = all use the same."""
    tls_certificate: str = ""
    """PEM file of the server's certificate chain, and of its key unless `tls_key` is set; empty = no TLS."""
    tls_key: str = ""
    """PEM file of the certificate's key; empty = it is in `tls_certificate`."""
    tls_client_ca: str = ""
    """PEM file of the authorities whose client certificates are asked for (mTLS), on all but `/health`; empty = none."""
    production: bool = False
    """Refuse to start where tokens are not asked for, or are not asked whom they are for."""
    service: str = ""
    """Name of the service in Consul and in the history; empty = OTEL_SERVICE_NAME, the job's, or the bundle's."""
    node: str = ""
    """The machine, as `/changes` names it; empty = as Nomad names it, or the host's name."""
    deployment: str = ""
    """Name of this deployment where the platform is not Nomad: its instances record one release in the history."""
    consul_addr: str = ""
    """Consul agent that keeps the history: `host:port` or a URL; empty = none."""
    consul_token_file: str = ""
    """File with the token for Consul, read for each call."""
    consul_ca_file: str = ""
    """Certificates that Consul's must be signed by (`https://`)."""
    consul_prefix: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,64}$")] = "tandem"
    """First part of the keys in Consul's key/value store."""
    changes_kept: Annotated[int, Meta(ge=1, le=500)] = 200
    """Releases that the history holds at most; a value has at most 512 KiB in Consul, and a page is read whole."""
    consul_register: bool = False
    """Register with Consul from here: where no platform does it. Under Nomad the service block does."""
    consul_check: Literal["ttl", "http"] = "ttl"
    """How Consul learns that a registered instance is ready: it is told, or it asks `/health/ready`."""
    consul_tags: str = ""
    """Tags of the registered service, comma-separated."""
    advertise: str = ""
    """`host:port` under which others reach a registered instance; empty = the address it has towards Consul."""
    audit: bool = False
    """Keep audit records: predictions, refusals by the gate, admin acts."""
    audit_predictions: Annotated[float, Meta(ge=0, le=1)] = 1.0
    """Share of the predictions that are recorded; refusals and admin acts always are."""
    audit_dir: str = ""
    """Directory of the audit files; empty = the log stream alone has the records."""
    audit_file_size: Annotated[int, Meta(ge=1, le=1024)] = 16
    """MiB after which the next audit file is begun."""
    audit_files: Annotated[int, Meta(ge=2, le=1000)] = 8
    """Audit files kept."""
    capture: Annotated[float, Meta(ge=0, le=1)] = 0.0
    """Share of the recorded predictions whose input is kept, beside the audit files."""
    capture_redact: str = ""
    """Members of inputs that are kept as `[redacted]`, comma-separated, at any depth; `-` = none, said on purpose."""
    capture_max_body: Annotated[int, Meta(ge=1, le=16 * MIB)] = 65536
    """Bytes of an input beyond which it is not kept."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least severity written."""
    access_log: bool = True
    """One record for each request."""
    access_log_sample: Annotated[float, Meta(ge=0, le=1)] = 1.0
    """Share of the successful requests that leave one; those that fail and those that leave a trace always do."""


class SettingsError(Exception):
    """Every mistake in the environment, one line each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def load(environ: Mapping[str, str]) -> Settings:
    """Read `ADAPTER_*` from `environ`.

    Raises:
        SettingsError: naming every variable that is unknown or has a value out of range, with what was expected.
    """
    names = {f"ADAPTER_{field.encode_name.upper()}": field for field in msgspec.structs.fields(Settings)}
    problems = [_unknown(name, names) for name in environ if name.startswith("ADAPTER_") and name not in names]
    values: dict[str, Any] = {}
    for name, field in names.items():
        text = environ.get(name, _nomad_default(name, environ))
        if text is None:
            continue
        try:
            values[field.name] = msgspec.convert(_bool(text) if field.type is bool else text, field.type, strict=False)
        except msgspec.ValidationError as error:
            problems.append(f"{name}={text!r}: {_lower(str(error))}")
    problems += _problems_of_addresses(values)
    if problems:
        raise SettingsError(problems)
    return Settings(**values)


def _nomad_default(name: str, environ: Mapping[str, str]) -> str | None:
    template = NOMAD_DEFAULTS.get(name, "")
    variable = re.search(r"\{(\w+)\}", template)
    if variable is None or variable[1] not in environ:
        return None
    return template.format_map(environ)


def _unknown(name: str, known: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"{name}: no such setting" + (f"; did you mean {close[0]}?" if close else "")


def _bool(text: str) -> object:
    return {"1": True, "true": True, "0": False, "false": False}.get(text.lower(), text)


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _problems_of_addresses(values: Mapping[str, Any]) -> list[str]:
    problems = []
    target = values.get("tfs_grpc", "127.0.0.1:8500")
    if not re.fullmatch(r"unix://(/[^\0]+)|(\[[0-9a-fA-F:]+\]|[^:/\s]+):\d{1,5}", target):
        problems.append(f"ADAPTER_TFS_GRPC={target!r}: expected unix:///path or host:port")
    # sockaddr_un.sun_path holds 107 bytes and a NUL (unix(7)).
    elif target.startswith("unix://") and len(target.removeprefix("unix://").encode()) > 107:
        problems.append(f"ADAPTER_TFS_GRPC={target!r}: a unix socket path has at most 107 bytes")
    url = values.get("tfs_metrics_url", "")
    if url and (urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc):
        problems.append(f"ADAPTER_TFS_METRICS_URL={url!r}: expected http://host:port/path, or nothing")
    if values.get("capture") and not (values.get("audit") and values.get("audit_dir")):
        problems.append("ADAPTER_CAPTURE: needs ADAPTER_AUDIT=1 and ADAPTER_AUDIT_DIR")
    if values.get("capture") and not values.get("capture_redact"):
        problems.append("ADAPTER_CAPTURE: needs ADAPTER_CAPTURE_REDACT, the fields that are not to be kept; - for none")
    consul = values.get("consul_addr", "")
    if consul and not re.fullmatch(r"(https?://)?(\[[0-9a-fA-F:]+\]|[^:/@\s]+)(:\d{1,5})?/?", consul):
        problems.append(f"ADAPTER_CONSUL_ADDR={_without_userinfo(consul)!r}: expected host:port or http(s)://host:port")
    if values.get("consul_register") and not consul:
        problems.append("ADAPTER_CONSUL_REGISTER=1: needs ADAPTER_CONSUL_ADDR")
    advertise = values.get("advertise", "")
    if advertise and not re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[^:/\s]+):\d{1,5}", advertise):
        problems.append(f"ADAPTER_ADVERTISE={advertise!r}: expected host:port")
    return problems


def _without_userinfo(url: str) -> str:
    """For messages: what stands before an @ may be a password."""
    return url.rpartition("@")[2]
