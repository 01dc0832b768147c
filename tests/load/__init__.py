"""Many people at the dashboard at once, without a browser: `python -m tests.load`."""
