"""Random conversations on connections in every state, while replylog starts and stops: ordinary commands, odd ones, and
inputs that gave wrong records before (fault_inputs.py), cut anywhere.

The test needs no model of the replies. A value's size tells whose it is, and the server itself says who a client is
before and after each burst. For each exact record the test checks that:
- its argv was sent in that burst, and its size is right for that argv;
- name, user, database and protocol are those that CLIENT LIST or the burst's own commands gave;
- its time is that of its own command.

REPLYLOG_FUZZ_SECONDS for each case (15), REPLYLOG_SEED to repeat a sequence, REPLYLOG_MATRIX=all for all servers.
"""
import os
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timezone

from conversation import FrameClient, request
from fault_inputs import INPUTS, VALUES
from oracle import cut
from replylog import Replylog
from resp import to_bytes
from server import Server
from test_faults import fill, inputs_for
from truth import Stream, bulk, payload, wrong, wrong_identity
from waiting import wait_until

SECONDS = float(os.environ.get("REPLYLOG_FUZZ_SECONDS", 15))
MATRIX = os.environ.get("REPLYLOG_MATRIX") == "all"
SERVERS = [(name, threads) for name in ("valkey-9.1", "redis-7.0") for threads in (1, 4)] + \
    [(name, threads) for name in ("valkey-8.1", "valkey-8.0", "redis-8.0", "redis-8.6", "redis-6.0") for threads in (1, 4) if MATRIX]
MODES = ((0,), (0, "--dispatch"), (0, "--argv-from", "dispatch"), (1500,), (0, "--verify-wait", "100"))
# These commands end most states of a connection.
BACK = (("DISCARD",), ("UNSUBSCRIBE",), ("PUNSUBSCRIBE",), ("CLIENT", "TRACKING", "OFF"), ("CLIENT", "REPLY", "ON"), ("PING",))
CONNECTIONS = 6
DATABASES = ("0", "1", "2", "3")
ERROR_MAX = 300         # the largest error or confirmation; values are larger
OTHERS_MAX = 2000       # the largest reply to the other commands, whose replies have many elements
NOISE_US = 55_000       # how much longer a command may take on a busy machine
SLEEP_MS = 60           # longer than NOISE_US, so a time tells whose it is
IDENTITY = {"bob": "b", "alice": "a"}


@dataclass
class Burst:
    """What a connection was sent within one time span."""
    began: int                                      # ns
    argvs: Counter = field(default_factory=Counter)     # its commands, and earlier ones that may not have been answered yet
    listed: list = field(default_factory=list)      # the client's CLIENT LIST entries during the burst
    odd: bool = False                               # argvs does not have everything that was sent


def kept(argv):
    """An argument in the form of a record, when it is text."""
    return tuple(cut(arg).decode("utf-8", "replace") for arg in argv[:32])


