"""The ledger: each byte that the server wrote to its clients is attributed, unattributed or left out, compared with the
server's own count (total_net_output_bytes). Each loss says how large it is."""
import signal
from contextlib import ExitStack

import oracle
import workload
from conversation import FrameClient, request
from replylog import Replylog
from resp import encode
from server import PreloadedServer, Server
from test_waiting import blocked
from waiting import wait_until

PAYLOAD = b"p" * 20_000
TAPS = ("socket", "connection")
# So many answers in a row that add up. One is not enough: an IO thread's write to another client may be counted later.
SETTLED = 5
SERVERS = (("valkey-9.1", 4), ("redis-7.0", 1))


def on_taps(*servers):
    def decorate(function):
        function.cases = {f"{name},{threads} io threads,{tap}": (name, threads, tap)
                          for name, threads in servers or SERVERS for tap in TAPS}
        return function
    return decorate


class Ledger:
    """Compares what the server says it has sent since replylog started with what replylog says."""

    def __init__(self, server, *flags, monitor=None):
        self.server = server
        self.monitor = monitor  # a MONITOR client, which also receives the commands sent here
        self.flags = flags

    def __enter__(self):
        self.conn = FrameClient(self.server.port)
        before = self.settled()
        self.replylog = Replylog(self.server.pid, 0, *self.flags)
        self.replylog.__enter__()
        self.before = before
        return self

    def __exit__(self, *_):
        self.replylog.__exit__()
        self.conn.sock.close()

    def ask(self):
        """Returns (bytes that the server sent before this, bytes that it sends because of this)."""
        reply, told = self.conn.ask("INFO", "stats"), b""
        while self.monitor and b'"INFO"' not in told:
            told = self.monitor.frame()
        return int(reply.split(b"total_net_output_bytes:")[1].split(b"\r")[0]), len(reply) + len(told)

    def settled(self):
        """Returns what the server has sent, this reply included. Threads may count their writes late."""
        seen, agreeing = [(0, 0)], 0

        def is_settled():
            nonlocal agreeing
            seen.append(self.ask())
            agreeing = agreeing + 1 if seen[-1][0] == sum(seen[-2]) else 0
            return agreeing == SETTLED

        wait_until(is_settled, "quiet server")
        return sum(seen[-1])

    def finish(self, uncounted=0, headers=0):
        """Ends replylog and returns its records. uncounted: bytes that the server writes without counting them. headers:
        bytes of EXEC's own headers, whose elements are logged."""
        sent = self.settled() - self.before + uncounted
        records = self.replylog.stop()
        stop = records[-1]
        logged = sum(record.get("reply_bytes", record.get("bytes_sent", 0)) for record in records
                     if record["event"] == "reply")
        lost = sum(record["bytes"] for record in records if record["event"] == "dropped")
        said = {key: stop[key] for key in ("reply_bytes", "attributed_bytes", "unattributed_bytes", "left_out_bytes")}
        print(f"sent {sent}, logged {logged}, lost {lost}: {said}")
        print([record for record in records if record["event"] not in ("start", "reply")])
        assert stop["reply_bytes"] == sent, (sent, said)
        assert sum(said.values()) == 2 * sent, said
        assert stop["attributed_bytes"] == logged + headers, (logged, headers, said)
        assert lost <= stop["unattributed_bytes"], (lost, said)
        return records


def losses(records):
    """Returns {reason: (count, replies, bytes)}."""
    found = {}
    for record in records:
        if record["event"] == "dropped":
            sums = found.setdefault(record["reason"], [0, 0, 0])
            for i, key in enumerate(("count", "replies", "bytes")):
                sums[i] += record[key]
    return {reason: tuple(sums) for reason, sums in found.items()}


@on_taps(*SERVERS, ("redis-6.0", 1), ("valkey-8.1", 2), ("redis-8.0", 1))
def test_ordinary(name, io_threads, tap):
    """The exactness workload."""
    with Server(name, io_threads=io_threads) as server:
        with server.client() as client:
            workload.fill(client)
        with Ledger(server, "--tap", tap) as ledger:
            outcome = oracle.run(server.port, 3000, 4)
            ledger.replylog.wait_replies(outcome.commands)
            stop = ledger.finish()[-1]
    assert not stop["dropped"] and not stop["unattributed_bytes"] and not stop["left_out_bytes"], stop


