"""Writes the tables and plots of docs/COST.md from the saved results. People write the text around the tables."""
import re

from environment import ROOT

from bench import pairs, plot, records, results, turns
from bench.workload import SCALES, WORKLOADS

PAGE = ROOT / "docs/COST.md"
# file -> (part of the results, the function that draws it)
PLOTS = {"cost-throughput.svg": ("workload", plot.throughput), "cost-scaling.svg": ("scaling", plot.scaling)}
NOTHING_YET = "*Not measured yet: `{}`, then `scripts/bench report`.*"
MIB = 1 << 20
SUMMARY_PEERS = ("COMMANDLOG", "MONITOR", "bpftrace")


def table(head, lines):
    rows = ["| " + " | ".join(map(str, cells)) + " |" for cells in (head, ["---"] * len(head), *lines)]
    return "\n".join(rows)


def ranged(spread, form="{:.2f}"):
    """"0.93 (0.90-0.95)", or a dash when there are no values."""
    if not spread:
        return "-"
    middle, least, most = (form.format(value) for value in spread)
    return middle if least == most else f"{middle} ({least}-{most})"


def number(value, form="{:,.0f}"):
    return "-" if value is None else form.format(value)


def base_rate(result):
    """Requests per second with nothing beside the server, with more digits when they are few."""
    value = pairs.median([run["rate"] for run in pairs.of_row(result, pairs.BASE)])
    return number(value) if value is None or value >= 100 else f"{value:.3g}"


def per_command(runs, key):
    return [run[key] / run["commands"] for run in runs if run.get("commands") and key in run]


def label(result):
    return f"{result['title']}, pipeline {result['pipeline']}"


def by_server(found, make):
    """One table for each server and number of IO threads."""
    return "\n\n".join(f"**{plot.server(here[0])}**\n\n{make(here)}" for here in plot.servers(found))


def throughput(found):
    def make(here):
        others = [name for name in plot.row_names(here) if name != pairs.BASE]
        head = ["", f"{pairs.BASE}, per second", *others]
        return table(head, [[label(result), base_rate(result),
                             *(ranged(pairs.spread(pairs.ratios(result, name))) for name in others)]
                            for result in here])

    return by_server(found, make)


def summary(everything):
    """GET on servers without IO threads: replylog from its turns, the alternatives from the rounds."""
    gets = [result for result in everything if result.get("workload") == "get" and result["io_threads"] == 1]
    of_turns, of_rounds = ([result for result in gets if result["part"] == part] for part in ("turns", "workload"))
    replylogs = list(dict.fromkeys(name for result in of_turns for name in result["turns"]))
    peers = [name for name in plot.row_names(of_rounds) if name in SUMMARY_PEERS]
    if not replylogs or not peers:
        return NOTHING_YET.format("scripts/bench turns get")

    def line(result):
        rounds = next((other for other in of_rounds if other["server"] == result["server"] and
                       other["pipeline"] == result["pipeline"]), {"runs": []})
        return [label(result),
                *(ranged(turns.of_key(result, name, "rate") if name in result["turns"] else None) for name in replylogs),
                *(ranged(pairs.spread(pairs.ratios(rounds, name))) for name in peers)]

    return by_server(of_turns, lambda here: table(["", *replylogs, *peers], [line(result) for result in here]))


def in_turns(found):
    head = ["", f"{pairs.BASE}, per second", "", "throughput", "main thread's CPU per command", "IO threads'",
            "BPF time per command, ns", "turns"]

    def line(result, name):
        return [label(result), number(pairs.median([window["rate"] for window in result["base"]])), name,
                *(ranged(turns.of_key(result, name, key), "{:.3f}") for key in turns.KEYS),
                ranged(turns.median(result["programs"][name]), "{:,.0f}"), len(result["turns"][name])]

    return by_server(found, lambda here: table(head, [line(result, name) for result in here for name in result["turns"]]))


def main_thread(found):
    def make(here):
        names = plot.row_names(here)
        return table(["ns per command", *names],
                     [[label(result), *(number(pairs.median(per_command(pairs.of_row(result, name), "main_ns")))
                                        for name in names)] for result in here])

    return by_server(found, make)


def io_threads(found):
    found = [result for result in found if result["io_threads"] > 1]

    def make(here):
        names = plot.row_names(here)
        return table(["ns per command", *names],
                     [[label(result), *(number(pairs.median(per_command(pairs.of_row(result, name), "io_ns")))
                                        for name in names)] for result in here])

    return by_server(found, make)


