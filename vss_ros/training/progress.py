"""What a training shows on the terminal: a bar for each stage, a line for each validation."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from tqdm import tqdm


class Progress:
    """Takes `report(stage, step, values)` calls; values with a `loss` are steps, others scores."""

    def __init__(self, steps: Mapping[str, int]) -> None:
        self._steps = steps
        self._bar: tqdm | None = None
        self._stage = ''

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        self._close()

    def __call__(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        if self._bar is None or self._stage != stage:
            self._close()
            self._stage = stage
            self._bar = tqdm(
                desc=stage, total=self._steps[stage], initial=step, dynamic_ncols=True, file=sys.stderr
            )
        if 'loss' in values:
            terms = {name: f'{value:.3f}' for name, value in values.items()}
            self._bar.set_postfix(terms, refresh=False)
            self._bar.update(step + 1 - self._bar.n)
        else:
            scores = '  '.join(f'{name} {value:.1f}' for name, value in values.items())
            self._bar.write(f'{stage} {step + 1}: {scores}', file=sys.stderr)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
