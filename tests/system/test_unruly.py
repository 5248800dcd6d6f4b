"""A module whose commands answer never, twice, three times or too little, and change database, user and name, mixed into
the exactness workload: no record that is marked exact is wrong, and no identity is.

The client knows what each command does, and so which bytes belong to which command. The exact records must be a subset of
what was sent, in order. In bursts without such a command nearly all large replies must be exact.

REPLYLOG_COMMANDS: commands for each case. The full proof, a million of them, with both taps:

    for tap in socket connection; do
        REPLYLOG_FLAGS="--tap $tap" REPLYLOG_MATRIX=all REPLYLOG_COMMANDS=65000 REPLYLOG_TEST_SECONDS=3600 \\
            tests/system/run.py --jobs 1 unruly.mixed
    done

(16 cases: valkey 9.1 and 8.1, redis 7.0 and 8.0, IO threads off and 4, with and without dispatch.) REPLYLOG_SEED repeats
a run.
"""
import os
from dataclasses import dataclass, field

import oracle
import workload
from conversation import frame_end
from fault_inputs import BIG, LETTERS, Input
from oracle import Connection, Expected
from replylog import Replylog
from resp import encode, to_bytes
from server import ModuleServer
from test_faults import inputs_for, play_all
from truth import Stream, payload, wrong_identity

COMMANDS = int(os.environ.get("REPLYLOG_COMMANDS", 6000))
MATRIX = os.environ.get("REPLYLOG_MATRIX") == "all"
SERVERS = ("valkey-9.1", "redis-7.0") + (("valkey-8.1", "redis-8.0") if MATRIX else ())
MODES = {"as asked": ((0,), (10_000,)), "dispatch": ((0, "--dispatch"), (10_000, "--argv-from", "dispatch"))}
RING = ("--ring-size", "256mb")
DATABASES = 3

LARGE = 10_000
EXACT_MIN = 0.99        # share of the large replies in bursts without a command of the module, when there are many;
FEW, EXACT_FEW = 2000, 0.97     # of few, a burst more or less is a percent
UNRULY = 0.02           # share of bursts with such commands, some with more than one
DEPTHS = (1, 1, 2, 3, 8, 30, 60)


# ---- what was sent, and which bytes answer it ----------------------------------------------------------------------

@dataclass(slots=True)
class Sent(Expected):
    """A command and what its record may say."""
    sizes: tuple = ()                           # reply_bytes; for a command that answers twice also that of the first answer
    who: list = field(default_factory=list)     # the CLIENT LIST entry, and the one after the command when it changes that
    clean: bool = True                          # no command of its burst may go unanswered
    whole: bool = False                         # an EXEC as a whole: only when none of its parts has a record


def of(argv, request, data, who, clean, sizes=(), whole=False):
    """data: the bytes of its answer."""
    sent = Sent.of(argv, request)
    if argv[0] == b"AUTH":
        sent.argv = ("AUTH", *["(redacted)"] * (len(argv) - 1))
    sent.reply_bytes, sent.who, sent.clean, sent.whole = len(data), who, clean, whole
    sent.sizes = (len(data), *sizes)
    return sent


ANSWERS = {b"unruly.never": 0, b"unruly.twice": 2, b"unruly.thrice": 3}


class Reader:
    """Splits the bytes that a burst received into answers, by what its commands do."""

    def __init__(self, data):
        self.data, self.pos = data, 0

    def frame(self):
        end = frame_end(self.data, self.pos)
        frame, self.pos = self.data[self.pos:end], end
        return frame

    def header(self):
        """Reads the header of an aggregate, and no more."""
        end = self.data.index(b"\r\n", self.pos) + 2
        header, self.pos = self.data[self.pos:end], end
        return header

    def answers(self, argv):
        """Returns all answers to a command that the server executes now, as a list."""
        if argv[0] == b"unruly.short":
            return [b"".join([self.header(), *(self.frame() for _ in range(int(argv[1]) - 1))])]
        return [self.frame() for _ in range(ANSWERS.get(argv[0], 1))]


