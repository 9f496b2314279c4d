"""A secret shows itself to nobody who does not ask for it by name."""

import copy
import json
import logging
import pickle
import traceback
from io import BytesIO

import msgspec
import orjson
import pytest

from adapter.access.secret import Secret
from adapter.telemetry.logs import CommonHandler, LogStream

VALUE = "correct-horse-battery-staple"
SECRET = Secret(VALUE.encode())


def test_only_reveal_gives_it_out() -> None:
    assert SECRET.reveal() == VALUE.encode()


def test_it_cannot_be_printed() -> None:
    shown = [
        repr(SECRET),
        str(SECRET),
        f"{SECRET}",
        f"{SECRET!r:>40}",
        format(SECRET, "20"),
    ]
    shown += [repr([SECRET]), str({"key": SECRET}), ascii(SECRET), str(Exception(SECRET)), str(dir(SECRET))]
    assert not [text for text in shown if VALUE in text]


@pytest.mark.parametrize(
    "write", [json.dumps, orjson.dumps, msgspec.json.encode, pickle.dumps, bytes, msgspec.to_builtins]
)
def test_it_cannot_be_written(write: object) -> None:
    with pytest.raises(TypeError) as caught:
        write(SECRET)  # type: ignore[operator]
    assert VALUE not in str(caught.value)


def test_it_has_no_attributes_to_walk_over() -> None:
    with pytest.raises(TypeError):
        vars(SECRET)
    assert VALUE not in str([getattr(SECRET, name) for name in dir(SECRET) if not name.startswith("__")])


def test_a_copy_is_itself() -> None:
    assert copy.copy(SECRET) is copy.deepcopy(SECRET) is SECRET


def test_it_is_equal_to_the_same_secret_alone() -> None:
    assert Secret(b"a") == Secret(b"a")
    assert Secret(b"a") != Secret(b"b")
    assert Secret(b"a") != b"a"
    assert len({Secret(b"a"), Secret(b"a")}) == 1


def test_no_log_record_holds_it() -> None:
    output = BytesIO()
    logger = logging.Logger("test")
    logger.addHandler(CommonHandler(LogStream({}, output)))
    logger.info("as an argument: %s %r", SECRET, [SECRET])
    logger.info(SECRET)
    logger.info("as an attribute", extra={"attributes": {"secret": SECRET, "in": {"a": [SECRET]}}})
    try:
        raise ValueError(SECRET)
    except ValueError:
        logger.exception("in an exception")
        assert VALUE not in traceback.format_exc()
    assert output.getvalue().count(b"\n") == 4
    assert VALUE.encode() not in output.getvalue()
