#!/usr/bin/env bash
# Builds what tests run, from the versions pinned here, into a cache folder outside the clone. Prints that folder's path on
# stdout, all else on stderr.
# usage: build.sh [control-plane]   etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kwok, the launcher, kstatus
#        build.sh node              these, and kubelet and containerd
#        build.sh helm              Helm 3 and 4
#        build.sh oldest            Kubernetes' components of the oldest version that is supported, for KUBEBUILDER_ASSETS
#        build.sh prometheus        Prometheus and promtool
#        build.sh kube-score        kube-score
#        build.sh peer              the operator's peer in Go, for benchmarks
# env:   TASKRUN_OPERATOR_CACHE  where to keep what is built (default ${XDG_CACHE_HOME:-~/.cache}/taskrun-operator)
#        KUBEBUILDER_ASSETS      a folder whose executables are used instead of built ones, as far as it has them
set -euo pipefail
cache=$(realpath -m "${TASKRUN_OPERATOR_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/taskrun-operator}")
assets=${KUBEBUILDER_ASSETS:+$(realpath -m "$KUBEBUILDER_ASSETS")}
cd "$(dirname "${BASH_SOURCE[0]}")"
components="etcd kube-apiserver kube-controller-manager kube-scheduler kwok"
export CGO_ENABLED=0 GOTOOLCHAIN=local GOWORK=off GOFLAGS="-buildvcs=false -trimpath"

say() { echo "control-plane: $*" >&2; }
hash() { sha256sum | cut -c1-12; }

