#!/usr/bin/python3
"""Runs the system tests: tests/system/run.py [--list] [--jobs N] [SUBSTRING...]

Every function test_* of every file test_*.py is a test. Its name here is file.function.
A function may have cases = {name: arguments}: then each case is a test.
A file may have ALONE = "reason in words": then no other test runs at the same time as one of its tests.
All other tests run side by side, N at a time, each in its own process.
The runner prints one line per test as it ends, the output of each failing test, and a last line with the counts.
"""
import argparse
import contextlib
import importlib
import inspect
import io
import multiprocessing
import os
import signal
import sys
import time
import traceback
from multiprocessing.connection import wait
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.dont_write_bytecode = True

from environment import Skip  # noqa: E402

SECONDS_MAX = int(os.environ.get("REPLYLOG_TEST_SECONDS", 300))

# Tests mostly wait for servers to start and for records to arrive, so there are as many as CPUs.
JOBS = len(os.sched_getaffinity(0))


class Timeout(BaseException):
    """Not an Exception, so that a test's own except clauses can't catch it."""


class Test(NamedTuple):
    name: str
    function: object
    arguments: tuple
    alone: bool


def discover():
    tests = []
    for path in sorted(HERE.glob("test_*.py")):
        module = importlib.import_module(path.stem)
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if not name.startswith("test_") or function.__module__ != path.stem:
                continue
            full = f"{path.stem.removeprefix('test_')}.{name.removeprefix('test_')}"
            for case, arguments in getattr(function, "cases", {"": ()}).items():
                tests.append(Test(f"{full}[{case}]" if case else full, function, arguments, hasattr(module, "ALONE")))
    return tests


def on_alarm(*_):
    raise Timeout(f"still running after {SECONDS_MAX} s")


def run(function, arguments):
    """Returns ('ok' | 'FAILED' | 'skipped', text to print)."""
    output = io.StringIO()
    signal.signal(signal.SIGALRM, on_alarm)
    signal.alarm(SECONDS_MAX)
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            function(*arguments)
        return "ok", ""
    except Skip as reason:
        return "skipped", str(reason)
    except (Exception, Timeout):
        return "FAILED", output.getvalue() + traceback.format_exc()
    finally:
        signal.alarm(0)


def run_and_tell(test, pipe):
    """Runs one test in its own process, and sends the result through the pipe."""
    try:
        pipe.send(run(test.function, test.arguments))
    finally:
        # An ordinary exit would wait for threads that a failed test has left behind.
        os._exit(0)


def side_by_side(tests, jobs):
    """Yields (test, outcome, text to print, seconds) for each test as it ends."""
    fork = multiprocessing.get_context("fork")
    todo, running = list(reversed(tests)), {}
    try:
        while todo or running:
            while todo and len(running) < jobs:
                test = todo.pop()
                ours, theirs = fork.Pipe(duplex=False)
                process = fork.Process(target=run_and_tell, args=(test, theirs))
                running[ours] = test, process, time.monotonic()
                process.start()
                # While this process holds the other end open, it can't see that the test's process has ended.
                theirs.close()
            for pipe in wait(running):
                test, process, began = running[pipe]
                try:
                    outcome, text = pipe.recv()
                    process.join()
                except EOFError:
                    process.join()
                    outcome, text = "FAILED", f"its process ended without a result, with {process.exitcode}"
                del running[pipe]
                pipe.close()
                yield test, outcome, text, time.monotonic() - began
    finally:
        # Each test's process ends its servers and replylogs, as after ^C.
        for _, process, _ in running.values():
            if process.pid:
                process.terminate()
        for _, process, _ in running.values():
            if process.pid:
                process.join()


def parse(arguments):
    parser = argparse.ArgumentParser(description="Runs the system tests whose names contain one of these, or all.")
    parser.add_argument("names", nargs="*", metavar="SUBSTRING")
    parser.add_argument("--list", action="store_true", help="only list the tests")
    parser.add_argument("--jobs", type=int, default=JOBS, metavar="N", help="run this many at a time (%(default)s)")
    options = parser.parse_args(arguments)
    if options.jobs < 1:
        parser.error(f"--jobs {options.jobs}: at least 1")
    return options


def main(arguments):
    options = parse(arguments)
    tests = [test for test in discover() if not options.names or any(part in test.name for part in options.names)]
    if options.list:
        print("\n".join(test.name for test in tests))
        return 0
    counts = {"ok": 0, "FAILED": 0, "skipped": 0}
    for alone, jobs in ((False, options.jobs), (True, 1)):
        for test, outcome, text, seconds in side_by_side([test for test in tests if test.alone == alone], jobs):
            counts[outcome] += 1
            print(f"{seconds:6.1f} s  {outcome:8}{test.name}{': ' + text if outcome == 'skipped' else ''}", flush=True)
            if outcome == "FAILED":
                print("\n".join(f"    | {line}" for line in text.rstrip().splitlines()), flush=True)
    print(f"{counts['ok']} passed, {counts['FAILED']} failed, {counts['skipped']} skipped")
    # A misspelt name selects no test, and must not look like success.
    return 1 if counts["FAILED"] or not tests else 0


def on_signal(*_):
    """Handles the first signal only: the next one must not interrupt the cleanup of a test's servers. A terminal sends ^C
    to the tests' processes and to this one, which sends them a second signal."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    # The with-block that started a server or replylog also ends it.
    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
