"""YAML files and `key=value` options → frozen pydantic models, or one sentence for each mistake: where
it is, what was found, what was expected, and the nearest that works.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import PydanticCustomError

from repro.config.errors import InputError, nearest

FROZEN = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
Model = TypeVar("Model", bound=BaseModel)


def read_yaml(file: Path, loader: Any = yaml.SafeLoader) -> dict[str, Any]:
    """Raises InputError for a file that is not there, cannot be read, or holds no keys and values."""
    try:
        values = yaml.load(file.read_text(encoding="utf-8"), loader)  # noqa: S506  both loaders make plain values only
    except FileNotFoundError:
        raise InputError(f"{file}: no such file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{file}: cannot be read as YAML: {error}") from None
    if not isinstance(values, dict):
        raise InputError(f"{file}: expected keys and values, found {type(values).__name__}")
    return values


def split_setting(text: str, option: str, example: str) -> tuple[str, str]:
    """Split 'key=value' as typed after an option. Raises InputError."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise InputError(f"{option} '{text}': expected key=value, such as {option} {example}")
    return key, value


def read_setting(text: str, option: str, example: str, loader: Any = yaml.SafeLoader) -> tuple[str, Any]:
    """The key and the value of 'key=value', read as YAML. Raises InputError."""
    key, value = split_setting(text, option, example)
    try:
        return key, yaml.load(value, loader)  # noqa: S506  as above
    except yaml.YAMLError:
        raise InputError(f"{option} {key}: '{value}' cannot be read as a YAML value") from None


def validated(model: type[Model], values: Mapping[str, Any], where: str | Callable[[str], str]) -> Model:
    """The model of these values. where: the file or option that they come from, or what names it for a key.

    Raises InputError, a line for each mistake.
    """
    place = (lambda key: where) if isinstance(where, str) else where
    for key in values:
        if key not in (known := keys_of(model)):
            raise InputError(f"{place(key)}: unknown key '{key}'{nearest(key, known)}")
    try:
        return model(**values)
    except ValidationError as error:
        lines = [f"{place(str((*each['loc'], '')[0]))}: {explain(each)}" for each in error.errors()]
        raise InputError("\n".join(lines)) from None


def keys_of(model: type[BaseModel]) -> set[str]:
    """Names by which people write a model's fields."""
    return {field.alias or name for name, field in model.model_fields.items()}


def known_keys(model: type[BaseModel], values: Any) -> Any:
    """A validator for models inside others: refuses unknown keys with the nearest."""
    if isinstance(values, dict):
        for key in values:
            if key not in (known := keys_of(model)):
                raise InputError(f"unknown key '{key}'{nearest(key, known)}")
    return values


def known_name(table: Iterable[str], name: str) -> str:
    """A validator for names of a registry."""
    if name not in table:
        raise PydanticCustomError(
            "literal_error", "unknown name", {"expected": ", ".join(f"'{each}'" for each in table)}
        )
    return name


def explain(problem: Mapping[str, Any]) -> str:
    """One of pydantic's errors as a sentence."""
    place = [str(part) for part in problem["loc"]]
    given, kind = problem.get("input"), problem["type"]
    if place and place[-1] == "[key]":
        place = place[:-2]
    key = ".".join(place)
    if kind == "missing":
        return f"'{key}' is missing"
    if kind == "literal_error":
        known = re.findall(r"'([^']*)'", problem["ctx"]["expected"])
        return f"{key} '{given}' is unknown{nearest(str(given), known)} (expected one of {', '.join(known)})"
    if kind in ("dict_type", "model_type"):
        return f"{key}: expected keys and values, found {given!r}"
    if kind in ("list_type", "tuple_type"):
        return f"{key}: expected a list such as [{given}], found {given!r}"
    if kind == "string_type":
        return f"{key}: expected text, found {given!r}; put it in quotes"
    if kind == "too_short":
        return f"{key}: expected at least one, found none"
    message = problem["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
    if not key or isinstance(given, dict):
        return f"{key}: {message}" if key else message
    return f"{key} {given!r}: {message}"
