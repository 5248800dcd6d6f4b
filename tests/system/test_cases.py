"""docs/CASES.md names only tests that exist, and every test about conversations."""
import re

from environment import ROOT
from run import discover

ABOUT_CONVERSATIONS = ("aborted", "clients", "commandlog", "drain", "executed_again", "faults", "fuzz", "identity", "join",
                       "known_failures", "left_out", "names", "pushes", "scale", "transactions", "unruly", "waiting")


def named():
    """Returns the names in the second column of the tables."""
    rows = [line for line in (ROOT / "docs/CASES.md").read_text().splitlines() if line.startswith("| ")]
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[2])}


def exists(name, system):
    if name.startswith("fuzz_"):
        return (ROOT / "tests/fuzz" / name).exists()
    file, _, function = name.partition(":")
    if not function:
        return name in system
    path = ROOT / "tests/unit" / file
    # A test that is defined also runs: the compiler refuses unused static functions.
    return path.exists() and re.search(rf"^static void {function}\(", path.read_text(), re.M)


def test_named_tests_exist():
    system = {name.partition("[")[0] for name, *_ in discover()}
    names = named()
    missing = [name for name in sorted(names) if not exists(name, system)]
    assert len(names) > 80 and not missing, f"docs/CASES.md names tests that don't exist: {missing}"
    untold = [name for name in sorted(system - names) if name.split(".")[0] in ABOUT_CONVERSATIONS]
    assert not untold, f"docs/CASES.md doesn't name {untold}"
