"""The production job file as Nomad reads it: what holds for every variable, without running anything."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.adapters import LAST_SECONDS
from tests.cluster.jobfile import JOB, REQUIRED, ROOT, VAR_FILES

Parse = Callable[..., dict[str, Any]]
VARIABLE = re.compile(r'^variable "(\w+)" \{\n(.*?)^\}\n', re.MULTILINE | re.DOTALL)
MAX_KILL_TIMEOUT = 30_000_000_000  # Nomad's client default, in ns


def group(job: dict[str, Any]) -> dict[str, Any]:
    (only,) = job["TaskGroups"]
    assert isinstance(only, dict)
    return only


def tasks(job: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """`tfs` and `adapter`."""
    by_name = {task["Name"]: task for task in group(job)["Tasks"]}
    assert set(by_name) == {"tfs", "adapter"}
    return by_name["tfs"], by_name["adapter"]


def test_the_job_files_are_formatted_as_nomad_formats_them(nomad: Path) -> None:
    subprocess.run([nomad, "fmt", "-check", "-recursive", ROOT / "jobs"], check=True)


def test_every_variable_has_a_type_a_description_and_a_validation() -> None:
    variables = VARIABLE.findall(JOB.read_text())
    assert len(variables) == JOB.read_text().count('\nvariable "')
    for name, body in variables:
        for part in ("type ", "description ", "validation {", "error_message "):
            assert part in body, f"{name} has no {part}"


def test_the_fixture_sets_every_variable_and_is_accepted(nomad: Path) -> None:
    fixture = Path(__file__).parent / "every_variable.hcl"
    declared = [name for name, _ in VARIABLE.findall(JOB.read_text())]
    assert re.findall(r"^(\w+) +=", fixture.read_text(), re.MULTILINE) == declared
    subprocess.run([nomad, "job", "run", "-output", f"-var-file={fixture}", JOB], check=True, capture_output=True)


def test_a_variable_that_nothing_needs_to_set_has_a_default() -> None:
    required = [name for name, body in VARIABLE.findall(JOB.read_text()) if "default " not in body]
    assert required == list(REQUIRED)


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("name", "half_plus_two", "The name must be a DNS label"),
        ("name", "x" * 64, "The name must be a DNS label"),
        ("name", "", "The name must be a DNS label"),
        ("bundle_url", "/srv/bundle.tar.zst", "The bundle_url must start with https://"),
        ("bundle_url", "https://a b", "The bundle_url must start with https://"),
        ("bundle_checksum", "md5:d41d8cd98f00b204e9800998ecf8427e", "The bundle_checksum must be sha256:"),
        ("bundle_checksum", "", "The bundle_checksum must be sha256:"),
        ("model_version", "-1", "The model_version must be a whole number"),
        ("model_version", "1.5", "The model_version must be a whole number"),
        ("device", "tpu", "The device must be cpu or gpu"),
        ("network_mode", "none", "The network_mode must be bridge or host"),
        ("datacenters", "[]", "The datacenters must name at least one"),
        ("node_pool", "a b", "The node_pool must be 1 to 128 letters"),
        ("count", "-1", "The count must be a whole number"),
        ("min_count", "0.5", "The min_count must be a whole number"),
        ("max_count", "0", "The max_count must be a whole number"),
        ("canary", "-1", "The canary must be a whole number"),
        ("min_healthy_time", "-1", "The min_healthy_time must be 0 seconds or more"),
        ("healthy_deadline", "9", "The healthy_deadline must be 10 seconds or more"),
        ("shutdown_delay", "61", "The shutdown_delay must be between 0 and 60 seconds"),
        ("shutdown_grace", "23", "The shutdown_grace must be between 1 and 22 seconds"),
        ("production", "7", "bool"),
        ("allow", '["10.0.0.0/8", "nowhere"]', "The allow must hold addresses and CIDRs"),
        ("allow_health", '["gateway"]', "The allow_health must hold addresses and CIDRs"),
        ("trusted_proxies", '["10.9.0.0/16,x"]', "The trusted_proxies must hold addresses and CIDRs"),
        ("jwt_jwks", "/secrets/jwks.json", "The jwt_jwks must be an http:// or https:// URL"),
        ("jwt_issuer", "a b", "The jwt_issuer must be without spaces"),
        ("jwt_audience", "a b", "The jwt_audience must be without spaces"),
        ("policy", '{ "/docs" = "maybe" }', "The policy must ask for open"),
        ("secret_files", '["jwt_secret", "password"]', "The secret_files must be of jwt_secret"),
        ("secret_source", "consul", "The secret_source must be nomad or vault"),
        ("secret_path", 'x" }}{{ key "y', "The secret_path must be a path of letters"),
        ("vault_role", "a b", "The vault_role must be letters"),
        ("tfs_image", "a b", "The tfs_image must be an image reference"),
        ("adapter_image", "", "The adapter_image must be an image reference"),
        ("user", "root", "The user must be a numeric UID:GID"),
        ("user", "0:0", "The user must be a numeric UID:GID"),
        ("tfs_cpu", "99", "The tfs_cpu must be 100 MHz or more"),
        ("tfs_memory", "255", "The tfs_memory must be 256 MiB or more"),
        ("tfs_threads", "1", "The tfs_threads must be a whole number between 2 and 1024"),
        ("tfs_log_size", "21", "The tfs_log_size must be a whole number of MiB between 1 and 20"),
        ("adapter_cpu", "99", "The adapter_cpu must be 100 MHz or more"),
        ("adapter_memory", "127", "The adapter_memory must be 128 MiB or more"),
        ("disk", "255", "The disk must be 256 MiB or more"),
        ("gpu_count", "0", "The gpu_count must be a whole number"),
        ("batch_size", "0", "The batch_size must be a whole number"),
        ("batch_timeout", "-1", "The batch_timeout must be a whole number"),
        ("tags", '["canary"]', "The tags must not hold canary"),
        ("log_level", "info", "The log_level must be DEBUG, INFO, WARNING or ERROR"),
        ("env", '{"a-b"="c"}', "The env must have names of upper-case letters"),
    ],
)
def test_a_bad_value_is_refused_with_its_message(nomad: Path, variable: str, value: str, message: str) -> None:
    options = [f"-var={key}={given}" for key, given in {**REQUIRED, variable: value}.items()]
    done = subprocess.run([nomad, "job", "run", "-output", *options, JOB], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert message in done.stderr


def test_the_model_server_starts_first_and_the_adapter_leads(parsed: Parse) -> None:
    tfs, adapter = tasks(parsed())
    assert tfs["Lifecycle"] == {"Hook": "prestart", "Sidecar": True}
    assert not tfs["Leader"]
    assert adapter["Leader"]
    assert adapter["Lifecycle"] is None


@pytest.mark.parametrize("network_mode", ["bridge", "host"])
@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_the_model_server_speaks_grpc_on_the_socket_only(parsed: Parse, device: str, network_mode: str) -> None:
    tfs, _ = tasks(parsed(device=device, network_mode=network_mode))
    assert "--port=0" in tfs["Config"]["args"]
    assert "--grpc_socket_path=${NOMAD_ALLOC_DIR}/tmp/tfs.sock" in tfs["Config"]["args"]
    (script,) = [each["EmbeddedTmpl"] for each in tfs["Templates"] if each["DestPath"] == "local/tfs.sh"]
    assert tfs["Config"]["entrypoint"] == ["/bin/bash", "${NOMAD_TASK_DIR}/tfs.sh"]
    assert script.startswith('/usr/bin/tensorflow_model_server "$@" &\n')


def test_in_host_mode_the_model_server_opens_no_port_at_all(parsed: Parse) -> None:
    job = parsed(network_mode="host")
    tfs, adapter = tasks(job)
    assert not [flag for flag in tfs["Config"]["args"] if "rest_api_port" in flag or "monitoring" in flag]
    assert tfs["Config"]["network_mode"] == adapter["Config"]["network_mode"] == "host"
    assert adapter["Env"]["ADAPTER_TFS_METRICS_URL"] == ""
    assert adapter["Env"]["ADAPTER_HOST"] == "${NOMAD_IP_http}"


def test_in_bridge_mode_one_port_is_mapped_and_it_is_the_adapters(parsed: Parse) -> None:
    job = parsed()
    (network,) = group(job)["Networks"]
    assert network["Mode"] == "bridge"
    assert [(port["Label"], port["To"]) for port in network["DynamicPorts"]] == [("http", 8080)]
    tfs, adapter = tasks(job)
    assert "--rest_api_port=8501" in tfs["Config"]["args"]
    assert adapter["Env"]["ADAPTER_TFS_METRICS_URL"].startswith("http://127.0.0.1:8501/")
    assert adapter["Env"]["ADAPTER_HOST"] == "0.0.0.0"


def test_the_adapter_keeps_within_the_calls_that_the_model_server_takes(parsed: Parse) -> None:
    tfs, adapter = tasks(parsed(tfs_threads=17))
    assert "--grpc_max_threads=17" in tfs["Config"]["args"]
    assert adapter["Env"]["ADAPTER_TFS_MAX_CALLS"] == "17"


@pytest.mark.parametrize("grace", [1, 20, 22])
def test_a_drain_fits_into_the_time_that_nomad_gives_it(parsed: Parse, grace: int) -> None:
    tfs, adapter = tasks(parsed(shutdown_grace=grace))
    drain = float(adapter["Env"]["ADAPTER_SHUTDOWN_DELAY"]) + float(adapter["Env"]["ADAPTER_SHUTDOWN_GRACE"])
    assert drain + LAST_SECONDS <= adapter["KillTimeout"] / 1e9
    assert adapter["KillTimeout"] <= tfs["KillTimeout"] <= MAX_KILL_TIMEOUT


def test_neither_task_has_more_rights_than_it_needs(parsed: Parse) -> None:
    job = parsed()
    for task in tasks(job):
        assert task["User"] == "10001:10001"  # one user: whoever may connect to the socket may predict
        assert task["Config"]["cap_drop"] == ["all"]
        assert task["Config"]["security_opt"] == ["no-new-privileges"]
        assert task["Config"]["readonly_rootfs"] is True
        assert task["Config"]["init"] is True
        assert task["Vault"] is None


def test_only_the_adapter_has_an_identity(parsed: Parse) -> None:
    tfs, adapter = tasks(parsed())
    assert tfs["Identity"] is None
    assert adapter["Identity"]["Env"]
    assert adapter["Identity"]["File"]


def test_the_bundle_is_fetched_once_for_both_tasks_and_checked(parsed: Parse) -> None:
    tfs, adapter = tasks(parsed())
    (artifact,) = tfs["Artifacts"]
    assert artifact["RelativeDest"] == "${NOMAD_ALLOC_DIR}/bundle"
    assert artifact["GetterOptions"] == {"archive": "tar.zst", "checksum": REQUIRED["bundle_checksum"]}
    assert not adapter["Artifacts"]
    assert adapter["Env"]["ADAPTER_BUNDLE"] == "${NOMAD_ALLOC_DIR}/bundle"
    assert adapter["Env"]["ADAPTER_MODEL_VERSION"] == "1"


def test_readiness_decides_about_traffic_and_liveness_alone_about_restarts(parsed: Parse) -> None:
    (service,) = group(parsed(name="svc", tags='["a"]'))["Services"]
    assert (service["Name"], service["Provider"], service["PortLabel"]) == ("svc", "consul", "http")
    assert (service["Tags"], service["CanaryTags"]) == (["a"], ["canary"])
    checks = {check["Path"]: check["CheckRestart"] for check in service["Checks"]}
    assert checks["/health/ready"] is None
    assert checks["/health/live"]["Limit"] == 3


def test_a_task_that_fails_for_good_fails_the_group_which_is_placed_anew(parsed: Parse) -> None:
    job = parsed()
    assert group(job)["RestartPolicy"]["Mode"] == "fail"
    assert group(job)["ReschedulePolicy"]["Unlimited"]
    assert group(job)["Disconnect"]["Replace"]
    for task in tasks(job):
        assert (task["RestartPolicy"] or group(job)["RestartPolicy"])["Mode"] == "fail"


def test_a_release_is_gated_by_canaries_and_reverts_by_itself(parsed: Parse) -> None:
    update = group(parsed())["Update"]
    assert (update["Canary"], update["AutoPromote"], update["AutoRevert"]) == (1, True, True)
    assert update["HealthCheck"] == "checks"
    assert update["ProgressDeadline"] > update["HealthyDeadline"] > update["MinHealthyTime"]


def test_without_a_spare_device_a_release_goes_one_by_one(parsed: Parse) -> None:
    update = group(parsed(canary=0))["Update"]
    assert (update["Canary"], update["AutoPromote"], update["MaxParallel"]) == (0, False, 1)


def test_the_group_is_the_unit_of_scale(parsed: Parse) -> None:
    job = parsed(count=2, min_count=1, max_count=5)
    assert group(job)["Count"] == 2
    scaling = group(job)["Scaling"]
    assert (scaling["Min"], scaling["Max"], scaling["Enabled"]) == (1, 5, True)


def test_a_gpu_is_the_same_job_with_other_hardware(parsed: Parse) -> None:
    tfs, adapter = tasks(parsed(device="gpu", gpu_count=2, batch_size=128))
    assert tfs["Config"]["image"] == "tensorflow/serving:2.19.1-gpu"
    assert [(device["Name"], device["Count"]) for device in tfs["Resources"]["Devices"]] == [("nvidia/gpu", 2)]
    assert "--enable_batching=true" in tfs["Config"]["args"]
    batching = next(each for each in tfs["Templates"] if each["DestPath"] == "local/batching.config")
    assert "max_batch_size { value: 128 }" in batching["EmbeddedTmpl"]
    assert adapter == tasks(parsed())[1]


def test_a_cpu_needs_no_device_and_no_batching(parsed: Parse) -> None:
    tfs, _ = tasks(parsed())
    assert tfs["Config"]["image"] == "tensorflow/serving:2.19.1"
    assert not tfs["Resources"]["Devices"]
    assert not [flag for flag in tfs["Config"]["args"] if "batching" in flag]


@pytest.mark.parametrize("path", VAR_FILES, ids=lambda path: path.name)
def test_a_job_is_named_after_its_service(nomad: Path, path: Path) -> None:
    command = [nomad, "job", "run", "-output", f"-var-file={path}", JOB]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    name = re.search(r'^name +=\s+"([^"]+)"', path.read_text(), re.MULTILINE)
    assert name is not None
    assert f'"ID": "{name[1]}"' in done.stdout


def test_a_secret_that_changes_restarts_nothing(parsed: Parse) -> None:
    for source in ("nomad", "vault"):
        _, adapter = tasks(parsed(secret_files='["jwt_secret", "allow", "tls"]', secret_source=source))
        assert {template["DestPath"] for template in adapter["Templates"]} == {
            f"${{NOMAD_SECRETS_DIR}}/{name}" for name in ("jwt_secret", "allow", "tls")
        }
        assert {template["ChangeMode"] for template in adapter["Templates"]} == {"noop"}
        assert {template["Perms"] for template in adapter["Templates"]} == {"0400"}
        assert not adapter["Vault"] or (adapter["Vault"]["ChangeMode"], adapter["Vault"]["Env"]) == ("noop", False)
        assert bool(adapter["Vault"]) is (source == "vault")


def test_no_secret_is_in_the_job(parsed: Parse) -> None:
    _, adapter = tasks(parsed(secret_files='["jwt_secret"]'))
    assert adapter["Env"]["ADAPTER_JWT_SECRET_FILE"] == "${NOMAD_SECRETS_DIR}/jwt_secret"
    assert 'nomadVar "nomad/jobs/x"' in adapter["Templates"][0]["EmbeddedTmpl"]


def test_the_adapter_knows_its_node_and_where_the_history_is(parsed: Parse) -> None:
    _, adapter = tasks(parsed(consul_addr="node", audit="true", released_by="ann"))
    assert adapter["Env"]["ADAPTER_NODE"] == "${node.unique.name}"
    assert adapter["Env"]["ADAPTER_CONSUL_ADDR"] == "${attr.unique.network.ip-address}:8500"
    assert adapter["Env"]["ADAPTER_AUDIT"] == "true"
    assert group(parsed(released_by="ann"))["Meta"]["released_by"] == "ann"
    assert tasks(parsed())[1]["Env"]["ADAPTER_CONSUL_ADDR"] == ""


@pytest.mark.parametrize(("connect", "transparent"), [("sidecar", False), ("transparent", True)])
def test_the_service_joins_the_mesh_where_it_is_told_to(parsed: Parse, connect: str, transparent: bool) -> None:
    (service,) = group(parsed(connect=connect))["Services"]
    sidecar = service["Connect"]["SidecarService"]
    assert ((sidecar["Proxy"] or {}).get("TransparentProxy") is not None) == transparent
    assert group(parsed())["Services"][0]["Connect"] is None