class Fuzzed:
    """A connection, and all bursts sent on it."""

    def __init__(self, session):
        self.session = session
        self.conn = FrameClient(session.server.port)
        self.conn.sock.setblocking(False)
        self.addr = self.conn.addr
        self.bursts = []
        self.half = b""             # the rest of a request whose beginning was sent
        self.requested = []         # identities that the client may have taken since
        wait_until(self.listed, "a client")

    def listed(self):
        """Returns the client's CLIENT LIST entry, or None when it is gone."""
        for line in self.session.other.call("CLIENT", "LIST").decode("utf-8", "replace").splitlines():
            fields = dict(part.split("=", 1) for part in line.split(" ") if "=" in part)
            if fields.get("addr") == self.addr:
                return fields
        return None

    def drain(self):
        """Reads everything that has arrived. False: closed."""
        try:
            while data := self.conn.sock.recv(1 << 20):
                self.session.received += len(data)
            return False
        except BlockingIOError:
            return True
        except OSError:
            return False

    def settle(self):
        """Waits until nothing changes any more. None: closed."""
        before, deadline = None, time.monotonic() + 10
        while time.monotonic() < deadline:
            open_, fields = self.drain(), self.listed()
            if not open_ or not fields:
                return None
            now = {key: fields.get(key)
                   for key in ("qbuf", "obl", "oll", "omem", "flags", "multi", "cmd", "db", "user", "name", "tot-cmds")}
            if before == now and now["obl"] == now["oll"] == "0":
                return fields
            before = now
        raise AssertionError(f"{self.addr} does not settle: {before}")

    def burst(self, pieces, argvs, odd, requested):
        """Sends pieces (bytes) one by one, with other connections' bursts between them. False: the connection is gone."""
        before = self.listed()
        if not before:
            return False
        # redis 6.0's CLIENT LIST lacks the protocol, so the test can't check it.
        requested = [{word: value for word, value in words.items() if word in before} for words in requested]
        last = self.bursts[-1] if self.bursts else Burst(0)
        in_transaction = before.get("multi", "-1") != "-1"
        self.requested = [*(self.requested if in_transaction or last.odd else self.requested[-4:]), *requested]
        burst = Burst(time.time_ns(), Counter(argvs) + last.argvs, [before, *last.listed[-2:], *self.requested], odd or last.odd)
        self.bursts.append(burst)
        for piece in pieces:
            if not self.send(piece):
                return False
            self.session.other.call("PING")
        after = self.settle()
        if not after:
            return False
        burst.listed.append(after)
        # Blocked, half-sent or queued commands are answered later. Even so the last record may arrive a moment later.
        if not set(after["flags"]) & set("bx") and after["qbuf"] == "0":
            self.bursts.append(Burst(time.time_ns(), Counter(argvs), [after, *burst.listed], odd))
        return True

    def send(self, data):
        """Sends everything, and reads what arrives meanwhile."""
        while data:
            try:
                data = data[self.conn.sock.send(data):]
            except BlockingIOError:
                if not self.drain():
                    return False
            except OSError:
                return False
        return True

    def close(self):
        self.conn.sock.close()
        self.bursts.append(Burst(time.time_ns() + 2_000_000_000, odd=True))


