"""Both clients of the model server tell the same: every recorded gRPC call, by our HTTP/2 client and by `grpc.aio`."""

import base64
import json
from typing import Any

import pytest

from adapter.errors import CallFailed
from adapter.grpc_h2.channel import H2Channel
from adapter.inference.channel import Channel
from adapter.inference.grpc_aio import GrpcAio
from tests.golden.conftest import DATA
from tests.golden.test_model_server import readable, without_function_ids
from tests.servers import ModelServer

CASES = {case["id"]: case for case in json.loads((DATA / "grpc_cases.json").read_text()) if "method" in case}


async def outcome(channel: Channel, case: dict[str, Any]) -> Any:
    """Status and words, or the answer."""
    request = base64.b64decode(case["request_bytes_b64"])
    try:
        answer = await channel.unary(case["method"], request, 0.5 if case["id"] == "deadline" else 30)
    except CallFailed as error:
        return error.code.name, without_function_ids(error.message)
    finally:
        await channel.close()
    return "OK", readable(case["method"], answer)


@pytest.mark.parametrize("name", CASES)
async def test_a_recorded_call_has_the_same_outcome_by_either_client(model_server: ModelServer, name: str) -> None:
    case = CASES[name]
    ours = await outcome(H2Channel(model_server.target), case)
    theirs = await outcome(GrpcAio(model_server.target), case)
    if name == "deadline":  # gRPC's core has two ways to say it, by who is faster
        theirs = theirs[0], theirs[1].replace("Stream removed (Deadline Exceeded)", "Deadline Exceeded")
    assert ours == theirs
    assert ours[0] == case["code"]
    if case["code"] != "OK":
        assert ours[1] == without_function_ids(case["details"]) or (ours[1], case["details"]) == (case["code"], "")


async def test_answers_of_a_deterministic_call_are_equal_byte_for_byte(model_server: ModelServer) -> None:
    request = base64.b64decode(CASES["predict"]["request_bytes_b64"])
    answers = []
    for channel in (H2Channel(model_server.target), GrpcAio(model_server.target)):
        answers.append(bytes(await channel.unary(CASES["predict"]["method"], request, 30)))
        await channel.close()
    assert answers[0] == answers[1] == base64.b64decode(CASES["predict"]["response_bytes_b64"])
