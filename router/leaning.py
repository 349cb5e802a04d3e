"""What leans the gate's probabilities before the choice: preferences, locale, files and session.

Preferences, locale and attached files shift log odds: p_i becomes p_i · exp(shift_i), and all are
scaled to the sum 1 again. An expert to which the gate gives 0 stays at 0.

- A preference of 1 multiplies an expert's odds by e^3, about 20; one of −1 divides them by it.
- An expert that declares languages gains e where the locale is one of them, and loses e where not.
- An expert that declares kinds of files gains e^2 where one of them is attached. It loses nothing
  where another is: no list of endings is complete.

A session pulls to the experts of its last decision, by their weights w, the harder the shorter the
message is. Their odds grow by e to e^2.5. Then they get a part of what the gate gives the
generalist, since a message without a domain of its own ("make it shorter") is either everyday or a
follow-up: p_i becomes p_i + b · p_generalist · w_i with b from 1 (no text) to 0 (40 characters).
What plainly belongs elsewhere leaves the generalist little, and stays where it belongs.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from router.chances import Chances
from router.overrides import Overrides, check_known, listed
from router.situation import Situation

PREFERENCE_NATS = 3.0
LOCALE_NATS = 1.0
ATTACHMENT_NATS = 2.0
SESSION_NATS = 1.0
FOLLOW_UP_NATS = 1.5
FOLLOW_UP_CHARACTERS = 40
"""From this length on a message is pulled by `SESSION_NATS` alone."""

_NOTED = 0.005

Languages = Mapping[str, Sequence[str]]
Kinds = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Leaning:
    """The probabilities after all that leans them (sum 1), and a note for each that moved them."""

    probabilities: Mapping[str, float]
    notes: tuple[str, ...] = ()

    def towards(self, cause: str, names: Sequence[str], leaned: Mapping[str, float]) -> "Leaning":
        """Return the leaned probabilities, with a note on which of `names` moved furthest."""
        before = self.probabilities
        name = max(names, key=lambda name: abs(leaned[name] - before[name]), default=None)
        notes = self.notes
        if name is not None and abs(leaned[name] - before[name]) >= _NOTED:
            verb = "raised" if leaned[name] > before[name] else "lowered"
            notes += (f"{cause} {verb} {name} from {before[name]:.2f} to {leaned[name]:.2f}",)
        return Leaning(leaned, notes)


def lean(
    probabilities: Mapping[str, float],
    said: str,
    generalist: str,
    overrides: Overrides,
    situation: Situation,
    languages: Languages,
    kinds: Kinds | None = None,
) -> Leaning:
    """Return the probabilities as preferences, locale, attached files and session lean them.

    `said` is the message that is answered, `languages` what experts declare (BCP 47), `kinds` the
    attachments that they declare to be for.
    Raises `UnknownExpert` for a preference for a name that is not among the probabilities.
    """
    leaning = Leaning(probabilities)
    for cause, shifts in _shifts(overrides, situation, languages, kinds or {}, probabilities):
        names = [name for name in shifts if name in probabilities]
        leaning = leaning.towards(cause, names, shift_odds(leaning.probabilities, shifts))
    previous = {name: w for name, w in situation.previous.items() if name in probabilities}
    if previous:
        pulled = follow(leaning.probabilities, previous, said, generalist)
        # The generalist's own move mirrors that of the others.
        names = [name for name in previous if name != generalist] or list(previous)
        leaning = leaning.towards("the session", names, pulled)
    return leaning


def shift_odds(probabilities: Mapping[str, float], shifts: Mapping[str, float]) -> Chances:
    """Return the probabilities, each multiplied by e to the power of its shift, summing to 1."""
    chances = Chances.of(probabilities)
    places = chances.roster.places
    # No factor is above 1, so that nothing overflows.
    most = max(0.0, *shifts.values()) if shifts else 0.0
    scaled = chances.array * math.exp(-most)
    for name, shift in shifts.items():
        if name in places:
            scaled[places[name]] = chances[name] * math.exp(shift - most)
    return Chances(chances.roster, scaled / scaled.sum())


def follow(
    probabilities: Mapping[str, float],
    previous: Mapping[str, float],
    said: str,
    generalist: str,
) -> Chances:
    """Return the probabilities as the last decision's weights pull them, all names known."""
    brevity = max(0.0, 1.0 - len(said.strip()) / FOLLOW_UP_CHARACTERS)
    pull = SESSION_NATS + FOLLOW_UP_NATS * brevity
    pulled = shift_odds(probabilities, {name: w * pull for name, w in previous.items()})
    places, array = pulled.roster.places, pulled.array.copy()
    handed = brevity * pulled[generalist]
    array[places[generalist]] -= handed
    total = math.fsum(previous.values())
    for name, weight in previous.items():
        array[places[name]] += handed * weight / total
    return Chances(pulled.roster, array)


def locale_shifts(locale: str, languages: Languages) -> dict[str, float]:
    """Return what a locale does for the experts that declare languages."""
    return {
        name: LOCALE_NATS if any(_agree(tag, locale) for tag in tags) else -LOCALE_NATS
        for name, tags in languages.items()
        if tags
    }


def attachment_shifts(attached: Sequence[str], kinds: Kinds) -> dict[str, float]:
    """Return what attached files do for the experts that declare one of their kinds."""
    there = {kind.casefold() for kind in attached}
    return {
        name: ATTACHMENT_NATS
        for name, declared in kinds.items()
        if any(kind.casefold() in there for kind in declared)
    }


def _shifts(
    overrides: Overrides,
    situation: Situation,
    languages: Languages,
    kinds: Kinds,
    known: Mapping[str, float],
) -> Iterator[tuple[str, dict[str, float]]]:
    preferences = overrides.preferences or {}
    for name in preferences:
        check_known(f"preferences.{name}", [name], known)
    if preferences:
        wished = {name: value * PREFERENCE_NATS for name, value in preferences.items()}
        yield "the caller's preferences", wished
    if overrides.locale is not None:
        yield f"locale {overrides.locale}", locale_shifts(overrides.locale, languages)
    declared = {kind.casefold() for wanted in kinds.values() for kind in wanted}
    if found := [kind for kind in situation.attached if kind.casefold() in declared]:
        yield f"the attached {listed(found)}", attachment_shifts(found, kinds)


def _agree(one: str, other: str) -> bool:
    """Whether one tag is the beginning of the other: pt and pt-BR (RFC 4647, section 3.3.1)."""
    first, second = sorted((f"{one}-".casefold(), f"{other}-".casefold()), key=len)
    return second.startswith(first)