def dispatch(found):
    return f"Throughput:\n\n{throughput(found)}\n\nCPU of the main thread:\n\n{main_thread(found)}"


def latency(found):
    def cell(result, name):
        runs = pairs.of_row(result, name)
        values = [pairs.median([run[key] for run in runs]) for key in ("p50_ms", "p99_ms", "p999_ms")]
        return " / ".join(f"{value:.3g}" for value in values) if runs else "-"

    def make(here):
        names = plot.row_names(here)
        return table(["p50 / p99 / p99.9, ms", *names],
                     [[label(result), *(cell(result, name) for name in names)] for result in here])

    return by_server(found, make)


def probes(found):
    """The counts of replylog and the kernel, for rows with probes."""
    head = ["", "hits per command, main thread", "elsewhere", "BPF time per command, ns", "per hit, ns", "own CPU",
            "own memory, MiB", "in the kernel, MiB"]

    def line(result, name):
        runs = pairs.of_row(result, name)
        stats = [run for run in result["stats"] if run["row"] == name]
        hits = [run["bpf_ns"] / (run["hits_main"] + run["hits_io"]) for run in stats
                if run.get("hits_main", 0) + run.get("hits_io", 0)]
        cpu = pairs.median([run["own_ns"] / 1e9 / result["seconds"] for run in runs])
        return [f"{label(result)}: {name}", *(number(pairs.median(per_command(runs, key)), "{:.4f}")
                                              for key in ("hits_main", "hits_io")),
                number(pairs.median(per_command(stats, "bpf_ns"))), number(pairs.median(hits)), number(cpu, "{:.1%}"),
                number(pairs.median([run["own_kib"] / 1024 for run in runs]), "{:.1f}"),
                number(pairs.median([run["kernel_bytes"] / MIB for run in runs]), "{:.1f}")]

    def make(here):
        return table(head, [line(result, name) for result in here for name in plot.row_names(here)
                            if any("own_ns" in run for run in pairs.of_row(result, name))])

    return by_server(found, make)


def scaling(found):
    parts = []
    for result in found:
        names = plot.row_names(result["points"])
        head = [result["title"], f"{pairs.BASE}, per second"]
        others = [name for name in names if name != pairs.BASE]
        for name in others:
            head += [f"{name}: throughput", "extra main-thread ns per command", "BPF, ns per command"]
        lines = [scaling_line(point, others) for point in result["points"]]
        parts.append(f"**{plot.server(result)}**\n\n{table(head, lines)}")
    return "\n\n".join(parts)


def scaling_line(point, others):
    line = [f"{point['point']:,}", base_rate(point)]
    for name in others:
        extra = pairs.median(extra_ns(point, name))
        stats = [run for run in point["stats"] if run["row"] == name]
        line += [ranged(pairs.spread(pairs.ratios(point, name))), number(extra),
                 number(pairs.median(per_command(stats, "bpf_ns")))]
    return line


def extra_ns(point, name):
    """Main-thread nanoseconds per command, minus those of the same round with nothing beside the server."""
    base = {run["round"]: run["main_ns"] / run["commands"] for run in pairs.of_row(point, pairs.BASE)}
    return [run["main_ns"] / run["commands"] - base[run["round"]] for run in pairs.of_row(point, name)
            if run["round"] in base]


def record_rates(found):
    parts = []
    for result in found:
        lines = [[f"{point['wanted']:,}" if point["wanted"] else "as fast as possible", f"{point['rate']:,.0f}",
                  f"{point['rate'] * records.kept(point):,.0f}", f"{point['dropped']:,}",
                  f"{1 - records.kept(point):.1%}",
                  f"{point['own_ns'] / 1e9 / point['seconds']:.0%}",
                  f"{point['bytes'] / max(1, point['replies']):.0f}"] for point in result["points"]]
        parts.append(f"**{result['row']}**, {plot.server(result)}\n\n" + table(
            ["replies per second, target", "sent", "records in the file", "dropped and counted", "share dropped",
             "replylog's CPU", "bytes per record"], lines))
    return "\n\n".join(parts)


def footprints(found):
    lines = []
    for result in found:
        few, many = result["at"]
        idle = f"{result['idle_ns'] / 1e6:.2f} ms in {result['idle_seconds']} s, woken {result['idle_wakeups']} times"
        lines.append([f"{result['row']}, {plot.server(result)}", ranged(pairs.spread(result["ready_s"])),
                      ranged(pairs.spread(result["gone_s"])), f"{many['gone_s']:.2f}", idle,
                      f"{few['own_kib'] / 1024:.1f}", f"{many['own_kib'] / 1024:.1f}",
                      f"{many['maps_bytes'] / MIB:.1f}", f"{many['programs_bytes'] / MIB:.2f}"])
    connections = f"{found[0]['at'][-1]['connections']:,}"
    return table(["", "ready, s", "gone, s", f"gone with {connections} connections, s", "CPU when idle",
                  "own memory, MiB", f"with {connections} connections", f"maps in the kernel with {connections}, MiB",
                  "programs, MiB"], lines)


