"""The router room: a conversation in, a weighted choice of experts out. Knows no other room."""

from router.decision import Candidate, Decision
from router.features import ConversationError, Encoder
from router.gate import Gate, GateError
from router.overrides import OverrideError, Overrides, UnknownExpert
from router.policy import Policy
from router.router import Router
from router.situation import Situation

__all__ = [
    "Candidate",
    "ConversationError",
    "Decision",
    "Encoder",
    "Gate",
    "GateError",
    "OverrideError",
    "Overrides",
    "Policy",
    "Router",
    "Situation",
    "UnknownExpert",
]
