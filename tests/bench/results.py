"""Measurements as files with one JSON object each: the numbers of every run, the command that made them, where and when."""
import contextlib
import datetime
import json
import os
import platform
import subprocess
from pathlib import Path

from environment import ROOT

STORE = ROOT / ".output/bench"
LOAD_BEFORE = os.getloadavg()[0]        # before the bench adds its own load


def cpu_model():
    """The processor's name for itself. A hypervisor may hide the model and show only the vendor."""
    text = Path("/proc/cpuinfo").read_text() if os.path.exists("/proc/cpuinfo") else ""
    fields = {key.strip(): value.strip() for key, _, value in
              (line.partition(":") for line in text.partition("\n\n")[0].splitlines())}
    name = fields.get("model name", platform.machine())
    if "vendor_id" in fields and not any(character.isalpha() for character in name):
        name = f"{fields['vendor_id']} model {name}"
    return name


def replylog_revision():
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        return subprocess.run(["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"], check=True,
                              capture_output=True, text=True).stdout.strip()
    return "unknown"


def machine():
    hypervisor = "hypervisor" in Path("/proc/cpuinfo").read_text()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"cpu": cpu_model(), "cores": os.cpu_count(), "virtual": hypervisor, "memory_gib": round(memory / (1 << 30)),
            "kernel": platform.release(), "arch": platform.machine()}


def save(name, command, what, result):
    """what: the part and its settings, by which the report finds the result."""
    STORE.mkdir(parents=True, exist_ok=True)
    record = {"command": command, **what, "machine": machine(), "replylog": replylog_revision(),
              "load_before": LOAD_BEFORE,
              "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"), **result}
    partial = STORE / f"{name}.json.partial"
    partial.write_text(json.dumps(record, indent=1) + "\n")
    partial.rename(STORE / f"{name}.json")


def load_all():
    return [json.loads(path.read_text()) for path in sorted(STORE.glob("*.json"))]
