#!/usr/bin/env bash
# Runs this folder's tests: the operator's image, on a real node. Network, mounts and processes are in namespaces, which the
# kernel ends with this script, however it ends; cgroups are removed by it, or by the next one.
# usage: run.sh [NAME OF A TEST]
# Where a node cannot be had, it says why and succeeds. Of Debian's packages it installs those that are missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
say() { echo "test-node: $*"; }
skip() { say "SKIPPED: $*"; exit 0; }

# What it needs ----------------------------------------------------------------------------------------------------
[ "$(uname)" = Linux ] || skip "needs Linux"
[ "$(id -u)" = 0 ] || skip "needs root: kubelet, containerd and namespaces"
hierarchies() { # where a cgroup has to be made: one folder with cgroup v2, one a controller with v1
  if [ -f /sys/fs/cgroup/cgroup.controllers ]; then echo /sys/fs/cgroup; return; fi
  for folder in /sys/fs/cgroup/*; do [ ! -f "$folder/cgroup.procs" ] || [ -L "$folder" ] || echo "$folder"; done
}
for controller in memory cpu cpuset pids; do
  [ -d "/sys/fs/cgroup/$controller" ] || grep -qw "$controller" /sys/fs/cgroup/cgroup.controllers 2>/dev/null ||
    skip "needs the cgroup controller $controller under /sys/fs/cgroup"
done
if [ -f /sys/fs/cgroup/cgroup.subtree_control ]; then
  { echo +memory +cpu +cpuset +pids >/sys/fs/cgroup/cgroup.subtree_control; } 2>/dev/null ||
    skip "needs to give cgroup controllers to groups below /sys/fs/cgroup"
fi
unshare --net --mount --pid --fork --mount-proc true 2>/dev/null || skip "needs the right to make namespaces (unshare)"
packages=
type -P runc >/dev/null || packages+=" runc"
[ -x /opt/cni/bin/bridge ] || [ -x /usr/lib/cni/bridge ] || packages+=" containernetworking-plugins"
{ type -P busybox >/dev/null && ! ldd "$(type -P busybox)" >/dev/null 2>&1; } || packages+=" busybox-static"
type -P ip >/dev/null || packages+=" iproute2"
timeout 10 docker info >/dev/null 2>&1 || type -P podman >/dev/null || type -P buildah >/dev/null || packages+=" buildah"
if [ -n "$packages" ]; then
  type -P apt-get >/dev/null || skip "needs what Debian calls$packages"
  say "installing$packages"
  # shellcheck disable=SC2086 # a list
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages; } >/dev/null ||
    skip "needs$packages, which apt-get could not install"
fi

# What it runs -----------------------------------------------------------------------------------------------------
began=$SECONDS
tests/control-plane/build.sh node >/dev/null
tests/control-plane/build.sh helm >/dev/null
image=$(deploy/image.sh | tail -n 1)
test=$(cargo test --locked --test node --no-run --message-format json-render-diagnostics |
  sed -n 's/.*"executable":"\([^"]*\/node-[^"]*\)".*/\1/p')
say "built in $((SECONDS - began)) s"

# Everything of it is gone when this ends ----------------------------------------------------------------------------
cgroup=taskrun-node-$$
work=$(mktemp -d "/tmp/$cgroup-XXXX") # short: paths of sockets are
inside=''
sweep() { # NAME: its cgroups, in which nothing lives any more
  local folder
  for folder in $(hierarchies); do
    [ ! -d "$folder/$1" ] || find "$folder/$1" -depth -type d -exec rmdir {} + || say "$folder/$1 is left"
  done
}
finish() {
  local status=$? log
  trap '' INT TERM HUP
  if ((status != 0 && status < 128)); then
    for log in "$work"/*/{containerd,kubelet,kube-apiserver}.log "$work"/*/pod-logs/taskrun-system_*/*/*.log; do
      [ ! -s "$log" ] || { echo "--- last lines of ${log#"$work"/}" >&2; tail -n 15 "$log" >&2; }
    done
  fi
  if [ -n "$inside" ]; then kill -KILL "$inside" 2>/dev/null || true; wait "$inside" 2>/dev/null || true; fi
  sweep "$cgroup"
  rm -rf "$work"
  exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
for folder in $(hierarchies); do
  for left in "$folder"/taskrun-node-*; do
    [ ! -d "$left" ] || kill -0 "${left##*-}" 2>/dev/null || { sweep "${left##*/}"; rm -rf "/tmp/${left##*/}"-*; }
  done
  mkdir "$folder/$cgroup"
  for file in cpuset.cpus cpuset.mems; do [ ! -f "$folder/tasks" ] || [ ! -f "$folder/$file" ] || cat "$folder/$file" >"$folder/$cgroup/$file"; done
done

# --kill-child and --pdeathsig: whoever is killed, all that it started ends
TMPDIR=$work TASKRUN_TEST_NODE_CGROUP=$cgroup TASKRUN_TEST_NODE_IMAGE=$image \
  setpriv --pdeathsig KILL unshare --net --mount --pid --fork --kill-child --mount-proc \
  "$test" --test-threads=1 --nocapture "$@" &
inside=$!
wait "$inside"
