"""What every method is: networks, the graphs that use them, and the order in which they run."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vss_ros.core.described import check_choice
from vss_ros.core.errors import ModelError, SettingsError, VssError, error_text
from vss_ros.core.model.steps import AGE, CARRIED, DECISIONS
from vss_ros.methods import check_known, options_of
from vss_ros.methods.blocks.camera_bytes import takes_camera_bytes
from vss_ros.methods.blocks.decide import decide
from vss_ros.methods.blocks.image import to_planes, to_rgb

MANY_HALVINGS = 32  # what sides are often divided by, in a network of five halvings


class GraphExample(NamedTuple):
    """The tensors one graph took and gave for one image, by name."""

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]


class Method(nn.Module):
    """A paper's procedure as named graphs over named tensors.

    A graph is a public method of the subclass: its parameter names are the tensors it takes, the
    keys of the dict it returns are the tensors it gives. A step starts with `image` and the state
    and runs its graphs in order, each adding its tensors to one growing dict. Steps between key frames also
    start with `age`, frames since the key frame, float (N, 1, 1, 1).

    A constructor names the options that are its class's own, hands all of them to the next one, and by
    `**options` those of the classes it inherits from: a model is built again from `options`.

    Args:
        classes: number of classes K.
        decision: resolution of deciding a pixel's class, see `decide`.
        temperatures: what scores are divided by for the confidence (never for the mask), by frames since the
            key frame; the last one serves all later ones. A method that computes every frame in full takes
            one at most.
        options: the subclass's own.
    Raises:
        ModelError: a subclass handed on what `options_of` does not know; the message lists what there is.
        SettingsError: an option has a value that cannot be used.

    Attributes:
        steps: stages of the `key`, the `propagated` and the `carried` step, in running order; the last are of
            frames that are only warped from the last one that was computed, and leave the state as it was.
        host_stages: stages that are no graphs: the caller brings the tensor of that name.
        state: name of an output -> name under which the next frame takes it.
        key_network: name of the network that segments images, RGB in [0, 1], (N, 3, H, W) -> scores.
        shared: options that other methods have, too, and that are kept when a model is loaded as one of them.
        correction_interval: of the frames between key frames each n-th takes the `propagated` step, the
            others the `carried` one.
        delay_frames: how many frames the results are behind the newest image.
        align_corners: how scores are resized, see `resize`.
        classes: number of classes K.
        options: what the method was built with, by the names of `options_of`; with the method's name they
            rebuild it. No `temperatures` if there are none.
    """

    steps: dict[str, tuple[str, ...]]
    state: dict[str, str]
    key_network: str
    host_stages: tuple[str, ...] = ()
    delay_frames: int = 0
    align_corners: bool = False
    shared: tuple[str, ...] = ()
    correction_interval: int = 1
    temperature_by_age: Tensor

    def __init__(
        self, classes: int, *, decision: str = 'full', temperatures: Sequence[float] = (), **options: Any
    ) -> None:
        super().__init__()
        known = options_of(type(self))
        check_known(type(self).__name__, options, known)
        self.classes, self.decision = classes, decision
        wanted = 'numbers above 0, that of key frames first, such as [1.3, 1.2]'
        by_age = numbers_by_age('temperatures', temperatures, wanted, least=0)
        self._check_temperatures(temperatures)
        check_choice('decision', decision, tuple(DECISIONS))
        given = {**options, 'decision': decision}
        if temperatures:
            given['temperatures'] = list(temperatures)
        self.options = {name: given[name] for name in known if name in given}
        self.register_buffer('temperature_by_age', by_age, persistent=False)
        self._tells_ages_apart = False
        self.tell_ages_apart(len(temperatures))

    @property
    def graphs(self) -> tuple[str, ...]:
        """Every graph once, in the order of first use."""
        return tuple(dict.fromkeys(graph for kind in self.steps for graph in self.graphs_of(kind)))

    def graphs_of(self, kind: str) -> tuple[str, ...]:
        """The graphs of a step, in running order."""
        return tuple(stage for stage in self.steps[kind] if stage not in self.host_stages)

    def parameters_of(self, graph: str) -> tuple[str, ...]:
        """The parameters of a graph, without those that its options make needless."""
        names = inspect.signature(getattr(self, graph)).parameters
        return tuple(name for name in names if name != AGE or self._tells_ages_apart)

    def inputs_of(self, graph: str) -> tuple[str, ...]:
        """Names of the tensors a graph takes, in the order of its parameters."""
        return self.parameters_of(graph)

    def host_tensors(self, image: Tensor) -> dict[str, Tensor]:
        """Examples of what the host brings, for an image of this size."""
        return {AGE: torch.ones(len(image), 1, 1, 1, device=image.device)}

    def segment(self, rgb: Tensor) -> Tensor:
        """RGB in [0, 1], (N, 3, H, W) -> scores of a frame computed in full, (N, K, h, w).

        They are float32 also under autocast. Once the method is folded, the image is as `look` gives it.
        """
        return self.get_submodule(self.key_network)(rgb).float()

    def fill_in(self, untrained: Sequence[str]) -> None:
        """Give networks of these names, which came without weights, those of others that are alike."""

    def fold(self, image_size: Sequence[int]) -> None:
        """Make constant, before graphs are written, what is constant for images of this (H, W).

        Here the first convolutions of light networks take the camera's bytes as they are. The graphs give
        the same afterwards; the method trains no more and its weights have other names.
        """
        networks: list[Any] = [net for net in self.modules() if hasattr(net, 'take_camera_bytes')]
        for network in networks:
            network.take_camera_bytes()

    def look(self, image: Tensor, network: nn.Module) -> Tensor:
        """A camera image, uint8 (N, H, W, 3) BGR, as one of the networks takes it, (N, 3, H, W)."""
        return to_planes(image) if takes_camera_bytes(network) else to_rgb(image)

    def run(self, graph: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Run one graph on the tensors it names.

        Raises:
            ModelError: a tensor the graph takes is not there.
        """
        missing = [name for name in self.inputs_of(graph) if name not in tensors]
        if missing:
            raise ModelError(
                f"graph '{graph}' needs {', '.join(missing)}; the step has {', '.join(tensors)}. "
                'Start a stream with a key step'
            )
        return self.call(graph, *(tensors[name] for name in self.inputs_of(graph)))

    def call(self, graph: str, *tensors: Tensor) -> dict[str, Tensor]:
        """Run one graph on the tensors that it takes, in the order of `inputs_of`."""
        return getattr(self, graph)(**dict(zip(self.parameters_of(graph), tensors, strict=True)))

    def decided(self, scores: Tensor, size: Sequence[int], age: Tensor | None = None) -> dict[str, Tensor]:
        """What every step ends with: mask and confidence of scores.

        Args:
            scores: class logits, (N, K, h, w).
            size: the image's (H, W).
            age: frames since the key frame, float (N, 1, 1, 1); None on key frames and where nothing tells
                ages apart.
        Returns:
            mask, confidence: see `decide`.
        """
        temperature = at_age(self.temperature_by_age, age)
        return decide(scores, size, self.decision, self.align_corners, temperature)

    def tell_ages_apart(self, ages: int) -> None:
        """Let graphs take a frame's age if there are several to tell apart."""
        self._tells_ages_apart |= ages > 1

    def _check_temperatures(self, temperatures: Sequence[float]) -> None:
        if len(temperatures) > 1 and set(self.steps.get('propagated', ())) <= set(self.steps['key']):
            raise SettingsError(
                f'{len(temperatures)} temperatures were given, but this method computes every frame in full; '
                'give one'
            )

    def state_of(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """What the next frame takes from this one, under the next frame's names.

        Raises:
            ModelError: no graph of the step gave it.
        """
        missing = [name for name in self.state if name not in tensors]
        if missing:
            raise ModelError(
                f'the state has {", ".join(missing)}, which no graph of the step gives; the step has '
                f'{", ".join(tensors)}. Return what the next frame takes from one of its graphs'
            )
        return {later: tensors[name] for name, later in self.state.items()}

    @torch.no_grad()
    def examples(self, image: Tensor, next_image: Tensor | None = None) -> dict[str, GraphExample]:
        """Chain the steps and keep what went through every graph.

        The one source of names, shapes and types for export and for tests. Call `eval()` first.

        Args:
            image: the key frame, uint8 (1, H, W, 3) BGR.
            next_image: the frames after it, same shape; the key frame again if not given.
        Raises:
            ModelError: a graph fails, for images of this size say, or returns something else than tensors by
                name; or a step lacks what a graph or the next frame takes.
        """
        examples: dict[str, GraphExample] = {}
        state: dict[str, Tensor] = {}
        for kind in self.steps:
            frame = image if kind == 'key' or next_image is None else next_image
            tensors = {'image': frame, **self.host_tensors(frame), **state}
            for graph in self.graphs_of(kind):
                outputs = self._outputs(graph, tensors)
                inputs = {name: tensors[name] for name in self.inputs_of(graph)}
                examples.setdefault(graph, GraphExample(inputs, outputs))
                tensors |= outputs
            if kind != CARRIED:
                state = self.state_of(tensors)
        return examples

    def _outputs(self, graph: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """As `run`, with errors that name the graph and the size of the image."""
        height, width = tensors['image'].shape[1:3]
        try:
            outputs = self.run(graph, tensors)
        except VssError:
            raise
        except Exception as error:
            reason = ' '.join(error_text(error).split()).rstrip('.')
            near = [MANY_HALVINGS * max(1, round(side / MANY_HALVINGS)) for side in (width, height)]
            hint = f'. Most networks take multiples of {MANY_HALVINGS}, such as {near[0]}x{near[1]}'
            raise ModelError(
                f'graph {graph!r} fails for images of {width}x{height}: {reason}'
                + (hint if near != [width, height] else '')
            ) from error
        if not isinstance(outputs, dict) or not all(isinstance(each, Tensor) for each in outputs.values()):
            raise ModelError(
                f'graph {graph!r} returns {type(outputs).__name__}; expected tensors by name, such as '
                "{'mask': mask, 'confidence': confidence}"
            )
        return outputs


def numbers_by_age(name: str, values: Any, wanted: str, least: float = -math.inf) -> Tensor:
    """An option that is a list of numbers, by frames since the key frame; float32.

    Args:
        wanted: what the list should hold, for the message.
        least: all numbers must be above it.
    Raises:
        SettingsError: it is something else.
    """
    numbers = values if isinstance(values, list | tuple) else (None,)
    if not all(type(n) in (int, float) and math.isfinite(n) and n > least for n in numbers):
        raise SettingsError(f'{name} is {values!r}; use a list of {wanted}')
    return torch.tensor(numbers, dtype=torch.float32)


def at_age(values: Tensor, age: Tensor | None) -> Tensor | None:
    """The value for each frame of a batch, (N, 1, 1, 1); the last of `values` serves all later ages.

    Args:
        values: if there is one alone, it is given as a scalar; None is given if there is none.
        age: place in `values`, float (N, 1, 1, 1); None: the first.
    """
    if not len(values):
        return None
    if len(values) == 1 or age is None:
        return values[0]
    return values.index_select(0, age.clamp(max=len(values) - 1).flatten().int()).view(-1, 1, 1, 1)
