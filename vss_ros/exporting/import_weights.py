"""Reads published weights: of the EVSS and DAVSS authors, public PSPNets, any with a method's own names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vss_ros.core.errors import ModelError
from vss_ros.methods.method import Method

COUNTER = '.num_batches_tracked'  # of norms, for their training; old files have none
WRAPPER = 'module.'  # left in names by data-parallel training
SECOND_NAME = 'resnet.'  # the authors' full model holds its backbone twice, once under this name
BACKBONE = 'csrnet.backbone.'
SINGLE_NETWORKS = {  # files of one network, told by a name that only it has
    'logits.conv.weight': 'csrnet.',
    'predict_flow2.weight': 'flownet.',
    'aspp0.atrous_convolution.conv.weight': 'deeplab.',
    'conv6.1.running_mean': 'cfnet.',
    'conv1.0.depthwise.weight': 'dmnet.',
    'decode_head.conv_seg.weight': 'pspnet.',
    'edge_layer.conv5.weight': 'conet.',
}
TRAINING_ONLY = 'pspnet.auxiliary_head'  # no graph has it, and a file may be without it as a whole
MEMORY = {'key.npy': 'MAR.memory_key', 'value.npy': 'MAR.memory_value'}  # the arrays of STF+MAR's authors


def import_weights(files: Sequence[Path], method: Method) -> dict[str, Tensor]:
    """Gather a state dict for `method` from files that each hold the full model or one network.

    A network that is in no file is not in the result either; those that are, are complete, but for an
    auxiliary head, which only training needs. A flow network is passed over where the method takes its flow
    from the host.

    Args:
        files: `.safetensors`, or PyTorch files of nothing but tensors. `key.npy` and `value.npy` beside them
            are put in the place of the memory of `st-memory`.
    Raises:
        ModelError: a file cannot be read, names or shapes do not fit the method, a network comes
            from two files, the two copies of the backbone differ, or a memory comes without MAR.
    """
    state: dict[str, Tensor] = {}
    source: dict[str, Path] = {}
    arrays = [file for file in files if file.suffix == '.npy']
    for file in files:
        if file in arrays:
            continue
        found = with_method_names(read_tensors(file), file)
        if method.options.get('flow', 'network') != 'network':
            found = {name: value for name, value in found.items() if network_of(name) != 'flownet'}
        check_fit(found, method, file)
        for network in dict.fromkeys(map(network_of, found)):
            if network in source:
                raise ModelError(f'{network} is in {source[network]} and in {file}; give only one of them')
            source[network] = file
        state |= found
    if arrays and (sorted(file.name for file in arrays) != sorted(MEMORY) or 'MAR' not in source):
        raise ModelError(
            f'{", ".join(map(str, arrays))}: a memory is key.npy and value.npy; give both, once, and '
            'with them the weights of the MAR that they belong to'
        )
    for file in arrays:
        state[MEMORY[file.name]] = read_memory(file, method)
    return state


def missing_networks(state: dict[str, Tensor], method: Method) -> list[str]:
    """Networks of the method that have no weights in a state dict from `import_weights`."""
    own, given = method.state_dict(), networks_of(state)
    missing = [network for network in networks_of(own) if network not in given]
    whole = network_of(TRAINING_ONLY) in given and has_part(own, TRAINING_ONLY)
    return [*missing, TRAINING_ONLY] if whole and not has_part(state, TRAINING_ONLY) else missing


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Read a file of named tensors without running any code that it may hold.

    They may be the entry `state_dict`, beside facts about the training, as in public PSPNets.

    Raises:
        ModelError: the file is missing, damaged, or holds more than that.
    """
    refused = (
        f'{file} is refused: it holds more than tensors, or is no PyTorch file; '
        'save the bare state dict, or convert it to .safetensors'
    )
    content: Any
    try:
        if file.suffix == '.safetensors':
            content = load_file(file)
        else:
            content = torch.load(file, map_location='cpu', weights_only=True)
    except FileNotFoundError as error:
        raise ModelError(f'{file} does not exist; expected a file of weights') from error
    except (SafetensorError, OSError, RuntimeError, EOFError) as error:
        if 'weights_only' in str(error):  # a TorchScript archive, for which PyTorch advises to run its code
            raise ModelError(refused) from error
        raise ModelError(
            f'{file} cannot be read: {str(error) or "it is empty"}; download it again'
        ) from error
    except Exception as error:  # nearly anything, where a file is damaged or of another kind
        raise ModelError(refused) from error
    if isinstance(content, dict):
        content = content.get('state_dict', content)
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise ModelError(
            f'{file} is no mapping of names to tensors; save the bare state dict, without a wrapper'
        )
    if odd := [name for name, value in content.items() if not _is_plain(value)]:
        raise ModelError(
            f'{file}: {odd[0]} is no plain tensor of real numbers; save it dense, with its values'
        )
    return content


