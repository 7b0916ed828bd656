#!/bin/sh
# Makes snp.txt: "image vmm vcpus type features boot digest" a line, measured by
# sev-snp-measure (https://pypi.org/project/sev-snp-measure/, Apache-2.0), version
# 0.0.13, over the images that "go test -run TestWriteFirmware -firmware DIR" writes.
# Usage: vectors.sh DIR > snp.txt
set -eu
cd "$1"
cmdline='console=ttyS0 root=/dev/vda1 ro'
measure() { # image vmm vcpus type features boot
	set -- "$@"
	args="--mode snp --ovmf $1.fd --vmm-type $2 --vcpus $3 --guest-features $5"
	[ "$4" = - ] || args="$args --vcpu-type $4"
	vmm=$(echo "$2" | tr A-Z a-z)
	case $6 in
	none) digest=$(sev-snp-measure $args) ;;
	kernel) digest=$(sev-snp-measure $args --kernel kernel) ;;
	initrd) digest=$(sev-snp-measure $args --kernel kernel --initrd initrd) ;;
	all) digest=$(sev-snp-measure $args --kernel kernel --initrd initrd --append "$cmdline") ;;
	esac
	echo "$1 $vmm $3 $4 $5 $6 $digest"
}
for boot in none kernel initrd all; do
	for n in 1 2 4 64; do
		measure amdsev QEMU $n EPYC-v4 0x1 $boot
	done
done
for type in EPYC EPYC-v1 EPYC-v2 EPYC-IBPB EPYC-v3 EPYC-v4 EPYC-Rome EPYC-Rome-v1 EPYC-Rome-v2 EPYC-Rome-v3 EPYC-Milan EPYC-Milan-v1 EPYC-Milan-v2 EPYC-Genoa EPYC-Genoa-v1 EPYC-Turin; do
	measure plain QEMU 3 $type 0x1 none
done
measure plain QEMU 2 EPYC-Milan 0x21 none
measure amdsev QEMU 2 EPYC-Genoa 0x21 all
for vmm in ec2 gce; do
	measure plain $vmm 1 - 0x1 none
	measure plain $vmm 8 - 0x1 none
	measure amdsev $vmm 2 - 0x1 none
done
