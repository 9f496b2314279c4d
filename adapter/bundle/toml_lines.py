"""On which line of a TOML document a value stands. Python's own parser does not tell.

Only for documents that it has accepted: what is here follows the structure (keys, tables, strings, brackets) and checks
nothing.
"""

import re

Where = tuple[str | int, ...]

_SPACE = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_KEY = re.compile(r"""[ \t]*("(?:[^"\\]|\\.)*"|'[^']*'|[A-Za-z0-9_-]+)[ \t]*(\.?)""")
_STRING = re.compile(r""""{3}(?:[^\\]|\\.)*?"{3}(?!")|'{3}.*?'{3}(?!')|"(?:[^"\\\n]|\\.)*"|'[^'\n]*\'""", re.DOTALL)
_PLAIN = re.compile(r"[^,\]}\n#]+")


def line_of(text: str, where: Where) -> int:
    """The line (from 1) of the value at `where`, or of the nearest thing around it that is written down."""
    found = _Lines(text).found
    while where and where not in found:
        where = where[:-1]
    return found.get(where, 1)


class _Lines:
    """One walk through the document; `found` maps each path to its line."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self.found: dict[Where, int] = {}
        self._lengths: dict[Where, int] = {}
        table: Where = ()
        self._skip()
        while self._at < len(text):
            if text[self._at] == "[":
                table = self._table()
            else:
                self._pair(table)
            self._skip()

    def _table(self) -> Where:
        line = self._line()
        is_array = self._text.startswith("[[", self._at)
        self._at += 2 if is_array else 1
        where: Where = ()
        keys = self._keys()
        for key in keys[:-1]:
            where = self._newest((*where, key))
        where = (*where, keys[-1])
        if is_array:
            self._lengths[where] = self._lengths.get(where, 0) + 1
            self.found.setdefault(where, line)
            where = (*where, self._lengths[where] - 1)
        self.found[where] = line
        self._at = self._text.index("]", self._at) + (2 if is_array else 1)
        return where

    def _newest(self, where: Where) -> Where:
        """A table under an array of tables belongs to its last entry."""
        return (*where, self._lengths[where] - 1) if where in self._lengths else where

    def _pair(self, table: Where) -> None:
        line = self._line()
        where = table
        for key in self._keys():
            where = (*where, key)
            self.found.setdefault(where, line)
        self._at = self._text.index("=", self._at) + 1
        self._value(where)

    def _keys(self) -> list[str]:
        keys = []
        while match := _KEY.match(self._text, self._at):
            self._at = match.end()
            keys.append(match[1].strip("\"'"))
            if not match[2]:
                break
        return keys

    def _value(self, where: Where) -> None:
        self._skip()
        self.found.setdefault(where, self._line())
        first = self._text[self._at]
        if first in "[{":
            self._at += 1
            count = 0
            while True:
                self._skip()
                if self._text[self._at] in "]}":
                    self._at += 1
                    return
                if self._text[self._at] == ",":
                    self._at += 1
                elif first == "[":
                    self._value((*where, count))
                    count += 1
                else:
                    self._pair(where)
        match = (_STRING if first in "\"'" else _PLAIN).match(self._text, self._at)
        self._at = match.end() if match else len(self._text)

    def _skip(self) -> None:
        match = _SPACE.match(self._text, self._at)
        self._at = match.end() if match else self._at

    def _line(self) -> int:
        return self._text.count("\n", 0, self._at) + 1
