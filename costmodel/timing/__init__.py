"""The time model: passes to be timed (points), ledger rows as kernels (launches), what ranks send (messages), two halves of a
batch at once (overlapping), the clock that sums them (roofline), one workload in seconds (estimating), arrays of them (timetables).
"""
