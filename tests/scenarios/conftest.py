"""Saia as it is installed, or one clear reason why there is no real site."""

from __future__ import annotations

from tests.e2e.conftest import installed

__all__ = ["installed"]
