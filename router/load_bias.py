"""Balancing by a bias on the choice alone, as in auxiliary-loss-free balancing.

After each request b_i += step · sign(mean load − load_i), within ±most
(https://arxiv.org/abs/2408.15664; there per training batch). The bias is added to the
probability when experts are ranked; their weights stay those of the probabilities.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class LoadBias:
    """The biases of the experts `names` after some requests; `values` holds those that are not 0.

    Loads are seconds of waiting. A load within `tolerance` of the mean counts as equal to it, and
    that expert's bias goes back towards 0 by a step, so that nothing lingers when queues are gone.
    """

    names: tuple[str, ...]
    step: float = 0.01
    most: float = 0.1
    tolerance: float = 0.1
    values: Mapping[str, float] = field(default_factory=dict)

    def after(self, loads: Mapping[str, float]) -> "LoadBias":
        """Return the biases after one more request; a name without load has 0 seconds."""
        if not self.values and not any(loads.values()):
            return self
        mean = math.fsum(loads.get(name, 0.0) for name in self.names) / len(self.names)
        moved = {
            name: self._moved(self.values.get(name, 0.0), mean - loads.get(name, 0.0))
            for name in self.names
        }
        return replace(self, values={name: value for name, value in moved.items() if value})

    def _moved(self, bias: float, slack: float) -> float:
        if abs(slack) <= self.tolerance:
            return math.copysign(max(0.0, abs(bias) - self.step), bias)
        return min(self.most, max(-self.most, bias + math.copysign(self.step, slack)))
