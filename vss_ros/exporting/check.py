"""What a class must name rightly to be a method, checked before any of it runs."""

from __future__ import annotations

from collections.abc import Mapping

from vss_ros.core.errors import ModelError
from vss_ros.core.model.steps import STEPS
from vss_ros.methods.method import Method


def check_method(method: Method) -> None:
    """Checks the steps of a method, their stages, and its key network.

    Raises:
        ModelError: one of them is no such thing; the message names it, and what was expected.
    """
    name = type(method).__name__
    steps = getattr(method, 'steps', None)
    if not isinstance(steps, Mapping) or 'key' not in steps or set(steps) - set(STEPS):
        raise ModelError(
            f'{name}.steps is {steps!r}; expected stages of the steps {", ".join(STEPS)}, the first at '
            "least, such as {'key': ('segmenter',)}"
        )
    for step, stages in steps.items():
        if not isinstance(stages, tuple | list) or not all(isinstance(stage, str) for stage in stages):
            raise ModelError(
                f"{name}: step {step} is {stages!r}; expected a tuple of stages, such as ('segmenter',)"
            )
        for stage in method.graphs_of(step):
            if not callable(getattr(method, stage, None)):
                raise ModelError(
                    f'{name}: step {step} names {stage!r}, and the class has no function of that name; '
                    'mend the name, or write the graph'
                )
    if not isinstance(getattr(method, 'state', None), Mapping):
        raise ModelError(f'{name} has no state; expected a dict, or {{}} if the next frame takes nothing')
    networks = [network for network, _ in method.named_modules() if network]
    wanted = getattr(method, 'key_network', None)
    if wanted is not None and wanted not in networks:
        children = ', '.join(network for network, _ in method.named_children())
        raise ModelError(f'{name}.key_network is {wanted!r}; expected one of its networks: {children}')
