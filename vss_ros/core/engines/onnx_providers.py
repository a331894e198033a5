"""The ways in which ONNX Runtime computes: on the CPU, or on an NVIDIA GPU through CUDA or TensorRT.

ONNX Runtime replaces a provider it does not have by the CPU and goes on. Here a provider is asked for by
name, looked for before a session is made and again afterwards, and refused if it is not the one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from vss_ros.core.errors import EngineError, PrecisionError

PACKAGES = ('onnxruntime-gpu', 'onnxruntime')  # one of them is installed; they hold the same module


@dataclass(frozen=True)
class Provider:
    """One way to compute.

    Attributes:
        setting: as the setting `provider` names it.
        title: as ONNX Runtime names it.
        precisions: of the files it runs as fast as it should.
        others: providers that may take the nodes it does not know; never the CPU.
    """

    setting: str
    title: str
    precisions: tuple[str, ...]
    others: tuple[str, ...] = ()

    @property
    def is_gpu(self) -> bool:
        return self.setting != 'cpu'

    def file_precision(self, precision: str) -> str:
        """The precision of the files that compute in `precision` here."""
        return 'int8_symmetric' if precision == 'int8' and self.setting == 'tensorrt' else precision

    def options(self, gpu_id: int, precision: str, cache: Path | None) -> list[tuple[str, dict[str, Any]]]:
        """What `InferenceSession` takes as `providers`.

        Args:
            cache: folder for engines of this one ONNX file. TensorRT's engines are kept by the name and the
                shapes of a graph, not by its weights, so two models must never share a folder.
        """
        device = {'device_id': gpu_id} if self.is_gpu else {}
        own: dict[str, Any] = dict(device)
        if self.setting == 'tensorrt':
            own |= {
                'trt_fp16_enable': precision == 'fp16',
                'trt_int8_enable': precision == 'int8',
                'trt_engine_cache_enable': cache is not None,
                'trt_timing_cache_enable': cache is not None,
            }
            if cache is not None:
                own |= {'trt_engine_cache_path': str(cache), 'trt_timing_cache_path': str(cache)}
        return [(self.title, own), *((other, dict(device)) for other in self.others)]


PROVIDERS = {
    provider.setting: provider
    for provider in (
        Provider('cpu', 'CPUExecutionProvider', ('fp32', 'int8')),  # fp16 and bf16 are slower than fp32
        Provider('cuda', 'CUDAExecutionProvider', ('fp32', 'fp16')),
        Provider(
            'tensorrt',
            'TensorrtExecutionProvider',
            ('fp32', 'fp16', 'int8'),
            ('CUDAExecutionProvider',),
        ),
    )
}


def check_available(provider: Provider, available: Sequence[str]) -> None:
    """Refuses a provider that the installed ONNX Runtime was built without.

    Args:
        available: `onnxruntime.get_available_providers()`.
    Raises:
        EngineError: names the package, what it has, and what to install.
    """
    missing = [title for title in (provider.title, *provider.others) if title not in available]
    if missing:
        raise EngineError(
            f'provider is {provider.setting!r}, and {installed_package()} has no {" and no ".join(missing)} '
            f'(it has {", ".join(available)}); install onnxruntime-gpu in place of onnxruntime, or set '
            'provider to cpu'
        )


def check_used(provider: Provider, used: Sequence[str], file: Path) -> None:
    """Refuses a session of which nodes went to another provider than those asked for.

    Args:
        used: the providers that were given nodes.
    Raises:
        EngineError: names the file, what was asked for and what there is.
    """
    if provider.title not in used or not {provider.title, *provider.others}.issuperset(used):
        with_ = ', '.join(used) or 'nothing'
        raise EngineError(
            f'provider is {provider.setting!r}, but ONNX Runtime would run {file} with {with_}; '
            'a library of CUDA, cuDNN or TensorRT is missing or of another version than '
            f'{installed_package()} wants, see its log; or set provider to cpu'
        )


def check_precision(provider: Provider, precision: str) -> None:
    """Refuses a precision that the provider would not compute in, or only slower than in fp32.

    Raises:
        PrecisionError: names both and what to set.
    """
    if precision not in provider.precisions:
        raise PrecisionError(
            f'engine onnxruntime with provider {provider.setting} runs {" and ".join(provider.precisions)}, '
            f'precision is {precision}; set precision to fp32'
        )


def gpu_name() -> str:
    """The GPUs of this machine, for the name of a folder; `gpu` where the driver does not name them."""
    names = set()
    for file in [*Path('/proc/driver/nvidia/gpus').glob('*/information'), Path('/proc/device-tree/model')]:
        with suppress(OSError):  # the latter is on a Jetson
            text = file.read_text(errors='replace')
            model = re.search(r'^Model:(.*)$', text, re.MULTILINE)
            names.add(model[1] if model else text)
    return '+'.join(sorted(re.sub(r'\W+', '_', name.strip(' \0')) for name in names)) or 'gpu'


def installed_package() -> str:
    """The package that ONNX Runtime came in, with its version."""
    versions: Mapping[str, str] = {
        name: version for name in PACKAGES if (version := _version(name)) is not None
    }
    return ' and '.join(f'{name} {version}' for name, version in versions.items()) or 'ONNX Runtime'


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
