"""Differences of answers: each place once, in a line that a person can read."""

import math

import pytest

from deploy.bundle.comparison import differences


@pytest.mark.parametrize(
    ("expected", "given"),
    [
        ({"a": [1, 2.5, "x", None, True]}, {"a": [1.0, 2.5000001, "x", None, True]}),
        (1e9, 1e9 + 1),
        (0, 1e-6),
        (math.nan, math.nan),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    ],
)
def test_answers_within_the_tolerance_do_not_differ(expected: object, given: object) -> None:
    assert differences(expected, given, 1e-5) == []


@pytest.mark.parametrize(
    ("expected", "given", "line"),
    [
        ({"p": [0.5, 0.91]}, {"p": [0.5, 0.87]}, "p[1]: expected 0.91, got 0.87 (off by 0.04)"),
        ({"a": {"b": 1}}, {"a": {}}, "a.b: expected 1, missing"),
        ({}, {"b": "new"}, "b: 'new', not expected"),
        ([1, 2], [1], "the answer: expected 2 values, got 1"),
        ("yes", "no", "the answer: expected 'yes', got 'no'"),
        (True, 1, "the answer: expected True, got 1"),
        (1, None, "the answer: expected 1, got None"),
        (1.0, math.nan, "the answer: expected 1, got nan (off by nan)"),
        ({"a": "x" * 200}, {"a": 1}, "a: expected '" + "x" * 78 + "…, got 1"),
    ],
)
def test_a_difference_is_named_with_its_place(expected: object, given: object, line: str) -> None:
    assert differences(expected, given, 1e-5) == [line]


def test_many_differences_are_counted() -> None:
    found = differences([0] * 100, [1] * 100, 1e-5)
    assert found[0] == "[0]: expected 0, got 1 (off by 1)"
    assert found[-1] == "… and 88 more"
