# shellcheck shell=sh
# The disk image: a standard Debian with its own kernel, GRUB configuration and cloud-init. build.sh sources this file and provides
# the list of package versions, `work` and `finished`. disk/customize.sh runs inside the new system.

DISK_SIZE=1G
# Ids for the image's fstab and GRUB configuration; any will do.
DISK_ROOT_UUID=8d3a1cf0-2f5e-4b0a-9d55-6c0f5a7e2b11
DISK_ROOT_PARTUUID=5b1e0a52-7c0e-4f7d-8f0c-0b6f7f0e9c22
# Partition numbers as in Debian's cloud images: the root file system, and room for a boot loader.
DISK_PARTITIONS="label: gpt
start=2MiB, type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709, uuid=$DISK_ROOT_PARTUUID, name=root
start=1MiB, size=1MiB, type=21686148-6449-6E6F-744E-656564454649, name=bios"
DISK_ROOT_OFFSET=$((2 << 20))
# The partition ends before the backup partition table.
DISK_ROOT_SIZE=1020M
# mkinitramfs and grub-mkconfig without a boot loader: Bantam loads the files that they write. nftables and iproute2 are for
# tests, in which the image is a host of guests, too.
DISK_PACKAGES=systemd-sysv,udev,dbus,e2fsprogs,fdisk,iproute2,kmod,nftables,linux-image-cloud-amd64,initramfs-tools,zstd,grub2-common,cloud-init,cloud-guest-utils,netplan.io,openssh-server,sudo

# debian_disk: builds $work/debian.raw in mmdebstrap's hooks, in which files have their final owners, with and without root.
debian_disk() {
    say "install Debian bookworm with its kernel, GRUB and cloud-init (a minute or two)"
    raw=$work/debian.raw
    truncate -s "$DISK_SIZE" "$raw"
    printf '%s\n' "$DISK_PARTITIONS" | sfdisk --quiet "$raw" >/dev/null
        # mmdebstrap decides who is root of the file system.
    chmod 666 "$raw"
    mkdir "$work/disk-root"
        # The bind mount leaves out mounts below it, such as /proc.
    populate="mount --bind \"\$1\" '$work/disk-root' &&
        mke2fs -q -t ext4 -F -L root -U $DISK_ROOT_UUID -m 1 -d '$work/disk-root' \
            -E offset=$DISK_ROOT_OFFSET,root_owner=0:0,lazy_itable_init=0 '$raw' $DISK_ROOT_SIZE &&
        umount '$work/disk-root'"
    # shellcheck disable=SC2016  # mmdebstrap's hooks have the root directory as $1
    install_debian "$DISK_PACKAGES" /dev/null --format=null \
        --customize-hook="copy-in '$GUEST_DIR/disk' /root" \
        --customize-hook='chroot "$1" /root/disk/customize.sh '"$DISK_ROOT_UUID $DISK_ROOT_PARTUUID" \
        --customize-hook='rm -rf "$1/root/disk" "$1/var/cache/apt" "$1/var/lib/apt/lists"' \
        --customize-hook="$populate"
    chmod 644 "$raw"
}