class Session:
    """The connections, the running replylog, and the facts that its records are checked against."""

    def __init__(self, server, other, seed):
        self.server, self.other = server, other
        self.random = random.Random(seed)
        self.inputs = [given for given in inputs_for(server, INPUTS).values()
                       if not given.only and not given.send and not given.hangs and len(given.parts) < 100]
        self.size = 1200
        self.received = 0
        self.published = {"news": set(), "more": set()}
        self.open, self.closed = [], []
        self.checked = Counter()

    # ---- what is sent ----

    def next_size(self):
        self.size += 1
        return self.size

    def plain(self):
        pick = self.random.choice
        return pick((("GET", pick("abcdef")), ("GET", pick("abcdef")), ("ECHO", payload(self.next_size())),
                     ("ECHO", payload(self.next_size())), ("PING",), ("SET", "k", "v" * pick((1, 300))), ("INCR", "n"), ("GET",),
                     ("NOSUCH", "x"), ("LPUSH", "a", "x"), ("EXISTS", "a", "b"), ("EVAL", "return redis.call('PING')", "0"),
                     ("DEBUG", "SLEEP", f"0.00{pick('123')}{self.random.randrange(1, 9)}")))

    def changes(self):
        """Commands that change the state of the connection, not the client's identity."""
        pick = self.random.choice
        return pick((("MULTI",), ("MULTI",), ("EXEC",), ("EXEC",), ("EXEC",), ("DISCARD",), ("WATCH", "a"),
                     ("SUBSCRIBE", pick(("news", "more"))), ("UNSUBSCRIBE",), ("UNSUBSCRIBE", "news"),
                     ("PSUBSCRIBE", "x*"), ("PUNSUBSCRIBE",),
                     ("CLIENT", "TRACKING", "ON"), ("CLIENT", "TRACKING", "OFF"),
                     ("CLIENT", "REPLY", pick(("OFF", "SKIP", "ON", "ON", "ON"))),
                     ("BLPOP", "queue", "0"), ("BLPOP", "queue", "0.02"), ("QUIT",), ("DEBUG", "SLEEP", f"0.0{SLEEP_MS}")))

    def who(self):
        """Returns (a command that changes the client's identity, the identity that it may then have)."""
        pick = self.random.choice
        user, number, version, name = pick(("bob", "alice")), pick(DATABASES), pick("23"), f"name{self.random.randrange(1000)}"
        return pick(((("SELECT", number), {"db": number}), (("SELECT", "77"), {}), (("AUTH", user, IDENTITY[user]), {"user": user}),
                     (("AUTH", "nouser", "bad"), {}), (("CLIENT", "SETNAME", name), {"name": name}),
                     (("HELLO", version), {"resp": version}),
                     (("HELLO", version, "AUTH", user, IDENTITY[user], "SETNAME", name), {"resp": version, "user": user, "name": name}),
                     (("HELLO", version, "AUTH", "nouser", "bad", "SETNAME", name), {"name": name}),
                     (("RESET",), {"resp": "2", "db": "0", "user": "default", "name": ""})))

    def odd(self):
        """Returns (bytes, the identity that the client may then have): a line, or an input that servers misread."""
        pick = self.random.choice
        if self.random.random() < 0.5:
            return pick((b"*-1\r\n", b"*0\r\n", b"\r\n", b"*-5\r\n", b"GET a\r\n", b"PING\n", b'ECHO "1500:"\r\n', b"*1\r\n$0\r\n\r\n",
                         request("GET\0x", "a"), request("CLIENT", "REPLY\0\x01", "OFF"), b"NOSUCH \xff\r\n")), []
        given = pick(self.inputs)
        return b"".join(request(*argv) for argv in given.first) + given.data(), \
            [{"user": "bob"}, {"user": "alice"}, {"user": "default"}, {"db": "3"}, {"db": "0"}, {"resp": "3"}, {"resp": "2"},
             *({"name": name} for name in ("", "mine", "me", "first", "n1", "zed", "foo", "b", "bar", "a\x80b", "a\xffb", "ab"))]

    def make(self):
        """Returns (bytes, argvs in the form of records, whether more was sent than these, the identity that the client
        may then have)."""
        data, argvs, odd, requested = b"", [], False, []
        for _ in range(self.random.choice((1, 1, 2, 3, 5, 10, 30))):
            dice = self.random.random()
            if dice < 0.06:
                more, words = self.odd()
                data, odd, requested = data + more, True, [*requested, *words]
                continue
            words = {}
            if dice < 0.12:
                argv, words = self.who()
            else:
                argv = self.changes() if dice < 0.3 else self.plain()
            data += request(*argv)
            argvs.append(kept([to_bytes(arg) for arg in argv]))
            requested += [words] if words else []
        return data, argvs, odd, requested

    def pieces(self, data):
        cuts = sorted(self.random.randrange(len(data) + 1) for _ in range(self.random.choice((0, 0, 0, 1, 3))))
        return [data[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(data)])]

    # ---- one step ----

    def turn(self):
        """Sends one burst on one connection, or does what another client does."""
        dice = self.random.random()
        if len(self.open) < CONNECTIONS:
            self.open.append(Fuzzed(self))
        if dice < 0.1:
            channel, size = self.random.choice(("news", "more")), self.next_size()
            self.published[channel].add(len(f"*3\r\n$7\r\nmessage\r\n${len(channel)}\r\n{channel}\r\n") + bulk(size))
            self.other.call("PUBLISH", channel, payload(size))
        elif dice < 0.2:
            self.other.call("RPUSH", "queue", "x" * self.random.choice((1, 100)))
            self.other.call("SET", "k", "another")
        connection = self.random.choice(self.open)
        if self.random.random() < 0.15:
            self.give(connection, b"".join(request(*argv) for argv in BACK), BACK, False, [])
        else:
            self.give(connection, *self.make())

    def give(self, connection, data, argvs, odd, requested):
        # The rest of an unfinished request goes first.
        data, connection.half = connection.half + data, b""
        if self.random.random() < 0.1:
            at = self.random.randrange(len(data) + 1)
            data, connection.half = data[:at], data[at:]
        if not connection.burst(self.pieces(data), argvs, odd, requested) or self.random.random() < 0.04:
            connection.close()
            self.open.remove(connection)
            self.closed.append(connection)

    # ---- what the records must say ----

    def check(self, replylog):
        """Checks all records of a run."""
        stream = Stream(replylog)
        stream.read()
        bursts = {}
        for connection in self.closed + self.open:
            bursts.setdefault(connection.addr, []).extend(connection.bursts)
        for addr, records in stream.by_client.items():
            if addr in bursts:
                for record in records:
                    self.check_record(record, sorted(bursts[addr], key=lambda burst: burst.began))
        for record in stream.records:
            if record["event"] == "reply" and record["attribution"] == "exact" and record.get("push") == "message":
                known = self.published.get(record.get("channel"))
                assert known is None or record["state"] != "complete" or record["reply_bytes"] in known, record
        self.checked.update(record["attribution"] for record in stream.records if record["event"] == "reply")

    def check_record(self, record, bursts):
        ended = nanoseconds(record["ts"])
        place = [burst for burst in bursts if burst.began <= ended]
        if not place or place[-1].odd and not place[-1].listed:
            return
        burst = place[-1]
        if record["attribution"] == "exact":
            # A command that waited may belong to an earlier burst.
            said = [wrong_identity(record, one.listed) for one in place[-3:]]
            assert not all(said), f"{said[-1]}: {record}"
        if record["attribution"] != "exact" or "argv" not in record or record["state"] != "complete":
            return
        if not burst.odd and "argv_encoding" not in record and "(redacted)" not in record["argv"]:
            # A command that waited may be answered after later bursts have begun.
            assert any(one.odd or one.argvs[tuple(record["argv"])] for one in place), \
                f"not sent here: {record}; but {[one.argvs for one in place[-3:]]}"
        got, name = record["reply_bytes"], record["cmd"]
        if got > (ERROR_MAX if name in ("GET", "ECHO", "PING") else OTHERS_MAX) and name not in ("EXEC", "EVAL"):
            said = wrong(record, VALUES)
            assert not said, f"{said}: {record}"
        self.check_time(record)

    def check_time(self, record):
        if "exec_us" not in record or record["cmd"] == "EXEC":
            return
        argv = record["argv"]
        slept = int(float(argv[2]) * 1e6) if argv[:2] == ["DEBUG", "SLEEP"] and record["reply_bytes"] == len("+OK\r\n") else 0
        assert slept <= record["exec_us"] < slept + NOISE_US, f"{slept} us: {record}"


