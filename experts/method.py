"""Which way of computing an answer: the cheapest that is exact for the request."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from experts.answer import Answer, Latent, Lockstep, Writing, draw
from experts.generation import Sampling
from experts.job import Emit, Row
from experts.lookahead import Lookahead
from experts.speculation import Speculation

_HEAVY = 0.6
"""Least weight of the lead at which it drafts: at .7 lock-step was as quick, at .4 quicker."""


class Method(StrEnum):
    """How the tokens of an answer are computed; all but `ALONE` are exact mixtures."""

    ALONE = "alone"
    """One row: a single expert, or a blend."""
    DRAW_ONCE = "draw_once"
    """One expert, drawn by the prior weights, writes the whole answer."""
    LATENT = "latent"
    """One expert is drawn for each token."""
    SPECULATIVE = "speculative"
    """The heaviest expert drafts, the others verify."""
    LOCKSTEP = "lockstep"
    """Every expert predicts every token."""


def choose_method(rows: Sequence[Row], sampling: Sampling, *, posterior: bool) -> Method:
    """The cheapest exact method.

    Plain sampling (temperature 1, nothing truncated, no log-probabilities asked for) from a mixture
    with posterior weights multiplies out to drawing one expert for the whole text:
    Σᵢ wᵢ(x) pᵢ(x_t | x_<t) with wᵢ(x) ∝ wᵢ Π pᵢ gives Σᵢ wᵢ pᵢ(x). With weights that stay, it is a
    draw per token. Where the answer must show the mixture's log-probabilities, or posterior weights
    meet another temperature, every expert is needed at every token. Speculation pays where one
    expert leads: among equals its drafts are refused too often.
    """
    plain = sampling.temperature == 1 and sampling.top_p == 1
    if len(rows) == 1:
        method = Method.ALONE
    elif sampling.logprobs is not None:
        method = Method.LOCKSTEP
    elif plain:
        method = Method.DRAW_ONCE if posterior else Method.LATENT
    else:
        heavy = max(row.weight for row in rows) >= _HEAVY
        method = Method.SPECULATIVE if heavy and not posterior else Method.LOCKSTEP
    return method


def write_by(
    method: Method,
    id: str,
    prompt: Sequence[int],
    rows: Sequence[Row],
    emit: Emit,
    writing: Writing,
    *,
    posterior: bool,
) -> Answer:
    """The job that writes an answer by `method`."""
    job: Answer
    if method is Method.DRAW_ONCE:
        row = draw(rows, writing.dice, 0)
        job = Lookahead(id, prompt, [row], emit, writing)
    elif method is Method.ALONE:
        job = Lookahead(id, prompt, rows, emit, writing)
    elif method is Method.LATENT:
        job = Latent(id, prompt, rows, emit, writing)
    elif method is Method.SPECULATIVE:
        job = Speculation(id, prompt, rows, emit, writing)
    else:
        job = Lockstep(id, prompt, rows, emit, writing, posterior=posterior)
    return job
