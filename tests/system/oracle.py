"""The oracle: clients that count the bytes of every reply they receive. Tests compare the records with these counts.

run() drives N connections at a server, and returns what they sent and received. compare() compares the records of a
replylog with --threshold 0 with that, and describes the first difference.
"""
import multiprocessing
import os
import random
import re
import signal
import time
import traceback
from collections import deque
from dataclasses import dataclass, field
from multiprocessing.connection import wait

from resp import PUSH, STAR, ReplyCounter, encode
from transport import UNIX, at
from workload import Workload

MAX_ARGS = 32           # arguments of a command that COMMANDLOG keeps
MAX_ARG_BYTES = 128
PIPELINE_MAX = 60
BURSTS = 0.06           # share of a slow connection's pipelines
BURST_PAUSE = 0.002     # seconds
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z")
ESCAPE = re.compile(rb"\\(?:x([0-9a-f]{2})|(\\))")


class Difference(AssertionError):
    """A record that does not match what happened."""


# ---- what a record should say about a command ----------------------------------------------------------------------

def cut(arg):
    """The part of an argument that replylog keeps: never half a character."""
    kept = arg[:MAX_ARG_BYTES]
    try:
        kept.decode()
    except UnicodeDecodeError as error:
        if len(arg) > MAX_ARG_BYTES and error.reason == "unexpected end of data":
            return kept[:error.start]
    return kept


@dataclass(slots=True)
class Expected:
    argv: tuple         # str items; bytes when escaped
    argc: int
    escaped: bool
    truncated: bool
    request_bytes: int
    inline: bool
    reply_bytes: int = 0

    @classmethod
    def of(cls, argv, request):
        sent = len(request), request[0] != STAR
        head = argv[:MAX_ARGS]
        truncated = len(argv) > MAX_ARGS or max(map(len, head)) > MAX_ARG_BYTES
        if truncated:
            head = [cut(arg) for arg in head]
        try:
            return cls(tuple([arg.decode() for arg in head]), len(argv), False, truncated, *sent)
        except UnicodeDecodeError:
            return cls(tuple(head), len(argv), True, truncated, *sent)


def unescape(text):
    """The bytes of an argument that was written with argv_encoding "escaped"."""
    return ESCAPE.sub(lambda match: bytes.fromhex(match[1].decode()) if match[1] else b"\\", text.encode())


def same_escaped_argument(want, got):
    # A cut argument may end at the 128th byte, or at the character before it.
    return got == want or len(want) <= len(got) <= MAX_ARG_BYTES and got.startswith(want) and len(got) - len(want) < 4


def argv_difference(want, record):
    got = record.get("argv")
    if got is None:
        return f"no argv (argv_lost: {record.get('argv_lost')!r})"
    if want.escaped:
        if record.get("argv_encoding") != "escaped":
            return f"argv_encoding is {record.get('argv_encoding')!r}, want 'escaped'"
        got = [unescape(arg) for arg in got]
        same = len(got) == len(want.argv) and all(map(same_escaped_argument, want.argv, got))
    else:
        if "argv_encoding" in record:
            return f"argv_encoding is {record['argv_encoding']!r}, want none"
        same = got == list(want.argv)
    return None if same else f"argv is {shorten(got)}, want {shorten(want.argv)}"


def record_difference(want, record):
    """Returns what is wrong with this record, or None. The most telling check comes first, the merely formal ones last."""
    difference = argv_difference(want, record)
    if difference:
        return difference
    if record.get("cmd", "").upper() != record["argv"][0].upper():
        return f"cmd is {record.get('cmd')!r}, argv[0] {record['argv'][0]!r}"
    wanted = (("argc", want.argc), ("reply_bytes", want.reply_bytes), ("request_bytes", want.request_bytes),
              ("attribution", "exact"), ("state", "complete"))
    for key, value in wanted:
        if record.get(key) != value:
            return f"{key} is {record.get(key)!r}, want {value!r}"
    if record.get("argv_truncated", False) is not want.truncated:
        return f"argv_truncated is {record.get('argv_truncated')!r}, want {want.truncated}"
    return None


# ---- the report ----------------------------------------------------------------------------------------------------

def shorten(argv):
    text = repr([arg if len(arg) <= 48 else arg[:45] + (b"..." if isinstance(arg, bytes) else "...") for arg in argv[:6]])
    return text if len(argv) <= 6 else f"{text[:-1]}, ... {len(argv)} in all]"


def describe_expected(want):
    return f"{shorten(want.argv)} request {want.request_bytes} reply {want.reply_bytes}"


def describe_record(record):
    return (f"seq {record.get('seq')} {shorten(record.get('argv', ['?']))} request {record.get('request_bytes')} "
            f"reply {record.get('reply_bytes')} {record.get('kind')} {record.get('attribution')} {record.get('state')}")


