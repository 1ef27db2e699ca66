#!/usr/bin/env bash
# Builds the npm packages into a folder: @handoff/node, and one with the binary for
# each platform. Nothing is published.
#   tools/npm/build.sh dist/npm            or of one platform only:
#   tools/npm/build.sh dist/npm x64:amd64
set -euo pipefail
cd "$(dirname "$0")/../.."
out=$(mkdir -p "${1:-dist/npm}" && cd "${1:-dist/npm}" && pwd)
version=$(node -p 'require("./sdk/node/package.json").version')
for pair in ${2:-x64:amd64 arm64:arm64}; do
  cpu=${pair%:*} arch=${pair#*:}
  dir=$out/linux-$cpu
  mkdir -p "$dir/bin"
  tools/release/binary.sh "$arch" "$dir/bin/handoff" # the bytes of the archive
  cat > "$dir/package.json" <<JSON
{
  "name": "@handoff/linux-$cpu",
  "version": "$version",
  "description": "handoff for Linux on $cpu",
  "license": "MIT",
  "os": ["linux"],
  "cpu": ["$cpu"],
  "files": ["bin/handoff"],
  "preferUnplugged": true
}
JSON
  cp LICENSE "$dir/"
  (cd "$dir" && npm pack --silent --pack-destination "$out" >/dev/null)
done
(cd sdk/node && npm pack --silent --pack-destination "$out" >/dev/null)
ls -l "$out"/*.tgz
