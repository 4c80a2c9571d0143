"""What the guest of tests/guest/bare.c says, as a client's log file holds it."""

import time
from pathlib import Path

# A guest says "tick" and a number again and again.
TICK = "tick 0000000000000001"
# Seconds that a guest may take for anything: a bound, not an expectation.
PATIENCE = 60


def wait_for(log, text, after=0):
    """Waits for `text` beyond the first `after` characters of the file `log`; returns all of it."""
    deadline = time.monotonic() + PATIENCE
    while True:
        said = Path(log).read_text(errors="replace")
        if text in said[after:]:
            return said
        assert time.monotonic() < deadline, f"no {text!r} in {said[-2000:]}"
        time.sleep(0.05)


def ticks(log):
    return Path(log).read_text(errors="replace").count("tick ")


def stands_still(log):
    """Fails if the guest says anything once what was under way is written."""
    time.sleep(0.2)
    before = ticks(log)
    time.sleep(0.5)
    assert ticks(log) == before, "a paused guest goes on"


def goes_on(log):
    """Waits for the next tick."""
    wait_for(log, "tick ", after=len(Path(log).read_text(errors="replace")))
