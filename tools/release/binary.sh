#!/usr/bin/env bash
# Builds the binary as it is released: the same commit, version and Go give the same bytes,
# in whatever folder. What it is made of is in it: go version -m FILE.
#   tools/release/binary.sh amd64 FILE
set -euo pipefail
cd "$(dirname "$0")/../.."
arch=$1 out=$2
version=$(sed -n 's/^ *"version": "\(.*\)",$/\1/p' sdk/node/package.json)
commit=$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
vcs=false # without a repository, as from an archive of the source
[ "$commit" = unknown ] || vcs=true
env -u GOEXPERIMENT CGO_ENABLED=0 GOOS=linux GOARCH="$arch" GOAMD64=v1 GOARM64=v8.0 \
  go build -tags nethttpomithttp2 -trimpath -buildvcs=$vcs -ldflags "-s -w -X main.version=$version -X main.commit=$commit" -o "$out" ./cmd/handoff
