"""--dispatch reports how long the server executed each command. A command that sleeps has a known minimum, so a mix-up of
replies and executions would show as a sleep that took no time."""
import os
import random

from replylog import Replylog, run_replylog
from resp import ServerError, encode, to_bytes
from server import Server
from waiting import wait_until

MATRIX = os.environ.get("REPLYLOG_MATRIX") == "all"
SERVERS = (("valkey-9.1", 1), ("valkey-9.1", 4), ("redis-7.0", 1), ("redis-7.0", 4),
           *((name, threads) for name in ("redis-6.0", "redis-8.0", "redis-8.6", "valkey-8.0", "valkey-8.1")
             for threads in (1, 4) if MATRIX))


def each_server(function):
    function.cases = {f"{name},{threads} io threads": (name, threads) for name, threads in SERVERS}
    return function


def request(*commands):
    return b"".join(encode([to_bytes(arg) for arg in argv]) for argv in commands)


def sleep(ms):
    return "DEBUG", "SLEEP", f"{ms / 1000}"


def slept_us(record):
    """How long the record's command was told to sleep."""
    argv = record.get("argv", [])
    return int(float(argv[2]) * 1e6) if argv[:2] == ["DEBUG", "SLEEP"] else 0


class Observed:
    """A server with --dispatch and one client. records() waits for count records of this client, and returns them."""

    def __init__(self, name, io_threads, *options):
        self.server = Server(name, *options, io_threads=io_threads)

    def __enter__(self):
        self.server.__enter__()
        try:
            self.replylog = Replylog(self.server.pid, 0, "--dispatch").__enter__()
            self.client = self.server.client()
        except BaseException:
            self.server.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *error):
        self.client.close()
        self.replylog.__exit__(*error)
        self.server.__exit__(*error)

    def records(self, count):
        self.replylog.wait_replies(count)
        self.everything = self.replylog.stop()
        mine = [record for record in self.everything
                if record["event"] == "reply" and record["client_addr"] == self.client.addr]
        assert not [record for record in self.everything if record["event"] == "dropped"], self.everything
        return mine


def assert_timed(records, name=None):
    """Every record has a time, and none is shorter than the command's sleep."""
    for record in records:
        assert "exec_us" in record, f"not timed: {record}"
        assert record["exec_us"] >= slept_us(record), f"slept longer than that: {record}"


@each_server
def test_one_after_another(name, io_threads):
    """Each command has a time, except those that fail."""
    with Observed(name, io_threads) as o:
        for i in range(8):
            o.client.call("SET", "key", "v" * 100 * i)
            o.client.call(*sleep(i))
            o.client.answer("NOSUCHCOMMAND")
            o.client.answer("LPUSH", "key", "x")
            o.client.call("GET", "key")
        records = o.records(40)
        assert len(records) == 40
        failed = [record for record in records if record["cmd"] in ("NOSUCHCOMMAND", "LPUSH")]
        assert not [record for record in failed if "exec_us" in record]
        assert_timed([record for record in records if record not in failed])


@each_server
def test_pipelines(name, io_threads):
    """In pipelines up to the depth that replylog keeps, the n-th reply has the time of the n-th command."""
    dice = random.Random(6)
    with Observed(name, io_threads) as o:
        sent = 0
        for depth in (1, 2, 3, 10, 40):
            commands = [dice.choice((sleep(dice.randint(1, 4)), ("PING",), ("GET", "key"), ("SET", "key", "v" * 3000),
                                     ("ECHO", "e" * 20_000))) for _ in range(depth)]
            o.client.drain(request(*commands), depth)
            sent += depth
        records = o.records(sent)
        assert len(records) == sent
        assert_timed(records)


@each_server
def test_an_error_in_a_pipeline(name, io_threads):
    """After an error replylog can't know whether the server executed that command, so records have no time until the
    pipeline is empty."""
    with Observed(name, io_threads) as o:
        o.client.drain(request(sleep(2), ("NOSUCH",), sleep(3), ("PING",)), 4)
        o.client.drain(request(sleep(4), ("PING",)), 2)
        records = o.records(6)
        assert_timed([records[0], *records[4:]])
        assert not [record for record in records[1:4] if "exec_us" in record]


