#!/usr/bin/env bash
# Shows the operator at work on a Kubernetes control plane of its own, on 127.0.0.1, which ends with this script.
# usage: demo.sh [--keep]   --keep: install and run everything, then stay until Ctrl-C
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
keep=
case "${1:-}" in
'') ;;
--keep) keep=yes ;;
*) echo "usage: $0 [--keep]" >&2; exit 2 ;;
esac
bold='' plain=''
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then bold=$'\e[1m' plain=$'\e[0m'; fi

title() { printf '\n%s%s%s\n' "$bold" "$1" "$plain"; }
show() { printf '$ %s\n' "$1"; eval "$1"; }
kubectl() { timeout --foreground 60 kubectl "$@"; }
fail() { explained=yes; printf '\ndemo: %s\n' "$1" >&2; exit 1; }

# Tools -----------------------------------------------------------------------------------------------------------
missing=
for tool in 'cargo (comes with Rust: install rustup)' 'go (install Go)' 'kubectl (install the Kubernetes command line tool)'; do
  type -P "${tool%% *}" >/dev/null || missing+="${missing:+, }$tool"
done
[ -z "$missing" ] || { echo "demo: not on PATH: $missing" >&2; exit 1; }
[ "$(uname)" = Linux ] || { echo "demo: needs Linux" >&2; exit 1; }

# Everything that is started or written is gone when this ends -----------------------------------------------------
work=$(mktemp -d "${TMPDIR:-/tmp}/taskrun-XXXXXX")
operator='' control_plane='' watch='' explained=''

# stop PID: asks it to end, insists after 10 s.
stop() {
  local deadline=$((SECONDS + 10))
  [ -n "$1" ] && kill "$1" 2>/dev/null || return 0
  while kill -0 "$1" 2>/dev/null; do
    if ((SECONDS >= deadline)); then kill -KILL "$1" 2>/dev/null || true; break; fi
    sleep 0.05
  done
  wait "$1" 2>/dev/null || true
}

