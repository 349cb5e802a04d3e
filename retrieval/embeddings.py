"""What an encoder makes of some texts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Embeddings:
    """Unit vectors, float32 [texts, dimensions], and the number of tokens that they were made of.

    Tokens are counted as they are read: special tokens included, cut off at the encoder's limit.
    """

    vectors: npt.NDArray[np.float32]
    tokens: int
