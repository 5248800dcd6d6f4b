"""Random but reproducible commands: every reply type, replies from 4 bytes to 1.5 MB, arguments of every awkward kind.

The workload need not know the replies, because the client counts them. Pub/sub, MONITOR, MULTI, CLIENT REPLY, blocking
commands and authentication are absent: they do not give one reply per command, or replylog redacts them.
"""
import random

from resp import encode

# Value sizes around the server's own boundaries: its 16 KiB reply buffer, 64 KiB for each pass of writing, and the
# smallest and largest replies.
SMALL = (0, 1, 2, 5, 40, 44, 45, 100, 127, 128, 129, 500, 1000, 4000)
MIDDLE = (16_000, 16_379, 16_384, 16_390, 32_768, 65_536, 65_537, 100_000)
LARGE = (200_000, 400_000, 1_000_000, 1_500_000)
INLINE_MAX = 2048       # documented in SCHEMA.md, argc
BINARY = bytes(range(256))

# A script may answer with types that only RESP3 has: doubles, booleans, maps, sets, big numbers.
RICH_SCRIPT = (b"redis.setresp(3) return {1, {double=3.25}, true, false, {map={a=1,b={set={x=true}}}},"
               b" {big_number='12345678901234567890123'}, {ok='fine'}, redis.call('get','nokey')}")


