"""Citing while streaming: the attributor's marks, with vectors from the Retriever deployment."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from orchestrator.ports import RetrieverPort
from retrieval.attribution import Attributor, Citation
from retrieval.passage import Passage
from retrieval.support import Tally


class Marker:
    """Puts the marks of one answer. Without passages the text passes unchanged."""

    def __init__(
        self, passages: Sequence[Passage], retriever: RetrieverPort, question: str = ""
    ) -> None:
        """`question` is what is answered."""
        self._loop = asyncio.get_running_loop()
        self._retriever = retriever
        self._attributor = Attributor(passages, self._encode, question) if passages else None

    @property
    def citations(self) -> tuple[Citation, ...]:
        """The marks so far."""
        return self._attributor.citations if self._attributor else ()

    @property
    def tally(self) -> Tally:
        """How many sentences so far could be checked, and how many are supported."""
        return self._attributor.tally if self._attributor else Tally()

    async def feed(self, delta: str, *, final: bool) -> str:
        """The text that may go out now; with `final`, all that was held back as well."""
        if self._attributor is None:
            text = delta
        else:
            # In a thread: the attributor asks for vectors and waits, and this loop fetches them.
            text = await asyncio.to_thread(self._read, self._attributor, delta, final)
        return text

    @staticmethod
    def _read(attributor: Attributor, delta: str, final: bool) -> str:
        text = attributor.feed(delta)
        return text + attributor.flush() if final else text

    def _encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        vectors = self._retriever.embed(list(texts))
        return asyncio.run_coroutine_threadsafe(vectors, self._loop).result()
