#!/bin/sh
# Customizes the system in which it runs: fstab, GRUB configuration and cloud-init. disk.sh runs it as root of the new
# system.
#
# usage: customize.sh ROOT-UUID ROOT-PARTUUID
set -eu

here=$(dirname "$0")
root_uuid=$1
root_partuuid=$2

printf 'UUID=%s / ext4 rw,errors=remount-ro 0 1\n' "$root_uuid" >/etc/fstab
printf 'localhost\n' >/etc/hostname
printf '127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n' >/etc/hosts
# Each guest creates its own machine id, and cloud-init creates its host keys.
: >/etc/machine-id
rm -f /var/lib/dbus/machine-id
rm -f /etc/ssh/ssh_host_*
install -m 644 "$here/cloud.cfg" /etc/cloud/cloud.cfg.d/90_image.cfg
systemctl --quiet enable systemd-networkd
# For LVM snapshots, which a guest's disk does not have. It takes a fifth of a boot on an emulated host.
systemctl --quiet disable e2scrub_reap

# GRUB's defaults as its package would install them with a boot loader, and the guest's console.
install -m 644 /usr/share/grub/default/grub /etc/default/grub
install -m 644 "$here/grub.cfg" /etc/default/grub.d/15_console.cfg

# update-grub asks grub-probe for the device of the files, which are on none yet. A script gives the answers of the finished
# disk.
probe=/usr/sbin/grub-probe
mv "$probe" "$probe.own"
sed "s/@ROOT_UUID@/$root_uuid/; s/@ROOT_PARTUUID@/$root_partuuid/" "$here/grub-probe" >"$probe"
chmod 755 "$probe"
mkdir -p /boot/grub /dev/disk/by-uuid
: >"/dev/disk/by-uuid/$root_uuid"
grub-editenv /boot/grub/grubenv create
update-grub
mv "$probe.own" "$probe"
rm -r /dev/disk
