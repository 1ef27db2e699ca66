#!/bin/bash
# rootfs.sh DIR PACKAGE...: unpacks Debian's arm64 packages, and all they need,
# into DIR/root (no maintainer scripts are run). After kernel.sh KERNELDIR.
set -euo pipefail
dir=$(mkdir -p "$1" && cd "$1" && pwd); shift
mkdir -p "$dir"/apt/{lists/partial,cache/archives/partial} "$dir"/root
: >"$dir/apt/status"
apt=(-o Dir::State="$dir/apt" -o Dir::State::lists="$dir/apt/lists" -o Dir::State::status="$dir/apt/status"
     -o Dir::Cache="$dir/apt/cache" -o APT::Architecture=arm64 -o APT::Architectures::=arm64
     -o APT::Sandbox::User=root -o Debug::NoLocking=1 -o APT::Keep-Downloaded-Packages=true -o APT::Install-Recommends=false
     -o Dir::Etc::PreferencesParts=/dev/null)
apt-get "${apt[@]}" -qq update
apt-get "${apt[@]}" -qq -y --download-only install "$@"
# base-files first, whose links (/bin is usr/bin) the others follow
cd "$dir/root"; mkdir -p usr/{bin,sbin,lib}; for d in bin sbin lib; do [ -e $d ] || ln -s usr/$d $d; done
for deb in "$dir"/apt/cache/archives/*.deb; do dpkg-deb --fsys-tarfile "$deb" | tar -x --keep-directory-symlink; done
rm -rf usr/share/{doc,man,locale,info} var/cache
du -sh .
