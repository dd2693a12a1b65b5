"""Guards read the events of a run and stop it when the numbers have left the ground.

A trainer reports ``guard/skipped`` for an update it refused; three in a row end the run. A finite
metric that turns NaN or infinite counts as one too.
"""

import math

from dodona.core.protocols import Event
from dodona.errors import NonFiniteError

IN_A_ROW = 3


class FiniteGuard:
    """Stops after three non-finite updates in a row; a single one is only counted."""

    def __init__(self) -> None:
        self.in_a_row = 0

    def __call__(self, event: Event) -> None:
        broken = [k for k, v in event.metrics.items() if math.isnan(v)]
        if not broken and not event.metrics.get("guard/skipped"):
            self.in_a_row = 0
            return
        self.in_a_row += 1
        if self.in_a_row >= IN_A_ROW:
            raise NonFiniteError(
                f"{self.in_a_row} updates in a row were not finite, the last at step {event.step}"
                f"{' (' + ', '.join(broken) + ')' if broken else ''}. The last checkpoint is from "
                "before; lower the learning rate or look at the batch it stopped on."
            )