command -v go >/dev/null || { say "go is not on PATH; install Go $(sed -n 's/^go //p' go.mod) or newer"; exit 1; }
[ -z "$assets" ] || [ -d "$assets" ] || { say "KUBEBUILDER_ASSETS is not a folder: $assets"; exit 1; }
toolchain=$(go version)
what=${1:-control-plane}
case $what in
control-plane) names="$components control-plane kstatus" ;;
node) names="$components control-plane kstatus kubelet containerd containerd-shim-runc-v2 ctr" ;;
helm) names="helm3 helm4" ;;
oldest) names="kube-apiserver kube-controller-manager kube-scheduler" assets='' ;;
prometheus) names="prometheus promtool" ;;
kube-score) names=kube-score ;;
peer) names=peer ;;
*) say "usage: build.sh [control-plane|node|helm|oldest|prometheus|kube-score|peer]"; exit 1 ;;
esac
folder=$cache/$what-$({ sha256sum go.mod go.sum */go.mod */go.sum */*.go launcher/*.yaml ../../benches/peers/*.* build.sh 2>/dev/null || true; echo "$toolchain $assets"; } | hash)

complete() { for name in $names; do [ -x "$folder/$name" ] || return 1; done; }
if complete; then echo "$folder"; exit; fi

mkdir -p "$cache/executables"
exec 9>"$cache/control-plane.lock"
flock -n 9 || { say "waiting for another build"; flock 9; }
if complete; then echo "$folder"; exit; fi
work=$(mktemp -d "$cache/building-XXXXXX")
trap 'rm -rf "$work"; kill "${heartbeat:-}" 2>/dev/null || true' EXIT
trap 'exit 130' INT TERM

# Says every 20 s how far the build is, whose log has one line per compiled package.
beat() {
  while sleep 20 >/dev/null 2>&1; do say "  $1: $(grep -vc ^go: "$work/log") packages compiled, $((SECONDS - began)) s"; done
}

# build NAME MODULE PACKAGE [LDFLAGS [TAGS]]: puts NAME into $work, from $cache/executables if it was built before.
build() {
  local name=$1 module=$2 package=$3 ldflags="-s -w ${4:-}" tags=${5:-} key began=$SECONDS
  key=$(cd "$module" && { cat go.mod go.sum 2>/dev/null || true; [ "$package" != . ] || cat ./*.go ./*.yaml 2>/dev/null || true; echo "$ldflags $toolchain${tags:+ $tags}"; } | hash)
  if [ ! -x "$cache/executables/$name-$key" ]; then
    if [ -z "${announced:-}" ]; then
      say "building into $cache; the first time takes 8 to 10 minutes (a node 4 more, Helm 5, Prometheus 3, kube-score 1) on two cores, later ones seconds"; announced=1
    fi
    say "$name: building"
    : >"$work/log"
    beat "$name" 9>&- & heartbeat=$!
    if ! (cd "$module" && go build -v -o "$work/new-$name" -tags "$tags" -ldflags "$ldflags" "$package") 2>"$work/log" 9>&-; then
      tail -n 20 "$work/log" >&2; say "$name: build failed"; exit 1
    fi
    kill "$heartbeat"; wait "$heartbeat" 2>/dev/null || true
    mv "$work/new-$name" "$cache/executables/$name-$key"
    say "$name: built in $((SECONDS - began)) s"
  fi
  ln "$cache/executables/$name-$key" "$work/$name"
}

kubernetes() {
  local version=k8s.io/component-base/version module=. tag
  [ "$what" != oldest ] || module=oldest
  tag=$(sed -n 's/^\tk8s.io\/kubernetes \(v[0-9.]*\).*/\1/p' "$module/go.mod")
  build "$1" "$module" "k8s.io/kubernetes/cmd/$1" "-X $version.gitVersion=$tag -X $version.gitMajor=1 -X $version.gitMinor=$(cut -d. -f2 <<<"$tag") -X $version.gitTreeState=clean"
}

# without the snapshotters that need C libraries or kernel modules
containerd() {
  local module=github.com/containerd/containerd/v2 tag
  tag=$(sed -n "s|^\t$module \(v[0-9.]*\).*|\1|p" containerd/go.mod)
  build "$1" containerd "$module/cmd/$1" "-X $module/version.Version=$tag" "no_btrfs no_devmapper no_zfs"
}

helm() {
  local module=helm.sh/helm/v$1 tag
  tag=$(sed -n "s|^\t$module \(v[0-9.]*\).*|\1|p" "helm$1/go.mod")
  build "helm$1" "helm$1" "$module/cmd/helm" "-X $module/internal/version.version=$tag"
}

# Without the discovery of targets in clouds and clusters, which is most of it: tests name their targets.
prometheus() {
  local module=github.com/prometheus/prometheus tag
  tag=$(sed -n "s|^\t$module v0\.\([0-9.]*\).*|\1|p" prometheus/go.mod) # v0.316.0 is Prometheus 3.16.0
  build "$1" prometheus "$module/cmd/$1" \
    "-X github.com/prometheus/common/version.Version=${tag:0:1}.$((10#${tag:1:2})).${tag#*.}" remove_all_sd
}

for name in $names; do
  if [ -n "$assets" ] && [ -x "$assets/$name" ]; then
    say "$name: taken from KUBEBUILDER_ASSETS"
    ln -s "$assets/$name" "$work/$name"
    continue
  fi
  [[ -z "$assets" || " $components " != *" $name "* ]] || say "$name: not in KUBEBUILDER_ASSETS, the pinned version is used"
  case $name in
  control-plane) build control-plane launcher . ;;
  kstatus) build kstatus kstatus . ;;
  # the new encoding/json is the fastest that Go has
  peer) GOEXPERIMENT=jsonv2 build peer ../../benches/peers . ;;
  helm*) helm "${name#helm}" ;;
  prom*) prometheus "$name" ;;
  etcd) build etcd etcd go.etcd.io/etcd/server/v3 ;;
  kube-score) build kube-score kube-score github.com/zegl/kube-score/cmd/kube-score ;;
  kwok) build kwok kwok sigs.k8s.io/kwok/cmd/kwok ;;
  containerd* | ctr) containerd "$name" ;;
  *) kubernetes "$name" ;;
  esac
done
rm -rf "$folder" "$work/log"
mv "$work" "$folder"
echo "$folder"
