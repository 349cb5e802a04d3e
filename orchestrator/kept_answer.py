"""A whole answer as the cache keeps it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from experts.generation import FinishReason, TokenLogprob, Usage
from retrieval.attribution import Citation

Piece = tuple[str, tuple[TokenLogprob, ...]]
"""Some text of an answer with its log-probabilities."""


@dataclass(frozen=True)
class KeptAnswer:
    """An answer in the pieces in which it was streamed, with its marks and its end.

    `told` are the fields of `x_routing` that tell of the answer and not of the decision.
    """

    pieces: tuple[Piece, ...]
    reason: FinishReason
    usage: Usage
    citations: tuple[Citation, ...]
    told: Mapping[str, Any]

    @property
    def text(self) -> str:
        """The text, marks included."""
        return "".join(text for text, _ in self.pieces)

    def dump(self) -> str:
        """Write it as JSON."""
        body = {
            "pieces": [
                [text, [[p.token, p.logprob, p.top] for p in said]] for text, said in self.pieces
            ],
            "reason": str(self.reason),
            "usage": asdict(self.usage),
            "citations": [asdict(citation) for citation in self.citations],
            "told": dict(self.told),
        }
        return json.dumps(body, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def load(cls, body: str) -> KeptAnswer:
        """Read what `dump` wrote.

        Raises:
            ValueError, KeyError, TypeError: it is nothing of the kind.
        """
        found = json.loads(body)
        return cls(
            tuple((text, tuple(_logprob(*one) for one in said)) for text, said in found["pieces"]),
            FinishReason(found["reason"]),
            Usage(**found["usage"]),
            tuple(Citation(**citation) for citation in found["citations"]),
            found["told"],
        )


def _logprob(token: str, logprob: float, top: list[list[Any]]) -> TokenLogprob:
    return TokenLogprob(token, logprob, tuple((text, value) for text, value in top))
