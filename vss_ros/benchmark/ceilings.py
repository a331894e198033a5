"""What a processor does at best, which `vss bench` compares the time of graphs with."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from vss_ros.core.processor import usable_cores

CPU_SIDE, GPU_SIDE = 1536, 8192  # of the square matrices that are multiplied
CPU_BYTES, GPU_BYTES = 1 << 27, 1 << 30  # of the arrays that are added, far beyond any cache
ROUNDS = 5
_log = logging.getLogger(__name__)


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


def measured_ceilings(threads: int = 0, gpu_id: int | None = None) -> dict[str, Ceilings]:
    """Those of `cpu`, and with a number of `gpu`, as far as they can be measured.

    The CPU's are of so many threads, 0 for one on each core. They are measured in a process of their own, so
    that its memory and threads are not those of what is measured here.
    """
    threads = threads or usable_cores()
    command = [sys.executable, '-m', __name__, str(threads), *([] if gpu_id is None else [str(gpu_id)])]
    limits = {'OMP_NUM_THREADS': str(threads), 'OPENBLAS_NUM_THREADS': str(threads)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **limits})
    entries = json.loads(done.stdout) if done.returncode == 0 else {}
    wanted = ('cpu',) if gpu_id is None else ('cpu', 'gpu')
    if missing := [name for name in wanted if name not in entries]:
        why = done.stderr.strip()[-300:]
        _log.warning('what the %s does at best is not known: %s', ' and the '.join(missing), why)
    return {name: Ceilings(**entry) for name, entry in entries.items()}


def cpu_ceilings(threads: int) -> Ceilings:
    """Of the CPU: a product by numpy, or by ONNX Runtime where that is faster, and sums by numpy.

    Both by so many threads; numpy's own are limited by the environment before it is loaded.
    numpy's BLAS does not know every processor: on one with AVX-512 ONNX Runtime was nearly twice as fast.
    """
    random = np.random.default_rng(0)
    left, right = random.random((2, CPU_SIDE, CPU_SIDE), np.float32)
    product = np.empty_like(left)
    parts = np.array_split(np.ones((3, CPU_BYTES // 4), np.float32), threads, axis=1)

    def add(part: np.ndarray) -> None:  # numpy reads and writes c once more between the two
        a, b, c = part
        np.multiply(b, 3.0, out=c)
        np.add(a, c, out=c)

    seconds = _least_seconds(lambda: np.matmul(left, right, out=product))
    how = f'numpy {np.__version__}, {threads} threads'
    by_onnxruntime = _product_by_onnxruntime(left, right, threads)
    if by_onnxruntime is not None and (other := _least_seconds(by_onnxruntime)) < seconds:
        seconds, how = other, f'products by ONNX Runtime, sums by {how}'
    with ThreadPoolExecutor(threads) as pool:
        # numpy adds with one thread, but lets others work meanwhile.
        traffic = 5 * CPU_BYTES / _least_seconds(lambda: list(pool.map(add, parts))) / 1e9
    return Ceilings({'fp32': 2 * CPU_SIDE**3 / seconds / 1e9}, traffic, how)


def _product_by_onnxruntime(left: np.ndarray, right: np.ndarray, threads: int) -> Callable[[], Any] | None:
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
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=['CPUExecutionProvider']
    )
    return partial(session.run, None, {'a': left, 'b': right})


def gpu_ceilings(gpu_id: int) -> Ceilings:
    """Of an NVIDIA GPU, by PyTorch.

    Raises:
        RuntimeError: too little of its memory is free.
    """
    import torch

    from vss_ros.core.engines.torch_device import allow_tf32

    device = torch.device('cuda', gpu_id)

    def seconds(call: Callable[[], Any]) -> float:
        def finished() -> None:
            call()
            torch.cuda.synchronize(device)

        return _least_seconds(finished)

    kinds = {'fp32': torch.float32, 'tf32': torch.float32, 'fp16': torch.float16, 'bf16': torch.bfloat16}
    gflops = {}
    for precision, dtype in kinds.items():
        allow_tf32(precision == 'tf32')
        left = torch.randn(GPU_SIDE, GPU_SIDE, device=device, dtype=dtype)
        product = torch.empty_like(left)
        elapsed = seconds(partial(torch.matmul, left, left, out=product))
        gflops[precision] = 2 * GPU_SIDE**3 / elapsed / 1e9
    a, b, c = torch.ones(3, GPU_BYTES // 4, device=device)
    elapsed = seconds(lambda: torch.add(a, b, alpha=3, out=c))
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


def _main(arguments: list[str]) -> None:
    threads, *gpu_ids = map(int, arguments)
    found = {'cpu': cpu_ceilings(threads)}
    for gpu_id in gpu_ids:
        try:
            found['gpu'] = gpu_ceilings(gpu_id)
        except (ImportError, RuntimeError, AssertionError) as error:  # the last: PyTorch without CUDA
            print(error, file=sys.stderr)
    print(json.dumps({name: asdict(ceilings) for name, ceilings in found.items()}))


if __name__ == '__main__':
    _main(sys.argv[1:])
