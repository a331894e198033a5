"""The stages a recipe can name, each in a file of its name.

A stage is a class with

* `name`, the name in recipes; `settings_class`, a frozen dataclass: the entries of `sampling`;
* `method_class`, the methods it can train;
* `create(method, data, stage recipe)`, which makes one, and what `loop.Stage` says: batches, losses, scores;
* if that is long work, `check(method, data, stage recipe)`, which raises what it would, see `check_stage`.

Methods whose propagated frames learn from clips subclass `PropagationStage` and write little more than
their losses. Stages that share an idea share the file of the first one.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from vss_ros.core.errors import ModelError, SettingsError, SourceError
from vss_ros.training.loop import Stage
from vss_ros.training.optimiser import by_rate

if TYPE_CHECKING:
    from vss_ros.methods.method import Method
    from vss_ros.training.gather import Gathered
    from vss_ros.training.recipe import StageRecipe

STAGES = {
    'growth': 'vss_ros.training.stages.growth:GrowthStage',
    'segmenter': 'vss_ros.training.stages.segmenter:SegmenterStage',
    'glance': 'vss_ros.training.stages.glance:GlanceStage',
    'flow': 'vss_ros.training.stages.flow:FlowStage',
    'correction': 'vss_ros.training.stages.correction:CorrectionStage',
    'distortion': 'vss_ros.training.stages.distortion:DistortionStage',
    'joint': 'vss_ros.training.stages.distortion:JointStage',
    'fusion': 'vss_ros.training.stages.fusion:FusionStage',
    'refinement': 'vss_ros.training.stages.fusion:RefinementStage',
    'update': 'vss_ros.training.stages.update:UpdateStage',
    'scaling': 'vss_ros.training.stages.scaling:ScalingStage',
    'decision': 'vss_ros.training.stages.decision:DecisionStage',
    'rectification': 'vss_ros.training.stages.rectification:RectificationStage',
}


class StageClass(Protocol):
    """What `STAGES` leads to."""

    name: ClassVar[str]
    settings_class: ClassVar[type[Any]]
    method_class: ClassVar[type[Method]]

    @staticmethod
    def create(method: Any, data: Gathered, recipe: StageRecipe) -> Stage: ...


def stage_class(name: str) -> StageClass:
    """The class of a stage, by its name in recipes.

    Raises:
        SettingsError: there is no such stage; the message lists those there are.
    """
    if name not in STAGES:
        raise SettingsError(f'{name!r} is no stage; use {", ".join(STAGES)}')
    module, class_name = STAGES[name].split(':')
    return getattr(import_module(module), class_name)


def check_stage(method: Method, data: Gathered, recipe: StageRecipe) -> None:
    """Raise now what the stage would when its turn comes, which may be days later.

    It is created, and asked for a sample.

    Args:
        method: a copy of it, for stages change what they train.
    Raises:
        SettingsError, SourceError, ModelError: as the stage does; the message begins with its name.
    """
    kind = stage_class(recipe.name)
    check = getattr(kind, 'check', None)
    try:
        if check is not None:
            check(method, data, recipe)
        else:
            stage = kind.create(method, data, recipe)
            stage.batch(0, [0])
            by_rate(stage.module, recipe.fit.rates)
    except (SettingsError, SourceError, ModelError) as error:
        raise type(error)(f'{recipe.name}: {error}') from error
