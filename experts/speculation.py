"""Exact mixtures by speculation: the heaviest expert drafts, the others verify in chunks.

Greedy: the lead's choice a at a position is certain without the others when it leads by more than
their whole weight, w₁ (p₁(a) − p₁(b)) > 1 − w₁ with b its second choice. Other drafts are pending
until the others have run over them in one chunk; the first that differs from the argmax of the
mixture is replaced and what was drafted behind it is forgotten.

Sampling (Leviathan et al. 2023, arXiv 2211.17192, with the mixture as target): a draft x from q₁
is accepted with probability min(1, q(x)/q₁(x)), else drawn again from (q − q₁)₊, where q and q₁ are
the tempered and truncated mixture and lead.

The lead drafts on while the others verify, in the same step: on a CPU a step costs about the same
for a few tokens more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from experts.answer import Answer, Writing
from experts.job import Emit, Feed, Found, Row
from experts.sampling import mix, tempered

VERIFY_AT = 4
MOST_DRAFTS = 8
# Of the certificate: what rounding may add to a difference of two probabilities.
_ROUNDING = 1e-5


@dataclass(frozen=True)
class _Draft:
    """A token that the lead proposed, with the lead's log-probabilities for its place."""

    token: int
    logps: torch.Tensor
    certain: bool


class Speculation(Answer):
    """A mixture whose rows are ordered by weight, the heaviest first.

    Args:
        verify_at: uncertain drafts that are worth a run of the others.
        most_drafts: drafts that may be unconfirmed at a time.
    """

    def __init__(
        self,
        id: str,
        prompt: Sequence[int],
        rows: Sequence[Row],
        emit: Emit,
        writing: Writing,
        *,
        verify_at: int = VERIFY_AT,
        most_drafts: int = MOST_DRAFTS,
    ) -> None:
        ordered = sorted(rows, key=lambda row: -row.weight)
        super().__init__(id, prompt, ordered, emit, writing)
        self._verify_at, self._most_drafts = verify_at, most_drafts
        self._drafts: list[_Draft] = []
        self._verifying = 0
        self._verified: dict[Row, dict[int, torch.Tensor]] = {}
        self.consulted = 0

    def feeds(self) -> list[Feed]:
        """The lead while it may draft, and the others while drafts are to be verified."""
        found = []
        last = len(self.tokens)
        if self._may_draft():
            found.append(Feed(self.rows[0], last, (last - 1,)))
        if self._verifying:
            for row in self.rows[1:]:
                known = self._verified.get(row, {})
                missing = [p for p in self._disputed() if p not in known]
                if missing:
                    found.append(Feed(row, missing[-1] + 1, missing))
        return found

    def work(self, found: Sequence[Found]) -> None:
        """Take in the lead's draft and the others' verdicts."""
        for one in found:
            if one.row is self.rows[0]:
                if one.positions:
                    self._propose(one.logits[-1])
            else:
                known = self._verified.setdefault(one.row, {})
                known.update(zip(one.positions, one.logits, strict=True))
        if self._verifying and self._complete():
            self._judge()
        if not self.done:
            self._confirm_certain()
        if not (self.done or self._verifying) and self._due():
            self._verifying = len(self._drafts)

    def _may_draft(self) -> bool:
        ended = bool(self._drafts) and self._drafts[-1].token in self.writing.ends
        room = self.written + len(self._drafts) < self.sampling.max_tokens
        return room and not ended and len(self._drafts) < self._most_drafts

    def _propose(self, logits: torch.Tensor) -> None:
        logps = torch.log_softmax(logits.float(), dim=-1)
        token = self.choose(logps, self.written + len(self._drafts))
        self.consulted += 1
        self._drafts.append(_Draft(token, logps, self._certain(logps)))
        self.tokens.append(token)

    def _certain(self, logps: torch.Tensor) -> bool:
        if self.sampling.temperature > 0:
            return False
        best, second = logps.topk(2).values.exp().tolist()
        weight = self.rows[0].weight
        return bool(weight * (best - second) > 1 - weight + _ROUNDING)

    def _due(self) -> bool:
        pending = sum(not draft.certain for draft in self._drafts)
        return pending > 0 and (pending >= self._verify_at or not self._may_draft())

    def _complete(self) -> bool:
        wanted = set(self._disputed())
        return all(wanted <= self._verified.get(row, {}).keys() for row in self.rows[1:])

    def _disputed(self) -> list[int]:
        """Positions whose logits decide on the uncertain drafts that are being verified."""
        return [
            self.confirmed + n - 1
            for n, draft in enumerate(self._drafts[: self._verifying])
            if not draft.certain
        ]

    def _judge(self) -> None:
        count, self._verifying = self._verifying, 0
        for _ in range(count):
            if self.done:
                break
            draft = self._drafts.pop(0)
            token = draft.token if draft.certain else self._verdict(draft)
            self.confirm(token)
            if token != draft.token:
                self._forget_drafts()
                break
        self._verified.clear()

    def _confirm_certain(self) -> None:
        while not (self._verifying or self.done) and self._drafts and self._drafts[0].certain:
            self.confirm(self._drafts.pop(0).token)

    def _forget_drafts(self) -> None:
        self._drafts.clear()
        del self.tokens[self.confirmed :]
        for row in self.rows:
            row.cache.rewind(self.confirmed - 1)

    def _verdict(self, draft: _Draft) -> int:
        """The mixture's token at the first unconfirmed place."""
        place = self.confirmed - 1
        others = [self._verified[row][place] for row in self.rows[1:]]
        self.consulted += len(others)
        logps = mix(torch.stack([draft.logps, *others]), [row.weight for row in self.rows])
        if self.sampling.temperature == 0:
            token = int(logps.argmax())
        else:
            token = self._accept(draft, logps)
        return token

    def _accept(self, draft: _Draft, mixed: torch.Tensor) -> int:
        sampling, dice = self.sampling, self.writing.dice
        target = tempered(mixed, sampling.temperature, sampling.top_p)
        proposed = tempered(draft.logps, sampling.temperature, sampling.top_p)
        token = draft.token
        if not dice.accepts(float(target[token] / proposed[token]), self.written):
            token = dice.pick((target - proposed).clamp(min=0), self.written, "again")
        return token
