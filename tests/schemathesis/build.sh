#!/usr/bin/env bash
# Installs schemathesis, with the versions and hashes of requirements.txt, into a cache folder outside the clone. Prints that
# folder's path on stdout, all else on stderr.
# usage: build.sh
# env:   TASKRUN_OPERATOR_CACHE  where to keep what is built (default ${XDG_CACHE_HOME:-~/.cache}/taskrun-operator)
set -euo pipefail
cache=$(realpath -m "${TASKRUN_OPERATOR_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/taskrun-operator}")
cd "$(dirname "${BASH_SOURCE[0]}")"

say() { echo "schemathesis: $*" >&2; }

command -v python3 >/dev/null || { say "python3 is not on PATH; install Python 3.10 or newer, with venv"; exit 1; }
python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { say "$(python3 --version) is too old; install 3.10 or newer"; exit 1; }
python3 -c 'import venv, ensurepip' 2>/dev/null || { say "python3 has no venv; install it (Debian, Ubuntu: python3-venv)"; exit 1; }
python=$(python3 -c 'import sys; print(sys.version, sys.base_prefix)')
folder=$cache/schemathesis-$({ cat requirements.txt build.sh; echo "$python"; } | sha256sum | cut -c1-12)

complete() { "$folder/bin/python" -c '' 2>/dev/null; }
if complete; then echo "$folder"; exit; fi

mkdir -p "$cache"
exec 9>"$cache/schemathesis.lock"
flock -n 9 || { say "waiting for another build"; flock 9; }
if complete; then echo "$folder"; exit; fi
work=$folder.new
rm -rf "$work"
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

say "installing into $cache; takes half a minute, once"
python3 -m venv "$work" >&2
"$work/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements.txt >&2 9>&- ||
  { say "could not be installed: the first time needs the Python package index"; exit 1; }
# it moves: only `python -m` works from then on
rm -rf "$folder"
mv "$work" "$folder"
echo "$folder"
