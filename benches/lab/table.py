"""Markdown tables."""


def markdown(head, rows):
    """Columns of numbers to the right, the first to the left."""
    rule = [":--"] + ["--:"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *rows])


def number(value, unit=""):
    """Three digits that count, or `–` if there is none."""
    if value is None:
        return "–"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}{' ' + unit if unit else ''}"


def times(value):
    return "–" if value is None else f"{number(value)} ×"
