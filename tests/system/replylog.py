"""The process under test: a real replylog, and the records that it writes."""
import contextlib
import fcntl
import json
import os
import signal
import subprocess
import threading
import time

from environment import BINARY
from processes import end
from waiting import wait_until

F_SETPIPE_SZ = 1031


class Replylog:
    """A running replylog. Threads read its stdout and stderr all the time. Enter waits for its start record. Without a
    pid, the flags select the server."""

    # On a busy machine a burst may take longer than the default wait of a second, which makes its records ambiguous.
    # Tests of that wait pass their own.
    PATIENT = ("--verify-wait", "60000")

    def __init__(self, pid, threshold=0, *flags, wait=True):
        # REPLYLOG_FLAGS="--tap connection" runs all tests with another tap.
        self.argv = [str(BINARY), *self.PATIENT, *os.environ.get("REPLYLOG_FLAGS", "").split(),
                     *(["-p", str(pid)] if pid else []), *flags]
        if threshold is not None:
            self.argv += ["--threshold", str(threshold)]
        self.wait = wait
        self.lines = []         # raw lines, in the order of arrival

    def __enter__(self):
        self.process = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, start_new_session=True)
        with contextlib.suppress(OSError):
            # A reader that is briefly late must not count against replylog.
            fcntl.fcntl(self.process.stdout, F_SETPIPE_SZ, 1 << 20)
        self.errors = b""
        self.readers = [threading.Thread(target=self._read_lines, daemon=True),
                        threading.Thread(target=self._read_errors, daemon=True)]
        for reader in self.readers:
            reader.start()
        try:
            if self.wait:
                # The newest kernel, emulated, takes long to verify the programs.
                wait_until(self._started, "start record", 120)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        end(self.process)
        self._join()

    def _read_lines(self):
        append = self.lines.append
        for line in self.process.stdout:
            append(line)

    def _read_errors(self):
        self.errors = self.process.stderr.read()

    def _join(self):
        for reader in self.readers:
            reader.join(10)

    def _started(self):
        if self.process.poll() is not None and not self.lines:
            self._join()
            raise AssertionError(f"replylog ended with {self.process.returncode}: {self.stderr.strip()}")
        return self.lines

    @property
    def pid(self):
        return self.process.pid

    @property
    def stderr(self):
        return self.errors.decode("utf-8", "replace")

    @property
    def returncode(self):
        return self.process.returncode

    def wait_replies(self, count, stalled=10.0):
        """Waits until count reply records (and the start record) have arrived, or no line has arrived for a while. A
        client has its reply before the server's write returns, so the last records may arrive a moment later. The caller
        checks for missing ones."""
        seen, since = len(self.lines), time.monotonic()
        while len(self.lines) < count + 1:
            if len(self.lines) != seen:
                seen, since = len(self.lines), time.monotonic()
            if time.monotonic() - since > stalled or self.process.poll() is not None:
                return
            time.sleep(0.005)

    def stop(self, signum=signal.SIGINT):
        """Ends replylog with a signal, as a person would, and returns all its records."""
        self.process.send_signal(signum)
        return self.finish()

    def finish(self, seconds=30):
        """Waits for replylog to end, and returns all its records."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"replylog still runs after {seconds} s: {self.argv}") from None
        self._join()
        return self.records()

    def records(self):
        return [json.loads(line) for line in list(self.lines)]

    def replies(self):
        return [record for record in self.records() if record["event"] == "reply"]


def run_replylog(*flags, argv=None, timeout=60):
    """Runs a replylog that should end by itself."""
    return subprocess.run(argv or [str(BINARY), *flags], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=timeout)
