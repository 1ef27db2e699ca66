#!/bin/bash
# build.sh SRC KERNELDIR OUT: makes OUT/vmlinuz and OUT/initrd.gz of handoff's
# arm64 binaries and tests; SRC is this repository.
# OVERLAY=rootfs adds a root of rootfs.sh, and NODE_MODULES=dir the integration tests.
set -euo pipefail
src=$(realpath "$1") kernel=$(realpath "$2") out=$(mkdir -p "$3" && realpath "$3")
root=$out/root
rm -rf "$root"; mkdir -p "$root"
if [ -n "${OVERLAY:-}" ]; then cp -a "$OVERLAY"/. "$root"/; fi
mkdir -p "$root"/{bin,tests,modules,proc,sys,dev,tmp,root,etc,src,var/log/nginx,var/lib/nginx}
cd "$src"
export GOOS=linux GOARCH=arm64 CGO_ENABLED=0
go build -o "$root/bin/handoff" ./cmd/handoff
go build -o "$root/bin/goserver" ./integration/testdata/any/goserver
go build -o "$root/init" ./tools/arm64/armcheck
GOARCH=arm go build -o "$root/bin/goserver32" ./integration/testdata/any/goserver
for p in handoff internal/bindintercept master master/fleet internal/nodeipc internal/cpus internal/tail internal/config; do
	go test -c -o "$root/tests/${p//\//-}.test" ./$p
done
git -C "$src" archive HEAD | tar -x -C "$root/src" # golden files
for name in check ip go; do [ -e "$root/bin/$name" ] || ln -s /init "$root/bin/$name"; done
printf 'root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n' >"$root/etc/passwd"
printf 'root:x:0:\nwww-data:x:33:\nnogroup:x:65534:\n' >"$root/etc/group"
if [ -n "${NODE_MODULES:-}" ]; then
	mkdir "$root"/{itests,prebuilt}
	go test -c -o "$root/itests/integration.test" ./integration
	cp -a integration/testdata integration/package.json "$root/itests/"
	cp -a "$NODE_MODULES" "$root/itests/node_modules"
	cp "$root"/bin/{handoff,goserver} "$root/prebuilt/"
fi
printf "127.0.0.1 localhost\n::1 localhost ip6-localhost\n" >"$root/etc/hosts"; echo "hosts: files" >"$root/etc/nsswitch.conf"
n=0
for m in ipv4/inet_diag ipv4/tcp_diag; do
	f=$(find "$kernel" -path "*/net/$m.ko*" | head -1)
	n=$((n + 1))
	case $f in
	*.xz) xz -dc "$f" >"$root/modules/$n-$(basename "${f%.xz}")" ;;
	?*) cp "$f" "$root/modules/$n-$(basename "$f")" ;;
	*) echo "no module $m" ;;
	esac
done
(cd "$root" && find . -print0 | cpio --null -o --quiet -H newc -R 0:0 | ${PACK:-gzip -1}) >"$out/initrd.gz"
cp "$kernel"/boot/vmlinuz-* "$out/vmlinuz"
ls -l "$out"
