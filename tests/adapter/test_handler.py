"""A bundle's handler behind the real adapter: what it answers, and what becomes of one that misbehaves."""

import json
import os
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import openapi_spec_validator
import pytest

from tests.adapters import Adapter, Record, event
from tests.golden.conftest import DATA
from tests.servers import ModelServer

ROOT = Path(__file__).parent.parent.parent
HEAD = """
import asyncio, os, sys, threading, time
import numpy as np
from adapter.handler import BadInput, Handler, Struct

class Request(Struct):
    x: float
    sleep: float = 0
    kind: str = ""

class Answer(Struct):
    y: float
"""
STEPS = """
class Halves(Handler[Request, Answer]):
    def preprocess(self, batch):
        return {"x": np.array([r.x for r in batch])}

    def postprocess(self, outputs, batch):
        return [Answer(y) for y in outputs["y"].tolist()]
"""
Start = Callable[..., Adapter]


@pytest.fixture(scope="module")
def models() -> Iterator[ModelServer]:
    """half_plus_two, and multi (`slow` takes as long as it is told)."""
    config = Path(__file__).parent.parent / "golden" / "data" / "models"
    text = "model_config_list {"
    for name, version in (("half_plus_two", 1), ("multi", 7)):
        text += f' config {{ name: "{name}" base_path: "{config / name}" model_platform: "tensorflow"'
        text += f" model_version_policy {{ specific {{ versions: {version} }} }} }}"
    file = Path(os.environ.get("TMPDIR", "/tmp")) / f"models-{os.getpid()}.config"
    file.write_text(text + "}")
    with ModelServer(f"--model_config_file={file}", "--grpc_max_threads=8") as server:
        yield server
    file.unlink()


@pytest.fixture
def start(models: ModelServer, tmp_path: Path) -> Iterator[Start]:
    """Starts an adapter for a bundle with this handler; `manifest` is added to the bundle's."""
    running: list[Adapter] = []

    def started(code: str, manifest: str = "", ready: bool = True, **settings: object) -> Adapter:
        for name, version in (("half_plus_two", 1), ("multi", 7)):
            (tmp_path / "models" / name).mkdir(parents=True)
            (tmp_path / "models" / name / str(version)).symlink_to(DATA / "models" / name / str(version))
        (tmp_path / "handler.py").write_text(HEAD + textwrap.dedent(code))
        models_ = '[[models]]\nname = "half_plus_two"\nversion = 1\n[[models]]\nname = "multi"\nversion = 7\n'
        (tmp_path / "bundle.toml").write_text(f'name = "b"\nversion = "3"\nhandler = "handler.py"\n{models_}{manifest}')
        adapter = Adapter({"NOMAD_TOKEN": "s3cret-t0ken"}, tfs_grpc=models.target, bundle=tmp_path, **settings)
        running.append(adapter.__enter__())
        return adapter.ready() if ready else adapter

    yield started
    for adapter in running:
        adapter.__exit__()


def ask(adapter: Adapter, **request: object) -> tuple[int, dict[str, object]]:
    answer = adapter.request("POST", "/predict", json.dumps(request))
    return answer.status, answer.json


def refusal(adapter: Adapter, check: str = "handler") -> str:
    """Why the service does not get ready; it says so within seconds, and goes on saying it."""
    for _ in range(200):
        checks = adapter.request("GET", "/health").json["checks"]
        reason: str = checks[check]["reason"]
        if checks["model:half_plus_two"]["status"] == "pass" and not reason.endswith(
            ("being imported", "compared with the models", "known yet")
        ):
            assert adapter.request("GET", "/health/ready").status == 503
            return reason
        time.sleep(0.05)  # a check that fails for another reason than before leaves no record
    raise AssertionError(f"{check} says nothing but {reason!r}")


def logged(text: str) -> Callable[[Record], bool]:
    return lambda record: text in record["body"]


def test_one_request_and_a_batch_are_answered_by_the_bundle_and_its_model(start: Start) -> None:
    adapter = start(STEPS)
    answer = adapter.request("POST", "/predict", '{"x": 1}')
    assert (answer.status, answer.json) == (200, {"y": 2.5})
    assert (answer.headers["x-bundle"], answer.headers["x-model-version"]) == ("b@3", "half_plus_two@1")
    many = adapter.request("POST", "/predict", '{"instances": [{"x": 1}, {"x": 2}]}')
    assert many.json == {"predictions": [{"y": 2.5}, {"y": 3.0}]}
    assert adapter.predict("half_plus_two", {"instances": [1.0]}).headers["x-model-version"] == "half_plus_two@1"


