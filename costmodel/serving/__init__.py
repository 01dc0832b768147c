"""Under traffic: how long prompts and outputs are (lengths), how long requests wait (queueing), the batch that decoding settles at
(batching), and what engines of a layout promise (engines).
"""
