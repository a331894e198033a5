"""What every method is: networks, the graphs that use them, and the order in which they run."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vss_ros.core.errors import ModelError, SettingsError
from vss_ros.methods.blocks.decide import decide

PREVIOUS_AGE = 'previous_age'  # how a graph calls the age of the frame before


class GraphExample(NamedTuple):
    """The tensors one graph took and gave for one image, by name."""

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]


class Method(nn.Module):
    """A paper's procedure as named graphs over named tensors.

    A graph is a public method of the subclass: its parameter names are the tensors it takes, the
    keys of the dict it returns are the tensors it gives. A step starts with `image` and the state
    and runs its graphs in order, each adding its tensors to one growing dict.

    Args:
        classes: number of classes K.
        temperatures: what scores are divided by for the confidence (never for the mask), by frames since the
            key frame; the last one serves all later ones. With more than one a frame's age is part of the
            state: `age`, float (N, 1, 1, 1).
        options: the subclass's own.
    Raises:
        SettingsError: the temperatures cannot be used.

    Attributes:
        steps: stages of the `key` and of the `propagated` step, in running order.
        host_stages: stages that are no graphs: the caller brings the tensor of that name.
        state: name of an output -> name under which the next frame takes it.
        delay_frames: how many frames the results are behind the newest image.
        classes: number of classes K.
        options: the constructor's other arguments; with the name they rebuild the method. No `temperatures`
            if there are none.
    """

    steps: dict[str, tuple[str, ...]]
    state: dict[str, str]
    host_stages: tuple[str, ...] = ()
    delay_frames: int = 0
    temperature_by_age: Tensor

    def __init__(self, classes: int, temperatures: Sequence[float] = (), **options: Any) -> None:
        super().__init__()
        self.classes = classes
        self._check_temperatures(temperatures)
        self.options = {**options, 'temperatures': list(temperatures)} if temperatures else options
        by_age = torch.tensor(list(temperatures), dtype=torch.float32)
        self.register_buffer('temperature_by_age', by_age, persistent=False)
        self.last_age = 0
        self.tell_ages_apart(len(temperatures) - 1)

    @property
    def graphs(self) -> tuple[str, ...]:
        """Every graph once, in the order of first use."""
        return tuple(dict.fromkeys(graph for kind in self.steps for graph in self.graphs_of(kind)))

    def graphs_of(self, kind: str) -> tuple[str, ...]:
        """The graphs of a `key` or `propagated` step, in running order."""
        return tuple(stage for stage in self.steps[kind] if stage not in self.host_stages)

    def parameters_of(self, graph: str) -> tuple[str, ...]:
        """The parameters of a graph, without those that its options make needless."""
        names = inspect.signature(getattr(self, graph)).parameters
        return tuple(name for name in names if name != PREVIOUS_AGE or 'age' in self.state)

    def inputs_of(self, graph: str) -> tuple[str, ...]:
        """Names of the tensors a graph takes, in the order of its parameters."""
        return self.parameters_of(graph)

    def host_tensors(self, image: Tensor) -> dict[str, Tensor]:
        """Examples of what the host stages bring, for an image of this size."""
        return {}

    def fold(self, image_size: Sequence[int]) -> None:
        """Make constant, before graphs are written, what is constant for images of this (H, W).

        The graphs give the same afterwards; the method trains no more and its weights have other names.
        """

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

    def decided(
        self, scores: Tensor, size: Sequence[int], previous_age: Tensor | None = None
    ) -> dict[str, Tensor]:
        """What every step ends with: mask and confidence of scores, and the age if that is in the state.

        Args:
            scores: class logits, (N, K, h, w).
            size: the image's (H, W).
            previous_age: of the frame before, float (N, 1, 1, 1); None on key frames and where no state
                needs it.
        Returns:
            mask, confidence: see `decide`.
            age: frames since the key frame, up to the last that is told apart.
        """
        temperature, ages = None, {}
        by_age = self.temperature_by_age
        if len(by_age):
            temperature = by_age[0]
        if 'age' in self.state:
            # 0 as computed, not as a constant, which some runtimes do not give.
            age = 0 * scores[:, :1, :1, :1] if previous_age is None else previous_age + 1
            ages['age'] = age.clamp(max=self.last_age)
            if previous_age is not None and len(by_age) > 1:
                temperature = at_age(by_age, age)
        options = self.options.get('decision', 'full'), self.options.get('align_corners', False)
        return {**decide(scores, size, *options, temperature), **ages}

    def tell_ages_apart(self, last_age: int) -> None:
        """Keep the age of frames in the state; those beyond `last_age` are all the same."""
        self.last_age = max(self.last_age, last_age)
        if self.last_age > 0:
            self.state = {**self.state, 'age': PREVIOUS_AGE}

    def _check_temperatures(self, temperatures: Any) -> None:
        numbers = temperatures if isinstance(temperatures, list | tuple) else (None,)
        if not all(type(t) in (int, float) and math.isfinite(t) and t > 0 for t in numbers):
            raise SettingsError(
                f'temperatures is {temperatures!r}; use a list of numbers above 0, that of key frames first, '
                'such as [1.3, 1.2]'
            )
        if len(temperatures) > 1 and set(self.steps.get('propagated', ())) <= set(self.steps['key']):
            raise SettingsError(
                f'{len(temperatures)} temperatures were given, but this method computes every frame in full; '
                'give one'
            )

    def step(self, kind: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Run a `key` or `propagated` step; returns `tensors` and all that the graphs added."""
        tensors = dict(tensors)
        for graph in self.graphs_of(kind):
            tensors |= self.run(graph, tensors)
        return tensors

    def state_of(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """What the next frame takes from this one, under the next frame's names."""
        return {later: tensors[name] for name, later in self.state.items()}

    @torch.no_grad()
    def examples(self, image: Tensor, next_image: Tensor | None = None) -> dict[str, GraphExample]:
        """Chain a key step and a propagated step and keep what went through every graph.

        The one source of names, shapes and types for export and for tests. Call `eval()` first.

        Args:
            image: the key frame, uint8 (1, H, W, 3) BGR.
            next_image: the propagated frame, same shape; the key frame again if not given.
        """
        examples: dict[str, GraphExample] = {}
        state: dict[str, Tensor] = {}
        frames = {'key': image, 'propagated': image if next_image is None else next_image}
        for kind in self.steps:
            frame = frames[kind]
            tensors = {'image': frame, **self.host_tensors(frame), **state}
            for graph in self.graphs_of(kind):
                outputs = self.run(graph, tensors)
                inputs = {name: tensors[name] for name in self.inputs_of(graph)}
                examples.setdefault(graph, GraphExample(inputs, outputs))
                tensors |= outputs
            state = self.state_of(tensors)
        return examples


def at_age(values: Tensor, age: Tensor) -> Tensor:
    """The value for each frame of a batch, (N, 1, 1, 1); the last of `values` serves all later ages.

    Args:
        age: place in `values`, float (N, 1, 1, 1).
    """
    return values.index_select(0, age.clamp(max=len(values) - 1).flatten().int()).view(-1, 1, 1, 1)
