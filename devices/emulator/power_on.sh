#!/bin/sh
# What comes before a board's first program: its file systems, and QEMU for everything that is ARM. Then the program.
#
#     unshare --user --map-root-user --mount --pid --uts --fork --kill-child \
#         power_on.sh ROOT BOARD PROGRAM QEMU COMMAND ...
#
# ROOT is the shared arm64 system, which stays as it is: a board writes to memory, and to /var/lib/edgeopt, which is
# BOARD/data. BOARD has proc/, sys/ and etc/, too, PROGRAM is what lies in /opt/edgeopt. QEMU must be static. Nothing of
# this is seen outside the new namespaces, and it goes with the last process in them.
set -eu

root=$1 board=$2 program=$3 qemu=$4
shift 4

hostname "$(cat "$board/etc/hostname")"

# An overlay whose upper layer is memory. Its options are relative, so that no character in a path can mean something.
mount -t tmpfs tmpfs "$board/place"
cd "$board/place"
mkdir lower upper work root
mount --bind "$root" lower
mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work overlay root
cd root
mkdir -p proc sys dev etc tmp opt/edgeopt var/lib/edgeopt
cp "$board"/etc/* etc/

mount -t proc proc proc
for file in "$board"/proc/*; do
    mount --bind "$file" "proc/${file##*/}"
done
mount --bind "$board/sys" sys
mount -o remount,bind,ro sys
mount -t tmpfs -o mode=755 tmpfs dev
mkdir -m 1777 dev/shm
for node in null zero full random urandom; do
    : >"dev/$node"
    mount --bind "/dev/$node" "dev/$node"
done
mount --bind "$program" opt/edgeopt
mount -o remount,bind,ro opt/edgeopt
mount --bind "$board/data" var/lib/edgeopt

# A binfmt_misc of this user namespace's own (Linux 6.7 or newer): programs for AArch64 are QEMU's. The flag F opens
# QEMU now, so that it need not exist below the new root; magic and mask are those of an ELF header.
mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
magic='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
printf '%s' ":board:M::$magic:$mask:$qemu:F" >/proc/sys/fs/binfmt_misc/register

exec "$(command -v chroot)" . "$@"
