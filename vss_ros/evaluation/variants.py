"""Other models made of a model: other steps over the same graphs, so the runtime takes them for models."""

from __future__ import annotations

from dataclasses import replace

from vss_ros.core.model.folder import ModelFolder

WARP, WARPED, DECIDE = 'warp', 'warped', 'decide'  # a stage, what it gives, and the stage that is ours


def in_full(model: ModelFolder) -> ModelFolder:
    """The model that takes every frame for a key frame."""
    return replace(model, steps={'key': model.steps['key']}, state={}, delay_frames=0, correction_interval=1)


def without_correction(model: ModelFolder) -> ModelFolder | None:
    """The model that warps its scores and does nothing else, as DFF does.

    It goes from the same frames as the model, along the same flows. Its last stage, `decide`, is no graph:
    the engine that knows it is `Decider`. None if the model has no stage `warp` that gives
    scores.
    """
    stages = model.steps.get('propagated', ())
    if WARP not in stages or WARP not in model.graphs:
        return None
    warped = model.graphs[WARP].outputs.get(WARPED)
    if warped is None or warped.shape[1] != len(model.classes):
        return None
    stages = stages[: stages.index(WARP) + 1]
    taken = {name for stage in stages if stage in model.graphs for name in model.graphs[stage].inputs}
    state = {output: name for output, name in model.state.items() if name in taken}
    between = {step: (*stages, DECIDE) for step in model.steps if step != 'key'}
    variant = replace(model, steps={**model.steps, **between}, state=state)
    known = model.graphs[WARP].outputs
    return variant if all(warped in known for warped in carried_by_warp(variant).values()) else None


def carried_by_warp(model: ModelFolder) -> dict[str, str]:
    """What the next frame's warp takes -> the output of this frame's warp that it is.

    `warp` gives `warped` for `previous_scores`, and `warped_x` for any other `previous_x`.
    """
    taken = model.graphs[WARP].inputs
    names = {
        output: name.removeprefix('previous_')
        for output, name in model.state.items()
        if name in taken and name != output  # else it stays as the key frame left it
    }
    return {output: WARPED if name == 'scores' else f'{WARPED}_{name}' for output, name in names.items()}
