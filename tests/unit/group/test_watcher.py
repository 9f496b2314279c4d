"""What a model status means for readiness: exactly the bundle's version, and nothing beside it."""

import pytest

from adapter.group.watcher import judge
from adapter.pb import serving_pb2

State = serving_pb2.ModelVersionStatus.State
AVAILABLE, LOADING, END = State.AVAILABLE, State.LOADING, State.END


def status(*versions: tuple[int, "serving_pb2.ModelVersionStatus.State"]) -> serving_pb2.GetModelStatusResponse:
    entries = [serving_pb2.ModelVersionStatus(version=version, state=state) for version, state in versions]
    return serving_pb2.GetModelStatusResponse(model_version_status=entries)


def test_exactly_the_wanted_version_is_ready() -> None:
    assert judge(status((3, AVAILABLE)), 3) == (True, "version 3 is AVAILABLE")
    assert judge(status((3, AVAILABLE), (2, END)), 3)[0]


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (status(), "found no version"),
        (status((3, LOADING)), "found version 3 LOADING"),
        (status((2, AVAILABLE)), "found version 2 AVAILABLE"),
        (status((2, AVAILABLE), (3, AVAILABLE)), "found version 2 AVAILABLE, version 3 AVAILABLE"),
    ],
)
def test_anything_else_is_not_and_the_reason_names_what_is_there(
    found: serving_pb2.GetModelStatusResponse, words: str
) -> None:
    ok, reason = judge(found, 3)
    assert not ok
    assert reason.startswith("expected version 3 AVAILABLE")
    assert reason.endswith(words)


def test_a_failed_version_is_named_with_tensorflow_servings_own_reason() -> None:
    failed = status((3, END))
    failed.model_version_status[0].status.error_code = 11
    failed.model_version_status[0].status.error_message = "Read less bytes than requested"
    assert judge(failed, 3) == (False, "version 3 failed: Read less bytes than requested")
