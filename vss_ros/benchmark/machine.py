"""The machine that `vss bench` runs on: its names and its memory."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any

from vss_ros.core.processor import processor_name, usable_cores


def describe_machine(gpu_id: int) -> dict[str, Any]:
    """What a reader of the figures must know of the machine."""
    return {
        'processor': processor_name(),
        'cores': usable_cores(),
        'gpu': None if (torch := _torch_with(gpu_id)) is None else torch.cuda.get_device_name(gpu_id),
        'system': platform.platform(),
        'python': platform.python_version(),
    }


def _torch_with(gpu_id: int) -> Any:
    """PyTorch, if it was loaded and sees that GPU; else None."""
    torch = sys.modules.get('torch')
    sees = torch is not None and torch.cuda.is_available() and gpu_id < torch.cuda.device_count()
    return torch if sees else None


def memory_mb() -> float:
    """Resident memory of this process now; 0 where the system does not say."""
    try:
        pages = int(Path('/proc/self/statm').read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf('SC_PAGE_SIZE') / 1e6


def peak_memory(gpu_id: int) -> dict[str, float | None]:
    """The most memory that this process ever had, and of a GPU that PyTorch held for it; None without one.

    TensorRT and ONNX Runtime have allocators of their own, which say nothing.
    """
    torch = _torch_with(gpu_id)
    on_gpu = None if torch is None else torch.cuda.max_memory_reserved(gpu_id) / 1e6
    return {'peak_memory_mb': peak_memory_mb(), 'peak_pytorch_gpu_memory_mb': on_gpu}


def peak_memory_mb() -> float:
    """The most resident memory this process ever had."""
    import resource

    unit = 1 if sys.platform == 'darwin' else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
