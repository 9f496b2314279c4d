"""Bytes put together in steps are those of a join in one go."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapter import joining
from adapter.joining import Whole, joined, separated
from tests.unit.steps import run

pieces = st.lists(st.binary(max_size=40), max_size=20)


@given(pieces)
def test_what_is_filled_piece_by_piece_is_their_join(pieces: list[bytes]) -> None:
    expected = b"".join(pieces)
    whole = Whole(len(expected))
    for piece in pieces:
        whole.add(memoryview(piece))
    assert whole.take() == expected


@given(pieces, st.integers(1, 8))
def test_joined_is_the_join_in_as_many_steps_as_it_is_long(pieces: list[bytes], step: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(joining, "STEP", step)
        patch.setattr(joining, "EACH", 0)
        steps, found = run(joined(pieces))
    assert found == b"".join(pieces)
    assert steps == (len(found) // step if len(found) > step else 0)


@given(pieces)
def test_separated_puts_a_comma_between_each_two(pieces: list[bytes]) -> None:
    assert b"".join(separated(pieces)) == b",".join(pieces)


def test_bytes_that_are_not_all_there_are_not_given_out() -> None:
    whole = Whole(3)
    whole.add(b"ab")
    with pytest.raises(ValueError, match="2 bytes where 3 were announced"):
        whole.take()


def test_more_than_announced_are_not_taken() -> None:
    whole = Whole(3)
    whole.add(b"ab")
    with pytest.raises(ValueError, match="4 bytes where 3 were announced"):
        whole.add(b"cd")
    whole.add(b"c")
    assert whole.take() == b"abc"


@pytest.mark.parametrize("size", [0, 1])
def test_bytes_that_python_shares_are_never_written_to(size: int) -> None:
    shared = bytes(range(size))
    whole = Whole(size)
    whole.add(b"z" * size)
    assert whole.take() == b"z" * size
    assert shared == bytes(range(size))