@each_server
def test_transactions(name, io_threads):
    """Each command has the time in which EXEC executed it. QUEUED replies have none."""
    with Observed(name, io_threads) as o:
        o.client.drain(request(("MULTI",), sleep(3), ("GET", "key"), sleep(2), ("LPUSH", "key", "x"), ("EXEC",), sleep(1),
                               ("MULTI",), ("PING",), ("DISCARD",), ("PING",)), 11)
        records = o.records(11 + 3)
        queued = [record for record in records if record["kind"] == "multi" and record["reply_bytes"] == len("+QUEUED\r\n")]
        assert len(queued) == 5
        assert not [record for record in queued if "exec_us" in record]
        inner = [record for record in records if record["kind"] == "multi" and record not in queued]
        assert [record["cmd"] for record in inner] == ["DEBUG", "GET", "DEBUG", "LPUSH", "DISCARD"], inner
        assert_timed([record for record in records if record not in queued])


@each_server
def test_exec_as_a_whole(name, io_threads):
    """EXEC's own time includes that of the commands that it executed."""
    with Server(name, io_threads=io_threads) as server, Replylog(server.pid, 1000, "--dispatch") as replylog, \
            server.client() as client:
        client.drain(request(("MULTI",), *[("ECHO", "e" * 500)] * 3, sleep(2), ("EXEC",)), 6)
        replylog.wait_replies(1)
        record, = replylog.stop()[1:-1]
        assert record["cmd"] == "EXEC" and record["inner_commands"] == 4
        assert record["exec_us"] >= record["inner_exec_us"] >= 2000


@each_server
def test_scripts(name, io_threads):
    """replylog counts the commands that a script executes, and their time is part of the script's."""
    script = "for i = 1, 100 do redis.call('SET', KEYS[1], i) end return redis.call('GET', KEYS[1])"
    with Observed(name, io_threads) as o:
        o.client.drain(request(("EVAL", script, 1, "key"), ("MULTI",), ("EVAL", script, 1, "key"), ("EXEC",), ("PING",)), 5)
        records = o.records(5)
        scripts = [record for record in records if record.get("inner_commands")]
        assert [record["inner_commands"] for record in scripts] == [101, 101], records
        assert [record["kind"] for record in scripts] == ["script", "multi"], records
        for record in scripts:
            assert record["exec_us"] >= record["inner_exec_us"]
        assert "inner_commands" not in records[-1]


@each_server
def test_blocked_commands(name, io_threads):
    """The server may execute a blocked command again, or never. Either way the commands behind it have their own times."""
    with Observed(name, io_threads) as o, o.server.client() as other:
        o.client.send("BLPOP", "list", "0")
        wait_until(lambda: "cmd=blpop" in other.call("CLIENT", "LIST").decode(), "blocked client")
        other.call("RPUSH", "list", "value")
        assert o.client.read() == [b"list", b"value"]
        o.client.drain(request(("BLPOP", "nothing", "0.01"), sleep(2), ("BLPOP", "nothing", "0.01"), ("PING",), sleep(3)), 5)
        o.replylog.wait_replies(7)
        records = o.records(7)
        assert [record["cmd"] for record in records] == ["BLPOP", "BLPOP", "DEBUG", "BLPOP", "PING", "DEBUG"], records
        assert_timed(records)


@each_server
def test_many_clients(name, io_threads):
    """Each client's records have the times of its own commands."""
    with Server(name, io_threads=io_threads) as server, Replylog(server.pid, 0, "--dispatch") as replylog:
        clients = [server.client() for _ in range(8)]
        for i in range(20):
            for n, client in enumerate(clients):
                client.sock.sendall(request(("PING",), sleep(0.1 * (n + 1)), ("GET", "key")))
            for client in clients:
                client.read(), client.read(), client.read()
        replylog.wait_replies(8 * 20 * 3)
        records = [record for record in replylog.stop() if record["event"] == "reply"]
        assert len(records) == 8 * 20 * 3
        assert_timed(records)
        for client in clients:
            client.close()


