"""Text and tables as Markdown, and as LaTeX with booktabs: the report's and those of repro publish."""

import itertools
import re
import textwrap
import unicodedata

import pandas as pd

MARKUP = re.compile(
    r"[\\`\[\]|#$~]"
    r"|(?<=\S)\*|\*(?=\S)"  # a star between spaces is a star
    r"|(?<![^\W_])_|_(?![^\W_])"  # and so is an underscore within a word
    r"|^>|&(?=#?\w+;)"
)
"""Characters that Markdown, that of GitHub too, would take for markup."""

ESCAPES = {
    **{character: f"\\{character}" for character in "%$&#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"[": "{[}", "]": "{]}"},  # after a line break TeX takes [ for a distance
    **{"<": "$<$", ">": "$>$", "|": "$|$", '"': "''", "µ": r"$\mu$", "≈": r"$\approx$"},
    **{"±": r"$\pm$", "−": "$-$", "×": r"$\times$", "÷": r"$\div$", "·": r"$\cdot$", "…": r"\ldots{}"},
    **{"β": r"$\beta$", "ε": r"$\varepsilon$", "λ": r"$\lambda$", "σ": r"$\sigma$", "≤": r"$\le$", "≥": r"$\ge$"},
    **{"²": "$^2$", "³": "$^3$", "₂": "$_2$", "→": r"$\to$", "°": r"$^\circ$", "–": "--", "—": "---"},
    **{"“": "``", "”": "''", "‘": "`", "’": "'", "′": "$'$", "\u00a0": "~"},
}


LONG_ROWS = 45
"""More rows than fit a page become a longtable, which breaks between pages."""
WIDE_COLUMNS = 9
"""A table of more columns is scaled to the width of the text."""
NUMBER = re.compile(r"[+−-]?(\d|\.\d)[\d.,]*( ± [\d.]+)?[%kM]?$")
LONG_CELL, HEAD_LETTERS = 48, 16
"""Characters: longer ones are sentences."""


def markdown_table(table: pd.DataFrame) -> str:
    """A Markdown table; what is markup in its cells is escaped."""
    heads = [", ".join(column) if isinstance(column, tuple) else str(column) for column in table.columns]
    if table.index.name:
        heads.insert(0, str(table.index.name))
    rows = [list(row) if table.index.name else list(row)[1:] for row in table.itertuples()]
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(markdown_text(_plain_cell(cell)) for cell in line)} |\n" for line in lines)


def markdown_text(text: str) -> str:
    """Text that Markdown shows as it is, in one line: only what would be markup where it stands is escaped."""
    return MARKUP.sub(r"\\\g<0>", re.sub(r"\s+", " ", text).strip()).replace("<", "&lt;")


def markdown_code(text: str) -> str:
    """Text as code, in one line: between more backticks than it holds in a row."""
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    space = " " * (len(fence) > 1)
    return space.join([fence, re.sub(r"\s+", " ", text), fence])


def latex_table(frame: pd.DataFrame, caption: str, label: str) -> str:
    """A table of LaTeX: booktabs, headers of several levels, everything escaped.

    Needs booktabs, graphicx, longtable and multirow. A wide one is scaled to the text, a long one breaks between pages.
    """
    plain = frame.reset_index() if frame.index.name else frame
    cells = plain.map(lambda value: latex_text(_plain_cell(value)))
    levels = [[_latex_head(text) for text in plain.columns.get_level_values(n)] for n in range(plain.columns.nlevels)]
    cells.columns = pd.MultiIndex.from_arrays(levels) if len(levels) > 1 else levels[0]
    columns = _column_format(plain)
    long = len(cells) > (LONG_ROWS if "p" not in columns else LONG_ROWS // 4)
    text = cells.style.hide(axis="index").to_latex(
        hrules=True,
        multicol_align="c",
        column_format=columns,
        environment="longtable" if long else None,
        position=None if long else "htbp",
        position_float=None if long else "centering",
        caption=latex_text(caption),
        label="".join(character if character.isalnum() or character in "-:." else "-" for character in label),
    )
    if long or len(cells.columns) <= WIDE_COLUMNS:
        return text
    text = text.replace(r"\begin{tabular}", "\\resizebox{\\linewidth}{!}{%\n\\begin{tabular}")
    return text.replace(r"\end{tabular}", r"\end{tabular}}")


def _column_format(frame: pd.DataFrame) -> str:
    """Numbers to the right; columns of sentences share three quarters of the text's width, and break their lines."""
    texts = [[cell for cell in map(_plain_cell, frame.iloc[:, place]) if cell] for place in range(frame.shape[1])]
    long = [max(map(len, cells), default=0) > LONG_CELL for cells in texts]
    wide = rf"p{{{0.75 / max(1, sum(long)):.2f}\linewidth}}"
    numeric = [bool(cells) and all(NUMBER.match(cell) for cell in cells) for cells in texts]
    return "".join(wide if is_long else "r" if right else "l" for is_long, right in zip(long, numeric, strict=True))


def _latex_head(text: object) -> str:
    """A head in one line, or in short ones where it has a line feed."""
    if "\n" not in (text := str(text)):
        return latex_text(text)
    lines = [part for line in text.split("\n") for part in textwrap.wrap(line, HEAD_LETTERS)]
    return r"\shortstack{" + r" \\ ".join(map(latex_text, lines)) + "}"


def latex_text(text: str) -> str:
    """Text that LaTeX prints as it is. Letters that pdflatex lacks lose their marks, or are named by their number."""
    return "".join(ESCAPES.get(c) or (c if " " <= c <= "~" else _without_marks(c)) for c in text)


def _without_marks(character: str) -> str:
    if character in "\n\r\t":
        return " "
    letters = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return "".join(ESCAPES.get(c, c) for c in letters) or f"{{[}}U+{ord(character):04X}{{]}}"


def _plain_cell(value: object) -> str:
    if value is None or value != value:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def heads(frame: pd.DataFrame, level: int) -> list[tuple[str, int]]:
    """The header cells of one level of a table's columns: (text, columns that it spans)."""
    if level == frame.columns.nlevels - 1:
        return [(str(text), 1) for text in frame.columns.get_level_values(level)]
    keys = [column[: level + 1] for column in frame.columns]
    return [(str(key[-1]), len(list(group))) for key, group in itertools.groupby(keys)]