class Who:
    """The client's identity as the server sees it, in the words of CLIENT LIST."""
    CHANGES = {b"SELECT": "db", b"unruly.select": "db", b"unruly.setname": "name", b"unruly.auth": "user", b"AUTH": "user"}

    def __init__(self):
        self.known = {"db": "0", "user": "default", "name": "", "resp": "2"}

    def executes(self, argv, answer):
        """The identities that this command's record may have: the ones before and after it."""
        before = self.known
        if not answer.startswith(b"-"):
            if argv[0] in self.CHANGES:
                self.known = {**before, self.CHANGES[argv[0]]: argv[1].decode()}
            elif argv[:2] == [b"CLIENT", b"SETNAME"]:
                self.known = {**before, "name": argv[2].decode()}
            elif argv[0] == b"HELLO":
                self.known = {**before, "resp": argv[1].decode()}
        return [before, self.known]


def may_go_unanswered(argv):
    """The module's commands, and AUTH: some servers answer it only when it succeeds (valkey#2106)."""
    return argv[0].startswith(b"unruly.") or argv[0] == b"AUTH"


def pair(commands, data, who):
    """What the records of these commands may say. commands: [(argv, request)], one burst whose answers are data."""
    reader, queued, inside, sent = Reader(data), [], False, []
    clean = not any(may_go_unanswered(argv) for argv, _ in commands)

    def executed(argv, request, answers):
        data = b"".join(answers)
        sizes = [sum(map(len, answers[:count])) for count in range(1, len(answers))]
        if answers:
            sent.append(of(argv, request, data, who.executes(argv, answers[0]), clean, sizes))

    for argv, request in commands:
        ends = inside and argv[0] in (b"EXEC", b"DISCARD")
        if inside and not ends:
            frame = reader.frame()
            sent.append(of(argv, request, frame, [who.known], clean))
            if frame == b"+QUEUED\r\n":
                queued.append((argv, request))
        elif ends and argv[0] == b"EXEC" and reader.data[reader.pos:reader.pos + 1] == b"*":
            before, begin = who.known, reader.pos
            reader.header()
            for inner, its_request in queued:
                executed(inner, its_request, reader.answers(inner))
            sent.append(of(argv, request, reader.data[begin:reader.pos], [before, who.known], clean, whole=True))
        else:
            executed(argv, request, reader.answers(argv))
        if ends or argv == [b"MULTI"]:
            inside, queued = not ends, []
    assert reader.pos == len(data), f"{len(data) - reader.pos} bytes more than {commands} are answered"
    return sent


# ---- the client ----------------------------------------------------------------------------------------------------

class Unruly(Connection):
    """Bursts of the workload's commands with the module's among them. It reads each burst to its end before the next."""

    def __init__(self, plan):
        super().__init__(plan)
        self.who = Who()
        self.size = 20

    def play(self):
        if self.plan.resp3:
            self.burst([self.command("HELLO", "3")])
        while len(self.expected) < self.plan.commands:
            self.burst(self.commands())

    def command(self, *argv):
        argv = [to_bytes(arg) for arg in argv]
        return argv, encode(argv)

    def next_size(self):
        """Sizes of strings, all different, from 20 bytes to 60 KB."""
        self.size += 1
        return self.size if self.random.random() < 0.7 else self.size + self.random.choice((10_000, 20_000, 60_000))

    def echo(self):
        return self.command("ECHO", payload(self.next_size()))

    def changes(self):
        pick = self.random.choice
        return self.command(*pick((("SELECT", pick("012")), ("CLIENT", "SETNAME", self.own_name()), ("AUTH", pick(("alice", "bob")), "x"))))

    def own_name(self):
        return f"{self.plan.name}-{self.random.randrange(100)}"

    def unruly(self):
        pick, size = self.random.choice, self.next_size
        return self.command(*pick((("unruly.never",), ("unruly.twice", size(), size()), ("unruly.thrice", size(), size(), size()),
                                   ("unruly.short", pick((1, 2, 5)), size()), ("unruly.plain", size()),
                                   ("unruly.select", pick("012")), ("unruly.setname", self.own_name()),
                                   ("unruly.auth", pick(("alice", "bob"))))))

    def some(self, count):
        """Ordinary commands with different sizes, so that most can be told from their neighbours."""
        made = self.workload.commands(count)
        return [self.changes() if (dice := self.random.random()) < 0.03 else self.echo() if dice < 0.5 else ordinary
                for ordinary in made]

    def commands(self):
        commands = []
        depth = self.random.choice(DEPTHS)
        while len(commands) < depth:
            if self.random.random() < 0.1:
                end = self.random.choice(("EXEC",) * 8 + ("DISCARD",))
                commands += [self.command("MULTI"), *self.some(self.random.randrange(8)), self.command(end)]
            else:
                commands += self.some(self.random.randint(1, 10))
        if self.random.random() < UNRULY:
            for _ in range(self.random.choice((1, 1, 2, 5))):
                commands.insert(self.random.randrange(len(commands) + 1), self.unruly())
        return commands

    def burst(self, commands):
        """The last command's answer is known beforehand, so when it has arrived, all have."""
        commands = [*commands, self.echo()]
        end = commands[-1][0][1] + b"\r\n"
        self.send(b"".join(request for _, request in commands))
        data = bytearray()
        while not data.endswith(end):
            more = self.sock.recv(1 << 18)
            if not more:
                raise ConnectionError(f"{self.plan.name}: the server closed the connection")
            data += more
        self.expected += pair(commands, bytes(data), self.who)


