"""What a client would like, if it can be had: the `Prefer` header (RFC 7240)."""

import re

from multidict import MultiMapping

_EACH = re.compile(r'(?:[^,"]++|"(?:[^"\\]|\\.)*+"?)++')
_LONGEST = 1024


def preferred(headers: MultiMapping[str], name: str) -> str:
    """The value of the preference `name` (in lower case), "" if there is none. Of one given twice the first counts (§2)."""
    if "Prefer" not in headers:
        return ""
    for preference in _EACH.findall(",".join(headers.getall("Prefer"))[:_LONGEST]):
        given, _, value = preference.partition(";")[0].partition("=")
        if given.strip(" \t").lower() == name:
            return str(value).strip(" \t").strip('"')
    return ""
