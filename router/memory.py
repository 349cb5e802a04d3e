"""An encoder that remembers: many texts encoded at once beforehand, each looked up afterwards."""

from collections.abc import Sequence

import numpy as np

from router.features import Encoder, Vector
from router.parts import parts
from router.vectors import Progress, VectorCache


class EncoderMemory:
    """An encoder in front of which the vectors of all texts seen are held in memory.

    What was learnt beforehand is answered without the encoder, so that a router that is handed
    this instead of the encoder shows its own time.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._vectors: dict[str, Vector] = {}

    def learn(self, texts: Sequence[str], progress: Progress | None = None) -> None:
        """Encode these prompts as routing will ask for them; `progress` as in `VectorCache`."""
        wanted = dict.fromkeys(part for text in texts for part in parts(text))
        missing = [text for text in wanted if text not in self._vectors]
        if not missing:
            return
        if isinstance(self._encoder, VectorCache):
            found = self._encoder.encode(missing, progress)
        else:
            found = np.asarray(self._encoder(missing), dtype=np.float32)
        self._vectors.update(zip(missing, found, strict=True))

    def __call__(self, texts: Sequence[str]) -> Vector:
        """Return the vectors [n, d] of texts; those not learnt are encoded now."""
        missing = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        if missing:
            found = np.asarray(self._encoder(missing), dtype=np.float32)
            self._vectors.update(zip(missing, found, strict=True))
        return np.stack([self._vectors[text] for text in texts])
