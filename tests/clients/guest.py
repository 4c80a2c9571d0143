"""What the guest of tests/guest/bare.c says, as a client's log file holds it."""

import re
import time
from pathlib import Path

# A guest says "tick" and a number of 16 digits again and again.
TICK = "tick 0000"
# Seconds that a guest may take for anything: a bound, not an expectation.
PATIENCE = 60


def said(log):
    """What the guest said in the file `log`, without the monitor's messages, which may come in the middle of its lines."""
    text = Path(log).read_text(errors="replace")
    return re.sub(r"\d{4}-\d\d-\d\dT[\d:.]{18} \[.*\n", "", text)


def wait_for(log, text, after=0):
    """Waits for `text` beyond the first `after` characters of the file `log`; returns all of it."""
    deadline = time.monotonic() + PATIENCE
    while True:
        now = said(log)
        if text in now[after:]:
            return now
        assert time.monotonic() < deadline, f"no {text!r} in {now[-2000:]}"
        time.sleep(0.05)


def ticks(log):
    return said(log).count("tick ")


def stands_still(log):
    """Fails if the guest says anything once what was under way is written."""
    time.sleep(0.2)
    before = ticks(log)
    time.sleep(0.5)
    assert ticks(log) == before, "a paused guest goes on"


def goes_on(log):
    """Waits for the next tick."""
    wait_for(log, "tick ", after=len(said(log)))
