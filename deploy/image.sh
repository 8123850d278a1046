#!/usr/bin/env bash
# Builds the operator's image, a static executable and nothing else, with what is there: Docker, Podman or Buildah, which
# needs no engine. In target/image are then the image as an archive, which each of them, containerd and Skopeo can load, and
# its SBOM. The last line on stdout is the archive's path.
# usage: image.sh [--sbom] [NAME:TAG]   default: taskrun-operator:VERSION; --sbom needs cargo-cyclonedx
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
fail() { echo "image: $*" >&2; exit 1; }
sbom=
if [ "${1:-}" = --sbom ]; then sbom=yes; shift; fi
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
image=${1:-taskrun-operator:$version}

if timeout 10 docker info >/dev/null 2>&1; then builder=docker
elif command -v podman >/dev/null; then builder=podman
elif command -v buildah >/dev/null; then builder=buildah
else fail "needs a Docker engine that runs, Podman or Buildah; without an engine: apt-get install buildah"
fi

# with the page in it, where there is Node
make --silent page >&2

# A target of its own, so that build scripts and macros, which are loaded while it is built, are not static.
host=$(rustc -vV | sed -n 's/^host: //p')
[[ $host == *-linux-* ]] || fail "the image is built on Linux, not on $host"
executable=$(RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked --target "$host" \
  --bin taskrun-operator --message-format json-render-diagnostics |
  sed -n 's/.*"executable":"\([^"]*\/taskrun-operator\)".*/\1/p')
folder=${executable%/*/release/*}/image
name=$folder/${image//[:\/]/-}
mkdir -p "$folder/context"
ln -f "$executable" "$folder/context/taskrun-operator"

build=(-f deploy/Containerfile --build-arg "VERSION=$version" --iidfile "$name.id" -t "$image" "$folder/context")
rm -f "$name.tar"
case $builder in
docker)
  docker build --quiet "${build[@]}"
  docker save -o "$name.tar" "$image"
  ;;
*)
  $builder build --quiet --timestamp 0 "${build[@]}"
  # by its id: another clone may give the name to its own meanwhile
  $builder push --quiet "$(<"$name.id")" "docker-archive:$name.tar:$image"
  ;;
esac >&2
echo "image: $image by $builder, $(($(stat -c %s "$name.tar") / 1024)) KiB" >&2

if [ -n "$sbom" ]; then
  cargo cyclonedx --quiet --format json --spec-version 1.5 --describe binaries --target "$host"
  sed "s|path+file://$PWD#||g" taskrun-operator_bin.cdx.json >"$name.cdx.json"
  rm taskrun-operator_bin.cdx.json kubectl-taskrun_bin.cdx.json
  echo "image: its SBOM: $name.cdx.json" >&2
fi
echo "$name.tar"
