"""What was measured, round by round."""

import collections
import json
import statistics


class Figures:
    """Values under a name, one a round; what is compared is compared within a round."""

    def __init__(self):
        self.values = collections.defaultdict(list)

    def add(self, name, value):
        self.values[name].append(value)

    def add_sample(self, name, sample):
        """All that wrk and the kernel say of one run."""
        for field in ("rate", "p50", "p99", "p999", "cpu", "requests"):
            self.add(f"{name}.{field}", getattr(sample, field))

    def __contains__(self, name):
        return bool(self.values.get(name))

    def last(self, name):
        return self.values[name][-1]

    def median(self, name):
        """None if it was not measured."""
        return statistics.median(self.values[name]) if name in self else None

    def cost(self, name):
        """The lower quartile of a CPU time, since whatever else runs on the machine only adds to
        it; None if it was not measured."""
        if name not in self:
            return None
        values = self.values[name]
        return statistics.quantiles(values, n=4, method="inclusive")[0] if values[1:] else values[0]

    def median_of(self, function, *names):
        """The median over the rounds of what a function makes of the values of a round."""
        if not all(name in self for name in names):
            return None
        rounds = zip(*(self.values[name] for name in names))
        return statistics.median(function(*values) for values in rounds)

    def write(self, path, machine):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"machine": machine, "figures": self.values}, indent=1))