def test_concurrent_requests_get_their_own_answers_from_threads(start: Start) -> None:
    adapter = start(STEPS)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda x: ask(adapter, x=x), range(300)))
    assert answers == [(200, {"y": x / 2 + 2}) for x in range(300)]


def test_a_pipeline_asks_several_models_and_names_them_all(start: Start) -> None:
    adapter = start(
        """
        class Pipeline(Handler[Request, Answer]):
            async def startup(self):
                self.shift = await asyncio.sleep(0, 10)

            async def predict(self, ctx, batch):
                x = np.array([r.x for r in batch], np.float32)
                a, b = await asyncio.gather(
                    ctx.infer("half_plus_two", {"x": x}),
                    ctx.infer("multi", {"x": [1.0]}, signature="slow"),
                )
                total = await ctx.run(np.add, a["y"], self.shift)
                return [Answer(float(y)) for y in total]
        """
    )
    answer = adapter.request("POST", "/predict", '{"x": 1}')
    assert (answer.status, answer.json) == (200, {"y": 12.5})
    assert answer.headers["x-model-version"] == "half_plus_two@1, multi@7"


def test_a_client_s_mistake_is_told_with_its_place(start: Start) -> None:
    adapter = start(STEPS, "[limits]\nmax_batch = 4\nmax_body = 500\n")
    mistakes: list[tuple[dict[str, object], int, str]] = [
        ({"x": "a"}, 400, "x: expected float, got str"),
        ({"instances": [{"x": 1}, {"x": None}]}, 400, "instances[1].x: expected float, got null"),
        ({"instances": [{"x": 1}] * 5}, 413, "instances: at most 4 requests are accepted at one time, got 5"),
        ({"x": 1, "kind": "x" * 600}, 413, "Body of"),
    ]
    for request, status, detail in mistakes:
        answered, body = ask(adapter, **request)
        assert answered == status
        assert str(body["detail"]).startswith(detail)


MISBEHAVING = """
class Odd(Handler[Request, Answer]):
    inline = %s

    def preprocess(self, batch):
        kind = batch[0].kind
        if kind == "bad":
            raise BadInput("is too odd", field="kind", index=0, status=422)
        if kind == "raises":
            raise KeyError("s3cret-t0ken")
        if kind == "shape":
            return {"x": [[1, 2], [3]]}
        if kind == "name":
            return {"z": [1.0]}
        if kind == "none":
            return None
        return {"x": [r.x for r in batch]}

    def postprocess(self, outputs, batch):
        kind = batch[0].kind
        answers = [Answer(y) for y in outputs["y"].tolist()]
        return {"few": answers[1:], "type": [{"y": 1}] * len(answers)}.get(kind, answers)
"""


@pytest.mark.parametrize("inline", [True, False])
def test_a_handler_s_own_failure_is_500_to_the_client_and_all_of_it_in_the_log(start: Start, inline: bool) -> None:
    adapter = start(MISBEHAVING % inline)
    assert ask(adapter, x=1, kind="bad")[1]["detail"] == "kind: is too odd"
    status, body = ask(adapter, instances=[{"x": 1, "kind": "bad"}])
    assert (status, body["detail"]) == (422, "instances[0].kind: is too odd")
    told = {
        "raises": "handler.py failed: KeyError",
        "shape": "preprocess: input 'x' is a list of rows of unequal length",
        "name": "preprocess: input 'z' is none of the signature's (x)",
        "none": "preprocess gave NoneType, expected a dict of arrays",
        "few": "postprocess gave 0 answers for 1 requests",
        "type": "postprocess gave dict, expected Answer",
    }
    for kind, said in told.items():
        answer = adapter.request("POST", "/predict", json.dumps({"x": 1, "kind": kind}), {"X-Request-Id": f"id-{kind}"})
        assert answer.status == 500
        assert answer.json["detail"] == f"The handler failed; the log names it by id-{kind}"
        record = adapter.wait_for(logged(said))
        assert record["severity_text"] == "ERROR"
        assert record["attributes"]["http.request.id"] == f"id-{kind}"
        if kind != "raises":  # its trace holds a secret
            assert "Traceback" in record["attributes"]["exception.stacktrace"]
    assert not [record for record in adapter.records if "s3cret" in json.dumps(record)]
    assert ask(adapter, x=1) == (200, {"y": 2.5})


