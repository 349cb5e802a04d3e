"""Language tags, checked for their form: BCP 47, https://www.rfc-editor.org/rfc/rfc5646#section-2.1.

Whether a subtag is registered is not checked; grandfathered tags such as `i-klingon` are refused.
"""

import re
from typing import Annotated

from pydantic import AfterValidator

from orchestrator.strict_model import refuse

_LONGEST = 100
_TAG = re.compile(
    r"(?:[a-z]{2,3}(?:-[a-z]{3}){0,3}|[a-z]{4,8})"  # language, extended language
    r"(?:-[a-z]{4})?(?:-(?:[a-z]{2}|[0-9]{3}))?"  # script, region
    r"(?:-(?:[a-z0-9]{5,8}|[0-9][a-z0-9]{3}))*"  # variants
    r"(?:-[0-9a-wy-z](?:-[a-z0-9]{2,8})+)*"  # extensions
    r"(?:-x(?:-[a-z0-9]{1,8})+)?",  # private use
    re.ASCII | re.IGNORECASE,
)


def _well_formed(tag: str) -> str:
    if len(tag) > _LONGEST or not _TAG.fullmatch(tag):
        what = "must be a BCP 47 language tag, such as 'pt' or 'pt-BR' (with '-', not '_')"
        raise refuse("language_tag", "", what)
    return tag


LanguageTag = Annotated[str, AfterValidator(_well_formed)]
