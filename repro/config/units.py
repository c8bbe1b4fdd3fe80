"""Counts as people write them: 32k and 1M for batch sizes (k = 1,024), 65k and 3B for examples (k = 1,000), amounts of
memory, lengths of time.

The paper rounds two batch sizes in decimal: its 98k is 98,304 = 96 · 1,024 and its 307k is 307,200 = 300 · 1,024.
They are read and written under the paper's names.
"""

import re

from repro.config.errors import InputError

PAPER_BATCH_SIZES = {"98k": 98_304, "307k": 307_200}
BINARY = {"": 1, "k": 1024, "m": 1024**2}
DECIMAL = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}


def parse_batch_size(text: str | int) -> int:
    """32k → 32,768; 98k → 98,304; 1M → 1,048,576. Raises InputError."""
    if str(text).lower() in PAPER_BATCH_SIZES:
        return PAPER_BATCH_SIZES[str(text).lower()]
    return _parse(text, BINARY, "a batch size, such as 512, 32k (= 32,768) or 1M (= 1,048,576)")


def parse_positive(text: str | int, where: str) -> int:
    """A batch size of 1 or more, from the option or key that `where` names. Raises InputError."""
    try:
        count = parse_batch_size(text)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    if count < 1:
        raise InputError(f"{where} {count}: expected 1 or more")
    return count


def parse_examples(text: str | int) -> int:
    """65k → 65,000; 3B → 3,000,000,000. Raises InputError."""
    return _parse(text, DECIMAL, "a number of examples, such as 65536, 65k (= 65,000) or 3B")


def format_batch_size(count: int) -> str:
    """32,768 → 32k, 1,048,576 → 1M; what parse_batch_size reads back to the same number."""
    for name, value in PAPER_BATCH_SIZES.items():
        if count == value:
            return name
    for letter, unit in (("M", 1024**2), ("k", 1024)):
        if count >= unit and count % unit == 0:
            return f"{count // unit}{letter}"
    return str(count)


def format_examples(count: float) -> str:
    """65,536 → 65.5k, 3,000,000,000 → 3B: three figures, for reading."""
    for letter, unit in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= unit:
            return f"{count / unit:.1f}".rstrip("0").rstrip(".") + letter
    return f"{count:g}"


def smaller_micro_batch(local_batch: int, micro_batch: int) -> int | None:
    """After `micro_batch` was out of memory: the largest divisor of the local batch that is at most half of it."""
    half = min(local_batch, micro_batch) // 2
    return next((size for size in range(half, 0, -1) if local_batch % size == 0), None)


def format_bytes(count: float) -> str:
    """1,572,864 → 1.5 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def parse_bytes(text: str) -> int:
    """2GB → 2,000,000,000; 2GiB → 2,147,483,648. Raises InputError."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) *([kmgt]?)(i?)b?", str(text).strip().lower())
    if match is None or (match[3] and not match[2]):
        raise InputError(f"'{text}' is not an amount of memory, such as 500MB, 2GB (= 2,000,000,000 bytes) or 2GiB")
    power = ("", "k", "m", "g", "t").index(match[2])
    return int(float(match[1]) * (1024 if match[3] else 1000) ** power)


def parse_seconds(text: str) -> int:
    """90m → 5,400; also 24h, 1h30m, and SLURM's 2:00:00 and 1-12:00:00. Raises InputError with the nearest forms.

    90 and 2:00, minutes to SLURM, are refused: others read them as seconds or hours.
    """
    text = str(text).strip().lower()
    if match := re.fullmatch(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text) if text else None:
        return _seconds(*match.groups())
    if match := re.fullmatch(r"(?:(\d+)-)?(\d+):(\d\d):(\d\d)", text):
        return _seconds(*match.groups())
    if match := re.fullmatch(r"(\d+)-(\d+)(?::(\d\d))?", text):
        return _seconds(*match.groups())
    if re.fullmatch(r"\d+", text):
        meant = f"{text}m or {text}h"
    elif match := re.fullmatch(r"(\d+):(\d+)", text):
        meant = f"{match[1]}h{match[2]}m or {match[1]}m{match[2]}s"
    else:
        meant = "90m, 24h, 2:00:00 or 1-12:00:00"
    raise InputError(f"'{text}' is not a length of time; the nearest are {meant}")


def format_seconds(count: float) -> str:
    """5,400 → 1.5 h, 120 → 2 min: for reading."""
    for unit, seconds in (("h", 3600), ("min", 60)):
        if count >= seconds:
            return f"{count / seconds:,.1f}".removesuffix(".0") + f" {unit}"
    return f"{count:.0f} s"


def _seconds(days: str | None, hours: str | None, minutes: str | None, seconds: str | None = None) -> int:
    return ((int(days or 0) * 24 + int(hours or 0)) * 60 + int(minutes or 0)) * 60 + int(seconds or 0)


def _parse(text: str | int, units: dict[str, int], expected: str) -> int:
    if isinstance(text, int) and not isinstance(text, bool):
        return text
    match = re.fullmatch(r"([0-9][0-9_,]*(?:\.[0-9]+)?)([a-z]?)", str(text).strip().lower())
    if match is None or match[2] not in units:
        raise InputError(f"'{text}' is not {expected}")
    number, unit = match[1].replace(",", "").replace("_", ""), units[match[2]]
    count = float(number) * unit
    if count != int(count):
        raise InputError(f"'{text}' is not a whole number; expected {expected}")
    return int(count)