def test_a_call_that_takes_too_long_is_504_and_holds_up_nobody_else(start: Start) -> None:
    adapter = start(
        STEPS.replace(
            "def preprocess(self, batch):", "def preprocess(self, batch):\n        time.sleep(batch[0].sleep)"
        ),
        "[limits]\ntimeout = 1\n",
    )
    slow = threading.Thread(target=ask, args=(adapter,), kwargs={"x": 1, "sleep": 3})
    slow.start()
    assert ask(adapter, x=2) == (200, {"y": 3.0})
    status, body = ask(adapter, x=1, sleep=3)
    assert (status, body["detail"]) == (504, "The handler did not answer in time")
    slow.join()


def test_a_handler_whose_every_thread_hangs_makes_the_service_unready(start: Start) -> None:
    adapter = start(
        STEPS.replace("def preprocess", "threads = 1\n\n    def preprocess").replace(
            "def preprocess(self, batch):", "def preprocess(self, batch):\n        time.sleep(batch[0].sleep)"
        ),
        "[limits]\ntimeout = 0.1\n",
    )
    assert ask(adapter, x=1, sleep=60)[0] == 504
    adapter.wait_for(logged("degraded: handler: every thread of handler.py has been at one call for more than"))
    assert adapter.request("GET", "/health/live").status == 200
    assert adapter.predict("half_plus_two", {"instances": [1.0]}).status == 200
    assert adapter.stop() == 0  # a thread that hangs keeps no process


def test_a_pipeline_that_blocks_its_loop_makes_the_service_unready_and_a_client_that_waits_504(start: Start) -> None:
    adapter = start(
        """
        class Pipeline(Handler[Request, Answer]):
            async def predict(self, ctx, batch):
                time.sleep(batch[0].sleep)
                return [Answer(1.0)]
        """,
        "[limits]\ntimeout = 1\n",
    )
    assert ask(adapter, x=1) == (200, {"y": 1.0})
    assert ask(adapter, x=1, sleep=8)[0] == 504
    adapter.wait_for(logged("degraded: handler: handler.py has blocked its event loop for"))
    adapter.wait_for(lambda record: record["body"].startswith("ready: "), after=len(adapter.records))


def test_a_client_that_leaves_takes_its_pipeline_along(start: Start) -> None:
    adapter = start(
        """
        class Pipeline(Handler[Request, Answer]):
            async def predict(self, ctx, batch):
                print("begun")
                try:
                    await asyncio.sleep(30)
                except asyncio.CancelledError:
                    print("cancelled")
                    raise
        """
    )
    connection = adapter.connection()
    with closing(connection):
        connection.request("POST", "/predict", '{"x": 1}')
        adapter.wait_for(logged("begun"))
    adapter.wait_for(logged("cancelled"))


def test_a_function_that_is_not_as_fast_as_it_says_leaves_the_event_loop(start: Start) -> None:
    adapter = start(
        STEPS.replace("def preprocess", "inline = True\n\n    def preprocess").replace(
            "def preprocess(self, batch):", "def preprocess(self, batch):\n        time.sleep(batch[0].sleep)"
        )
    )
    for _ in range(4):
        assert ask(adapter, x=1, sleep=0.02)[0] == 200
    adapter.wait_for(logged("handler.py says inline, but a step took 2"))
    assert ask(adapter, x=1) == (200, {"y": 2.5})


def test_what_is_printed_is_in_the_log_and_secrets_are_not(start: Start) -> None:
    code = STEPS.replace(
        "def preprocess(self, batch):",
        "def preprocess(self, batch):\n"
        "        print('token', os.environ['NOMAD_TOKEN'])\n"
        "        print('oh', file=sys.stderr)\n"
        "        os.write(1, b'raw bytes\\n')",
    )
    adapter = start(code)
    assert ask(adapter, x=1)[0] == 200
    record = adapter.wait_for(logged("token [NOMAD_TOKEN]"))  # every line of stdout was JSON, or this would have failed
    assert (record["severity_text"], record["attributes"]["log.logger"]) == ("INFO", "handler")
    assert adapter.wait_for(logged("oh"))["severity_text"] == "WARN"
    assert not [record for record in adapter.records if "s3cret" in json.dumps(record)]


