"""Compares the table of commands (user/server/command_table.h, made by scripts/commands) with real servers: it has all
their commands, and their replies begin as it says. replylog does not run here."""
import os
import random
import re

from environment import ROOT
from resp import PUSH, ReplyCounter, encode, to_bytes
from server import Server
from workload import Workload, fill

SERVERS = ("redis-6.0", "redis-7.0", "redis-8.0", "redis-8.6", "valkey-8.0", "valkey-8.1", "valkey-9.1")
ROUNDS = int(os.environ.get("REPLYLOG_COMMAND_ROUNDS", 6))
TYPES = {"STATUS": "+", "INTEGER": ":", "BULK": "$", "ARRAY": "*", "MAP": "%", "SET": "~", "DOUBLE": ",",
         "VERBATIM": "=", "NUL": "_", "PUSH": ">", "ANY": "+:$*%~,#(=_>!|"}

# Commands that change the connection or the server in a way that would end the test, or that answer never or more than once.
LEFT_OUT = {"shutdown", "debug", "monitor", "sync", "psync", "replconf", "quit", "failover", "replicaof", "slaveof",
            "subscribe", "psubscribe", "ssubscribe", "unsubscribe", "punsubscribe", "sunsubscribe", "multi", "exec",
            "discard", "hello", "reset", "auth", "select", "swapdb", "pfselftest", "post", "host:", "client|reply",
            "client|pause", "client|kill", "script|debug", "cluster|failover", "cluster|syncslots", "cluster|meet",
            "cluster|reset", "acl|setuser", "acl|deluser", "acl|load", "module|load", "module|loadex", "config|set",
            "config|rewrite", "client|no-evict", "client|tracking"}

KEYS = {"string": ("SET", "string", "value"), "number": ("SET", "number", "17"),
        "list": ("RPUSH", "list", "a", "b", "c"),
        "set": ("SADD", "set", "a", "b", "c"), "hash": ("HSET", "hash", "a", "1", "b", "2"),
        "zset": ("ZADD", "zset", "1", "a", "2.5", "b"), "stream": ("XADD", "stream", "1-1", "a", "1"),
        "group": ("XGROUP", "CREATE", "stream", "group", "0"), "hll": ("PFADD", "hll", "a"),
        "geo": ("GEOADD", "geo", "13.3", "38.1", "a", "15.0", "37.5", "b")}
WORDS = ("a", "b", "0", "1", "-1", "2.5", "$", "*", "1-1", "0-0", "-", "+", "[a", "(1", "inf", "group", "string",
         "missing", "m", "km", "max*", "return 1", "get", "default", "lib-name", "1" * 40)

