"""What of a `Prefer` header counts."""

import pytest
from multidict import CIMultiDict

from adapter.http.prefer import preferred


@pytest.mark.parametrize(
    ("lines", "value"),
    [
        ([], ""),
        (["respond-async"], ""),
        (["nonfinite=null"], "null"),
        (["respond-async", "nonfinite=null"], "null"),
        (['respond-async, Nonfinite = "string"; strict=yes'], "string"),
        (["nonfinite=zero, nonfinite=null"], "zero"),
        (["nonfinite=zero", "nonfinite=null"], "zero"),
        (["nonfinite"], ""),
        (['note="a, nonfinite=null"'], ""),
        (['note="a, nonfinite=null'], ""),
        (["xnonfinite=null"], ""),
        (['"' * 5000 + ", nonfinite=null"], ""),
    ],
)
def test_the_first_of_all_lines_counts(lines: list[str], value: str) -> None:
    assert preferred(CIMultiDict([("Prefer", line) for line in lines]), "nonfinite") == value
