#!/usr/bin/env bash
# Builds a release into a folder: archives, .deb and .rpm for amd64 and arm64, npm
# tarballs, SBOMs, checksums. The same source gives the same bytes. Nothing is published.
#   tools/release/build.sh dist
set -euo pipefail
cd "$(dirname "$0")/../.."
out=$(mkdir -p "${1:-dist}" && cd "${1:-dist}" && pwd)
if [ -n "$(ls -A "$out")" ] && [ ! -f "$out/SHA256SUMS" ]; then
  echo "build.sh: $out is not empty, and not a release of before: nothing is done" >&2
  exit 1
fi
rm -rf "${out:?}"/*
version=$(node -p 'require("./sdk/node/package.json").version')
commit=$(git rev-parse HEAD 2>/dev/null || echo unknown)
# With which Go: one that has the fixes which handoff needs, see make vuln.
export GOTOOLCHAIN=${GOTOOLCHAIN:-$(cat tools/release/go.version)}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
export SOURCE_DATE_EPOCH CGO_ENABLED=0 GOOS=linux
nfpm=github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.45.2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# What all architectures have: man pages, completions, docs.
share=$work/share
mkdir -p "$share/man" "$share/completions"
tools/release/binary.sh "$(env -u GOOS go env GOHOSTARCH)" "$work/native"
go run -tags man -ldflags "-X main.version=$version" ./cmd/handoff man --dir "$share/man" >/dev/null
gzip -9n "$share"/man/*.1
for shell in bash zsh fish; do "$work/native" completion "$shell" > "$share/completions/handoff.$shell"; done

for arch in amd64 arm64; do
  tree=$work/handoff-$version-linux-$arch
  mkdir -p "$tree"
  tools/release/binary.sh "$arch" "$tree/handoff"
  cp -r README.md CHANGELOG.md SECURITY.md LICENSE "$share/man" "$share/completions" "$tree/"
  cp tools/release/handoff@.service "$tree/"
  tar --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --mode=u+rw,go+r-w -C "$work" -cf - "handoff-$version-linux-$arch" |
    gzip -9n > "$out/handoff-$version-linux-$arch.tar.gz"
  find "$tree" -exec touch -hd "@$SOURCE_DATE_EPOCH" {} +
  sed -e "s|@TREE@|$tree|g" -e "s|@ARCH@|$arch|g" -e "s|@VERSION@|$version|g" tools/release/nfpm.yaml > "$work/nfpm.yaml"
  for format in deb rpm; do
    env -u GOOS go run "$nfpm" package -f "$work/nfpm.yaml" -p "$format" -t "$out" >/dev/null
  done
  env -u GOOS go run ./tools/release/sbom -version "$version" "$tree/handoff" > "$out/handoff-$version-linux-$arch.cdx.json"
done
env -u GOOS tools/npm/build.sh "$work/npm" >/dev/null
cp "$work"/npm/*.tgz "$out/"
env -u GOOS go version -m "$work/handoff-$version-linux-amd64/handoff" | sed -n '/^\tdep\t/d; s/^\t//p' > "$work/built"
sed -e "s|@VERSION@|$version|g" -e "s|@COMMIT@|$commit|g" -e "s|@GO@|$(env -u GOOS go env GOVERSION)|g" -e "/@BUILT@/{r $work/built" -e 'd}' tools/release/VERIFY.md > "$out/VERIFY.md"
(cd "$out" && sha256sum -- * > SHA256SUMS && cat SHA256SUMS)
