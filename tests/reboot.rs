//! The Debian package under systemd, on a host that reboots. The package is installed, upgraded under a running guest, and
//! removed. Guests and pools that start with the host do so, with their data; the host's shutdown presses the guests'
//! power buttons; after the reboot everything that was defined is listed.
//!
//! The host is Debian's disk image in a software host of its own. A test must not reboot a hardware host.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test may be blunt: a failed unwrap is a failed test"
)]

#[path = "harness/mod.rs"]
mod harness;
#[path = "layering/links.rs"]
mod links;

use harness::{bantam, image, rounds, sh};
use std::path::Path;
use std::process::{Command, Stdio};

/// The small guest's script: it counts its starts, serves the count, and obeys the power button.
const GUEST: &str = r"
modprobe -a button evdev; echo started >>/root/log; sync
httpd -p 8080 -h /root
for d in /sys/class/input/event*; do grep -q 'Power Button' $d/device/name && e=/dev/input/${d##*/}; done
dd if=$e of=/dev/null bs=24 count=1 2>/dev/null
echo button >>/root/log; sync; poweroff -f; sleep 60";

/// The beginning of both scripts. `log N` waits until the small guest has logged N lines, and shows them.
const TOOLS: &str = r#"
set -eu
trap 'status=$?; [ $status = 0 ] || { journalctl -b --no-pager -u "bantam*" | tail -n 60; bantamctl list; } >&2' EXIT
say() { echo "$(cut -d' ' -f1 /proc/uptime) s: $*"; }
is() { say "$1"; [ "$1" = "$2" ] || { echo "expected: $2" >&2; exit 1; }; }
# A line of `bantamctl list` without the process id.
listed() { bantamctl list | awk -v name="$1" '$1 == name { print $1, $2, $6 }'; }
ask() { timeout 5 bash -c 'exec 3<>/dev/tcp/10.88.0.5/8080; printf "GET /log HTTP/1.0\r\n\r\n" >&3; cat <&3' 2>/dev/null; }
log() {
    for _ in $(seq 240); do
        ! ask | sed '1,/^\r$/d' >/tmp/log || [ "$(wc -l </tmp/log)" -lt "$1" ] || break
        sleep 0.5
    done
    tr '\n' ' ' </tmp/log
}
"#;

/// The script before the reboot: everything is made, tried under systemd, and left running.
const BEFORE: &str = r#"
growpart /dev/vda 1 >/dev/null; resize2fs /dev/vda1 >/dev/null 2>&1
dpkg --install "$PACKAGES"/bantam_1_amd64.deb >/dev/null
mkdir /srv/boot
cp "$KERNEL" "$INITRD" "$ROOT" /srv/boot
ssh-keygen -q -t ed25519 -N '' -f /root/key

bantamctl pool define vms --type dir --target /srv/vms
bantamctl pool start vms --build
bantamctl pool autostart vms
bantamctl create --name small --ram 192 --kernel "/srv/boot/${KERNEL##*/}" --initrd "/srv/boot/${INITRD##*/}" \
    --boot-args "console=ttyS0 quiet bantam.ip=10.88.0.5/24 bantam.script=$SCRIPT" \
    --disk "pool=vms,size=1,template=/srv/boot/${ROOT##*/}" \
    --network bridge=br0,bridge-address=10.88.0.1/24,address=10.88.0.5/24,guard=on --autostart >/dev/null
is "$(log 1)" "started "
is "$(systemctl is-active bantam@small) $(systemctl is-enabled bantam@small bantam-pool@vms | tr '\n' ' ')" \
    "active enabled enabled "
is "$(listed small)" "small running yes"

# systemd stops the guest by its power button, and ExecStopPost leaves nothing behind.
systemctl stop bantam@small
is "$(systemctl show bantam@small --property=ActiveState,Result,ExecMainStatus | tr '\n' ' ')" \
    "Result=success ExecMainStatus=0 ActiveState=inactive "
is "jails: $(ls /srv/jailer/bantam) rules: $(nft list tables) bridges: $(ip -o link show type bridge)" \
    "jails:  rules:  bridges: "
is "$(listed small)" "small stopped yes"
systemctl start bantam@small
is "$(log 3)" "started button started "

# A guest whose monitor fails is restarted.
kill -KILL "$(systemctl show bantam@small --property=MainPID --value)"
is "$(log 4)" "started button started started "
is "$(systemctl show bantam@small --property=NRestarts)" "NRestarts=1"

# bantamctl's own commands.
bantamctl stop small
is "$(systemctl is-active bantam@small)" inactive
bantamctl start small
is "$(log 6)" "started button started started button started "

# An upgrade of the package leaves the guest running.
before=$(systemctl show bantam@small --property=MainPID --value)
dpkg --install "$PACKAGES"/bantam_2_amd64.deb >/dev/null
is "$(dpkg-query --show bantam | tr '\t' ' ')" "bantam 2"
is "main process: $(systemctl show bantam@small --property=MainPID --value)" "main process: $before"
is "$(listed small)" "small running yes"
is "$(log 6)" "started button started started button started "

# Debian's own disk will start with the host, too; another guest will not.
bantamctl create --name debian --ram 512 --no-start --image "$IMAGE" --disk pool=vms,size=2 --ssh-key /root/key.pub \
    --network bridge=br0,bridge-address=10.88.0.1/24,address=10.88.0.6/24,guard=on --autostart >/dev/null 2>&1
bantamctl create --name idle --no-start --kernel "/srv/boot/${KERNEL##*/}" --disk pool=vms,size=1 >/dev/null
bantamctl list
say "the host goes down"
"#;

/// The script after the reboot.
const AFTER: &str = r#"
bantamctl list
bantamctl pool list
# The host's shutdown pressed the power button, too.
is "$(log 8)" "started button started started button started button started "
is "$(systemctl is-active bantam-pools.target bantam-pool@vms bantam@small bantam@debian | tr '\n' ' ')" \
    "active active active active "
is "$(systemctl show bantam@small bantam@debian --property=NRestarts | tr -d '\n')" "NRestarts=0NRestarts=0"
is "$(listed small)" "small running yes"
is "$(listed debian)" "debian running yes"
is "$(listed idle)" "idle stopped no"

if [ "$SOAK" = 1 ]; then
    guest() {
        ssh -F none -i /root/key -o StrictHostKeyChecking=accept-new -o BatchMode=yes -o ConnectTimeout=30 \
            debian@10.88.0.6 "$@" </dev/null
    }
    for _ in $(seq 300); do
        ! guest true 2>/dev/null || break
        sleep 0.5
    done
    is "$(guest 'hostname; systemctl is-active ssh' | tr '\n' ' ')" "debian active "
    systemctl stop bantam@debian
else
    bantamctl destroy debian
fi
is "$(listed debian)" "debian stopped yes"
bantamctl stop small
for name in small debian idle; do bantamctl undefine $name --remove-all-storage; done
bantamctl pool autostart vms --disable
bantamctl pool stop vms
is "$(bantamctl list | wc -l) $(ls /srv/vms) $(find /etc/systemd/system -name 'bantam*@?*.service' -type l)" "1  "

# Removing the package removes all of its files.
dpkg --listfiles bantam | grep -E '^/usr/(bin|libexec|share/man|share/bash-completion|lib/systemd)/.*[a-z]$' >/tmp/files
for file in /usr/bin/bantam /usr/bin/jailer /usr/bin/bantamctl /usr/libexec/bantam/bantam-image-reader \
    /usr/lib/systemd/system/bantam@.service /usr/share/man/man1/bantamctl.1.gz /usr/share/man/man1/bantam.1.gz \
    /usr/share/bash-completion/completions/bantamctl; do
    is "$(grep -x $file /tmp/files)" $file
done
dpkg --remove bantam >/dev/null
is "left: $(while read -r file; do [ -d $file ] || ls $file; done </tmp/files 2>/dev/null)" "left: "
is "units: $(systemctl list-unit-files --no-legend 'bantam*')" "units: "
"#;

/// Boots the host with `disk`, runs `script`, and reboots it; returns the script's output.
fn host(dir: &Path, disk: &Path, script: &str) -> String {
    let harness = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/harness/kvm-host.sh");
    std::fs::write(dir.join("guest"), GUEST).unwrap();
    let guest = sh(&format!("base64 -w 0 {}", dir.join("guest").display()));
    let mut command = Command::new(harness);
    command
        .args(["--timeout", "600", "--system"])
        .arg(disk)
        .arg("--dir")
        .arg(dir)
        .args(["--", "bash", "-c", &format!("{TOOLS}{script}")]);
    for (name, value) in [
        ("PACKAGES", dir.join("packages")),
        ("KERNEL", image("vmlinuz-cloud")),
        ("INITRD", image("initrd-cloud.img")),
        ("ROOT", image("rootfs-cloud.ext4")),
        ("IMAGE", image("debian.raw")),
        ("SCRIPT", guest.into()),
        // Takes a minute and a half more; tests/image.rs covers it on each run.
        ("SOAK", rounds(0, 1).to_string().into()),
    ] {
        command.env(name, value);
    }
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    println!("{text}");
    assert!(
        output.status.success(),
        "{}\n{said}\nthe end of its console:\n{}",
        output.status,
        sh(&format!("tail -n 40 {}/console.log", dir.display()))
    );
    text
}

/// Builds the Debian package of the programs under test.
fn build_package(out: &Path, version: &str) {
    let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("../resources/package/build.sh");
    let mut command = Command::new(build);
    command
        .arg("--programs")
        .arg(Path::new(bantam()).parent().unwrap());
    command
        .args(["--version", version, "--out"])
        .arg(out)
        .arg("deb");
    // The host that installs it is emulated.
    command.env("DPKG_DEB_COMPRESSOR_TYPE", "gzip");
    command.env("DPKG_DEB_COMPRESSOR_LEVEL", "1");
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{text}", output.status);
}

/// Checks the links of the documentation in the package, which has other places than the source.
fn check_links(packages: &Path) {
    let root = packages.join("root");
    sh(&format!(
        "dpkg-deb --extract {}/bantam_1_amd64.deb {}",
        packages.display(),
        root.display()
    ));
    let mut checked = 0;
    for dir in ["usr/share/doc/bantam", "usr/share/doc/bantam/manual"] {
        for entry in std::fs::read_dir(root.join(dir)).unwrap() {
            let page = entry.unwrap().path();
            if page.extension().is_some_and(|extension| extension == "md") {
                checked += links::check(&page);
            }
        }
    }
    assert!(checked > 20, "only {checked} links");
}

#[test]
fn guests_and_pools_come_back_with_their_host() {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk.qcow2");
    sh(&format!(
        "qemu-img create -q -f qcow2 -F raw -b {} {} 6G",
        image("debian.raw").display(),
        disk.display()
    ));
    let packages = dir.path().join("packages");
    for version in ["1", "2"] {
        build_package(&packages, version);
    }
    check_links(&packages);
    host(dir.path(), &disk, BEFORE);
    host(dir.path(), &disk, AFTER);
}
