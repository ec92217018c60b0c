"""Fields of dataclasses that say what they hold, in the form that pydantic reads. Knows no pydantic."""

from dataclasses import field
from typing import Any


def described(description: str, *, strict: bool = False, default: Any = ..., **constraints: Any) -> Any:
    """A field with a description for the API's documentation; `constraints` as pydantic's Field has them (ge, le).

    strict: the wire's type must be the field's own (a number in quotes is no number)."""
    metadata = {"description": description, **({"strict": True} if strict else {}), **constraints}
    return field(metadata=metadata) if default is ... else field(default=default, metadata=metadata)
