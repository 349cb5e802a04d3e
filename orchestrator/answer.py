"""A whole answer, as the SDK hands it out."""

from dataclasses import dataclass

from orchestrator.errors import UnreadableResponse
from orchestrator.wire import ChatCompletion, ChoiceLogprobs, RoutingReport, UrlCitation, Usage


@dataclass(frozen=True)
class Answer:
    """A whole answer; `raw` is the completion as the server sent it (or as its stream adds up)."""

    raw: ChatCompletion

    def __post_init__(self) -> None:
        if not self.raw.choices:
            raise UnreadableResponse("The server's completion holds no choice.")

    def __str__(self) -> str:
        return self.text

    @property
    def text(self) -> str:
        """The text, with its `[n]` marks."""
        return self.raw.choices[0].message.content or ""

    @property
    def citations(self) -> list[UrlCitation]:
        """One citation per mark, in the order of the marks."""
        return [note.url_citation for note in self.raw.choices[0].message.annotations]

    @property
    def routing(self) -> RoutingReport | None:
        """The decision behind the answer."""
        return self.raw.x_routing

    @property
    def usage(self) -> Usage | None:
        """Token counts."""
        return self.raw.usage

    @property
    def finish_reason(self) -> str | None:
        """Why the answer ended: "stop", "length" or "content_filter"."""
        return self.raw.choices[0].finish_reason

    @property
    def logprobs(self) -> ChoiceLogprobs | None:
        """Log-probabilities of the tokens, where asked for."""
        return self.raw.choices[0].logprobs
