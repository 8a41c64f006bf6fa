#!/usr/bin/env bash
# Our side, PyTorch's and candle's in turn, one row a line; docs/performance.md has the table.
#   benches/compare.sh cpu|gpu [--python PATH] [--row NAME]
# PATH is an interpreter with torch and diffusers. `--list` shows the rows. `--build DIR` only builds our programs there, and
# `--programs DIR` takes them from there, on a machine without cargo.
set -euo pipefail
exec python3 "$(dirname "$0")/compare" "$@"
