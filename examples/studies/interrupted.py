"""Ctrl-C at random moments from the import to the end of `fit`: is the estimator whole afterwards, and the process?

    python examples/studies/interrupted.py [--quick] [--only NAME ...] [--moments N] [--results DIR]

Each moment has a process of its own, which imports flowdetect and fits. In a terminal of its own (a pseudo-terminal)
Ctrl-C is typed. In a job that ignores Ctrl-C the signal is sent, and fit simply finishes; so it does in a thread other
than the main one, while the main one is interrupted. Afterwards the process shows that the estimator is fitted and can
score, or is as it was; that Ctrl-C does what it did before; and that the estimator, or where there is none yet a new
one, can be fitted again, with the scores of a process that was never interrupted, bit for bit. A moment that comes
after the end of `fit` is drawn again.

Writes interrupted.json and interrupted.txt; the exit code is 1 if any of it does not hold. 30 moments of all take 30
minutes on one core.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pty
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

# Only the standard library above: what is interrupted must be imported when it is.

SEED, MOMENTS = 0, 30
MOST_TRIES = 4  # times the number of moments
WAIT = 300  # seconds for one process
HOW = ("terminal", "ignored", "thread")
ESTIMATORS = {
    "Glow": "GlowDensity(n_steps=2, hidden_channels=16, max_epochs=60, early_stopping=False, random_state=0)",
    "MAF": "MAFDensity(hidden_features=(32,), max_epochs=120, early_stopping=False, random_state=0)",
    "PixelCNN": "PixelCNNDensity(n_filters=16, n_blocks=1, max_epochs=25, early_stopping=False, random_state=0)",
    "Neighbors": "NeighborsDensity()",
    "OODDetector": "OODDetector(random_state=0)",
    "LikelihoodDetector": "LikelihoodDetector(MAFDensity(max_epochs=120, early_stopping=False), random_state=0)",
    "LikelihoodRatioDetector": "LikelihoodRatioDetector(RealNVPDensity(n_steps=2, max_epochs=15), random_state=0)",
}
N_ROWS = {"Neighbors": 200_000, "OODDetector": 15_000}
FEW_ROWS = 600


# ---- the process that is interrupted


def make(name: str) -> tuple[Any, Any]:
    """Import what an estimator needs, and make it and its data."""
    import flowdetect

    scope = {word: getattr(flowdetect, word) for word in flowdetect.__all__ if word in ESTIMATORS[name]}
    import numpy as np

    X = np.random.default_rng(SEED).normal(size=(N_ROWS.get(name, FEW_ROWS), 3))
    return eval(ESTIMATORS[name], scope), X


def answer(estimator: Any, X: Any) -> str:
    """Name the scores of some rows, bit by bit."""
    return hashlib.sha256(estimator.score_samples(X[:20] + 0.1).tobytes()).hexdigest()


def is_fitted(estimator: Any) -> bool:
    """Ask as scikit-learn does."""
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(estimator)
    except NotFittedError:
        return False
    return True


class Life:
    """Import, make and fit; remember how far it came."""

    def __init__(self, name: str) -> None:
        self.name, self.phase, self.estimator, self.X = name, "import", None, None
        self.before: set[str] = set()
        self.interrupted = ""

    def lead(self) -> None:
        """Come as far as Ctrl-C lets it."""
        try:
            print("ready", flush=True)
            self.estimator, self.X = make(self.name)
            self.before = set(vars(self.estimator))
            self.phase = "fit"
            print("fitting", flush=True)
            self.estimator.fit(self.X)
            self.phase = "end"
        except KeyboardInterrupt:
            self.interrupted = self.phase

    def report(self) -> dict[str, Any]:
        """Say what is left, and show that fitting works again."""
        fitted = self.estimator is not None and is_fitted(self.estimator)
        kept = "as it was"
        if fitted:
            kept = "fitted"
            answer(self.estimator, self.X)
        elif self.estimator is not None and set(vars(self.estimator)) != self.before:
            kept = f"halfway: {sorted(set(vars(self.estimator)) - self.before)}"
        estimator, X = make(self.name)
        again = answer((self.estimator or estimator).fit(X), X)
        return {"interrupted": self.interrupted, "kept": kept, "again": again}


def live(name: str, how: str) -> dict[str, Any]:
    """Be the process that is interrupted."""
    expected = signal.SIG_IGN if how == "ignored" else signal.default_int_handler
    life, disturbed = Life(name), False
    started = time.monotonic()
    if how == "thread":
        done = threading.Event()  # a join that was interrupted cannot be repeated
        threading.Thread(target=lambda: (life.lead(), done.set()), daemon=True).start()
        try:
            done.wait()
        except KeyboardInterrupt:
            disturbed = True
            done.wait()
    else:
        life.lead()
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    seconds = time.monotonic() - started
    return {**life.report(), "handler": handler is expected, "disturbed": disturbed, "seconds": seconds}


# ---- the one that interrupts


def interrupted_at(name: str, how: str, seconds: float, after: str = "ready") -> dict[str, Any]:
    """Start a process, press Ctrl-C some seconds after it says a word, and give what it reports."""
    command = [sys.executable, "-W", "ignore", __file__, "--live", name, how]
    if how == "terminal":
        pid, terminal = pty.fork()
        if pid == 0:  # its own session, whose terminal turns \x03 into a signal
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # this study may itself be a job that ignores it
            os.execv(sys.executable, command)
        started, stop = None, lambda: os.write(terminal, b"\x03")
    else:
        action = signal.SIG_IGN if how == "ignored" else signal.SIG_DFL
        started = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            preexec_fn=lambda: signal.signal(signal.SIGINT, action),
        )
        pid, terminal, stop = started.pid, started.stdout.fileno(), lambda: os.kill(started.pid, signal.SIGINT)
    text = ""
    timers = [threading.Timer(seconds, stop), threading.Timer(WAIT, lambda: os.kill(pid, signal.SIGKILL))]
    try:
        while part := _read(terminal):
            text += part
            if not timers[0].ident and after in text:
                for timer in timers:
                    timer.start()
    finally:
        for timer in timers:
            timer.cancel()
        started.wait() if started is not None else os.waitpid(pid, 0)
        started.stdout.close() if started is not None else os.close(terminal)
    try:
        return json.loads([line for line in text.splitlines() if line.startswith("{")][-1])  # ^C may follow
    except (ValueError, IndexError):
        return {"error": text.strip()[-2000:]}


def _read(terminal: int) -> str:
    try:
        return os.read(terminal, 65536).decode(errors="replace")
    except OSError:  # how a pseudo-terminal ends
        return ""


def wrong(found: dict[str, Any], how: str, expected: str) -> str:
    """Say what does not hold, or nothing."""
    if "error" in found:
        return found["error"]
    if not found["handler"]:
        return "the handler of Ctrl-C is another one"
    if found["kept"] not in ("fitted", "as it was"):
        return found["kept"]
    if found["again"] != expected:
        return "fitted again, it scores otherwise"
    if how != "terminal" and (found["interrupted"] or found["kept"] != "fitted"):
        return "fit did not finish"
    return ""


def study(name: str, how: str, moments: int, seed: int = SEED) -> dict[str, Any]:
    """Interrupt fits of one estimator at random moments, and count what became of them."""
    undisturbed = interrupted_at(name, how, WAIT)
    if "error" in undisturbed:
        return {"hits": 0, "late": 0, "counts": {}, "wrong": [undisturbed["error"]]}
    expected, duration = undisturbed["again"], undisturbed["seconds"]
    draw, counts, late, faults = random.Random(f"{seed} {name} {how}"), Counter(), 0, []
    while sum(counts.values()) < moments and late < MOST_TRIES * moments:
        moment = draw.uniform(0, duration)
        found = interrupted_at(name, how, moment)
        fault = wrong(found, how, expected)
        if fault:
            faults.append(f"{moment:.3f} s: {fault}")
            counts["wrong"] += 1
        elif how == "terminal" and not found["interrupted"] or how == "thread" and not found["disturbed"]:
            late += 1
        elif how == "terminal":
            counts[f"{found['interrupted']}, {found['kept']}"] += 1
        else:
            counts["finished"] += 1
    return {"duration": duration, "hits": sum(counts.values()), "late": late, "counts": dict(counts), "wrong": faults}


def main() -> int:
    """Interrupt all, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two moments each")
    parser.add_argument("--only", nargs="*", default=list(ESTIMATORS), choices=list(ESTIMATORS))
    parser.add_argument("--moments", type=int, default=MOMENTS)
    parser.add_argument("--results", default="results")
    parser.add_argument("--live", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.live:
        print("\n" + json.dumps(live(*options.live)))  # a terminal shows ^C where Ctrl-C was typed
        return 0
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes
    moments = 2 if options.quick else options.moments
    folder = Path(options.results)
    folder.mkdir(parents=True, exist_ok=True)
    results: dict[str, dict[str, Any]] = {}
    lines = []
    for name in options.only:
        results[name] = {}
        for how in HOW:
            found = study(name, how, moments if how == "terminal" else max(1, moments // 10))
            results[name][how] = found
            lines.append(
                f"{name:24} {how:9} {found['hits']:3} interrupted, {len(found['wrong'])} wrong; {found['counts']}"
            )
            print(lines[-1], *found["wrong"], sep="\n    ", flush=True)
            (folder / "interrupted.json").write_text(json.dumps(results, indent=1))
            (folder / "interrupted.txt").write_text("\n".join(lines) + "\n")
    return int(any(found["wrong"] for by_how in results.values() for found in by_how.values()))


if __name__ == "__main__":
    sys.exit(main())
