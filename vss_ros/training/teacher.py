"""A teacher: the segmenter of an existing model, whose scores another learns to give (Hinton et al. 2015)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vss_ros.core.classes import ClassSet
from vss_ros.core.errors import ModelError
from vss_ros.core.model.folder import load_model
from vss_ros.exporting.weights import load_method
from vss_ros.methods.blocks.resize import resize
from vss_ros.torch_engine.channels_last import channels_last
from vss_ros.training.start import model_and_prefix


def named_teachers(entry: str) -> list[str]:
    """`MODEL/PREFIX + MODEL/PREFIX` of a recipe, one by one."""
    return [origin.strip() for origin in entry.split(' + ')]


def load_teachers(origins: str, classes: ClassSet) -> nn.Module:
    """One teacher, or several joined by ` + `, whose scores are averaged; otherwise as `load_teacher`."""
    teachers = [load_teacher(origin, classes) for origin in named_teachers(origins)]
    return teachers[0] if len(teachers) == 1 else Panel(teachers).eval()


class Panel(nn.Module):
    """Several teachers as one: the mean of their scores, at the size of the first one's."""

    def __init__(self, teachers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.teachers = nn.ModuleList(teachers)

    def forward(self, rgb: Tensor) -> Tensor:
        first, *others = (teacher(rgb).float() for teacher in self.teachers)
        return torch.stack([first, *(resize(scores, first.shape[2:]) for scores in others)]).mean(0)


def load_teacher(origin: str, classes: ClassSet, entry: str = 'teacher') -> nn.Module:
    """The key-frame network of a model, frozen: RGB in [0, 1], (N, 3, H, W) -> scores (N, K, h, w).

    Args:
        origin: folder or name of a model, a slash, and the name of the network: `camvid-evss-lite/csrnet`.
            The model may be of any method.
        entry: of the recipe that names it, for the messages.
        classes: those that are taught; the model must have the same ones in the same order.
    Raises:
        SettingsError: `origin` is not of that form.
        ModelError: there is no such model or network, or it has other classes.
    """
    model_name, prefix = model_and_prefix(entry, origin)
    model = load_model(model_name, graphs=False)
    if model.classes.names != classes.names:
        raise ModelError(
            f'{entry}: {model.name} knows {model.classes.name}, the recipe trains {classes.name}; '
            'use a teacher with the classes of the recipe'
        )
    method = load_method(model)
    if prefix != method.key_network:
        raise ModelError(
            f'{entry}: {model.name} has no network {prefix} that segments images; it has {method.key_network}'
        )
    return channels_last(method.get_submodule(prefix).requires_grad_(False).eval())


def distillation_loss(scores: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """How far a student's answers are from the teacher's, over all pixels, labelled or not: a scalar.

    temperature^2 * KL(softmax(taught / temperature) || softmax(scores / temperature)), the mean over the
    cells. A temperature above 1 softens both, so that what the teacher holds second best is learnt as well;
    its square keeps the size of the gradients.

    Args:
        scores: the student's logits, (N, K, h, w).
        taught: the teacher's; resized where their size is another one.
    """
    taught = resize(taught.float(), scores.shape[2:]) / temperature
    student = (scores.float() / temperature).log_softmax(1)
    divergence = taught.softmax(1) * (taught.log_softmax(1) - student)
    return temperature**2 * divergence.sum(1).mean()


@torch.no_grad()
def answers_of(teacher: nn.Module, rgb: Tensor) -> Tensor:
    """The teacher's scores; it follows the images to their device."""
    return teacher.to(rgb.device)(rgb)
