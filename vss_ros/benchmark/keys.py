"""Figures under the names that `ros2_benchmark` gives them, so that its readers can read ours."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

import numpy as np

PERFORMANCE = 'BasicPerformanceMetrics.'
METADATA = 'BenchmarkMetadata.'


def performance(latencies_ms: Sequence[float], sent: int) -> dict[str, float]:
    """Metrics of frames that were handed over one by one, each when the one before it was done.

    Times in milliseconds, rates per second. Jitter is how much the interval between two results differs from
    the interval before it.

    Args:
        latencies_ms: of the frames that came back, in their order.
        sent: frames that were handed over.
    """
    latencies = np.asarray(latencies_ms, float)
    if not latencies.size:
        return {}
    ends = latencies.cumsum()
    received = float(ends[-1] - ends[0])
    metrics = {
        'NUM_FRAMES_SENT': float(sent),
        'NUM_MISSED_FRAMES': float(sent - len(latencies)),
        'RECEIVED_DURATION': received,
        'FIRST_INPUT_LATENCY': float(latencies[0]),
        'LAST_INPUT_LATENCY': float(latencies[-1]),
        'MAX_LATENCY': float(latencies.max()),
        'MIN_LATENCY': float(latencies.min()),
        'MEAN_LATENCY': float(latencies.mean()),
    }
    if received > 0:
        metrics['MEAN_FRAME_RATE'] = len(latencies) / (received / 1e3)
    if len(latencies) > 2:
        jitter = np.abs(np.diff(ends, 2))
        metrics |= {
            'MAX_JITTER': float(jitter.max()),
            'MIN_JITTER': float(jitter.min()),
            'MEAN_JITTER': float(jitter.mean()),
            'STD_DEV_JITTER': float(jitter.std()),
        }
    return {PERFORMANCE + name: value for name, value in metrics.items()}


def metadata(name: str) -> dict[str, Any]:
    """What was measured, where and when."""
    return {
        METADATA + 'NAME': name,
        METADATA + 'TEST_DATETIME': datetime.now(timezone.utc).strftime('%Y-%m-%dT%H:%M:%SZ'),
        METADATA + 'DEVICE_HOSTNAME': platform.node(),
        METADATA + 'DEVICE_ARCH': platform.machine(),
        METADATA + 'DEVICE_OS': f'{platform.system()} {platform.release()} {platform.version()}',
    }
