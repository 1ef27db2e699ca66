#!/bin/bash
# kernel.sh DIR [PACKAGE]: unpacks a Debian arm64 kernel into DIR, with an apt
# state of its own: the machine's own apt knows nothing of arm64 afterwards.
# SUITE=trixie takes another suite than the machine's.
set -euo pipefail
dir=$(mkdir -p "$1" && cd "$1" && pwd)
mkdir -p "$dir"/apt/{lists/partial,cache/archives/partial}
: >"$dir/apt/status"
apt=(-o Dir::State="$dir/apt" -o Dir::State::lists="$dir/apt/lists" -o Dir::State::status="$dir/apt/status"
     -o Dir::Cache="$dir/apt/cache" -o APT::Architecture=arm64 -o APT::Architectures::=arm64
     -o APT::Sandbox::User=root -o Debug::NoLocking=1)
if [ -n "${SUITE:-}" ]; then
	echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian $SUITE main" >"$dir/apt/sources.list"
	apt+=(-o Dir::Etc::SourceList="$dir/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null)
fi
apt-get "${apt[@]}" -qq update
image=${2:-$(apt-cache "${apt[@]}" depends linux-image-arm64 | sed -n 's/.*Depends: \(linux-image-[0-9][^ ]*\).*/\1/p' | head -1)}
(cd "$dir" && apt-get "${apt[@]}" -qq download "$image")
dpkg-deb -x "$dir/$image"_*.deb "$dir"
ls -l "$dir"/boot
