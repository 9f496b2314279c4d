"""The command line of the local model server is tensorflow_model_server's."""

import re
from pathlib import Path

import pytest

from deploy.local.model_server.flags import FLAGS, BadFlagError, Options, usage

RECORDED_USAGE = Path(__file__).parents[2] / "golden" / "data" / "logs" / "E_bad_flag_value.out"
PER_CPU = {"rest_api_num_threads", "grpc_max_threads", "num_tflite_pools"}


def test_flags_types_and_defaults_are_those_of_the_recorded_usage() -> None:
    recorded = re.findall(r"^\t--(\w+)=(\S*) *\t(\w+)\t", RECORDED_USAGE.read_text(), re.MULTILINE)
    ours = re.findall(r"^\t--(\w+)=(\S*) *\t(\w+)", usage("x"), re.MULTILINE)
    assert len(ours) == len(FLAGS) == len(recorded)
    for (name, default, kind), (their_name, their_default, their_kind) in zip(ours, recorded, strict=True):
        assert (name, kind) == (their_name, their_kind)
        if name not in PER_CPU:
            same = float(default) == float(their_default) if kind == "float" else default == their_default
            assert same, name


def test_values_are_taken_after_an_equals_sign_and_the_last_one_wins() -> None:
    options = Options(["--port=1", "--port=2", "--model_name=a=b", "--grpc_socket_path="])
    assert options.number("port") == 2
    assert options.text("model_name") == "a=b"
    assert options.text("grpc_socket_path") == ""


def test_a_bool_may_stand_alone_or_say_true_or_false() -> None:
    assert Options(["--enable_batching"]).on("enable_batching")
    assert Options(["--enable_batching=true"]).on("enable_batching")
    assert not Options(["--enable_model_warmup=false"]).on("enable_model_warmup")


@pytest.mark.parametrize("argument", ["--nope=1", "--port", "port=1", "-port=1", "x", "--"])
def test_what_is_no_flag_is_left_over(argument: str) -> None:
    options = Options([argument, "--port=7"])
    assert options.unknown == [argument]
    assert options.number("port") == 7


@pytest.mark.parametrize(
    "argument",
    [
        "--port=abc",
        "--port=",
        "--port=1.5",
        "--port=2147483648",
        "--port=1_0",
        "--enable_batching=yes",
        "--enable_batching=1",
    ],
)
def test_a_value_of_the_wrong_type_is_refused_and_named(argument: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BadFlagError):
        Options([argument])
    name, _, value = argument.removeprefix("--").partition("=")
    assert capfd.readouterr().err.endswith(f"Couldn't interpret value {value} for flag {name}.\n")


def test_help_is_refused_only_as_the_first_argument_that_is_no_flag() -> None:
    with pytest.raises(BadFlagError):
        Options(["--port=1", "--help"])
    assert Options(["x", "--help"]).unknown == ["x", "--help"]


def test_flags_that_do_nothing_here_are_known_by_name_once_set() -> None:
    options = Options(["--enable_batching", "--port=1", "--rest_api_timeout_in_ms=30000", "--mixed_precision=bf16"])
    assert options.without_effect() == ["--enable_batching", "--mixed_precision"]
