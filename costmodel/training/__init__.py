"""A training run: what a device holds while it trains (held), and what the whole run takes (runs)."""
