"""How fast models run on this machine, and how near to what it could do at best.

Imports `core` and numpy; `models.py` also `exporting`, for sizes and precisions that were not exported.
"""
