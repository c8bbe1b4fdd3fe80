"""Tables as other programs read them: Markdown, and LaTeX with booktabs."""

import pandas as pd

LATEX_CHARACTERS = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        '"': r"\textquotedbl{}",
        "`": r"\textasciigrave{}",
    },
    **{
        "′": r"$'$",
        "±": r"$\pm$",
        "−": r"$-$",
        "×": r"$\times$",
        "→": r"$\to$",
        "β": r"$\beta$",
        "²": r"$^2$",
        "≤": r"$\leq$",
    },
    **{"–": "--", "—": "---", "…": r"\ldots{}", "µ": r"$\mu$", "·": r"$\cdot$", "≥": r"$\geq$", "≈": r"$\approx$"},
}


def markdown(table: pd.DataFrame) -> str:
    """A Markdown table; what would break it (pipes, line ends) is escaped."""
    heads = [", ".join(column) if isinstance(column, tuple) else str(column) for column in table.columns]
    if table.index.name:
        heads.insert(0, str(table.index.name))
    rows = [list(row) if table.index.name else list(row)[1:] for row in table.itertuples()]
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(map(_markdown_cell, line))} |\n" for line in lines)


def _markdown_cell(value: object) -> str:
    text = _plain_cell(value)
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def latex(frame: pd.DataFrame, caption: str, label: str) -> str:
    """A table of LaTeX: booktabs, headers of several levels, everything escaped. Needs booktabs and multirow."""
    plain = frame.reset_index() if frame.index.name else frame
    cells = plain.map(lambda value: _latex_text(_plain_cell(value)))
    cells.columns = _latex_headers(plain.columns)
    return cells.style.hide(axis="index").to_latex(
        hrules=True,
        multicol_align="c",
        column_format="l" * len(cells.columns),
        position="htbp",
        position_float="centering",
        caption=_latex_text(caption),
        label="".join(character if character.isalnum() or character in "-:." else "-" for character in label),
    )


def _latex_headers(columns: pd.Index) -> pd.Index:
    if columns.nlevels == 1:
        return pd.Index([_latex_text(str(name)) for name in columns])
    return pd.MultiIndex.from_tuples([tuple(_latex_text(str(name)) for name in names) for names in columns])


def _latex_text(text: str) -> str:
    """Characters of LaTeX's own made to be read; others outside Latin as a question mark, which any font has."""
    escaped = (LATEX_CHARACTERS.get(c, c if ord(c) < 0x180 else "?") for c in text.replace("\n", " "))
    return "".join(escaped)


def _plain_cell(value: object) -> str:
    if value is None or value != value:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