@on_taps()
def test_conversations(name, io_threads, tap):
    """Transactions, subscriptions, pushes and MONITOR, and a client that disconnects in the middle of a reply."""
    with Server(name, io_threads=io_threads) as server:
        with server.client() as client:
            client.call("SETRANGE", "huge", 20_000_000, "x")
        with Ledger(server, "--tap", tap) as ledger, ExitStack() as stack:
            conn, pushed, monitor, goes = (stack.enter_context(FrameClient(server.port)) for _ in range(4))
            conn.send(("MULTI",), ("SET", "a", PAYLOAD), ("GET", "a"), ("EXEC",), ("GET", "a"))
            conn.frames(5)
            pushed.ask("HELLO", 3)
            pushed.ask("SUBSCRIBE", "news")
            monitor.ask("MONITOR")
            for _ in range(3):
                conn.ask("PUBLISH", "news", PAYLOAD)
                pushed.frame()
                # The server may need several writes for the earlier commands that it reports to MONITOR.
                while PAYLOAD not in monitor.frame():
                    pass
            monitor.sock.close()  # it would receive each INFO
            goes.send(("GET", "huge"))
            goes.sock.recv(1000)
            # Wait until the server has written and counted what fits in the socket. valkey 9.1 sometimes does not count
            # what an IO thread has just written to a client that disconnects.
            ledger.settled()
            goes.sock.close()
            stop = ledger.finish(headers=len("*2\r\n"))[-1]
    assert stop["left_out_bytes"] > 3 * len(PAYLOAD) and not stop["unattributed_bytes"], stop
    assert [record["state"] for record in ledger.replylog.replies()].count("aborted") == 1


@on_taps()
def test_older_connections(name, io_threads, tap):
    """Bytes written to older connections before the join are unattributed, and no loss."""
    with Server(name, io_threads=io_threads) as server, server.client() as other, FrameClient(server.port) as older, \
            FrameClient(server.port) as monitor, FrameClient(server.port) as subscriber:
        older.send(("BLPOP", "list", 0))
        blocked(other)
        monitor.ask("MONITOR")
        subscriber.ask("SUBSCRIBE", "news")
        with Ledger(server, "--tap", tap, monitor=monitor) as ledger:
            told = len(other.pipeline([("RPUSH", "list", PAYLOAD), ("PUBLISH", "news", PAYLOAD)]))
            unattributed = len(older.frame()) + len(subscriber.frame())
            older.ask("ECHO", "joined")
            while told:
                told -= PAYLOAD in monitor.frame()
            stop = ledger.finish()[-1]
    assert stop["unattributed_bytes"] == unattributed and not stop["dropped"], (unattributed, stop)
    assert stop["left_out_bytes"] > 2 * len(PAYLOAD), stop


@on_taps()
def test_stopped_in_mid_reply(name, io_threads, tap):
    """replylog stops after the beginning of a large reply, with commands outstanding behind it."""
    with Server(name, io_threads=io_threads) as server:
        with server.client() as client:
            client.call("SETRANGE", "huge", 20_000_000, "x")
        with Ledger(server, "--tap", tap) as ledger, FrameClient(server.port) as slow:
            slow.send(("PING",), ("GET", "huge"), ("PING",))
            slow.frame()
            records = ledger.finish()
    assert losses(records)["unfinished"][:2] == (1, 1) and losses(records)["unfinished"][2] > 10_000, losses(records)
    assert records[-1]["unattributed_bytes"] == losses(records)["unfinished"][2], records[-1]


@on_taps()
def test_protocol_error(name, io_threads, tap):
    """The server answers the bad request with an error, which is the reply to no command."""
    with Server(name, io_threads=io_threads) as server, Ledger(server, "--tap", tap) as ledger, \
            FrameClient(server.port) as conn:
        conn.sock.sendall(request("ECHO", PAYLOAD) + b"*1\r\n!3\r\nGET\r\n")
        rest = conn.rest()
        records = ledger.finish()
    error = len(rest) - len(PAYLOAD) - len(f"${len(PAYLOAD)}\r\n\r\n")
    assert losses(records) == {"framing": (1, 0, error)}, (error, losses(records))


@on_taps()
def test_clients_full(name, io_threads, tap):
    with Server(name, io_threads=io_threads) as server, Ledger(server, "--tap", tap, "--max-clients", "3") as ledger, \
            ExitStack() as stack:
        ledger.ask()  # it has the first connection number
        conns = [stack.enter_context(FrameClient(server.port)) for _ in range(6)]
        for conn in conns:
            conn.ask("ECHO", PAYLOAD)
        records = ledger.finish()
    lost = 4 * len(f"${len(PAYLOAD)}\r\n{PAYLOAD.decode()}\r\n")
    assert losses(records)["clients_full"][1:] == (0, lost) and len(losses(records)) == 1, (lost, losses(records))


@on_taps()
def test_ring_full(name, io_threads, tap):
    count = 5000
    with Server(name, io_threads=io_threads) as server, Ledger(server, "--tap", tap, "--ring-size", "64kb") as ledger:
        ledger.replylog.process.send_signal(signal.SIGSTOP)
        with server.client() as client:
            for _ in range(0, count, 100):
                client.drain(encode([b"ECHO", b"12345"]) * 100, 100)
        ledger.replylog.process.send_signal(signal.SIGCONT)
        ledger.replylog.wait_replies(count, stalled=2)
        records = ledger.finish()
    lost = count - sum(record.get("cmd") == "ECHO" for record in records)
    assert losses(records) == {"ring_full": (lost, lost, lost * len("$5\r\n12345\r\n"))} and lost, (lost, losses(records))


