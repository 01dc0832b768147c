"""Settings that all tests share: hypothesis draws the same examples every time, and no test reaches the network."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported: it is read once

from hypothesis import settings

settings.register_profile("costmodel", deadline=None, max_examples=25, derandomize=True)
settings.register_profile("mutants", deadline=None, max_examples=5, derandomize=True, database=None)
settings.load_profile("costmodel")
