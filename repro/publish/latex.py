"""A table of texts as LaTeX with booktabs' rules. What TeX reads as commands is escaped, so any text compiles."""

import textwrap
import unicodedata
from collections.abc import Sequence

LONG_ROWS = 45
"""More rows than fit a page become a longtable, which breaks between pages."""
HEAD_LETTERS = 16
WIDE_COLUMNS = 9
ESCAPES = {
    **{character: f"\\{character}" for character in "%$&#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"[": "{[}", "]": "{]}"},  # after a line break TeX takes [ for a distance
    **{"<": "$<$", ">": "$>$", "|": "$|$", '"': "''"},
    **{"±": r"$\pm$", "−": "$-$", "×": r"$\times$", "÷": r"$\div$", "·": r"$\cdot$", "…": r"\ldots{}"},
    **{"β": r"$\beta$", "ε": r"$\varepsilon$", "λ": r"$\lambda$", "σ": r"$\sigma$", "≤": r"$\le$", "≥": r"$\ge$"},
    **{"²": "$^2$", "³": "$^3$", "₂": "$_2$", "→": r"$\to$", "°": r"$^\circ$", "–": "--", "—": "---"},
    **{"“": "``", "”": "''", "‘": "`", "’": "'", "\u00a0": "~"},
}


def escaped(text: str) -> str:
    """Text that LaTeX prints as it is. Letters that pdflatex lacks lose their marks, or are named by their number."""
    return "".join(ESCAPES.get(c) or (c if " " <= c <= "~" else _plain(c)) for c in text)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], caption: str, label: str, mark: str = "") -> str:
    """One table, with booktabs. Heads break at a line feed; columns whose cells begin with a digit or sign go right."""
    right = [_is_numeric([row[column] for row in rows]) for column in range(len(heads))]
    spec = "".join("r" if numeric else "l" for numeric in right)
    head = " & ".join(_head(text, numeric) for text, numeric in zip(heads, right, strict=True)) + r" \\"
    body = [" & ".join(map(escaped, row)) + r" \\" for row in rows]
    title = rf"\caption{{{escaped(caption)}}}\label{{{label}}}"
    size = r"\small" if len(heads) < WIDE_COLUMNS else r"\footnotesize"
    if len(rows) > LONG_ROWS:
        lines = [
            rf"{{{size}\setlength{{\tabcolsep}}{{4pt}}",
            rf"\begin{{longtable}}{{{spec}}}",
            rf"{title} \\",
            r"\toprule",
            head,
            r"\midrule",
        ]
        lines += [r"\endfirsthead", r"\toprule", head, r"\midrule", r"\endhead", r"\bottomrule", r"\endfoot", *body]
        lines += [r"\end{longtable}", "}"]
        needs = "booktabs,longtable"
    else:
        lines = [
            r"\begin{table}",
            rf"\centering{size}\setlength{{\tabcolsep}}{{4pt}}",
            title,
            rf"\begin{{tabular}}{{{spec}}}",
            r"\toprule",
            head,
        ]
        lines += [r"\midrule", *body, r"\bottomrule", r"\end{tabular}", r"\end{table}"]
        needs = "booktabs"
    return "\n".join([f"% {mark}" if mark else "%", rf"% needs \usepackage{{{needs}}}", *lines, ""])


def _head(text: str, right: bool) -> str:
    """In lines of a few letters each, or heads would make a table wider than its page."""
    lines = [
        escaped(part) for line in text.split("\n") for part in textwrap.wrap(line, HEAD_LETTERS, break_long_words=False)
    ]
    if len(lines) == 1:
        return lines[0]
    return rf"\shortstack[{'r' if right else 'l'}]{{" + r" \\ ".join(lines) + "}"


def _is_numeric(cells: Sequence[str]) -> bool:
    filled = [cell for cell in cells if cell]
    return bool(filled) and all(cell[0].isdigit() or cell[0] in "+−-." for cell in filled)


def _plain(character: str) -> str:
    if character in "\n\r\t":
        return " "
    letters = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return "".join(ESCAPES.get(c, c) for c in letters) or f"{{[}}U+{ord(character):04X}{{]}}"
