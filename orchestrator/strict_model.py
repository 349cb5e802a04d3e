"""The strict model: refuses unknown keys by name, and finds all faults of a body at once."""

import json
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import ClassVar, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    JsonValue,
    ModelWrapValidatorHandler,
    ValidationError,
)
from pydantic import model_validator as validator
from pydantic_core import PydanticCustomError

from orchestrator.validation import merged


def refuse(kind: str, key: str, message: str) -> PydanticCustomError:
    """Build the error of one key; `message` goes on from the key's path: "must be ...".

    `key` lies below the place where the error is raised; it is empty for that place itself.
    """
    # A key may be any JSON string, lone surrogates included, which no report can hold.
    told = {"key": _printable(key), "message": _printable(message)}
    return PydanticCustomError(kind, "{message}", told)


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


class StrictModel(BaseModel):
    """A frozen model that refuses unknown keys with the nearest match and what is allowed.

    All faults of a body are found at once. `not_served` maps a key that OpenAI knows and Collegium
    does not serve to the one harmless value (beside null) that is accepted because it asks for
    nothing.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    not_served: ClassVar[Mapping[str, JsonValue]] = {}

    @validator(mode="wrap")
    @classmethod
    def _name_every_fault(cls, data: object, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(data, Mapping):
            return handler(data)
        found = [*cls._foreign(data), *cls.conflicts(data)]
        try:
            model = handler({k: v for k, v in data.items() if k in cls.model_fields})
        except ValidationError as error:
            if not found:
                raise
            raise merged(cls.__name__, data, found, error) from None
        if found:
            raise merged(cls.__name__, data, found)
        return model

    @classmethod
    def conflicts(cls, data: Mapping[str, object]) -> Iterator[PydanticCustomError]:
        """Faults between keys, told by `refuse`; `data` is as it was sent, checked in nothing."""
        yield from ()

    @classmethod
    def _foreign(cls, data: Mapping[object, object]) -> Iterator[PydanticCustomError]:
        for key, value in data.items():
            if key in cls.not_served:
                yield from cls._unless_harmless(str(key), value)
            elif key not in cls.model_fields:
                yield cls._unknown(str(key))

    @classmethod
    def _unless_harmless(cls, key: str, value: object) -> Iterator[PydanticCustomError]:
        harmless = cls.not_served[key]
        if value is not None and value != harmless:
            limit = "" if harmless is None else f" beyond the value {json.dumps(harmless)}"
            yield refuse("not_served", key, f"is not supported{limit}; leave it out")

    @classmethod
    def _unknown(cls, key: str) -> PydanticCustomError:
        allowed = sorted(cls.model_fields)
        near = get_close_matches(key, allowed, n=1)
        hint = f"; did you mean `{near[0]}`?" if near else "."
        return refuse("unknown_key", key, f"is not a known key{hint} Allowed: {', '.join(allowed)}")
