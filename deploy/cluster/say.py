"""One line of progress on standard error: long steps say what they do, and results alone go to standard output."""

import sys


def say(message: str) -> None:
    """Print `message` now."""
    print(f"cluster: {message}", file=sys.stderr, flush=True)
