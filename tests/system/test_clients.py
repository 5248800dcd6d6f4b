"""Widely used clients against replylog at --threshold 0. Each client reports what it sent and received. The size of its
replies on the wire follows from that, because RESP has only one form for each value."""
import json
import re
import shutil
import subprocess
from contextlib import contextmanager

import workload
from environment import ROOT, Skip, make
from processes import end
from replylog import Replylog
from resp import encode
from server import Server
from waiting import wait_until

IOREDIS = "ioredis@5.4.1"
BUILT = ROOT / ".output"
CLIENTS = ROOT / "tests" / "system" / "clients"
SECONDS = 120


# ---- sizes on the wire ---------------------------------------------------------------------------------------------

def bulk(length):
    return len(b"$%d\r\n\r\n" % length) + length


def wire(value, protocol=2):
    """The size on the wire of a reply that a client returns as value: bytes, int, None, list, dict (a map in RESP3) or
    True (OK)."""
    if value is None:
        return len("$-1\r\n") if protocol == 2 else len("_\r\n")
    if value is True:
        return len("+OK\r\n")
    if isinstance(value, int):
        return len(b":%d\r\n" % value)
    if isinstance(value, dict):
        count = len(value) if protocol == 3 else 2 * len(value)
        return len(b"*%d\r\n" % count) + sum(wire(item, protocol) for pair in value.items() for item in pair)
    if isinstance(value, list):
        return len(b"*%d\r\n" % len(value)) + sum(wire(item, protocol) for item in value)
    return bulk(len(value))


# ---- records against what the client says --------------------------------------------------------------------------

@contextmanager
def observed(name="valkey-9.1", io_threads=1):
    """A server with data in it, and its replylog."""
    with Server(name, io_threads=io_threads) as server:
        with server.client() as client:
            workload.fill(client)
        with Replylog(server.pid, 0) as replylog:
            yield server, replylog


def of_connection(replylog, addr):
    return [record for record in replylog.replies() if record["client_addr"] == addr]


def compare(sent, records, attribution="exact"):
    """sent: [(argv, bytes of the reply)] in order."""
    for i, ((argv, size), record) in enumerate(zip(sent, records)):
        got = record.get("argv"), record.get("reply_bytes"), record["attribution"], record["state"], record["request_bytes"]
        want = argv, size, attribution, "complete", len(encode([arg.encode() for arg in argv]))
        assert got == want, f"command {i} of {len(sent)}: {str(got)[:300]}, want {str(want)[:300]}"
    assert len(sent) == len(records), f"{len(sent)} commands, {len(records)} records"


def finish(replylog):
    stop = replylog.stop()[-1]
    assert stop["dropped"] == 0 and replylog.stderr == "", (stop, replylog.stderr)
    return stop


def run(argv, **options):
    done = subprocess.run([str(arg) for arg in argv], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=SECONDS, **options)
    assert done.returncode == 0, f"{argv} exits {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


# ---- redis-py ------------------------------------------------------------------------------------------------------

def python_client(server, protocol):
    """(redis-py on one connection, the connection's address)"""
    try:
        import redis
    except ImportError:
        raise Skip("no redis-py for /usr/bin/python3: install python3-redis") from None
    major = int(redis.__version__.split(".")[0])
    if protocol == 3 and major < 5:
        raise Skip(f"redis-py {redis.__version__} speaks no RESP3; 5.0 and later do")
    pool = redis.ConnectionPool(host="127.0.0.1", port=server.port, max_connections=1,
                                **({"protocol": 3} if protocol == 3 else {}))
    connection = pool.get_connection("_")
    addr = "%s:%d" % connection._sock.getsockname()
    pool.release(connection)
    return redis.Redis(connection_pool=pool), addr


PYTHON_COMMANDS = (["GET", "s:1000"], ["SET", "python", "x" * 100], ["LRANGE", "l:50", "0", "-1"], ["HGETALL", "h:50"],
                   ["GET", "missing"], ["INCR", "counter"], ["GET", "s:200000"], ["LRANGE", "missing", "0", "-1"])


def test_redis_py(protocol):
    """Single calls, and pipelines of all depths."""
    with observed() as (server, replylog):
        client, addr = python_client(server, protocol)
        sent = []
        for argv in PYTHON_COMMANDS:
            sent.append((argv, wire(client.execute_command(*argv), protocol)))
        for depth in (1, 2, 8, 10, 100, 3000):
            commands = [PYTHON_COMMANDS[i % len(PYTHON_COMMANDS)] if depth < 1000 else ["GET", "s:100"] for i in range(depth)]
            pipeline = client.pipeline(transaction=False)
            for argv in commands:
                pipeline.execute_command(*argv)
            sent += [(argv, wire(value, protocol)) for argv, value in zip(commands, pipeline.execute(), strict=True)]
        greetings = ["HELLO", "CLIENT"]     # later versions send their name and version
        replylog.wait_replies(len(sent))
        finish(replylog)
    records = of_connection(replylog, addr)
    compare(sent, [record for record in records if record["cmd"] not in greetings])
    assert {"simple", "pipelined"} == {record["kind"] for record in records}


