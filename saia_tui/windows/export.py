"""Asks for the name of a file, and writes a table or the screen into it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.widgets import Input, Static

from saia_tui import export
from saia_tui.cells import text
from saia_tui.windows.window import Window, facts, label

KINDS = {
    "csv": "the columns shown, as text",
    "json": "all fields, as they came",
    "svg": "the screen, as a picture",
}


class ExportWindow(Window[Path]):
    """The file that was written, or None. `content` makes what it is to hold, by kind. `at`: for the name, local."""

    BINDINGS: ClassVar = [Binding("up", "kind(-1)", show=False), Binding("down", "kind(1)", show=False)]

    def __init__(self, table: str, rows: int, at: float, content: Callable[[str], str]) -> None:
        super().__init__()
        self._table = table
        self._rows = rows
        self._name = export.default_name(table, next(iter(KINDS)), at)
        self._content = content
        self._replace: Path | None = None
        """The operator was told that it exists."""
        self._note = Static(classes="note")

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = label(f"Write {self._table} to a file")
            yield Static(
                facts([("rows", f"{self._rows:,}"), *((f".{kind}", what) for kind, what in KINDS.items())])
            )
            with Horizontal(classes="entry"):
                yield Static(text("file:", "quiet"))
                yield Input(self._name, compact=True, max_length=1000)
            yield self._note

    def on_mount(self) -> None:
        self.set_focus(self.query_one(Input))
        self._say("↑ ↓ another format, Enter writes, Esc leaves", "faint")

    def _say(self, words: str, style: str) -> None:
        self._note.update(text(words, style))

    def action_kind(self, step: int) -> None:
        entry, kinds = self.query_one(Input), list(KINDS)
        stem, dot, ending = entry.value.rpartition(".")
        at = kinds.index(ending) if dot and ending in kinds else -step
        entry.value = f"{stem if dot and ending in kinds else entry.value}.{kinds[(at + step) % len(kinds)]}"
        entry.cursor_position = len(entry.value)

    @on(Input.Changed)
    def _changed(self) -> None:
        self._replace = None

    @on(Input.Submitted)
    def _submit(self, event: Input.Submitted) -> None:
        kind = event.value.rpartition(".")[2].lower()
        if kind not in KINDS:
            self._say("the name ends in .csv, .json or .svg: that says what is written", "warn")
            return
        try:
            self._write(Path(event.value).expanduser().absolute(), kind)
        except (OSError, ValueError, RuntimeError) as exc:  # a zero byte in the name; ~ of an unknown user
            self._say(f"not written: {getattr(exc, 'strerror', None) or exc}", "bad")

    def _write(self, file: Path, kind: str) -> None:
        """Raises OSError, ValueError."""
        try:
            export.write(file, self._content(kind), replace=file == self._replace)
        except FileExistsError:
            self._replace = file
            self._say("it exists: Enter again replaces it", "warn")
        else:
            self.dismiss(file)