@each_server
def test_random_conversations(name, io_threads):
    """For any traffic, a time is the command's own or absent, and present where nothing failed."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    plain = (("PING",), ("GET", "s"), ("SET", "s", "v" * 200), ("ECHO", "e" * 5000), ("INCR", "n"))
    awkward = (("NOSUCH",), ("LPUSH", "s", "x"), ("MULTI",), ("EXEC",), ("DISCARD",), ("GET",), ("BLPOP", "nothing", "0.01"),
               ("EVAL", "return redis.call('PING')", 0), ("WATCH", "s"), ("SELECT", "1"), ("SELECT", "99"))
    with Observed(name, io_threads, "--databases", "4") as o:
        sent = timed = 0
        for turn in range(60):
            commands = [sleep(dice.choice((0.2, 0.5, 1))) if dice.random() < 0.3 else
                        dice.choice(awkward if turn % 2 and dice.random() < 0.4 else plain)
                        for _ in range(dice.randint(1, 30))]
            o.client.drain(request(*commands), len(commands))
            o.client.answer("DISCARD")
            sent += len(commands) + 1
        for record in o.records(sent):
            slept = slept_us(record)
            assert record.get("exec_us", slept) >= slept, record
            timed += "exec_us" in record
        assert timed >= sent / 3, f"{timed} of {sent} are timed"


@each_server
def test_older_connections(name, io_threads):
    """A connection that replylog joins has times from then on."""
    with Server(name, io_threads=io_threads) as server, server.client() as client:
        client.call("SET", "key", "value")
        with Replylog(server.pid, 0, "--dispatch") as replylog:
            client.drain(request(sleep(2), ("GET", "key"), sleep(1)), 3)
            replylog.wait_replies(3)
            assert_timed([record for record in replylog.stop() if record["event"] == "reply"])


def server_log(client):
    """The server's own log: [(argv, microseconds)], oldest first."""
    try:
        entries = client.call("COMMANDLOG", "GET", "-1", "slow")
    except ServerError:
        entries = client.call("SLOWLOG", "GET", "-1")
    return [([arg.decode() for arg in entry[3]], entry[2]) for entry in reversed(entries)]


@each_server
def test_against_the_servers_own_log(name, io_threads):
    """replylog's time includes the server's own for the same command, which the server measures inside call(). The test
    prints by how much it is longer."""
    with Observed(name, io_threads, "--slowlog-log-slower-than", "1000", "--slowlog-max-len", "1000") as o:
        o.client.pipeline([("RPUSH", "list", *[f"element {i % 1000}" for i in range(10_000)])] * 20)
        commands = [sleep(ms) for ms in (1, 2, 5, 10, 20)] + [("LRANGE", "list", "0", "-1"), ("SORT", "list", "ALPHA")] * 4
        o.client.drain(request(*commands), len(commands))
        log = [entry for entry in server_log(o.client) if entry[0][0] in ("DEBUG", "LRANGE", "SORT")]
        records = [record for record in o.records(20 + len(commands) + 1)
                   if record["cmd"] in ("DEBUG", "LRANGE", "SORT") and record.get("exec_us", 0) >= 1000]
        assert len(log) >= 5
        ratios = []
        for argv, us in log:
            while records[0]["argv"] != argv:
                records.pop(0)
            assert records[0]["exec_us"] + 1 >= us, f"{records[0]} took the server {us} us"
            ratios.append(records.pop(0)["exec_us"] / us)
        ratios.sort()
        print(f"{len(ratios)} commands over 1 ms: ours is {ratios[len(ratios) // 2]:.4f} of the server's in the median, "
              f"{ratios[-1]:.4f} at most")


def test_check_says_where():
    """--check names the probed function, and what it costs."""
    with Server("valkey-9.1") as server:
        result = run_replylog("--check", "--dispatch", "-p", str(server.pid))
        assert result.returncode == 0, result.stderr
        assert "call 0x" in result.stdout, result.stdout


def test_off_by_default():
    """Without --dispatch replylog attaches no probe there, and records have no time."""
    with Server("valkey-9.1") as server, Replylog(server.pid, 0) as replylog, server.client() as client:
        client.call("PING")
        replylog.wait_replies(1)
        start, record, _ = replylog.stop()
        assert not [probe for probe in start["probes"] if probe.startswith("call")], start
        assert "exec_us" not in record