def provenance(everything):
    """Where each result comes from. A high load average before the first run means that the machine was not quiet."""
    lines = [[f"`{result['command']}`", what(result), result["date"], result["replylog"], machine(result["machine"]),
              f"{result['load_before']:.1f}"] for result in everything]
    merged = {}
    for line in lines:
        merged.setdefault((line[0], line[3], line[4]), []).append(line)
    return table(["command", "results", "finished", "replylog", "machine", "highest load average"],
                 [[command, ", ".join(line[1] for line in group), max(line[2] for line in group), revision, where,
                   max((line[5] for line in group), key=float)]
                  for (command, revision, where), group in merged.items()])


def what(result):
    if "workload" in result:
        part = "" if result["part"] == "workload" else f"{result['part']}, "
        return f"{part}{result['workload']} P={result['pipeline']} {plot.server(result)}"
    return " ".join(filter(None, [result["part"], result.get("scale"), result.get("row"), plot.server(result)]))


def machine(facts):
    cores = f"{facts['cores']} cores{' of a VM' if facts['virtual'] else ''}"
    return (f"{facts['cpu']}, {cores}, {facts['memory_gib']} GiB, "
            f"Linux {facts['kernel']} {facts['arch']}")


def lacking(everything):
    """What could not be measured, and why. Each reason appears once."""
    found = {}
    for result in everything:
        for part in (result, *result.get("points", [])):
            for name, why in part.get("lacking", {}).items():
                found.setdefault(f"{name}: {why}", None)
    return "\n".join(f"- {text}" for text in found)


# marker -> (part of the results, None for all; the function that makes the text; the command to run when there are no
# results)
SECTIONS = {
    "summary": (None, summary, "scripts/bench turns get"),
    "turns": ("turns", in_turns, "scripts/bench turns"),
    "throughput": ("workload", throughput, "scripts/bench workloads"),
    "main-thread": ("workload", main_thread, "scripts/bench workloads"),
    "io-threads": ("workload", io_threads, "scripts/bench workloads"),
    "latency": ("workload", latency, "scripts/bench workloads"),
    "probes": ("workload", probes, "scripts/bench workloads"),
    "dispatch": ("dispatch", dispatch, "scripts/bench dispatch"),
    "scaling": ("scaling", scaling, "scripts/bench scaling"),
    "records": ("records", record_rates, "scripts/bench records"),
    "footprint": ("footprint", footprints, "scripts/bench footprint"),
    "commands": (None, provenance, "scripts/bench"),
    "lacking": (None, lacking, "scripts/bench"),
}


def section(name, everything):
    part, make, run = SECTIONS[name]
    found = [result for result in everything if part in (None, result["part"])]
    if not found:
        return NOTHING_YET.format(run)
    return make(found)


def fill(text, everything):
    """The page with the text between its markers replaced."""
    for name in SECTIONS:
        begin, end = f"<!-- bench:{name} -->", f"<!-- /bench:{name} -->"
        pattern = re.compile(f"{re.escape(begin)}\n.*?{re.escape(end)}", re.S)
        if not pattern.search(text):
            raise AssertionError(f"{PAGE} has no markers {begin} and {end}, each on a line of its own")
        body = section(name, everything)
        text = pattern.sub(lambda _: f"{begin}\n{body}\n{end}" if body else f"{begin}\n{end}", text)
    return text


def order(result):
    """Sort key: the workload's position in scripts/bench, then the pipeline."""
    names = [*WORKLOADS, *SCALES]
    name = result.get("workload") or result.get("scale")
    return (names.index(name) if name in names else len(names), result["server"], result["io_threads"],
            result.get("pipeline", 0), result.get("row", ""))


def write():
    everything = sorted(results.load_all(), key=order)
    PAGE.write_text(fill(PAGE.read_text(), everything))
    for file, (part, make) in PLOTS.items():
        drawn = make([result for result in everything if result["part"] == part])
        if drawn:
            (PAGE.parent / file).write_text(drawn)
            print(f"{PAGE.parent / file}")
    print(PAGE)
