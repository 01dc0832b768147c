"""Settings that all tests share: hypothesis draws the same examples every time."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("costmodel", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("costmodel")