# Replies that random commands from the documentation hardly ever produce.
SPECIAL = """
BLPOP missing 0.01; BRPOP missing 0.01; BRPOPLPUSH missing x 0.01; BLMOVE missing x LEFT LEFT 0.01;
BLMPOP 0.01 1 missing LEFT; BZPOPMIN missing 0.01; BZPOPMAX missing 0.01; BZMPOP 0.01 1 missing MIN;
XREAD BLOCK 5 STREAMS stream $; XREAD STREAMS stream 0; XREADGROUP GROUP group me STREAMS stream >;
XREADGROUP GROUP group me BLOCK 5 STREAMS stream >; WAIT 1 5; WAITAOF 0 1 5; LPOP missing; LPOP missing 1; RPOP missing;
RPOP missing 2; LMPOP 1 missing LEFT; ZMPOP 1 missing MIN; ZRANK zset x; ZRANK zset a; ZRANK zset x WITHSCORE;
ZRANK zset a WITHSCORE; ZREVRANK missing a WITHSCORE; SET missing2 x GET; SET string x GET; SET string x NX;
SET string x XX GET; GETSET missing3 x; ZADD zset INCR 1 a; ZADD zset XX INCR 1 nobody; ZADD zset CH 1 a;
ZINCRBY zset 1.5 a; LPOS list x; LPOS list a; LPOS list a COUNT 0; LPOS missing a COUNT 0; SPOP set; SPOP set 2;
SPOP missing; SPOP missing 2; SRANDMEMBER set; SRANDMEMBER set 2; SRANDMEMBER set -2; SRANDMEMBER missing;
SRANDMEMBER missing 2; HRANDFIELD hash; HRANDFIELD hash 2 WITHVALUES; HRANDFIELD missing; HRANDFIELD missing 2;
ZRANDMEMBER zset; ZRANDMEMBER zset 2 WITHSCORES; ZRANDMEMBER missing; ZRANDMEMBER missing 1; GEODIST geo a b;
GEODIST geo a x; GEODIST missing a b; GEOPOS geo a x; GEOHASH geo a x; OBJECT ENCODING missing; OBJECT FREQ missing;
OBJECT IDLETIME missing; OBJECT REFCOUNT missing; OBJECT ENCODING list; MEMORY USAGE missing; MEMORY USAGE list;
MEMORY STATS; MEMORY DOCTOR; MEMORY MALLOC-STATS; MEMORY PURGE; MEMORY HELP; CLIENT LIST; CLIENT LIST TYPE normal;
CLIENT INFO; CLIENT ID; CLIENT GETNAME; CLIENT SETNAME me; CLIENT GETNAME; CLIENT GETREDIR; CLIENT TRACKINGINFO;
CLIENT TRACKING ON; CLIENT CACHING YES; CLIENT TRACKING OFF; CLIENT NO-EVICT OFF; CLIENT NO-TOUCH OFF;
CLIENT KILL 1.1.1.1:1; CLIENT KILL ID 999999; CLIENT UNBLOCK 99999; CLIENT PAUSE 0; CLIENT UNPAUSE;
CLIENT SETINFO LIB-NAME x; CLIENT HELP; CONFIG GET *; CONFIG GET nosuch; CONFIG SET maxmemory 0; CONFIG RESETSTAT;
CONFIG HELP; LATENCY LATEST; LATENCY HISTORY command; LATENCY HISTOGRAM; LATENCY HISTOGRAM get; LATENCY DOCTOR;
LATENCY GRAPH command; LATENCY RESET; SLOWLOG GET; SLOWLOG LEN; SLOWLOG RESET; COMMANDLOG GET 10 slow;
COMMANDLOG LEN slow; COMMANDLOG RESET slow; ACL LIST; ACL USERS; ACL WHOAMI; ACL GETUSER default; ACL GETUSER nobody;
ACL CAT; ACL CAT string; ACL GENPASS; ACL LOG; ACL LOG RESET; ACL SETUSER bob on; ACL DRYRUN default GET x;
ACL DRYRUN bob GET x; ACL DELUSER bob; COMMAND; COMMAND COUNT; COMMAND INFO get nosuch; COMMAND DOCS get;
COMMAND GETKEYS SET a b; COMMAND GETKEYSANDFLAGS SET a b; COMMAND LIST; COMMAND LIST FILTERBY PATTERN x*;
PUBSUB CHANNELS; PUBSUB NUMSUB x; PUBSUB NUMPAT; PUBSUB SHARDCHANNELS; PUBSUB SHARDNUMSUB x; SCRIPT LOAD <lua>;
SCRIPT EXISTS a; SCRIPT FLUSH; FUNCTION LOAD <lib>; FUNCTION LIST; FUNCTION STATS; FUNCTION DUMP; FUNCTION DELETE lib;
FUNCTION FLUSH; LCS string number; LCS string number LEN; LCS string number IDX; STRALGO LCS STRINGS ab bc;
STRALGO LCS STRINGS ab bc IDX; STRALGO LCS STRINGS ab bc LEN; DUMP string; DUMP missing; RESTORE x 0 junk;
SORT list ALPHA; SORT list ALPHA STORE x; SORT_RO list ALPHA; GEORADIUS geo 15 37 200 km;
GEORADIUS geo 15 37 200 km STORE x; GEOSEARCH geo FROMMEMBER a BYRADIUS 200 km WITHCOORD; XADD stream * a 1;
XADD missing4 NOMKSTREAM * a 1; XINFO STREAM stream; XINFO STREAM stream FULL; XINFO GROUPS stream;
XINFO CONSUMERS stream group; XPENDING stream group; XPENDING stream group - + 10; XCLAIM stream group me 0 1-1;
XCLAIM stream group me 0 1-1 JUSTID; XAUTOCLAIM stream group me 0 0; XRANGE stream - +; XREVRANGE stream + -;
XGROUP CREATECONSUMER stream group you; XGROUP DELCONSUMER stream group you; INFO; INFO nosuch; LOLWUT; ROLE; TIME;
LASTSAVE; BGSAVE; BGSAVE SCHEDULE; BGREWRITEAOF; RANDOMKEY; TYPE list; TYPE missing; PING; PING x; ECHO x;
MIGRATE 127.0.0.1 1 missing 0 5; WATCH x; MULTI; DISCARD; MULTI; EXEC; UNWATCH; ASKING; READONLY; READWRITE;
CLUSTER INFO; CLUSTER NODES; CLUSTER MYID; CLUSTER SLOTS; CLUSTER SHARDS; CLUSTER LINKS; CLUSTER KEYSLOT x;
CLUSTER COUNTKEYSINSLOT 1; CLUSTER GETKEYSINSLOT 1 1; CLUSTER REPLICAS x; CLUSTER BUMPEPOCH; CLUSTER SAVECONFIG;
CLUSTER COUNT-FAILURE-REPORTS x; CLUSTER ADDSLOTS 1; CLUSTER SLOT-STATS SLOTSRANGE 0 9; CLUSTER SETSLOT 1 STABLE;
CLUSTER DELSLOTS 1; CLUSTER ADDSLOTSRANGE 2 3; CLUSTER MYSHARDID; CLUSTER FLUSHSLOTS; CLUSTER HELP;
BITFIELD number GET u8 0; BITCOUNT string; BITPOS string 1; HGETALL hash; HGETALL missing; SMEMBERS set; SINTER set set;
SUNION set; SDIFF set; SINTER missing; ZRANGE zset 0 -1 WITHSCORES; ZPOPMIN missing; ZPOPMIN zset;
ZUNION 1 zset WITHSCORES; ZINTER 1 zset; ZDIFF 1 zset; ZSCORE zset x; ZSCORE zset b; ZMSCORE zset b x;
INCRBYFLOAT number 0.5; HINCRBYFLOAT hash a 0.5; HOTKEYS START METRICS 1 CPU; HOTKEYS GET; HOTKEYS STOP; HOTKEYS RESET;
HOTKEYS GET; MODULE LIST; SCAN 0; HSCAN hash 0; SSCAN set 0; ZSCAN zset 0; KEYS *; DIGEST string; DIGEST missing;
DELEX string; MSETEX 1 a b; OBJECT HELP; REPLICAOF NO ONE; SLAVEOF NO ONE; SPUBLISH x y; PUBLISH x y; SHUTDOWN ABORT;
PFCOUNT hll; PFMERGE hll hll; PFSELFTEST; SELECT 0; SWAPDB 0 1; SWAPDB 0 1; FAILOVER ABORT
"""


