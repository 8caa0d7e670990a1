"""Instances: all of them, or one service's."""

from __future__ import annotations

from typing import Any

from saia_tui.feed import Feed
from saia_tui.listings import INSTANCES
from saia_tui.views.list_view import ListView


class InstancesView(ListView):
    def __init__(self, feed: Feed) -> None:
        super().__init__(feed, INSTANCES)
        self.service = ""

    def enter(self, subject: str) -> None:
        """One service's, or all. Another scope begins at its worst row, without a filter."""
        if subject == self.service:
            return
        self.service = subject
        self.first.rows.release()
        self.first.rows.filter_by("")
        self.first.show_where(self._is_in_scope)

    def _is_in_scope(self, row: Any) -> bool:
        return not self.service or row.service == self.service
