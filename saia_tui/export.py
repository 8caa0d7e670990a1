"""A table as CSV or JSON for other programs, harmless for the spreadsheet or terminal that opens it."""

from __future__ import annotations

import csv
import io
import json
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import asdict
from rich.text import Text

from saia_tui.columns import Column, Sight

FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What a spreadsheet would compute; the last four are full-width, which some take as well."""


def as_csv(rows: Iterable[Any], columns: Sequence[tuple[Column, int]], sight: Sight) -> str:
    """The cells that are shown, whole, each as harmless text; columns of signs alone are left out."""
    named = [(column, width) for column, width in columns if column.name]
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow([_harmless(column.name) for column, _ in named])
    for row in rows:
        writer.writerow([_harmless(_words(column.cell(row, sight, width))) for column, width in named])
    return out.getvalue()


def as_json(rows: Iterable[Any]) -> str:
    """All fields of each row as they came, times in seconds since the epoch; whatever is not ASCII is escaped."""
    fields = [{name: msgspec.to_builtins(value) for name, value in asdict(row).items()} for row in rows]
    return json.dumps(fields, indent=1) + "\n"


def default_name(table: str, kind: str, at: float) -> str:
    """`saia-jobs-20261124-031207.csv`: local time."""
    return f"saia-{table}-{time.strftime('%Y%m%d-%H%M%S', time.localtime(at))}.{kind}"


def write(file: Path, content: str, *, replace: bool) -> None:
    """Raises FileExistsError unless `replace`, and OSError. Lone surrogates are escaped."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_TRUNC if replace else os.O_EXCL)
    descriptor = os.open(file, flags, 0o666)
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace", newline="") as opened:
        opened.write(content)


def _words(cell: Text) -> str:
    return cell.plain.strip()  # cells are clean already: every one comes from `cells.text`


def _harmless(words: str) -> str:
    """An apostrophe makes text of what would be a formula."""
    return f"'{words}" if words.startswith(FORMULA) else words
