"""How far masks can be trusted: data sets, protocols, scores and reports.

Imports `core`, numpy and OpenCV; matplotlib only in `plots.py`.
"""