test_redis_py.cases = {"RESP2": (2,), "RESP3": (3,)}


def test_redis_py_transaction():
    """pipeline() by default sends MULTI, the commands and EXEC. Each command has two replies: QUEUED, and its part of
    EXEC's."""
    with observed() as (server, replylog):
        client, addr = python_client(server, 2)
        pipeline = client.pipeline()
        for argv in PYTHON_COMMANDS:
            pipeline.execute_command(*argv)
        ran = [(argv, wire(value)) for argv, value in zip(PYTHON_COMMANDS, pipeline.execute(), strict=True)]
        behind = ["GET", "s:500"]
        client.execute_command(*behind)
        wait_until(lambda: any(record.get("argv") == behind for record in replylog.replies()), "last record")
        finish(replylog)
    multi, queued = ["MULTI"], [(argv, len("+QUEUED\r\n")) for argv in PYTHON_COMMANDS]
    records = of_connection(replylog, addr)
    compare([(multi, len("+OK\r\n")), *queued, *ran, (behind, bulk(500))], records)
    assert [record["kind"] for record in records[1:-1]] == ["multi"] * len(queued + ran)


# ---- hiredis async -------------------------------------------------------------------------------------------------

def hiredis_async():
    if subprocess.run(["pkg-config", "--exists", "hiredis", "libevent"]).returncode:
        raise Skip("no hiredis and libevent to build against: install libhiredis-dev and libevent-dev")
    return make("clients/hiredis_async")


def test_hiredis_async(io_threads):
    """The client sends thousands of commands before it reads the first reply."""
    client = hiredis_async()
    with observed(io_threads=io_threads) as (server, replylog):
        addr, *lines = run([client, server.port, 300]).splitlines()
        sent = [(words.split(), int(size)) for words, size in (line.split("\t") for line in lines)]
        assert len(sent) == 3000
        replylog.wait_replies(len(sent))
        finish(replylog)
    compare(sent, of_connection(replylog, addr))


test_hiredis_async.cases = {"1 io threads": (1,), "2 io threads": (2,)}


# ---- ioredis -------------------------------------------------------------------------------------------------------

def ioredis():
    """Installs ioredis where node finds it."""
    if not shutil.which("node") or not shutil.which("npm"):
        raise Skip("no node or no npm: install nodejs and npm")
    modules = BUILT / "npm" / "node_modules"
    manifest = modules / "ioredis" / "package.json"
    if not manifest.exists() or "ioredis@" + json.loads(manifest.read_text())["version"] != IOREDIS:
        (BUILT / "npm").mkdir(parents=True, exist_ok=True)
        done = subprocess.run(["npm", "install", "--no-save", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix",
                               str(BUILT / "npm"), IOREDIS], capture_output=True, text=True, timeout=SECONDS)
        if done.returncode:
            raise Skip(f"npm can't install {IOREDIS}: {done.stderr.strip().splitlines()[-1:]}")
    return modules


def test_ioredis_auto_pipelining():
    modules = ioredis()
    with observed() as (server, replylog):
        said = json.loads(run(["node", CLIENTS / "auto_pipelining.js", server.port, 200],
                              env={"NODE_PATH": str(modules), "PATH": "/usr/bin:/bin:/usr/local/bin"}))
        sent = [(argv, size) for argv, size in said["sent"]]
        assert len(sent) == 1800 and said["deepest"] == 9, (len(sent), said["deepest"])
        replylog.wait_replies(len(sent))
        finish(replylog)
    records = of_connection(replylog, said["address"])
    compare(sent, records)
    assert {"pipelined"} == {record["kind"] for record in records}, "nothing was pipelined"


# ---- valkey-benchmark ----------------------------------------------------------------------------------------------

def chrooted(server, *argv):
    return ["chroot", server.dir, *argv]


