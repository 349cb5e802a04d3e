"""Sentence vectors as OpenAI's embeddings object."""

from __future__ import annotations

import base64

import numpy as np
import numpy.typing as npt

from orchestrator.wire import Embedding, EmbeddingsResponse, Usage
from retrieval.embeddings import Embeddings


def embeddings_response(found: Embeddings, model: str, *, packed: bool) -> EmbeddingsResponse:
    """The object; `packed` vectors are base64 of little-endian float32."""
    return EmbeddingsResponse(
        data=[Embedding(index=i, embedding=_shown(v, packed)) for i, v in enumerate(found.vectors)],
        model=model,
        usage=Usage(prompt_tokens=found.tokens, total_tokens=found.tokens),
    )


def _shown(vector: npt.NDArray[np.float32], packed: bool) -> list[float] | str:
    if packed:
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    return [float(value) for value in vector]
