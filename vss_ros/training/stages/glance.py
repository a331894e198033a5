"""Stage `glance`: how evss-lite sees a frame made smaller, taught by the segmenter of key frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vss_ros.core.described import setting
from vss_ros.core.errors import SettingsError
from vss_ros.methods.blocks.lite import LiteSegmenter
from vss_ros.methods.evss_lite import EvssLite
from vss_ros.methods.method import Method
from vss_ros.training.stages.segmenter import SegmenterSettings, SegmenterStage
from vss_ros.training.teacher import load_teachers

if TYPE_CHECKING:
    from vss_ros.training.gather import Gathered
    from vss_ros.training.recipe import StageRecipe


@dataclass(frozen=True)
class GlanceSettings(SegmenterSettings):
    """As those of the segmenter; the teacher is the method's own segmenter, if none is named."""

    begin_as_segmenter: bool = setting(
        True, 'with its weights; otherwise as the glance is, which may `start` from a model'
    )


class GlanceStage(SegmenterStage):
    """Learns on views like the segmenter, which stays as it is. The stage `correction` trains it further."""

    name = 'glance'
    settings_class = GlanceSettings
    method_class = EvssLite

    @classmethod
    def create(cls, method: Method, data: Gathered, recipe: StageRecipe) -> GlanceStage:
        """The stage of a recipe.

        Raises:
            SettingsError: the segmenter is of another kind, so the glance cannot begin with its weights.
        """
        assert isinstance(method, EvssLite)
        own = method.csrnet.requires_grad_(False).eval()
        if recipe.sampling.begin_as_segmenter:
            if not isinstance(own, LiteSegmenter):
                raise SettingsError(
                    'a glance can begin as a light segmenter only; set begin_as_segmenter: false, and let it '
                    'start from a model (start: {glance: camvid-evss-lite/glance})'
                )
            method.glance.begin_as(own)
        teacher = load_teachers(recipe.sampling.teacher, data.class_set) if recipe.sampling.teacher else own
        stills = data.stills(recipe.shares, labelled=False)
        stage = cls(method.glance, data.classes, stills, data.aside, recipe.sampling, data.seed, teacher)
        method.glance.remember.requires_grad_(False)  # nothing is carried to a still
        return stage
