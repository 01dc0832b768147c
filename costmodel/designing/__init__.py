"""A search for designs: what may change (moves), what was found (designs), and the search itself (search)."""