def test_benchmark(io_threads):
    """N requests of a known size give N records of known bytes."""
    requests, clients, pipeline, length = 16_000, 10, 16, 3000
    with observed(io_threads=io_threads) as (server, replylog):
        run(chrooted(server, "/usr/bin/valkey-benchmark", "-p", server.port, "-n", requests, "-c", clients, "-P", pipeline,
                     "-d", length, "-t", "set,get", "-q"))
        replylog.wait_replies(2 * requests)
        finish(replylog)
    seen = {}
    for record in replylog.replies():
        key = record["cmd"], record["argv"][1], record["reply_bytes"], record["attribution"], record["state"]
        seen[key] = seen.get(key, 0) + 1
    print(seen)
    seen = {key: count for key, count in seen.items() if key[0] != "CONFIG"}    # it requests save and appendonly first
    key = "key:__rand_int__"
    # Each client sends its last batch whole, also beyond N.
    assert set(seen) == {("SET", key, len("+OK\r\n"), "exact", "complete"), ("GET", key, bulk(length), "exact", "complete")}, seen
    assert all(requests <= count < requests + clients * pipeline for count in seen.values()), seen


test_benchmark.cases = {"1 io threads": (1,), "2 io threads": (2,)}


# ---- valkey-cli and redis-cli --------------------------------------------------------------------------------------

CLI_COMMANDS = {        # as typed -> the reply's size in RESP3
    "get s:5": bulk(5), "get missing": len("_\r\n"), "hgetall h:3": len("%3\r\n") + 3 * (bulk(6) + bulk(6)),
    "zscore z:3 member1": len(",0.37\r\n"), "echo hello": bulk(5), "smembers set:3": len("~3\r\n") + 3 * bulk(8),
    "nosuchcommand": None, "get s:400000": bulk(400_000), "lpop missing 3": len("_\r\n"),
}


def each_cli(function):
    function.cases = {"valkey-cli": ("valkey-9.1",), "redis-cli": ("redis-7.0",)}
    return function


def cli(server, *argv):
    return chrooted(server, f"/usr/bin/{server.kind}-cli", "-3", "-p", server.port, *argv)


@each_cli
def test_cli_resp3(name):
    with observed(name) as (server, replylog):
        argv = [str(arg) for arg in cli(server)]
        done = subprocess.run(argv, input="\n".join(CLI_COMMANDS) + "\n", capture_output=True, text=True, timeout=SECONDS)
        assert done.returncode == 0, done.stderr
        wait_until(lambda: any(record["cmd"] == "LPOP" for record in replylog.replies()), "last record")
        finish(replylog)
    hello, *records = replylog.replies()
    assert hello["argv"] == ["HELLO", "3"], hello
    records = [record for record in records if record["cmd"] != "COMMAND"]  # redis-cli 7.0 asks for COMMAND DOCS first
    said = re.search(r"\(error\) (ERR unknown command.*)|^(ERR unknown command.*)", done.stdout, re.M)
    error = len("-\r\n") + len((said[1] or said[2]).encode())
    compare([(line.split(), size or error) for line, size in CLI_COMMANDS.items()], records)


@each_cli
def test_cli_pubsub(name):
    """A subscriber in RESP3 mode receives pushes. They answer no command, and each has a record of kind push."""
    payload = "x" * 20_000
    push = len(">3\r\n") + bulk(len("message")) + bulk(len("news")) + bulk(len(payload))
    with observed(name) as (server, replylog):
        # Its output goes to a file, because it buffers output to a pipe until it ends.
        subscriber = subprocess.Popen([str(arg) for arg in cli(server, "SUBSCRIBE", "news")], stdin=subprocess.DEVNULL,
                                      stdout=subprocess.DEVNULL)
        try:
            with server.client() as watcher:
                wait_until(lambda: watcher.call("PUBSUB", "NUMSUB", "news")[1] == 1, "subscriber")
                addr, = re.findall(r"addr=(\S+) .*cmd=subscribe", watcher.call("CLIENT", "LIST").decode())
            for _ in range(3):
                assert run(cli(server, "PUBLISH", "news", payload)).strip() in ("1", "(integer) 1")
            publishes = wait_until(lambda: [record for record in replylog.replies() if record.get("cmd") == "PUBLISH"][2:],
                                   "records of PUBLISH")
            finish(replylog)
        finally:
            end(subscriber)
    publishes = [record for record in replylog.replies() if record.get("cmd") == "PUBLISH"]
    assert [(record["argv"][1], record["argc"], record["reply_bytes"]) for record in publishes] == [("news", 3, 4)] * 3
    records = of_connection(replylog, addr)
    pushes = [record for record in records if record["kind"] == "push" and record["reply_bytes"] > 1000]
    assert records[0]["argv"] == ["HELLO", "3"], records[0]
    assert [(record["reply_bytes"], "argv" in record) for record in pushes] == [(push, False)] * 3, records
    assert all(record["reply_bytes"] < 1000 for record in records if record not in pushes + records[:1]), records
