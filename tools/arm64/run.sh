#!/bin/bash
# run.sh OUT [what...]: boots the machine of build.sh; what is reload, units,
# integration, arm32 (none: reload, units and arm32).
out=$1; shift
[ $# -gt 0 ] || set -- reload units arm32
exec nice timeout "${LIMIT:-1800}" qemu-system-aarch64 -M virt -cpu max,pauth=off -accel tcg,thread=multi -smp 2 -m "${MEMORY:-1024}" \
	-nographic -no-reboot -nic none -kernel "$out/vmlinuz" -initrd "$out/initrd.gz" \
	-append "console=ttyAMA0 panic=-1 quiet ${IARGS:+IARGS=$IARGS} -- $*" </dev/null
