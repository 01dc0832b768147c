"""A quantity over a grid: axes and blocks (grids), what can be asked (tasks), the question checked (questions), results on disk
(parts), work on a Dask cluster (clusters), and the sweep as a whole (sweeps).
"""
