#!/usr/bin/python3
"""Runs the system tests: tests/system/run.py [--list] [SUBSTRING...]

Every function test_* of every file test_*.py is a test; its name here is file.function. A function may carry
cases = [...] (see cases() below): it is then one test per case. One line per test, the output of a failing one, and a
last line that counts.
"""
import contextlib
import importlib
import inspect
import io
import os
import signal
import sys
import time
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.dont_write_bytecode = True

from harness import Skip  # noqa: E402

SECONDS_MAX = int(os.environ.get("REPLYLOG_TEST_SECONDS", 300))


class Timeout(BaseException):
    """Not an Exception: a test's own except clauses must not swallow it."""


def discover():
    """[(name, function, arguments)]"""
    tests = []
    for path in sorted(HERE.glob("test_*.py")):
        module = importlib.import_module(path.stem)
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if not name.startswith("test_") or function.__module__ != path.stem:
                continue
            full = f"{path.stem.removeprefix('test_')}.{name.removeprefix('test_')}"
            for case, arguments in getattr(function, "cases", {"": ()}).items():
                tests.append((f"{full}[{case}]" if case else full, function, arguments))
    return tests


def on_alarm(*_):
    raise Timeout(f"still running after {SECONDS_MAX} s")


def run(function, arguments):
    """('ok' | 'FAILED' | 'skipped', what to show)"""
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


def main(arguments):
    tests = discover()
    wanted = [argument for argument in arguments if not argument.startswith("-")]
    if wanted:
        tests = [test for test in tests if any(part in test[0] for part in wanted)]
    if "--list" in arguments:
        print("\n".join(name for name, *_ in tests))
        return 0
    counts = {"ok": 0, "FAILED": 0, "skipped": 0}
    for name, function, values in tests:
        began = time.monotonic()
        outcome, text = run(function, values)
        counts[outcome] += 1
        took = f"{time.monotonic() - began:6.1f} s"
        print(f"{took}  {outcome:8}{name}{': ' + text if outcome == 'skipped' else ''}", flush=True)
        if outcome == "FAILED":
            print("\n".join(f"    | {line}" for line in text.rstrip().splitlines()), flush=True)
    print(f"{counts['ok']} passed, {counts['FAILED']} failed, {counts['skipped']} skipped")
    # No test at all is no success: a misspelt name must not look green.
    return 1 if counts["FAILED"] or not tests else 0


if __name__ == "__main__":
    # As for ^C, so that every server and replylog is ended by the with-block that started it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