# ---- the comparison ------------------------------------------------------------------------------------------------

def difference(sent, record):
    """Returns what an exact record says that is wrong for this command, or None."""
    if record["reply_bytes"] in sent.sizes:
        sent.reply_bytes = record["reply_bytes"]
    return oracle.record_difference(sent, record) or wrong_identity(record, sent.who)


@dataclass
class LargeReplies:
    """Counts the large replies of bursts in which all commands are answered."""
    large: int = 0
    exact: int = 0
    ambiguous: int = 0

    def __str__(self):
        return f"{self.exact} of {self.large} exact, {self.ambiguous} records of all kinds ambiguous"


def report(addr, sent, begin, record):
    """Shows which records could have come next."""
    first = difference(sent[begin], record) if begin < len(sent) else "nothing more was sent"
    return "\n".join([f"connection {addr}, behind command {begin - 1} of {len(sent)}: {first}; {record}", "  not what was sent:",
                      *(f"    {oracle.describe_expected(one)}" for one in sent[max(begin - 3, 0):begin + 8])])


def compare_connection(addr, sent, records, total):
    """Exact records are a subset of what was sent, in order. The others name no other identity."""
    left, matched = iter(enumerate(sent)), set()
    ever = [who for one in sent for who in one.who]
    ever = [dict(items) for items in {tuple(who.items()) for who in ever}]
    for at, record in enumerate(records):
        if record["attribution"] != "exact" or "argv" not in record:
            assert not (said := wrong_identity(record, ever)), f"{said}: {record}"
            total.ambiguous += 1
            continue
        began = next(left, None)
        place = began
        while place and difference(place[1], record):
            place = next(left, None)
        if not place:
            raise oracle.Difference(report(addr, sent, began[0] if began else len(sent), record))
        matched.add(place[0])
    count = [index for index, one in enumerate(sent) if one.clean and not one.whole and one.reply_bytes >= LARGE]
    total.large += len(count)
    total.exact += len(matched.intersection(count))


def compare(expected, replylog):
    """Returns the count of large replies. This test ignores losses other than doubts about whose a reply is."""
    stream = Stream(replylog)
    total = LargeReplies()
    losses = {record["reason"] for record in stream.read() if record["event"] == "dropped"}
    assert losses <= {"framing", "out_of_step"}, [record for record in stream.records if record["event"] == "dropped"][:5]
    strangers = [addr for addr in stream.by_client if addr not in expected]
    assert not strangers, f"records of {strangers}"
    for addr, sent in expected.items():
        compare_connection(addr, sent, stream.by_client.get(addr, []), total)
    return total


