"""What grows, and how much."""

from .table import markdown, number, times

# How much a row that must not grow may grow.
MOST = 0.05


def table(rows, figures):
    head = ["what grows", "size", "CPU a request (µs)", "growth", "p50 (µs)", "target", "reached"]
    return markdown(head, [cells(row, end, figures) for row in rows for end in row.ends])


def cells(row, end, figures):
    name = f"{row.title}.{end.label}"
    first = end is row.ends[0]
    grown = None if first else growth(row, end, figures)
    watched = row.watched and not first
    return [
        row.title if first else "",
        end.label,
        number(figures.median(f"{name}.cpu")),
        "" if grown is None else percent(grown),
        number(figures.median(f"{name}.p50")),
        f"≤ {MOST:.0%}" if watched else "",
        verdict(grown) if watched else "",
    ]


def percent(grown):
    return f"{grown:+.1%}" if grown < 1 else times(grown + 1)


def verdict(grown):
    return "not measured" if grown is None else "yes" if grown <= MOST else "**no**"


def growth(row, end, figures):
    """How much more a request costs than at the first end, in the median of the rounds."""
    names = [f"{row.title}.{one.label}.cpu" for one in (end, row.ends[0])]
    return figures.median_of(lambda large, small: large / small - 1, *names)


def all_reached(rows, figures):
    """What was not measured is not reached."""
    grown = [growth(row, end, figures) for row in rows if row.watched for end in row.ends[1:]]
    return bool(grown) and all(value is not None and value <= MOST for value in grown)


def versions(about):
    return ", ".join(f"{name} {version}" for name, version in about.items())