def each_server(function):
    function.cases = {name: (name,) for name in SERVERS}
    return function


def read_table():
    """Returns {name: (first bytes in RESP2, in RESP3)}."""
    text = (ROOT / "user/server/command_table.h").read_text()
    letters = lambda names: "-" + "".join(TYPES[name] for name in names.split(" | "))  # noqa: E731
    return {name: (letters(resp2), letters(resp3))
            for name, resp2, resp3 in re.findall(r'\{ "([^"]+)", ([A-Z| ]+), ([A-Z| ]+) \}', text)}


class Asker:
    """Sends one command at a time, and compares the first byte of its reply with the table."""

    def __init__(self, client, protocol):
        self.client, self.protocol, self.table = client, protocol, read_table()
        self.counter = ReplyCounter()
        self.misfits, self.seen = {}, {}
        client.answer("HELLO", protocol)

    def first_byte(self, argv):
        self.client.sock.sendall(encode([to_bytes(arg) for arg in argv]))
        while True:
            data = self.client.sock.recv(1 << 18)
            assert data, f"closed after {argv}"
            for kind, _ in self.counter.feed(data):
                if kind != PUSH:
                    return chr(kind)

    def name(self, argv):
        words = [to_bytes(arg).decode("utf-8", "replace").lower() for arg in argv[:2]]
        full = "|".join(words)
        return full if full in self.table else words[0]

    def ask(self, argv):
        byte, name = self.first_byte(argv), self.name(argv)
        self.seen.setdefault(name, set()).add(byte)
        if name in self.table and byte not in self.table[name][self.protocol - 2]:
            self.misfits.setdefault((name, byte), argv)

    def check(self):
        assert not self.misfits, f"in RESP{self.protocol} the table does not know {self.misfits}"


