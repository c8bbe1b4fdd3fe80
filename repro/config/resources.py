"""Files that come with the package: sweeps, recipes, the paper's tables.

In a checkout they lie beside the package, where people edit them; a wheel carries them inside it.
"""

import os
from pathlib import Path

PACKAGE = Path(__file__).parents[1]


def resource(name: str) -> Path:
    """'sweeps' or 'paper' → the folder that holds it."""
    checkout = PACKAGE.parent / {"paper": "results/paper"}.get(name, name)
    return checkout if checkout.is_dir() else PACKAGE / "_resources" / name


def cache_folder() -> Path:
    """Where made and fetched data are kept between sweeps: $REPRO_CACHE, or the user's cache folder."""
    if folder := os.environ.get("REPRO_CACHE"):
        return Path(folder).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "siglip-repro"
