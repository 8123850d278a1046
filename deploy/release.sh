#!/usr/bin/env bash
# Makes everything that a release has, in target/release-VERSION, and says what keeps this commit from being one. It tags,
# signs and uploads nothing. Exit code 1 where something is missing.
# usage: release.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
host=$(rustc -vV | sed -n 's/^host: //p')
target=$(cargo metadata --locked --no-deps --format-version 1 | python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')
folder=$target/release-$version
missing=()
lack() { missing+=("$*"); }

# One version everywhere, and a changelog that tells of it ---------------------------------------------------------
says() { grep -qE -- "$2" "$1" || lack "$1 does not say $3"; }
says deploy/deployment.yaml "image: taskrun-operator:$version( |\$)" "image: taskrun-operator:$version"
says deploy/chart/Chart.yaml "^version: $version\$" "version: $version"
says deploy/chart/Chart.yaml "^appVersion: \"?$version\"?\$" "appVersion: $version"
says CHANGELOG.md "^## \[?$version\]? - [0-9]{4}-[0-9]{2}-[0-9]{2}\$" "what is new, under \"## $version - $(date +%F)\""
[ -z "$(git status --porcelain)" ] || lack "the working tree has changes that are not committed"
! git rev-parse --quiet --verify "refs/tags/v$version" >/dev/null || lack "the tag v$version exists: raise the version in Cargo.toml"

# What users take ---------------------------------------------------------------------------------------------------
export TASKRUN_REVISION; TASKRUN_REVISION=$(git rev-parse HEAD)
make --silent page >&2
[ -s page/dist/index.html ] || lack "the page is not in it: make page says why"
rm -rf "$folder"
mkdir -p "$folder"
image=$(make --silent image | tail -n 1)
gzip -n9 <"$image" >"$folder/taskrun-operator-$version-image-$host.tar.gz"
sed -n "/^## \[\?$version\]\? /,/^## /{/^## /d;p}" CHANGELOG.md >"$folder/NOTES.md"
kubectl kustomize deploy >"$folder/install.yaml"
kubectl kustomize crds >"$folder/crds.yaml"
helm=$(tests/control-plane/build.sh helm)/helm4
packaged=$("$helm" package deploy/chart --destination "$folder" 2>&1) || { echo "$packaged" >&2; exit 1; } # tells of each link
RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked --target "$host" --bin kubectl-taskrun
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$(git log -1 --format=%ct)" -C "$target/$host/release" \
  -cf - kubectl-taskrun | gzip -n9 >"$folder/kubectl-taskrun-$version-$host.tar.gz"
cp "${image%.tar}.cdx.json" "$folder/taskrun-operator-$version.cdx.json"
if [ -s page/dist/index.html ]; then
  (cd page && npm sbom --omit dev --package-lock-only --sbom-format cyclonedx) >"$folder/taskrun-operator-page-$version.cdx.json"
fi
(cd "$folder" && sha256sum -- *.* >SHA256SUMS)

(cd "$folder" && ls -l --block-size=KiB)
if [ ${#missing[@]} -gt 0 ]; then
  echo "release: made in $folder, but this commit is no release:"
  printf '  %s\n' "${missing[@]}"
  exit 1
fi
echo "release: made in $folder. docs/releasing.md says how to sign and publish it:"
echo "  git tag --sign v$version --file $folder/NOTES.md"
