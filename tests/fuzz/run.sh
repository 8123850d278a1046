#!/usr/bin/env bash
# Builds the fuzz target, tries each file of the committed corpus, then looks for more on all cores.
# usage: run.sh -max_total_time=SECONDS   for so long
#        run.sh -runs=NUMBER              so often; what is new is kept in tests/fuzz/units and where the next run begins
#        run.sh FILE                      one input again
# What of the units reaches more code comes into the corpus by
#   review -set_cover_merge=1 -use_counters=0 tests/fuzz/corpus/review tests/fuzz/units    (review: the binary that was built)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
[ $# = 1 ] || { sed -n '/^# usage/,/FILE/s/^# //p' "$0" >&2; exit 2; }
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")/fuzz
corpus=tests/fuzz/corpus/review artifacts=tests/fuzz/artifacts/review
work=$(mktemp -d "${TMPDIR:-/tmp}/taskrun-fuzz-XXXXXX")
trap 'rm -rf "$work"' EXIT
units=$work/units shown=''
case $1 in -runs=*) units=tests/fuzz/units shown='/^#/p' ;; esac
mkdir -p "$units" "$artifacts"
touch "$work/began"

# No ASan: it takes nightly Rust, and there is no unsafe code here. No traced comparisons: they halve the speed, and the
# dictionary has the words that they would find.
cargo tree --locked --manifest-path tests/fuzz/Cargo.toml >/dev/null
cargo fuzz build --fuzz-dir tests/fuzz --sanitizer none --no-trace-compares --target-dir "$target" review
review=$(ls "$target"/*/release/review)

# One input may take 10 s and the process 512 MB, most of which is libFuzzer's own.
export RUST_BACKTRACE=0
limits=(-timeout=10 -rss_limit_mb=512 "-artifact_prefix=$artifacts/")
if [ -f "$1" ]; then "$review" "${limits[@]}" "$1"; exit; fi

# tried ARGUMENT...: runs the target; a finding is shown as far as a log of CI needs it to be found again.
tried() {
  "$review" "${limits[@]}" "$@" 2>&1 | tee "$work/log" | sed -un "$shown" && return
  grep -av '^#' "$work/log" | tail -n 40 >&2
  find "$artifacts" -type f -newer "$work/began" | while read -r file; do
    echo "fuzz: FAILED by $file; see it again: tests/fuzz/run.sh $file" >&2
    [ "$(wc -c <"$file")" -gt 8192 ] || echo "fuzz: the same elsewhere: base64 -d >input <<<$(base64 -w 0 "$file")" >&2
  done
  exit 1
}

find "$corpus" -type f | while read -r file; do tried "$file"; done
echo "fuzz: $(find "$corpus" -type f | wc -l) files of the corpus hold"
tried "-fork=$(nproc)" -ignore_ooms=0 -ignore_timeouts=0 -max_len=4096 -dict=tests/fuzz/review.dict "$1" "$units" "$corpus"
echo "fuzz: $(grep -a '^#' "$work/log" | tail -n 1 | cut -d ' ' -f 1-7), $(find "$units" -type f | wc -l) new units; nothing found"
