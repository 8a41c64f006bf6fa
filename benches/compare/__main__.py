"""Our networks and other people's, in turn, so that both meet the same machine: see ../compare.sh.

Prints, tab-separated: name, our median, theirs, ratio, goal. The ratio is the median of the ratios of neighbouring
runs. A row whose goal is a time has no ratio. Numbers are seconds, of rows called `_mib` MiB. What isn't there is skipped by name, on standard error.
"""

import argparse
import os
import statistics
import sys

import sides
from rows import ROWS, Absolute


def measure(row, args):
    """Pairs of our numbers and theirs, in the row's unit."""
    fresh = row.start is not None
    # A peak of memory hardly varies, a first run takes long.
    turns = 3 if fresh else 2 if row.unit == "MiB" else args.runs
    commands = sides.commands(row, args.python, args.programs)
    pairs = []
    if fresh:
        for _ in range(turns):
            pairs.append([sides.first_run(command, row.start, args.threads) for command in commands])
        return pairs
    running = []
    try:
        for command in commands:
            running.append(sides.Side(command, args.threads))
        for turn in range(-row.warm_up, turns):
            # A pause lets the other side's spinning threads go to sleep.
            pair = [side.run(after=0.3) for side in running]
            if turn >= 0:
                pairs.append(pair)
    finally:
        for side in running:
            side.close()
    return pairs


def main():
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parser = argparse.ArgumentParser(prog="compare.sh", description=__doc__)
    parser.add_argument("where", choices=["cpu", "gpu"])
    parser.add_argument("--python", default=sys.executable, help="an interpreter with torch and diffusers")
    parser.add_argument("--row", action="append", help="only this one (may be repeated)")
    parser.add_argument("--runs", type=int, default=7)
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
    for row in rows:
        try:
            pairs = measure(row, args)
        except sides.Skip as reason:
            print(f"{row.name}: skipped, {reason}", file=sys.stderr, flush=True)
            continue
        ours, theirs = (statistics.median(column) for column in zip(*pairs))
        ratio = statistics.median(a / b for a, b in pairs)
        ratio = "" if isinstance(row.goal, Absolute) else f"{ratio:.2f}"
        number = "{:.0f}" if row.unit == "MiB" else "{:.4g}"
        print("\t".join([row.name, number.format(ours), number.format(theirs), ratio, row.goal_text()]), flush=True)


if __name__ == "__main__":
    main()
