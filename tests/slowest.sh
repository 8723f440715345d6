#!/usr/bin/env bash
# Prints the ten slowest tests with their seconds: slowest.sh JUNIT-FILE...
set -euo pipefail
echo 'The ten slowest tests, in seconds:'
for file in "$@"; do
    [ -e "$file" ] || continue
    run=$(basename "$(dirname "$file")")
    sed -n 's/.*<testcase name="\([^"]*\)" classname="\([^"]*\)".* time="\([^"]*\)".*/\3 \2 \1/p' "$file" |
        awk -v run="$run" '{ printf "%8.1f  %s %s %s\n", $1, run, $2, $3 }'
done | sort --reverse --numeric-sort | awk 'NR <= 10'