def test_hooks_run_once_each_and_find_the_bundle_s_files(start: Start, tmp_path: Path) -> None:
    adapter = start(
        STEPS
        + """
    def startup(self):
        print("started with", (self.files / "bundle.toml").name)

    async def shutdown(self):
        await asyncio.sleep(0)
        print("stopped")
"""
    )
    assert adapter.stop() == 0
    bodies = [record["body"] for record in adapter.records if record["attributes"].get("log.logger") == "handler"]
    assert bodies == ["started with bundle.toml", "stopped"]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import not_there", "handler.py cannot be imported: ModuleNotFoundError: No module named 'not_there' ("),
        ("print(os.environ['NOMAD_TOKEN'])" + STEPS, "handler.py printed the value of NOMAD_TOKEN while it was imported"),
        ("raise ValueError(os.environ['NOMAD_TOKEN'])", "handler.py cannot be imported: ValueError: [NOMAD_TOKEN] ("),
        (STEPS + "    model = 'other'\n", "handler.py is for model 'other', which the bundle does not hold"),
        (STEPS + "    def startup(self): 1 / 0\n", "handler.py: startup fails: ZeroDivisionError: division by zero"),
        (STEPS + "    async def startup(self): 1 / 0\n", "handler.py: startup fails: ZeroDivisionError: division by zero"),
    ],
)  # fmt: skip
def test_a_handler_that_cannot_serve_is_refused_before_ready(start: Start, code: str, said: str) -> None:
    adapter = start(code, ready=False)
    assert refusal(adapter).startswith(said)
    assert ask(adapter, x=1)[0] == 503
    assert not [record for record in adapter.records if "s3cret" in json.dumps(record)]


@pytest.mark.parametrize(
    ("code", "manifest", "said"),
    [
        (STEPS + "    signature = 'nope'\n", "", "handler.py uses signature 'nope' of model half_plus_two 1, "),
        (STEPS, 'signatures = ["slow", "swift"]\n', "bundle.toml uses signature 'swift' of model multi 7, which has none"),
        (STEPS + "    inputs = {'x': 'int64'}\n", "", "handler.py declares input 'x' as int64, the model has float32"),
        (STEPS + "    outputs = {'z': 'float32'}\n", "", "handler.py declares output 'z', the model has y"),
    ],
)  # fmt: skip
def test_a_model_that_does_not_fit_the_handler_is_refused_before_ready(
    start: Start, code: str, manifest: str, said: str
) -> None:
    assert refusal(start(code, manifest, ready=False), "signatures").startswith(said)


def test_a_handler_that_hangs_in_its_import_is_refused_and_the_service_still_ends(start: Start) -> None:
    adapter = start("time.sleep(3600)", ready=False)
    assert adapter.wait_for(event("tandem.state"))
    assert ask(adapter, x=1) == (
        503,
        {
            "type": "about:blank",
            "title": "Service Unavailable",
            "status": 503,
            "detail": "handler.py is being imported",
        },
    )
    assert adapter.request("GET", "/health/ready").status == 503
    assert adapter.stop() == 0


def test_a_handler_that_leaks_ends_the_service_before_the_platform_does(start: Start) -> None:
    code = "kept = []" + STEPS.replace(
        "def preprocess(self, batch):", "def preprocess(self, batch):\n        kept.append(b'x' * (20 << 20))"
    )
    adapter = start(code, max_memory=250)
    for _ in range(12):
        assert ask(adapter, x=1)[0] == 200
    adapter.wait_for(logged("250 are allowed; handler.py may leak"))
    assert adapter.wait() == 1


def test_the_document_describes_the_bundle_s_own_endpoint(start: Start) -> None:
    document = start(STEPS).request("GET", "/openapi.json").json
    request = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert request["anyOf"][0] == {"$ref": "#/components/schemas/bundle.Request"}
    assert document["components"]["schemas"]["bundle.Request"]["required"] == ["x"]
    assert document["components"]["schemas"]["bundle.Answer"]["properties"] == {"y": {"type": "number"}}
    openapi_spec_validator.validate(document)
