"""Video semantic segmentation for robots."""

import os

# ONNX Runtime reports to Microsoft from 1.32 on, from a thread that is there once it is imported, and keeps
# a device id and a database in the user's cache folder. Whoever wants that says 0.
os.environ.setdefault('ORT_DISABLE_TELEMETRY', '1')
