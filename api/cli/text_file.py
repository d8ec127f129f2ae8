"""Files that a user names on the command line."""

from __future__ import annotations

import sys
from pathlib import Path

from api.cli.failures import bad_input


def read_text(file: Path) -> str:
    """All of *file* as UTF-8, of standard input for ``-``. Raises ``CommandFailed`` for one that cannot be read."""
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise bad_input(f"{file} is no UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise bad_input(f"cannot read {file}: {error.strerror}") from error