def report(addr, i, what, wanted, records):
    """Shows where expected and actual records part, with the records around it on both sides."""
    lines = [f"connection {addr}, command {i} of {len(wanted)} ({len(records)} records): {what}"]
    for title, items, describe in (("sent", wanted, describe_expected), ("logged", records, describe_record)):
        lines.append(f"  {title}:")
        for j in range(max(i - 2, 0), min(i + 4, len(items))):
            lines.append(f"    {'>' if j == i else ' '} {j}: {describe(items[j])}")
    if i < len(records) and i + 1 < len(wanted) and not record_difference(wanted[i + 1], records[i]):
        lines.append("  the record is that of the next command: this one's is missing")
    elif i + 1 < len(records) and i < len(wanted) and not record_difference(wanted[i], records[i + 1]):
        lines.append("  the next record is this command's: this one is too many")
    return "\n".join(lines)


def compare_connection(addr, wanted, records):
    before = ""
    for i, (want, record) in enumerate(zip(wanted, records)):
        what = record_difference(want, record)
        ts = record.get("ts", "")
        if not what and not TIMESTAMP.fullmatch(ts):
            what = f"ts is {ts!r}"
        if not what and ts < before:
            what = f"ts {ts} is earlier than {before} of the record before"
        if what:
            raise Difference(report(addr, i, what, wanted, records))
        before = ts
    if len(wanted) != len(records):
        i = min(len(wanted), len(records))
        raise Difference(report(addr, i, "records missing" if i < len(wanted) else "too many records", wanted, records))


def check_stream(records):
    """Checks what every stream must have: start first, stop last, seq without gaps, no losses, counters that agree."""
    if not records or records[0]["event"] != "start" or records[-1]["event"] != "stop":
        raise Difference(f"events at the ends: {[record['event'] for record in records[:1] + records[-1:]]}")
    dropped = [record for record in records if record["event"] == "dropped"]
    if dropped:
        raise Difference(f"dropped: {dropped[:5]}")
    replies = [record for record in records if record["event"] == "reply"]
    for i, record in enumerate(replies):
        if record.get("seq") != i + 1:
            raise Difference(f"seq is {record.get('seq')!r}, want {i + 1}: {describe_record(record)}")
    stop = records[-1]
    if (stop.get("replies"), stop.get("dropped")) != (len(replies), 0):
        raise Difference(f"stop says {stop}, there are {len(replies)} reply records")
    return replies


def compare(expected, records):
    """expected: {address, or for a Unix socket the client's id: [Expected]}. records: the whole stream. Raises Difference
    at the first one."""
    by_addr = {addr: [] for addr in expected}
    strangers = []
    # Compare the replies first: a wrong record explains more than the counter that it breaks.
    for record in records:
        if record["event"] == "reply":
            addr = record.get("client_addr")
            by_addr.get(record.get("client_id") if addr == UNIX else addr, strangers).append(record)
    for addr, wanted in expected.items():
        compare_connection(addr, wanted, by_addr[addr])
    if strangers:
        raise Difference(f"{len(strangers)} records of unknown connections, the first: {strangers[0]}")
    check_stream(records)


# ---- the clients ---------------------------------------------------------------------------------------------------

@dataclass
class Plan:
    """What one connection does. Everything random in it derives from (seed, name)."""
    transport: object           # see transport.py
    seed: int
    name: str
    commands: int
    resp3: bool = False
    slow: bool = False          # small reads, and bursts: the server's writes are partial, or fail with EAGAIN
    rejected: bool = True       # see Workload
    stalls: bool = False
    timeout: float = 120
    player: type = None         # Connection, or another class that plays the plan


@dataclass
class Outcome:
    expected: dict = field(default_factory=dict)    # {address: [Expected]}
    bytes: int = 0
    commands: int = 0
    seconds: float = 0

    def __str__(self):
        return f"{self.commands} commands, {self.bytes / 1e6:.0f} MB of replies in {self.seconds:.1f} s"


