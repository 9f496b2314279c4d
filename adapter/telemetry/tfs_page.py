"""TensorFlow Serving's monitoring page, read: text → families of cells, under its own names and in its own units.

The page is Prometheus text as `util/prometheus_exporter.cc` writes it: names with colons (`:tensorflow:serving:…`),
`# TYPE` lines and no others, `name{} 1` where there are no labels, a type line also for what nobody touched yet.
Label values have `\\` and `"` escaped but line feeds not, and models' names in them are what strangers sent, so that a
sample may span lines: the page is cut along its quotes first, and a line that makes no sense is left out and counted.
Nothing here raises, whatever the page holds.
"""

import re
from collections.abc import Generator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

Number = int | float
Labels = tuple[tuple[str, str], ...]
Kind = Literal["counter", "gauge", "histogram", "unknown"]

_KINDS: dict[str, Kind] = {"counter": "counter", "gauge": "gauge", "histogram": "histogram"}
_PARTS = ("_bucket", "_sum", "_count")
_LINES_AT_A_TIME = 500  # about 2 ms

# Possessive throughout: what does not match fails at once, instead of after every other way of not matching.
_LINE = re.compile(
    r"""
    \#[ \t]TYPE[ \t]++(?P<typed>[a-zA-Z_:][a-zA-Z0-9_:]*+)[ \t]++(?P<kind>[a-z]++)[ \t\r]*+(?:\n|\Z)
  | (?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*+)
    (?:\{ (?P<labels>(?: [^"{}\n]++ | "(?:[^"\\]++|\\.)*+" )*+) \})?+
    [ \t]++(?P<value>[^\s]++)(?:[ \t]++-?\d++)?+[ \t\r]*+(?:\n|\Z)
  | (?P<nothing>[ \t\r]*+(?:\#[^\n]*+)?+\n)
    """,
    re.VERBOSE | re.DOTALL,
)
_PAIR = re.compile(r'[ \t]*+([a-zA-Z_][a-zA-Z0-9_]*+)="((?:[^"\\]++|\\.)*+)"[ \t]*+(?:,|\Z)', re.DOTALL)
_LAST_LE = re.compile(r'[^"\\,{}]++"')
_ESCAPE = re.compile(r'\\([\\"n])')


@dataclass(slots=True)
class Distribution:
    """One cell of a histogram: upper bounds as they are written, each with the count up to it, in order."""

    buckets: dict[str, int] = field(default_factory=dict)
    sum: Number | None = None
    count: int | None = None


@dataclass(slots=True)
class Family:
    """A metric and its cells: `values`, or `distributions` for a histogram."""

    name: str
    kind: Kind
    values: dict[Labels, Number] = field(default_factory=dict)
    distributions: dict[Labels, Distribution] = field(default_factory=dict)


@dataclass(slots=True)
class Page:
    """What was read, in the page's order, and how many of its lines were not understood."""

    families: dict[str, Family] = field(default_factory=dict)
    skipped: int = 0


def parse(text: str) -> Generator[None, None, Page]:
    """Read a page in steps of a few milliseconds."""
    page = Page()
    reader = _Reader(page.families)
    position, lines = 0, 0
    while position < len(text):
        line = _LINE.match(text, position)
        lines += 1
        if line is None:
            page.skipped += 1
            end = text.find("\n", position)
            position = len(text) if end < 0 else end + 1
            yield  # at once: a line like this may have cost as much as the whole page
            continue
        position = line.end()
        typed, kind, name, labels, value, _ = line.groups()
        if typed:
            page.families.setdefault(typed, Family(typed, _KINDS.get(kind, "unknown")))
        elif name and not reader.sample(name, labels or "", value):
            page.skipped += 1
        if not lines % _LINES_AT_A_TIME:
            yield
    return page


class _Reader:
    """Puts each sample where it belongs; every method is False where it belongs nowhere.

    What is found out is kept for the page: a histogram's cell is thirty-six samples of the same names and labels.
    """

    def __init__(self, families: dict[str, Family]) -> None:
        self._families = families
        self._owners: dict[str, tuple[Family, str]] = {}
        self._labels: dict[str, Labels | None] = {"": ()}
        self._cells: dict[tuple[str, str], Distribution | None] = {}

    def sample(self, name: str, pairs: str, text: str) -> bool:
        value = _number(text)
        if value is None:
            return False
        owner = self._owners.get(name)
        if owner is None:
            owner = self._owners[name] = self._owner(name)
        family, part = owner
        if part:
            return self._part_of_histogram(family, part, pairs, value)
        labels = self._read(pairs)
        if labels is None or family.kind == "histogram":
            return False
        family.values[labels] = value
        return True

    def _owner(self, name: str) -> tuple[Family, str]:
        """The family that samples of this name belong to, and which part of a histogram they are, if any."""
        for part in _PARTS:
            family = self._families.get(name.removesuffix(part)) if name.endswith(part) else None
            if family is not None and family.kind == "histogram":
                return family, part
        return self._families.setdefault(name, Family(name, "unknown")), ""

    def _part_of_histogram(self, family: Family, part: str, pairs: str, value: Number) -> bool:
        limit = ""
        if part == "_bucket":  # its `le` comes last
            pairs, _, last = pairs.rpartition('le="')
            limit = last[:-1]
            if not _is_last_le(last) or (pairs and pairs[-1] != ","):
                return False
            pairs = pairs[:-1]
        key = family.name, pairs
        cell = self._cells[key] if key in self._cells else self._cells.setdefault(key, self._cell(family, pairs))
        if cell is None:
            return False
        if part == "_sum":
            cell.sum = value
        elif not isinstance(value, int):
            return False
        elif limit:
            cell.buckets[limit] = value
        else:
            cell.count = value
        return True

    def _cell(self, family: Family, pairs: str) -> Distribution | None:
        labels = self._read(pairs)
        return None if labels is None else family.distributions.setdefault(labels, Distribution())

    def _read(self, pairs: str) -> Labels | None:
        if pairs in self._labels:
            return self._labels[pairs]
        labels = self._labels[pairs] = _labels(pairs)
        return labels


@lru_cache(maxsize=1024)
def _is_last_le(text: str) -> bool:
    return _LAST_LE.fullmatch(text) is not None


def _number(text: str) -> Number | None:
    """Whole numbers stay whole: a counter above 2^53 keeps its last digit."""
    if len(text) < 20 and text.isascii() and text.isdigit():
        return int(text)
    try:
        return None if "_" in text else float(text)
    except ValueError:
        return None


def _labels(pairs: str) -> Labels | None:
    """`a="1",b="2"` → its pairs; None if that is no list of labels, or names one twice."""
    found: dict[str, str] = {}
    position = count = 0
    while position < len(pairs):
        pair = _PAIR.match(pairs, position)
        if pair is None:
            return None
        found[pair[1]] = _ESCAPE.sub(_unescaped, pair[2]) if "\\" in pair[2] else pair[2]
        position = pair.end()
        count += 1
    return tuple(found.items()) if len(found) == count else None


def _unescaped(escape: re.Match[str]) -> str:
    return "\n" if escape[1] == "n" else escape[1]
