"""Helpers that the tests share; nothing in here is a test."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parent.parent.parent  # the repository