def nanoseconds(ts):
    whole, _, fraction = ts[:-1].partition(".")
    return int(datetime.fromisoformat(whole).replace(tzinfo=timezone.utc).timestamp()) * 10 ** 9 + int(fraction)


def test_conversations(name, io_threads):
    seed = int(os.environ.get("REPLYLOG_SEED", random.SystemRandom().randrange(1 << 32)))
    print(f"seed {seed} (REPLYLOG_SEED={seed} repeats what is sent)")
    deadline = time.monotonic() + SECONDS
    with Server(name, io_threads=io_threads) as server, server.client() as other:
        fill(other, DATABASES[::-1])
        session = Session(server, other, seed)
        turns = runs = 0
        while time.monotonic() < deadline:
            threshold, *flags = session.random.choice(MODES)
            with Replylog(server.pid, threshold, *flags, wait=False) as replylog:
                # replylog starts and stops at any time.
                until = None
                while not until or time.monotonic() < until:
                    session.turn()
                    turns += 1
                    if not until and replylog.lines:
                        until = time.monotonic() + session.random.uniform(0.1, 4)
                records = replylog.stop()
                print(threshold, flags, records[-1])
                session.check(replylog)
                runs += 1
            for _ in range(session.random.randrange(20)):
                session.turn()
        for connection in session.open:
            connection.close()
    print(f"{turns} bursts, {runs} runs of replylog, {session.received / 1e6:.0f} MB, records: {dict(session.checked)}")
    assert session.checked["exact"] > 20, session.checked


test_conversations.cases = {f"{name},{threads} io threads": (name, threads) for name, threads in SERVERS}
