"""Servers that end and start again while replylog observes them. For the tests of --follow, containers and restarts."""
import os
import re
import shutil
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

from test_find import echo, started, words
from test_schema import check_record, parse_line, read_schema
from waiting import wait_until


def restart(server, *options, binary=None):
    """Kills the server and starts it again, as a service manager does."""
    server.process.kill()
    server.process.wait()
    server.options += options
    server.process = subprocess.Popen(server.command(binary), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                      stderr=subprocess.DEVNULL, start_new_session=True)
    wait_until(server.answers, f"answer from {server.name}")


def kill_observed(server, replylog):
    """Kills the server, and waits until replylog has ended that run."""
    server.process.kill()
    server.process.wait()
    wait_until(lambda: replylog.records()[-1]["event"] == "stop", "stop record")


def wait_started(replylog, pid):
    wait_until(lambda: pid in started(replylog), f"start record of {pid}")


def check_runs(replylog, pids, expected):
    """Ends replylog. Its runs follow one another, each with the last of its words, and each names the run before it."""
    records = replylog.stop()
    assert replylog.returncode == 0 and replylog.stderr == "", replylog.stderr
    assert [record["server_pid"] for record in records if record["event"] == "start"] == pids, records
    runs = [[record for record in records if record["server_pid"] == pid] for pid in pids]
    assert sum(runs, []) == records, "lines of one run among those of another"
    for run, word in zip(runs, expected):
        assert [run[0]["event"], run[-1]["event"]] == ["start", "stop"], run
        assert words(run, run[0]["server_pid"])[-1:] == [word], run
        assert [record["seq"] for record in run[1:-1]] == list(range(1, len(run) - 1))
    assert [run[-1]["reason"] for run in runs] == ["server_exited"] * (len(runs) - 1) + ["signal"]
    assert "follows" not in runs[0][0]
    assert [run[0]["follows"] for run in runs[1:]] == [run[0]["run_id"] for run in runs[:-1]]
    schema = read_schema()
    for line in replylog.lines:
        check_record(schema, parse_line(line))


def replied(replylog, word):
    wait_until(lambda: any(record.get("argv", [])[1:] == [word] for record in replylog.records()), f"reply {word}")


def observe_word(server, replylog, word):
    wait_started(replylog, server.pid)
    echo(server, word)
    replied(replylog, word)


@contextmanager
def copied_binary(server):
    path = f"/tmp/replylog-server-{os.getpid()}"
    shutil.copy(f"{server.dir}/usr/bin/{server.kind}-server", f"{server.dir}{path}")
    try:
        yield path
    finally:
        os.unlink(f"{server.dir}{path}")


def polls_again(replylog, times=3):
    """Waits until a replylog without a server has looked for the next one again. It goes to sleep after each time."""
    def sleeps():
        status = Path(f"/proc/{replylog.pid}/status").read_text()
        return int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", status, re.M)[1])
    began = sleeps()
    wait_until(lambda: sleeps() >= began + times, "search for the next server")


def age(pid):
    """Seconds since the process was started."""
    ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