@each_server
def test_all_names(name):
    table = read_table()
    with Server(name) as server, server.client() as client:
        for command in client.call("COMMAND"):
            subcommands = command[9] if len(command) > 9 and command[0] != b"sentinel" else []
            for known in (command, *subcommands):
                # Vector sets, which are a module built into redis 8, are in the table in lower case.
                assert known[0].decode().lower() in table, f"{name} knows {known[0]}, the table does not"


def bring_keys(asker):
    for argv in KEYS.values():
        asker.first_byte(argv)


def special():
    texts = {"<lua>": "return 1", "<lib>": "#!lua name=lib\nredis.register_function('f', function() return 1 end)"}
    for command in SPECIAL.split(";"):
        yield [texts.get(word, word) for word in command.split()]


class Documented:
    """Random command lines, most of them as COMMAND DOCS describes them."""

    def __init__(self, docs, seed):
        self.random = random.Random(seed)
        self.commands = {}
        for name, doc in docs.items():
            for full, what in doc.get(b"subcommands", {name: doc}).items():
                full = full.decode()
                if full not in LEFT_OUT and full.partition("|")[0] not in LEFT_OUT:
                    self.commands[full] = what.get(b"arguments", [])

    def value(self, kind, name):
        if name in (b"timeout", b"milliseconds"):
            return "0.01" if name == b"timeout" else "5"
        if kind == b"key":
            return self.random.choice([*KEYS, "missing", f"new{self.random.randrange(30)}"])
        if kind == b"integer" or kind == b"unix-time":
            return str(self.random.choice((0, 1, 2, 3, -1, 10)))
        if kind == b"double":
            return self.random.choice(("0.5", "1", "-3.25"))
        return self.random.choice(WORDS)

    def argument(self, what):
        flags = what.get(b"flags", [])
        if b"optional" in flags and self.random.random() < 0.5:
            return []
        times = self.random.randint(1, 3) if b"multiple" in flags else 1
        out = [what[b"token"]] if b"token" in what else []
        kind = what[b"type"]
        for i in range(times):
            if i and b"multiple_token" in flags and b"token" in what:
                out.append(what[b"token"])
            if kind == b"block":
                out += [part for inner in what[b"arguments"] for part in self.argument(inner)]
            elif kind == b"oneof":
                out += self.argument(self.random.choice(what[b"arguments"]))
            elif kind != b"pure-token":
                out.append(self.value(kind, what[b"name"]))
        return out

    def line(self, name):
        return [*name.split("|"), *(part for what in self.commands[name] for part in self.argument(what))]


def documentation(name):
    """Redis 6.0 has no documentation. What modules document about themselves is not used."""
    with Server("redis-7.0" if name == "redis-6.0" else name) as server, server.client() as client:
        client.call("HELLO", 3)
        docs = client.call("COMMAND", "DOCS")
    return {command: doc for command, doc in docs.items() if b"module" not in doc}


@each_server
def test_documented_replies(name):
    """Random commands as the documentation allows them."""
    docs = documentation(name)
    for protocol in (2, 3):
        walk = Documented(docs, f"{name}/{protocol}")
        with Server(name) as server, server.client() as client:
            asker = Asker(client, protocol)
            for _ in range(ROUNDS):
                for command in walk.commands:
                    bring_keys(asker)
                    asker.ask(walk.line(command))
            asker.check()
        assert len(asker.seen) > 150, len(asker.seen)


@each_server
def test_special_replies(name):
    """Missing keys, timeouts, and forms of one command that answer differently, also in a cluster."""
    for options in ((), ("--cluster-enabled", "yes")):
        for protocol in (2, 3):
            with Server(name, *options) as server, server.client() as client:
                asker = Asker(client, protocol)
                for argv in special():
                    bring_keys(asker)
                    asker.ask(argv)
                asker.check()


@each_server
def test_workload(name):
    for protocol in (2, 3):
        with Server(name) as server, server.client() as client:
            fill(client)
            asker = Asker(client, protocol)
            for argv, _ in Workload(1, name).commands(2000):
                asker.ask(argv)
            asker.check()