def _is_plain(value: Tensor) -> bool:
    """Neither sparse nor without values nor complex, which no network of ours can take."""
    return value.layout == torch.strided and not (value.is_meta or value.is_complex() or value.is_quantized)


def read_memory(file: Path, method: Method) -> Tensor:
    """Read key.npy, as many rows a class as the method has keys, or value.npy, one, which is repeated.

    Raises:
        ModelError: the file is missing or damaged, or does not fit the method.
    """
    _, rows, width = method.state_dict()[MEMORY[file.name]].shape
    repeats = method.options['keys_per_class'] if file.name == 'value.npy' else 1
    try:
        array = np.lib.format.open_memmap(file, mode='r')  # refuses Python objects
    except (OSError, ValueError) as error:
        raise ModelError(f'{file} cannot be read as an array: {error}; download it again') from error
    if array.shape != (rows // repeats, width) or array.dtype.kind != 'f':
        raise ModelError(
            f'{file} is {array.dtype} of shape {array.shape}; this method takes floats of '
            f'{(rows // repeats, width)}'
        )
    return torch.from_numpy(np.array(array, np.float32)).repeat_interleave(repeats, 0)[None]


def with_method_names(tensors: dict[str, Tensor], file: Path) -> dict[str, Tensor]:
    """The tensors of a published file under the names that they have in the method.

    Raises:
        ModelError: the two copies of the backbone differ.
    """
    tensors = {name.replace(WRAPPER, ''): tensor for name, tensor in tensors.items()}
    for mark, prefix in SINGLE_NETWORKS.items():
        if mark in tensors:
            return {prefix + name: tensor for name, tensor in tensors.items()}
    named: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.startswith(SECOND_NAME):
            name = BACKBONE + name.removeprefix(SECOND_NAME)
        if name in named and not torch.equal(named[name], tensor):
            raise ModelError(
                f'{file} holds two different backbones: {name} is not what its copy '
                f'under {SECOND_NAME} is; the file is damaged or mixed from two trainings'
            )
        named[name] = tensor
    return named


def check_fit(found: dict[str, Tensor], method: Method, file: Path) -> None:
    """Raises ModelError unless `found` holds complete networks of the method, shapes included."""
    wanted = method.state_dict()
    unexpected = [name for name in found if name not in wanted]
    networks = networks_of(found)
    needless = () if has_part(found, TRAINING_ONLY) else (f'{TRAINING_ONLY}.',)
    missing = [
        name
        for name in wanted
        if network_of(name) in networks
        and name not in found
        and not name.endswith(COUNTER)
        and not name.startswith(needless)
    ]
    if unexpected or missing:
        raise ModelError(
            f'{file} does not fit the method: missing {listed(missing)}; unexpected {listed(unexpected)}. '
            'Choose the method and the options that it was trained with'
        )
    wrong = [
        f'{name} is {tuple(tensor.shape)} instead of {tuple(wanted[name].shape)}'
        for name, tensor in found.items()
        if tensor.shape != wanted[name].shape
    ]
    if wrong:
        raise ModelError(f'{file} does not fit a method of {method.classes} classes: {listed(wrong)}')


def network_of(name: str) -> str:
    return name.split('.')[0]


def has_part(names: Iterable[str], part: str) -> bool:
    return any(name.startswith(f'{part}.') for name in names)


def networks_of(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(map(network_of, names)))


def listed(names: Sequence[str], most: int = 5) -> str:
    """The first names, and how many more there are."""
    more = f' and {len(names) - most} more' if len(names) > most else ''
    return ', '.join(names[:most]) + more if names else 'none'
