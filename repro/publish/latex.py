"""A published table as LaTeX: booktabs' rules, heads in short lines, numbers to the right."""

import textwrap
from collections.abc import Sequence

from repro.report.written import LONG_ROWS, WIDE_COLUMNS, latex_text

HEAD_LETTERS = 16


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], caption: str, label: str, mark: str = "") -> str:
    """One table, with booktabs. Heads break at a line feed; columns whose cells begin with a digit or sign go right."""
    right = [_is_numeric([row[column] for row in rows]) for column in range(len(heads))]
    spec = "".join("r" if numeric else "l" for numeric in right)
    head = " & ".join(_head(text, numeric) for text, numeric in zip(heads, right, strict=True)) + r" \\"
    body = [" & ".join(map(latex_text, row)) + r" \\" for row in rows]
    title = rf"\caption{{{latex_text(caption)}}}\label{{{label}}}"
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
        latex_text(part)
        for line in text.split("\n")
        for part in textwrap.wrap(line, HEAD_LETTERS, break_long_words=False)
    ]
    if len(lines) == 1:
        return lines[0]
    return rf"\shortstack[{'r' if right else 'l'}]{{" + r" \\ ".join(lines) + "}"


def _is_numeric(cells: Sequence[str]) -> bool:
    filled = [cell for cell in cells if cell]
    return bool(filled) and all(cell[0].isdigit() or cell[0] in "+−-." for cell in filled)
