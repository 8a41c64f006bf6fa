"""Our networks and other people's, in turn, so that both meet the same machine: see ../compare.sh.

Prints, tab-separated: name, our median, theirs, ratio, goal. The ratio is the median of the ratios of neighbouring
runs. A row whose goal is a time has no ratio. Numbers are seconds, of rows called `_mib` MiB. What isn't there is skipped by name, on standard error.
"""

import argparse
import os
import statistics
import sys
from concurrent.futures import ThreadPoolExecutor

import sides
from rows import ROWS, Absolute


def measure_first_runs(row, args):
    """Pairs of our numbers and theirs, in the row's unit: each the first run of a process."""
    commands = sides.commands(row, args.python, args.programs)
    return [[sides.first_run(command, row.start, args.threads) for command in commands] for _ in range(3)]


class Running:
    """The processes of some rows, started and warmed up at the same time. Rows that ask for the same work share one."""

    def __init__(self, rows, args):
        self.args = args
        # A side, or why there is none.
        self.sides = {}
        runs = {}
        for row in rows:
            for command in self.commands(row):
                runs[command] = max(row.warm_up, runs.get(command, 0))
        with ThreadPoolExecutor(max(1, len(runs))) as pool:
            self.sides = dict(zip(runs, pool.map(self.start, runs, runs.values())))

    def commands(self, row):
        try:
            return [tuple(command) for command in sides.commands(row, self.args.python, self.args.programs)]
        except sides.Skip:
            return []  # It says so again when it is to be measured.

    def start(self, command, warm_up):
        try:
            side = sides.Side(list(command), self.args.threads)
            for _ in range(warm_up):
                side.run()
            return side
        except sides.Skip as reason:
            return reason

    def measure(self, row):
        """Pairs of our numbers and theirs, in the row's unit."""
        commands = sides.commands(row, self.args.python, self.args.programs)
        pair = [self.sides[tuple(command)] for command in commands]
        for side in pair:
            if isinstance(side, sides.Skip):
                raise side
        # A peak of memory hardly varies.
        turns = 2 if row.unit == "MiB" else self.args.runs
        # A pause lets the other side's spinning threads go to sleep.
        return [[side.run(after=0.3) for side in pair] for _ in range(turns)]

    def close(self):
        for side in self.sides.values():
            if isinstance(side, sides.Side):
                side.close()


def skipped(row, reason):
    print(f"{row.name}: skipped, {reason}", file=sys.stderr, flush=True)


def show(row, pairs):
    ours, theirs = (statistics.median(column) for column in zip(*pairs))
    ratio = statistics.median(a / b for a, b in pairs)
    ratio = "" if isinstance(row.goal, Absolute) else f"{ratio:.2f}"
    number = "{:.0f}" if row.unit == "MiB" else "{:.4g}"
    print("\t".join([row.name, number.format(ours), number.format(theirs), ratio, row.goal_text()]), flush=True)


def compare(rows, args):
    """Rows whose processes are there at the same time, one of them at work."""
    running = Running(rows, args)
    try:
        for row in rows:
            try:
                show(row, running.measure(row))
            except sides.Skip as reason:
                skipped(row, reason)
    finally:
        running.close()


def main():
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parser = argparse.ArgumentParser(prog="compare.sh", description=__doc__)
    parser.add_argument("where", choices=["cpu", "gpu"])
    parser.add_argument("--python", default=sys.executable, help="an interpreter with torch and diffusers")
    parser.add_argument("--row", action="append", help="only this one (may be repeated)")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--together", type=int, default=1, metavar="N",
                        help="start and warm up the processes of N rows at once, where there is memory for them")
    parser.add_argument("--threads", type=int, default=cores, help="of each side, on the CPU")
    parser.add_argument("--programs", metavar="DIR", help="our programs were built elsewhere, by --build")
    parser.add_argument("--build", metavar="DIR", help="build our programs there, stripped, and end")
    parser.add_argument("--list", action="store_true", help="show the rows and end")
    args = parser.parse_args()
    rows = [row for row in ROWS if row.where == args.where]
    unknown = set(args.row or []) - {row.name for row in rows}
    if unknown:
        parser.error(f"no row {', '.join(sorted(unknown))}; there are {', '.join(row.name for row in rows)}")
    rows = [row for row in rows if not args.row or row.name in args.row]
    if args.list:
        for row in rows:
            print(f"{row.name}\t{row.what}\t{row.unit}\t{row.goal_text()}")
        return
    if args.build:
        sys.exit(0 if sides.build(args.build, {row.features for row in rows}) else 1)
    print("name\tours\ttheirs\tratio\tgoal", flush=True)
    first = [row for row in rows if row.start is not None]
    others = [row for row in rows if row.start is None]
    for i in range(0, len(others), args.together):
        compare(others[i : i + args.together], args)
    for row in first:
        try:
            show(row, measure_first_runs(row, args))
        except sides.Skip as reason:
            skipped(row, reason)


if __name__ == "__main__":
    main()