# ---- one by one ----------------------------------------------------------------------------------------------------

NEVER, TWICE, THRICE, SHORT = ("unruly.never",), ("unruly.twice", 2000, 3000), ("unruly.thrice", 20, 30, 40), ("unruly.short", 3, 2500)
INPUTS = {
    **{f"{argv[0]}, {where}": Input(parts) for argv in (NEVER, TWICE, THRICE, SHORT) for where, parts in {
        "alone": (argv,), "first": (argv, BIG, *LETTERS), "in the middle": (*LETTERS, argv, BIG, *LETTERS),
        "last": (BIG, *LETTERS, argv), "again and again": (argv, BIG) * 5,
        "in a transaction": (("MULTI",), ("GET", "a"), argv, ("GET", "b"), ("EXEC",), BIG, *LETTERS)}.items()},
    # In the end there are as many answers as commands.
    "never and twice": Input((("GET", "a"), NEVER, *LETTERS, BIG, TWICE, ("GET", "b"))),
    "twice and never": Input((("GET", "a"), TWICE, *LETTERS, BIG, NEVER, ("GET", "b"))),
    "never, never and thrice": Input((NEVER, ("GET", "a"), NEVER, *LETTERS, BIG, THRICE, ("GET", "b"))),
    "never and twice in transactions": Input((("MULTI",), NEVER, ("GET", "a"), ("EXEC",), BIG, ("MULTI",), TWICE, ("EXEC",), *LETTERS)),
    # The client itself has sent nothing about it.
    "another database": Input((("unruly.select", "3"), BIG)),
    "another name": Input((("unruly.setname", "other"), BIG), since="6.2"),
    "another user": Input((("unruly.auth", "bob"), BIG)),
    "all of these": Input((("unruly.select", "3"), ("unruly.auth", "bob"), ("unruly.auth", "alice"), BIG),
                          first=(("HELLO", "3", "AUTH", "bob", "b", "SETNAME", "mine"), ("SELECT", "0"))),
    "all of these in a transaction": Input((("MULTI",), ("unruly.select", "3"), ("unruly.auth", "bob"), ("EXEC",), BIG)),
    "all of these one by one": Input((BIG,), first=(("SELECT", "0"), ("unruly.select", "3"), ("unruly.auth", "bob"),
                                                    ("CLIENT", "SETNAME", "mine"))),
    "well-behaved": Input((("unruly.plain", 2000), BIG, ("unruly.plain", 20), *LETTERS)),
}


def test_each_command(name):
    with ModuleServer(name) as server:
        play_all(server, inputs_for(server, INPUTS))


test_each_command.cases = {name: (name,) for name in SERVERS}


# ---- at random -----------------------------------------------------------------------------------------------------

def fill(server):
    with server.client() as client:
        for user in ("alice", "bob"):
            client.call("ACL", "SETUSER", user, "on", ">x", "~*", "&*", "+@all")
        for number in range(DATABASES):
            client.call("SELECT", number)
            workload.fill(client)


def test_mixed(name, io_threads, ways):
    with ModuleServer(name, "--databases", str(DATABASES), io_threads=io_threads) as server:
        fill(server)
        (threshold, *flags), (high, *more) = ways
        with Replylog(server.pid, threshold, *flags, *RING) as all_of_them, Replylog(server.pid, high, *more, *RING) as large:
            outcome = oracle.run(server.port, COMMANDS, connections=6, player=Unruly, slow=False)
            print(outcome)
            totals = []
            for replylog in (all_of_them, large):
                # Some replies have no record, so this waits until no more records arrive.
                replylog.wait_replies(outcome.commands, stalled=2)
                print("stop record:", replylog.stop()[-1])
                totals.append(compare(outcome.expected, replylog))
                print(totals[-1])
    for total in totals:
        assert total.exact >= (EXACT_MIN if total.large >= FEW else EXACT_FEW) * total.large, str(total)


test_mixed.cases = {f"{name},{threads} io threads,{mode}": (name, threads, flags)
                    for name in SERVERS for threads in (1, 4) for mode, flags in MODES.items()}