class Connection:
    def __init__(self, plan):
        self.random = random.Random(f"{plan.seed}/{plan.name}/connection")
        # A generator of its own: how often it is used depends on timing, and what the client sends must not.
        self.receive_random = random.Random(plan.seed)
        self.plan = plan
        self.workload = Workload(plan.seed, plan.name, plan.rejected, plan.stalls)
        self.counter = ReplyCounter()
        self.expected = []
        self.unanswered = deque()
        self.sock = plan.transport.connect(plan.timeout, 32 * 1024 if plan.slow else None)
        self.addr = plan.transport.own_address(self.sock)

    def ask_id(self):
        """Unix sockets have no address of their own, so there the client's id tells connections apart."""
        argv = [b"CLIENT", b"ID"]
        want = Expected.of(argv, encode(argv))
        self.sock.sendall(encode(argv))
        with self.sock.makefile("rb", buffering=0) as file:
            reply = file.readline()
        want.reply_bytes = len(reply)
        self.expected.append(want)
        self.addr = int(reply[1:])

    def play(self):
        if self.addr == UNIX:
            self.ask_id()
        if self.plan.resp3:
            argv = [b"HELLO", b"3"]
            self.exchange([(argv, encode(argv))], 0)
        while left := self.plan.commands - len(self.expected):
            if self.plan.slow and self.random.random() < BURSTS:
                self.burst(left)
                continue
            batch = self.workload.commands(min(self.random.randint(1, PIPELINE_MAX), left))
            # Sometimes the next pipeline starts before all replies to this one have arrived.
            self.exchange(batch, self.random.choice((0, 0, 0, 1, 20)) if len(batch) < left else 0)

    def burst(self, left):
        """Requests more than all socket buffers can hold before it reads the first byte. The pauses wait for nothing:
        they make this client a slow one."""
        commands, pipeline = self.workload.burst()
        commands = commands[:left]
        for i in range(0, len(commands), pipeline):
            self.exchange(commands[i:i + pipeline], len(self.unanswered) + pipeline)
            time.sleep(BURST_PAUSE / pipeline)
        self.exchange([], 0)

    def exchange(self, batch, may_remain):
        for argv, request in batch:
            want = Expected.of(argv, request)
            self.expected.append(want)
            self.unanswered.append(want)
        self.send(b"".join([request for _, request in batch]))
        while len(self.unanswered) > may_remain:
            self.receive()
        if not self.unanswered and self.counter.in_reply():
            raise ConnectionError(f"{self.plan.name}: a reply that answers no command")

    def send(self, data):
        """Usually sends everything at once, sometimes in pieces that end anywhere, also in a header or between CR and LF."""
        pieces = self.random.choice((1, 1, 1, 2, 5))
        cuts = sorted(self.random.randrange(len(data) + 1) for _ in range(pieces - 1))
        for begin, stop in zip([0, *cuts], [*cuts, len(data)]):
            self.sock.sendall(data[begin:stop])

    def receive(self):
        size = self.receive_random.choice((300, 4000, 60_000)) if self.plan.slow else 1 << 18
        data = self.sock.recv(size)
        if not data:
            raise ConnectionError(f"{self.plan.name}: the server closed the connection")
        for kind, length in self.counter.feed(data):
            if kind != PUSH:
                self.unanswered.popleft().reply_bytes = length


def play(plan, barrier, pipe):
    """A connection's process: what it sent and received goes back through the pipe, or why it could not."""
    # The clients' processes must not use the runner's handlers: SIGTERM ends them.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        connection = (plan.player or Connection)(plan)
        barrier.wait(60)
        connection.play()
        connection.sock.close()
        pipe.send((connection.addr, connection.expected))
    except BaseException:
        pipe.send((None, f"{plan}\n{traceback.format_exc()}"))
    finally:
        pipe.close()


def play_all(todo, timeout):
    """Starts one process per connection, all together. Returns {address: [Expected]}, in the order of todo."""
    fork = multiprocessing.get_context("fork")
    barrier = fork.Barrier(len(todo))
    players, pipes, played = [], [], {}
    try:
        for plan in todo:
            ours, theirs = fork.Pipe(duplex=False)
            players.append(fork.Process(target=play, args=(plan, barrier, theirs), daemon=True))
            players[-1].start()
            theirs.close()
            pipes.append(ours)
        names = dict(zip(pipes, (plan.name for plan in todo)))
        deadline = time.monotonic() + timeout
        while pipes:
            ready = wait(pipes, max(deadline - time.monotonic(), 0))
            if not ready:
                raise AssertionError(f"{len(pipes)} of {len(todo)} connections still busy after {timeout} s")
            for pipe in ready:
                addr, wanted = pipe.recv()
                if addr is None:
                    raise AssertionError(f"a connection failed: {wanted}")
                played[names[pipe]] = addr, wanted
                pipes.remove(pipe)
    finally:
        for player in players:
            player.kill()
            player.join()
    return dict(played[plan.name] for plan in todo)


def plans(transport, seed, commands, connections, slow=True, **workload):
    """Half of the connections speak RESP3. One connection of each protocol is slow, if any may be."""
    share = [commands // connections + (i < commands % connections) for i in range(connections)]
    return [Plan(transport, seed, f"c{i}", share[i], resp3=i % 2 == 1, slow=slow and i in (2, 3), **workload)
            for i in range(connections)]


def run(where, commands, connections=8, seed=None, timeout=600, **workload):
    """Plays commands over the connections. where: a transport, or a port on 127.0.0.1."""
    seed = int(os.environ.get("REPLYLOG_SEED", seed or random.SystemRandom().randrange(1 << 32)))
    print(f"seed {seed} (REPLYLOG_SEED={seed} repeats it)")
    began = time.monotonic()
    outcome = Outcome(play_all(plans(at(where), seed, commands, connections, **workload), timeout))
    outcome.seconds = time.monotonic() - began
    outcome.commands = sum(map(len, outcome.expected.values()))
    outcome.bytes = sum(want.reply_bytes for wanted in outcome.expected.values() for want in wanted)
    return outcome
