"""The machine that `vss bench` runs on: its names, its memory, and what it can do at best."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vss_ros.core.engines import usable_cores

CPU_SIDE, GPU_SIDE = 1536, 8192  # of the square matrices that are multiplied
CPU_BYTES, GPU_BYTES = 1 << 27, 1 << 30  # of the arrays that are added, far beyond any cache
ROUNDS = 5


@dataclass(frozen=True)
class Ceilings:
    """What a processor does at best, as measured here.

    Attributes:
        gflops: 10^9 additions and multiplications per second of a matrix product, by precision.
        gigabytes_per_s: of reading two arrays and writing a third, c = a + s * b.
        how: what measured it.
    """

    gflops: Mapping[str, float]
    gigabytes_per_s: float
    how: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def cpu_ceilings() -> Ceilings:
    """Of the CPU: a product by numpy, or by ONNX Runtime where that is faster, and sums by numpy.

    numpy's BLAS does not know every processor: on one with AVX-512 ONNX Runtime was nearly twice as fast.
    """
    random = np.random.default_rng(0)
    left, right = random.random((2, CPU_SIDE, CPU_SIDE), np.float32)
    product = np.empty_like(left)
    a, b, c = np.ones((3, CPU_BYTES // 4), np.float32)

    def triad() -> None:  # numpy reads and writes c once more between the two
        np.multiply(b, 3.0, out=c)
        np.add(a, c, out=c)

    seconds = _least_seconds(lambda: np.matmul(left, right, out=product))
    how = f'numpy {np.__version__}, {os.environ.get("OMP_NUM_THREADS", "all")} threads'
    by_onnxruntime = _product_by_onnxruntime(left, right)
    if by_onnxruntime is not None and (other := _least_seconds(by_onnxruntime)) < seconds:
        seconds, how = other, f'products by ONNX Runtime, sums by {how}'
    return Ceilings(
        {'fp32': 2 * CPU_SIDE**3 / seconds / 1e9}, 5 * CPU_BYTES / _least_seconds(triad) / 1e9, how
    )


def _product_by_onnxruntime(left: np.ndarray, right: np.ndarray) -> Callable[[], Any] | None:
    """A call that multiplies the two; None without onnx, which makes the graph."""
    try:
        import onnxruntime
        from onnx import TensorProto, helper
    except ImportError:
        return None
    shape = list(left.shape)
    a, b, c = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in 'abc')
    graph = helper.make_graph([helper.make_node('MatMul', ['a', 'b'], ['c'])], 'product', [a, b], [c])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = usable_cores()
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=['CPUExecutionProvider']
    )
    return partial(session.run, None, {'a': left, 'b': right})


def gpu_ceilings(gpu_id: int = 0) -> Ceilings | None:
    """Of an NVIDIA GPU, by PyTorch; None where there is none."""
    try:
        import torch
    except ImportError:
        return None
    if not torch.cuda.is_available() or gpu_id >= torch.cuda.device_count():
        return None
    device = torch.device('cuda', gpu_id)

    def seconds(call: Callable[[], Any]) -> float:
        def finished() -> None:
            call()
            torch.cuda.synchronize(device)

        return _least_seconds(finished)

    allowed = torch.backends.cuda.matmul.allow_tf32
    kinds = {'fp32': torch.float32, 'tf32': torch.float32, 'fp16': torch.float16, 'bf16': torch.bfloat16}
    try:
        gflops = {}
        for precision, dtype in kinds.items():
            torch.backends.cuda.matmul.allow_tf32 = precision == 'tf32'
            left = torch.randn(GPU_SIDE, GPU_SIDE, device=device, dtype=dtype)
            product = torch.empty_like(left)
            elapsed = seconds(partial(torch.matmul, left, left, out=product))
            gflops[precision] = 2 * GPU_SIDE**3 / elapsed / 1e9
        a, b, c = torch.ones(3, GPU_BYTES // 4, device=device)
        elapsed = seconds(lambda: torch.add(a, b, alpha=3, out=c))
    finally:
        torch.backends.cuda.matmul.allow_tf32 = allowed
    return Ceilings(gflops, 3 * GPU_BYTES / elapsed / 1e9, f'PyTorch {torch.__version__}')


def _least_seconds(call: Callable[[], Any]) -> float:
    """The shortest of some runs: a ceiling is what nothing disturbs."""
    call()
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def machine(gpu_id: int = 0) -> dict[str, Any]:
    """What a reader of the figures must know of the machine."""
    return {
        'processor': _processor(),
        'cores': usable_cores(),
        'gpu': _gpu(gpu_id),
        'system': platform.platform(),
        'python': platform.python_version(),
    }


def _processor() -> str:
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(':')[2].strip() for line in lines if line.startswith('model name'))
    return next(names, platform.processor())


def _gpu(gpu_id: int) -> str | None:
    """The GPU as PyTorch names it, if PyTorch was loaded and sees it."""
    torch = _torch_with(gpu_id)
    return None if torch is None else torch.cuda.get_device_name(gpu_id)


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


def peak_memory_mb() -> float:
    """The most resident memory this process ever had."""
    import resource

    unit = 1 if sys.platform == 'darwin' else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def peak_gpu_memory_mb(gpu_id: int = 0) -> float | None:
    """The most GPU memory that PyTorch ever held for this process; None without a GPU."""
    torch = _torch_with(gpu_id)
    return None if torch is None else torch.cuda.max_memory_reserved(gpu_id) / 1e6
