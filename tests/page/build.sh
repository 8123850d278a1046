#!/usr/bin/env bash
# Installs what drives the page in the tests, with the versions of package-lock.json, and Debian's Chromium where there is
# none. Prints Chromium's path on stdout, all else on stderr.
# usage: build.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
say() { echo "tests of the page: $*" >&2; }

for tool in node npm; do
  command -v "$tool" >/dev/null || { say "$tool is not on PATH; install Node 20.19, or 22.12 or newer"; exit 1; }
done
if [ ! -x /usr/bin/chromium ]; then
  say "installing Debian's chromium"
  { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium fonts-dejavu-core; } >&2 ||
    { say "/usr/bin/chromium is not there and could not be installed; as root: apt-get install chromium"; exit 1; }
fi
if [ node_modules/.package-lock.json -ot package-lock.json ] || [ ! -e node_modules/.package-lock.json ]; then
  npm ci >&2
  touch node_modules/.package-lock.json
fi
echo /usr/bin/chromium
