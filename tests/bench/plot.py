"""The plots of docs/COST.md, from the same results as its tables."""
from bench import pairs, svg

TICKS = (0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2)


def short(number, unit=1024):
    """1k, 16M: sizes in units of 1024, other numbers in units of 1000."""
    for power, letter in ((3, "G"), (2, "M"), (1, "k")):
        if number >= unit ** power and number % unit ** power == 0:
            return f"{number // unit ** power}{letter}"
    return str(number)


def server(result):
    return f"{result['server']}, io-threads {result['io_threads']}"


def servers(found):
    """Groups the results by server and number of IO threads."""
    groups = {}
    for result in sorted(found, key=server):
        groups.setdefault(server(result), []).append(result)
    return list(groups.values())


def row_names(found):
    """The rows of all these results, in order."""
    return list(dict.fromkeys(name for result in found for name in pairs.names(result)))


def throughput(found):
    """GET of 128 bytes: a panel for each server and number of IO threads, with a row for each one measured."""
    gets = [result for result in found if result["workload"] == "get"]
    depths = sorted({result["pipeline"] for result in gets})
    panels = []
    for here in servers(gets):
        rows = [(name, {f"pipeline {result['pipeline']}": pairs.spread(pairs.ratios(result, name)) for result in here
                        if pairs.ratios(result, name)}) for name in row_names(here) if name != pairs.BASE]
        panels.append((server(here[0]), rows))
    if not panels:
        return None
    return svg.dot_chart("Requests per second, as a ratio to the same server with nothing beside it",
                         "GET of 128 bytes. Dot: median; line: least to most of the rounds. Over 1.2: drawn there.",
                         panels, [f"pipeline {depth}" for depth in depths], TICKS)


def scaling(found):
    """A panel for each series of measurements."""
    series = [name for name in row_names([point for result in found for point in result["points"]])
              if name != pairs.BASE]
    panels = []
    for result in found:
        lines = {name: [(index, pairs.median(pairs.ratios(point, name))) for index, point in enumerate(result["points"])
                        if pairs.ratios(point, name)] for name in series}
        labels = [short(point["point"], 1024 if result["scale"] == "size" else 1000) for point in result["points"]]
        panels.append((result["title"], labels, lines))
    if not panels:
        return None
    return svg.line_charts("Requests per second, as a ratio to the same server with nothing beside it",
                           "Medians of the rounds. Over 1.2: drawn there.", panels, series, TICKS)
