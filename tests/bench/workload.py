"""What clients request in a measurement. Each workload fills the server with its keys, and defines the load."""
from environment import Skip

from bench.client import Discard, Load

KEY = "key:__rand_int__"        # valkey-benchmark writes 12 digits
BATCH = 50_000                  # keys made per EVAL; a longer script could be taken for one that hangs
LARGE = 100 * 1024              # over min-string-size-avoid-copy-reply-threaded (65536, src/config.c of valkey 9.1)
MIX_LARGE = 2 * 1024 * 1024     # a reply over the default threshold
GIB = 1 << 30

STRINGS = """for i = ARGV[1], ARGV[2] do redis.call('SET', string.format('%s%012d', KEYS[1], i), ARGV[3]) end"""
LIST = """for i = ARGV[1], ARGV[2] do redis.call('RPUSH', KEYS[1], string.format('element:%08d', i)) end"""


def memory_available():
    with open("/proc/meminfo") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable:"))


def default_keys():
    """3 million keys, more than caches hold, take about 1 GiB."""
    return 3_000_000 if memory_available() > 6 * GIB else 300_000


def in_batches(server, script, key, count, *more):
    with server.client(timeout=120) as client:
        for begin in range(0, count, BATCH):
            client.call("EVAL", script, 1, key, begin, min(begin + BATCH, count) - 1, *more)


def fill_strings(server, prefix, count, size):
    in_batches(server, STRINGS, prefix, count, "x" * size)


def fill_list(server, name, count):
    in_batches(server, LIST, name, count)


def fill_size(server, key, size):
    with server.client(timeout=120) as client:
        client.call("SETRANGE", key, size - 1, "x")


def fill_mix(server, keys):
    fill_strings(server, "mix:", 10_000, 128)
    with server.client() as client:
        client.call("SET", "mix:" + "0" * 12, "x" * MIX_LARGE)


class Workload:
    def __init__(self, title, fill, load, pipelines=(1,), apart=False):
        self.title = title
        self.fill = fill                # fill(server, keys)
        self.load = load                # load(pipeline, clients, keys)
        self.pipelines = pipelines      # measured when the command line names none
        self.apart = apart              # the server's main thread has a core of its own, see meter.apart()


WORKLOADS = {
    "get": Workload(
        "GET of 128 bytes", lambda server, keys: fill_strings(server, "key:", keys, 128),
        lambda pipeline, clients, keys: Load(["GET", KEY], pipeline, clients, keys), (1, 16, 64)),
    "getlarge": Workload(
        "GET of 100 KiB, over the limit of copy avoidance",
        lambda server, keys: fill_strings(server, "large:", 100, LARGE),
        lambda pipeline, clients, keys: Load(["GET", "large:__rand_int__"], pipeline, clients, 100)),
    "mget": Workload(
        "MGET of 100 values of 128 bytes", lambda server, keys: fill_strings(server, "key:", keys, 128),
        lambda pipeline, clients, keys: Load(["MGET"] + [KEY] * 100, pipeline, clients, keys)),
    "lrange100": Workload(
        "LRANGE of 100 elements", lambda server, keys: fill_list(server, "list:100", 100),
        lambda pipeline, clients, keys: Load(["LRANGE", "list:100", "0", "-1"], pipeline, clients), (1, 16)),
    # valkey-benchmark would be the bottleneck, because it parses more slowly than the server sends.
    "lrange100k": Workload(
        "LRANGE of 100,000 elements", lambda server, keys: fill_list(server, "list:100k", 100_000),
        lambda pipeline, clients, keys: Discard(["LRANGE", "list:100k", "0", "-1"])),
    "set": Workload(
        "SET of 128 bytes", lambda server, keys: fill_strings(server, "key:", keys, 128),
        lambda pipeline, clients, keys: Load(["SET", KEY, "__data__"], pipeline, clients, keys, 128), (1, 16)),
    "setlarge": Workload(
        "SET of 100 KiB", lambda server, keys: fill_strings(server, "large:", 1000, LARGE),
        lambda pipeline, clients, keys: Load(["SET", "large:__rand_int__", "__data__"], pipeline, clients, 1000,
                                             LARGE)),
    "mix": Workload(
        "GET of 128 bytes, one in 10,000 of 2 MiB", fill_mix,
        lambda pipeline, clients, keys: Load(["GET", "mix:__rand_int__"], pipeline, clients, 10_000), (1, 16)),
    # The case for which IO threads exist: the main thread is the bottleneck. With the client on the other cores, the
    # probes' cost there does not matter, and a cost here would show.
    "busy": Workload(
        "BITCOUNT of 64 KiB, the main thread busy on a core of its own",
        lambda server, keys: fill_size(server, "busy", 64 << 10),
        lambda pipeline, clients, keys: Load(["BITCOUNT", "busy"], pipeline, clients), (1, 16), apart=True),
}


class Scale:
    """A series of measurements: at each point a server filled for it, and a load."""

    def __init__(self, title, points, fill, load):
        self.title, self.points, self.fill, self.load = title, points, fill, load


def sized(size):
    """valkey-benchmark up to the size that it parses fast enough, Discard above it."""
    command = ["GET", f"size:{size}"]
    return Load(command) if size < 1 << 20 else Discard(command)


def fill_sized(server, size, keys):
    if size * 6 > memory_available():
        raise Skip(f"a reply of {size} bytes takes more memory than there is")
    fill_size(server, f"size:{size}", size)


def elements(count):
    command = ["LRANGE", f"list:{count}", "0", "-1"]
    return Load(command) if count < 10_000 else Discard(command)


SCALES = {
    "pipeline": Scale(
        "commands per pipeline", (1, 2, 4, 8, 16, 32, 64, 128, 256),
        lambda server, point, keys: fill_strings(server, "key:", keys, 128),
        lambda point, keys: Load(["GET", KEY], point, 50, keys)),
    # replylog follows 10,000 by default, and the bench needs some itself.
    "connections": Scale(
        "connections", (1, 10, 100, 1000, 9990),
        lambda server, point, keys: fill_strings(server, "key:", keys, 128),
        lambda point, keys: Load(["GET", KEY], 1, point, keys)),
    "size": Scale(
        "bytes per reply", (128, 1 << 10, 16 << 10, 128 << 10, 1 << 20, 16 << 20, 128 << 20, 1 << 30),
        fill_sized, lambda point, keys: sized(point)),
    "elements": Scale(
        "elements per reply", (1, 10, 100, 1000, 10_000, 100_000, 1_000_000),
        lambda server, point, keys: fill_list(server, f"list:{point}", point), lambda point, keys: elements(point)),
}
