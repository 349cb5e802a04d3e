"""What the pipeline asks of the other deployments, across Ray or in this process."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from experts.generation import Chunk, Generation, Health, Score, Scoring
    from orchestrator.errands import Errand, Found
    from orchestrator.telemetry import Carrier
    from retrieval.embeddings import Embeddings
    from retrieval.filters import Condition
    from retrieval.finding import Finding
    from router.decision import Decision
    from router.overrides import Overrides
    from router.situation import Situation


class RouterPort(Protocol):
    """The Router deployment."""

    async def route(
        self,
        messages: Sequence[tuple[str, str]],
        overrides: Overrides,
        trace: Carrier,
        situation: Situation = ...,
        key: str = "",
        keep: bool = True,
    ) -> Decision:
        """The decision on a conversation in its situation, with its vector if the gate decided.

        A canary version's share is drawn by `key`; without one it is a probe and no traffic.
        Without `keep` nothing that was read of the conversation is kept.
        """
        ...


class RetrieverPort(Protocol):
    """The Retriever deployment."""

    async def search(
        self,
        text: str,
        vector: npt.NDArray[np.float32] | None,
        collections: Sequence[str],
        top_k: int,
        trace: Carrier,
        condition: Condition = ...,
    ) -> list[Finding]:
        """What each of some collections holds that meets a condition, those that exist.

        Without its vector the text is embedded.
        """
        ...

    def embed(self, texts: Sequence[str]) -> Coroutine[Any, Any, npt.NDArray[np.float32]]:
        """Unit vectors [n, d]."""
        ...

    async def embeddings(self, texts: Sequence[str], trace: Carrier) -> Embeddings:
        """Unit vectors of a request of its own, with the number of tokens."""
        ...

    async def tend(self, errand: Errand[Found], trace: Carrier) -> Found:
        """What an errand to the collections finds. Raises `RetrievalError`."""
        ...


class ExpertPort(Protocol):
    """One expert's deployment."""

    def generate(self, request: Generation) -> AsyncGenerator[Chunk, None]:
        """Stream an answer."""
        ...

    async def score(self, request: Scoring) -> Score:
        """Log-likelihood of a text."""
        ...

    async def health(self) -> Health:
        """Who answers there."""
        ...