finish() {
  local status=$?
  trap '' INT TERM HUP
  if ((status != 0 && status < 128)); then
    [ -n "$explained" ] || printf '\ndemo: the last command failed (exit code %s)\n' "$status" >&2
    local log
    for log in control-plane operator; do
      [ ! -s "$work/$log.log" ] || { echo "--- last lines of the $log's log" >&2; tail -n 15 "$work/$log.log" >&2; }
    done
  fi
  stop "$watch"; stop "$operator"; stop "$control_plane"
  rm -rf "$work"
  exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# Build -----------------------------------------------------------------------------------------------------------
title 'Building (once: minutes; then seconds)'
executable=$(cargo build --locked --bins --message-format json-render-diagnostics |
  sed -n 's/.*"executable":"\([^"]*\/taskrun-operator\)".*/\1/p')
components=$(tests/control-plane/build.sh)
# the user's own clusters, kubectl settings and proxy have no part in what follows
export KUBECACHEDIR=$work/cache KUBERC=off TMPDIR=$work SHELL=/bin/sh
unset KUBE_EDITOR HTTP_PROXY HTTPS_PROXY ALL_PROXY http_proxy https_proxy all_proxy

# Start -----------------------------------------------------------------------------------------------------------
title 'Starting a control plane and installing the operator'
began=$SECONDS
mkfifo "$work/hold" "$work/up"
"$components/control-plane" --dir "$work/cluster" <"$work/hold" >"$work/up" 2>"$work/control-plane.log" &
control_plane=$!
exec 8>"$work/hold" # it ends when this closes, even if this script is killed
read -r -t 90 KUBECONFIG <"$work/up" || fail 'the control plane did not start'
export KUBECONFIG
show 'kubectl apply --server-side -k deploy/'

# The operator runs here, outside of the cluster, but with no more rights than it would have inside.
operator_kubeconfig() {
  local token cluster='{.clusters[0].cluster'
  token=$(kubectl create token taskrun-operator --namespace taskrun-system --duration 24h)
  cat <<END
apiVersion: v1
kind: Config
clusters:
- name: control-plane
  cluster:
    server: $(kubectl config view --raw -o jsonpath="$cluster.server}")
    certificate-authority-data: $(kubectl config view --raw -o jsonpath="$cluster.certificate-authority-data}")
users:
- {name: taskrun-operator, user: {token: $token}}
contexts:
- {name: control-plane, context: {cluster: control-plane, user: taskrun-operator}}
current-context: control-plane
END
}

# Below the ports that outgoing connections take; if somebody has one of them all the same, others are tried.
start_operator() {
  local port=$((20000 + RANDOM % 4000 * 3))
  local options="--webhook-addr 127.0.0.1:$port --webhook-url https://127.0.0.1:$port --admin-addr 127.0.0.1:$((port + 1))"
  api=http://127.0.0.1:$((port + 2))/api/v1
  [ -z "$keep" ] || options+=" --api-addr ${api:7:-7} --api-plain-http --api-namespace default"
  # shellcheck disable=SC2086 # options has no blanks but those between options
  env -i KUBECONFIG="$work/operator.kubeconfig" ${RUST_LOG:+RUST_LOG="$RUST_LOG"} \
    "$executable" run $options --shutdown-delay 0 >"$work/operator.log" 2>&1 8>&- &
  operator=$!
  command_line="taskrun-operator run $options --shutdown-delay 0"
}

# Admission works from when the API server has seen the operator's certificate.
await_operator() {
  local deadline=$((SECONDS + 60))
  until kubectl create --dry-run=server -f examples/taskrun.yaml >"$work/probe" 2>&1; do
    if ! kill -0 "$operator" 2>/dev/null; then
      grep -q 'failed to listen' "$work/operator.log" && ((SECONDS < deadline)) || fail 'the operator ended'
      start_operator
    fi
    ((SECONDS < deadline)) || fail "the operator's admission does not work: $(tail -n 1 "$work/probe")"
    sleep 0.2
  done
}

operator_kubeconfig >"$work/operator.kubeconfig"
start_operator
await_operator
printf '$ %s &\n' "$command_line"

if [ -n "$keep" ]; then
  show 'kubectl apply -f examples/agent.yaml -f examples/taskrun.yaml'
  kubectl create serviceaccount pm
  kubectl create rolebinding pm --clusterrole=edit --serviceaccount=default:pm
  title "Running. In another terminal:"
  printf 'export KUBECONFIG=%q KUBECACHEDIR=%q\n' "$KUBECONFIG" "$KUBECACHEDIR"
  printf 'export PATH=%q:$PATH   # kubectl taskrun\n' "$(dirname "$executable")"
  printf 'export API=%q TOKEN=$(kubectl create token pm)   # the PM API, %s/docs/\n' "$api/pm" "$api"
  printf '%s/   # the page: sign in with $TOKEN\n' "${api%/api/v1}"
  printf 'tail -f %q\n' "$work/operator.log"
  echo "Ctrl-C here stops and removes everything."
  trap 'exit 0' INT
  wait -n "$operator" "$control_plane" || true
  fail 'the operator or the control plane ended'
fi

# Story -----------------------------------------------------------------------------------------------------------
# watch_until VERSION PHASE: prints the task's line whenever its version or phase has changed.
last='' seen=''
watch_until() {
  local deadline=$((SECONDS + 90)) line fields
  while ((SECONDS < deadline)) && IFS= read -r -t $((deadline - SECONDS)) line <&9; do
    read -ra fields <<<"$line" # name, task, service, agent, version, phase
    case ${fields[5]:-} in
    PHASE) echo "$line" ;;
    Pending | Running | Succeeded | Failed)
      [ "${fields[*]:4:2}" = "$last" ] || echo "$line"
      [ "${fields[5]}" = "${last#* }" ] || seen+="${fields[5]}, "
      last=${fields[*]:4:2}
      [ "$last" != "$1 $2" ] || return 0
      [ "${fields[5]}" != Failed ] || fail "$(kubectl get taskrun task-1 -o jsonpath='{.status.message}')"
      ;;
    esac
  done
  fail "version $1 of task-1 was not seen to be $2"
}

title 'A task: an Agent says what runs, a TaskRun what there is to do'
echo '$ kubectl get taskruns --watch &'
exec 9< <(exec kubectl get taskruns --watch 2>&1 8>&-)
watch=$!
show 'kubectl apply -f examples/agent.yaml'
show 'kubectl apply -f examples/taskrun.yaml'
watch_until 1 Running

title 'New context while version 1 is running: it ends, and version 2 runs with all of the context'
show "EDITOR=\"sed -i '/^ *- Tests cover/s/expiry/expiry, clock skew/'\" kubectl edit taskrun task-1"
seen+='edited, '
watch_until 2 Succeeded
stop "$watch"

title 'What became of it'
runs='{{range .status.runs}}{{printf "version %v  %-10v  job %s  context by %s\n" .contextVersion .outcome .jobName .changedBy}}{{end}}'
show "kubectl get taskrun task-1 -o go-template='$runs'"
show 'kubectl get jobs,configmaps -l task-id=1'
show 'kubectl events --for taskrun/task-1'
outcomes=$(kubectl get taskrun task-1 -o jsonpath='{range .status.runs[*]}{.contextVersion}={.outcome} {end}')
[ "$outcomes" = '1=Superseded 2=Succeeded ' ] || [ "$outcomes" = '2=Succeeded 1=Superseded ' ] ||
  fail "expected version 1 to be Superseded and version 2 Succeeded, got: $outcomes"

title 'A task without content is refused'
code=0
show 'kubectl apply -f examples/empty-taskrun.yaml' >"$work/refusal" 2>&1 || code=$?
cat "$work/refusal"
echo "(exit code $code)"
if ((code == 0)) || ! grep -qF 'spec.markdownFiles[0].content' "$work/refusal"; then
  fail 'expected a refusal that names spec.markdownFiles[0].content'
fi

title "Seen in $((SECONDS - began)) s: task-1 was ${seen}version 2 superseding version 1; empty markdown was refused."
