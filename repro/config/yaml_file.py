"""YAML files that people write: keys and values, or a message that names the file."""

from pathlib import Path
from typing import Any

import yaml

from repro.config.errors import InputError


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