def value(length):
    """A value with CRLF and text that looks like headers, to mislead a framer."""
    return (b"0123456789\r\n$-1" * (length // 15 + 1))[:length]


def fill_commands():
    for n in SMALL + MIDDLE + LARGE:
        yield "SET", f"s:{n}", value(n)
    for n in (1, 3, 50, 400):
        yield "RPUSH", f"l:{n}", *(value(i % 60) for i in range(n))
        yield "SADD", f"set:{n}", *(f"member:{i}" for i in range(n))
        yield "HSET", f"h:{n}", *(f"{kind}{i}" for i in range(n) for kind in ("field", "value"))
        yield "ZADD", f"z:{n}", *(part for i in range(n) for part in (i * 0.37, f"member{i}"))
        for i in range(n):
            yield "XADD", f"x:{n}", "*", "field", value(i % 60), "n", i
    for _ in range(30):
        yield "RPUSH", "l:wide", *(value(45) for _ in range(1000))
    yield "GEOADD", "geo", "13.361389", "38.115556", "Palermo", "15.087269", "37.502669", "Catania"


def fill(client):
    """Stores the data that the reading commands need."""
    client.pipeline(fill_commands())


class Workload:
    """The commands of one connection. next_command() returns (argv, the request's bytes)."""

    def __init__(self, seed, name, rejected=True, stalls=False):
        """rejected: include commands that the server refuses before it runs them. stalls: include commands that stop the
        server for a moment, so that all clients wait for it at once."""
        self.random = random.Random(f"{seed}/{name}")
        self.name = name.encode()
        self.written = 0
        weighted = [
            (30, self.get), (8, self.mget), (8, self.short_range), (5, self.whole), (10, self.set), (6, self.incr),
            (6, self.ping), (5, self.echo), (4, self.zrange), (4, self.exists), (5, self.nulls), (4, self.nested),
            (4, self.wrong_type), (3, self.binary), (2, self.long_argument), (2, self.many_arguments),
            (2, self.script), (1, self.about_server), (3, self.middle), (0.6, self.large), (0.12, self.wide_range),
            (0.3, self.large_set), (0.05, self.documentation)]
        if rejected:
            weighted.append((3, self.rejected))
        if stalls:
            weighted.append((0.5, self.stall))
        self.makers = [maker for _, maker in weighted]
        self.weights = [sum(weight for weight, _ in weighted[:i + 1]) for i in range(len(weighted))]

    def commands(self, count):
        """[(argv, request bytes)]"""
        made = []
        for maker in self.random.choices(self.makers, cum_weights=self.weights, k=count):
            argv = maker()
            inline = self.random.random() < 0.02 and self.inline(argv)
            made.append((argv, inline or encode(argv)))
        return made

    def burst(self):
        """Returns (commands with 9 MB of replies, how many to send at a time). In few pieces, the server's writes are cut
        short. Sent little by little, a whole reply finds no room, and the write fails with EAGAIN."""
        size, count, pipeline = self.pick((LARGE[-1], 6, 6), (32_768, 280, 60), *[(32_768, 280, 2)] * 3)
        argv = [b"GET", b"s:%d" % size]
        return [(argv, encode(argv))] * count, pipeline

    def inline(self, argv):
        """Returns the command as a person types it, when its arguments are plain enough. replylog keeps INLINE_MAX bytes
        of a longer line."""
        line = b" ".join(argv)
        plain = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:_-+."
        if 2 * len(line) > INLINE_MAX or not all(argv) or any(arg.translate(None, plain) for arg in argv):
            return None
        blanks = self.random.choice((b" ", b"  ", b"\t "))
        return blanks.join(argv) + self.random.choice((b"\r\n", b"\n"))

    def pick(self, *choices):
        return self.random.choice(choices)

    def word(self, word):
        """Varies the case of a command's name."""
        return word.lower() if self.random.random() < 0.1 else word

    def small_key(self):
        return b"s:%d" % self.random.choice(SMALL)

    def own_key(self):
        self.written += 1
        return b"own:%b:%d" % (self.name, self.written % 200)

    def get(self):
        return [self.word(b"GET"), self.small_key()]

    def mget(self):
        return [b"MGET", *(self.pick(self.small_key(), b"missing") for _ in range(self.random.randint(1, 12)))]

    def short_range(self):
        return [b"LRANGE", b"l:400", b"%d" % self.random.randint(0, 390), b"%d" % self.random.randint(0, 400)]

    def whole(self):
        n = self.pick(b"1", b"3", b"50", b"50", b"400")
        return list(self.pick((b"HGETALL", b"h:" + n), (b"SMEMBERS", b"set:" + n), (b"XRANGE", b"x:" + n, b"-", b"+"),
                              (b"HKEYS", b"h:" + n), (b"LRANGE", b"l:" + n, b"0", b"-1")))

    def set(self):
        return [self.word(b"SET"), self.own_key(), b"v" * self.random.randint(0, 300)]

    def incr(self):
        return list(self.pick((b"INCR", b"counter:" + self.name), (b"INCRBYFLOAT", b"float:" + self.name, b"0.1"),
                              (b"DECRBY", b"counter:" + self.name, b"77")))

    def ping(self):
        return list(self.pick((b"PING",), (b"ping",), (b"PING", b"hello")))

    def echo(self):
        return [b"ECHO", b"e" * self.random.randint(0, 200)]

    def zrange(self):
        return list(self.pick((b"ZRANGE", b"z:50", b"0", b"-1", b"WITHSCORES"), (b"ZSCORE", b"z:3", b"member1"),
                              (b"ZRANGEBYSCORE", b"z:400", b"10", b"90", b"WITHSCORES"),
                              (b"ZMSCORE", b"z:3", b"member0", b"nobody", b"member2")))

    def exists(self):
        return list(self.pick((b"EXISTS", b"s:1", b"missing"), (b"TYPE", b"h:3"), (b"STRLEN", b"s:1000000"),
                              (b"SISMEMBER", b"set:3", b"member:1"), (b"TTL", b"s:1"), (b"OBJECT", b"ENCODING", b"s:5")))

    def nulls(self):
        return list(self.pick((b"GET", b"missing"), (b"LPOP", b"missing", b"3"), (b"HGET", b"h:3", b"missing"),
                              (b"HMGET", b"h:3", b"field1", b"missing"), (b"SRANDMEMBER", b"missing"),
                              (b"LRANGE", b"missing", b"0", b"-1"), (b"ZRANK", b"z:3", b"nobody")))

    def nested(self):
        return list(self.pick((b"COMMAND", b"INFO", b"get", b"nosuch", b"xadd"), (b"GEOPOS", b"geo", b"Palermo", b"no"),
                              (b"XREAD", b"COUNT", b"5", b"STREAMS", b"x:50", b"x:3", b"0", b"0"),
                              (b"XINFO", b"STREAM", b"x:3", b"FULL"), (b"COMMAND", b"COUNT"), (b"OBJECT", b"HELP"),
                              (b"GEOSEARCH", b"geo", b"FROMMEMBER", b"Palermo", b"BYRADIUS", b"900", b"km",
                               b"WITHCOORD", b"WITHDIST")))

    def wrong_type(self):
        """Errors of commands that the server did run."""
        return list(self.pick((b"LPUSH", b"s:1", b"x"), (b"INCR", b"s:100"), (b"HGETALL", b"l:3"),
                              (b"SETRANGE", b"own:error", b"-1", b"x")))

    def rejected(self):
        return list(self.pick((b"NOSUCHCOMMAND", b"a", b"b"), (b"GET",), (b"nosuch:" + b"c" * 200,),
                              (b"GET", b"a", b"b"), (b"OBJECT", b"NOSUCH", b"x")))

    def stall(self):
        return [b"DEBUG", b"SLEEP", b"0.005"]

    def binary(self):
        junk = bytes(self.random.choices(BINARY, k=self.random.randint(1, 160)))
        return list(self.pick((b"ECHO", junk), (b"SET", self.own_key() + junk[:20], junk), (b"GET", b"back\\slash" + junk),
                              (b"ECHO", b"\x00\x01\r\n\"\\/\x7f"), (b"ECHO", "grüße, 世界 🎈 \\x41".encode())))

    def long_argument(self):
        length = self.pick(127, 128, 129, 130, 255, 2000, 5000)
        return list(self.pick((b"ECHO", b"L" * length), (b"SET", self.own_key(), b"L" * length),
                              (b"ECHO", "ä世🎈".encode() * (length // 9)), (b"SET", self.own_key() + b"K" * length, b"v")))

    def many_arguments(self):
        count = self.pick(29, 30, 31, 32, 33, 40, 300)
        return [self.pick(b"MGET", b"EXISTS", b"DEL"), *(b"missing:%d" % i for i in range(count))]

    def script(self):
        # No script here fails: the error may contain anything, so it makes the rest of its pipeline ambiguous.
        return list(self.pick((b"EVAL", RICH_SCRIPT, b"0"), (b"EVAL", b"return {1,{2,{3,{4,'five'}}}}", b"0")))

    def about_server(self):
        return list(self.pick((b"CLIENT", b"LIST"), (b"INFO",), (b"CONFIG", b"GET", b"max*"), (b"CLIENT", b"ID"),
                              (b"MEMORY", b"STATS"), (b"LOLWUT",), (b"TIME",), (b"SCAN", b"0", b"COUNT", b"100")))

    def middle(self):
        return [self.word(b"GET"), b"s:%d" % self.random.choice(MIDDLE)]

    def large(self):
        key = b"s:%d" % self.random.choice(LARGE)
        return list(self.pick((b"GET", key), (b"GET", key), (b"MGET", b"s:100", key, b"missing", b"s:16384"),
                              (b"GETRANGE", key, b"7", b"150000")))

    def wide_range(self):
        return [b"LRANGE", b"l:wide", b"%d" % self.random.randint(0, 29_000), b"-1"]

    def large_set(self):
        return [b"SET", self.own_key(), b"S" * self.random.choice((10_000, 100_000))]

    def documentation(self):
        return [b"COMMAND", b"DOCS", b"get", b"set", b"xadd", b"zadd", b"sort", b"client"]