STRAY = b"?stray\r\n"
SEEN_AS = {"socket": "framing", "connection": "missed"}


@on_taps()
def test_lost_replies(name, io_threads, tap):
    """Bytes that are no reply arrive while 252 replies are outstanding. replylog counts these with their bytes, and loses
    nothing more once it has joined the connection again."""
    with PreloadedServer(name, library="stray_write", io_threads=io_threads) as server, server.client() as other, \
            Ledger(server, "--tap", tap) as ledger, FrameClient(server.port) as conn:
        conn.ask("PING")
        conn.send(("BLPOP", "list", 0), *(("ECHO", f"x{number}") for number in range(250)), ("ECHO", "STRAY"))
        blocked(other)
        lost = conn.frames(1)
        other.call("RPUSH", "list", PAYLOAD)
        lost += conn.frames(252)
        joined = [conn.ask("ECHO", "joined") for _ in range(2)]
        records = ledger.finish(uncounted=len(STRAY))
    assert losses(records) == {SEEN_AS[tap]: (1, 252, sum(map(len, lost)))}, (losses(records), sum(map(len, lost)))
    assert [record["reply_bytes"] for record in records if record.get("argv") == ["ECHO", "joined"]] == [12] * len(joined)


@on_taps()
def test_lost_at_the_close(name, io_threads, tap):
    """replylog did not see the last write, or that write was no reply."""
    with PreloadedServer(name, library="stray_write", io_threads=io_threads) as server, server.client() as other, \
            Ledger(server, "--tap", tap) as ledger:
        with FrameClient(server.port) as conn:
            conn.ask("PING")
            conn.send(("BLPOP", "list", 0), ("ECHO", "STRAY"))
            blocked(other)
            assert conn.frame() == STRAY
        wait_until(lambda: b"blocked_clients:0\r" in other.call("INFO", "clients"), "client that has gone")
        records = ledger.finish(uncounted=len(STRAY))
    assert losses(records) == {SEEN_AS[tap]: (1, 2, len(STRAY))}, losses(records)


@on_taps()
def test_child_and_close(name, io_threads, tap):
    """While the server has a child it shuts its output down before it closes, which the kernel counts like a byte."""
    with Server(name, "--rdb-key-save-delay", "3000000", io_threads=io_threads) as server, server.client() as other:
        other.call("SET", "key", "x")
        with Ledger(server, "--tap", tap) as ledger:
            assert b"started" in other.call("BGSAVE")
            with FrameClient(server.port) as conn:
                conn.ask("ECHO", "x")
                conn.ask("CLIENT", "KILL", "ADDR", conn.addr, "SKIPME", "no")
                conn.rest()
            assert b"rdb_bgsave_in_progress:1\r" in other.call("INFO", "persistence")
            stop = ledger.finish()[-1]
    assert not stop["dropped"] and not stop["unattributed_bytes"], stop


@on_taps()
def test_refused_clients(name, io_threads, tap):
    """The error sent to a refused client belongs to no client, and does not count as a connection that could not be
    joined."""
    refused = b"-ERR max number of clients reached\r\n"
    with Server(name, "--maxclients", "3", io_threads=io_threads) as server, Ledger(server, "--tap", tap) as ledger, \
            FrameClient(server.port), FrameClient(server.port) as conn:
        conn.ask("PING")
        for _ in range(5):
            with FrameClient(server.port) as comes:
                assert comes.rest() == refused
        stop = ledger.finish(uncounted=5 * len(refused))[-1]
    assert stop["unjoined"] == 0 and stop["unattributed_bytes"] == 5 * len(refused), stop


@on_taps()
def test_replicas(name, io_threads, tap):
    """Three replicas, one connection after another: each is counted, and the bytes sent to it are left out."""
    with Server(name, "--repl-diskless-sync", "no", io_threads=io_threads) as server, \
            Ledger(server, "--tap", tap) as ledger:
        for number in range(3):
            with FrameClient(server.port) as replica:
                replica.send(("SYNC",))
                dump = replica.sock.recv(1)
                while b"REDIS" not in dump and b"VALKEY" not in dump:
                    dump += replica.sock.recv(1 << 16)
                ledger.conn.ask("SET", f"key:{number}", PAYLOAD)
                while PAYLOAD not in dump:
                    dump += replica.sock.recv(1 << 16)
        stop = ledger.finish()[-1]
    assert stop["left_out_replication"] == 3 and stop["left_out_bytes"] > 3 * len(PAYLOAD), stop
    assert not stop["dropped"] and not stop["unattributed_bytes"], stop
