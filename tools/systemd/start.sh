#!/bin/bash
# Runs in namespaces of its own (mount, pid, uts, ipc, cgroup): systemd as pid 1 on
# an overlay of this machine's root. $1: a folder for it. Nothing outside changes.
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
mkdir -p "$1"/{upper,work,root}
mount -t overlay overlay -o lowerdir=/,upperdir="$1/upper",workdir="$1/work" "$1/root"
cd "$1/root"
mount -t proc proc proc
mount -t tmpfs tmpfs run
mount --rbind /dev dev
mount --rbind /sys sys
mkdir -p run/systemd etc/systemd/system srv/w
cp -r "$2" srv/w/examples
cp "$3" usr/local/bin/handoff
printf '[Unit]\nDefaultDependencies=no\n' >etc/systemd/system/try.target
exec chroot . /usr/bin/env -i container=docker PATH="$PATH" /lib/systemd/systemd --system --unit=try.target --log-target=journal
