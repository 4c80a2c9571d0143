//! A pool on a real NFS server: the kernel's, on this host.

use crate::harness::{Guest, announce, image, journal, needs_kvm, sh};
use crate::host::Host;
use crate::world::{GID, UID, bantamctl, contains};
use serde_json::json;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longest wait for a guest on an emulated host.
const PATIENCE: Duration = Duration::from_secs(150);

/// The server's user-space processes.
struct Server(Vec<Child>);

impl Server {
    /// Starts the server in this test's network, with `exported` as its root, for this host. Its leases and its grace
    /// period are as short as possible.
    fn start(host: &mut Host, exported: &Path) -> Self {
        sh("modprobe -a nfsd nfsv4
            ip link set lo up
            mount -t nfsd nfsd /proc/fs/nfsd
            mkdir -p /run/rpc_pipefs /var/lib/nfs
            mount -t rpc_pipefs rpc /run/rpc_pipefs
            mount -t tmpfs own /var/lib/nfs
            mkdir /var/lib/nfs/nfsdcld; touch /var/lib/nfs/etab /var/lib/nfs/rmtab
            echo 10 >/proc/fs/nfsd/nfsv4leasetime; echo 10 >/proc/fs/nfsd/nfsv4gracetime");
        host.at_end("umount /run/rpc_pipefs /var/lib/nfs; umount /proc/fs/nfsd");
        host.at_end("rpc.nfsd 0; exportfs -ua");
        let options = "rw,sync,no_root_squash,no_subtree_check,fsid=0";
        let shown = exported.display();
        sh(&format!("exportfs -i -o {options} 127.0.0.1:{shown}"));
        let run = |words: &[&str]| {
            let mut command = Command::new(words[0]);
            command
                .args(&words[1..])
                .stdin(Stdio::null())
                .spawn()
                .unwrap()
        };
        let server = Self(vec![
            run(&["nfsdcld", "-F"]),
            run(&["rpc.mountd", "-F", "-N", "2", "-N", "3"]),
        ]);
        // The first process waits for the kernel's end of a pipe; the kernel asks it at its own start.
        std::thread::sleep(Duration::from_millis(500));
        // It waits a tenth of a second for the answer, which may be too short on a slow host. Without the answer, the
        // clients' locks would not survive the server's restart.
        for _ in 0..20 {
            let before = remembering();
            sh(SERVE);
            if remembering() > before {
                return server;
            }
            sh("rpc.nfsd 0");
        }
        panic!("the NFS server does not remember its clients");
    }
}

/// Returns how often the kernel has logged that its server tracks its clients.
fn remembering() -> usize {
    let messages = sh("dmesg");
    messages.matches("Using nfsdcld client tracking").count()
}

const SERVE: &str = "rpc.nfsd -N 3 4";

impl Drop for Server {
    fn drop(&mut self) {
        for daemon in &mut self.0 {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

/// A guest of the jailer.
struct Jailed(Child, std::path::PathBuf);

impl Jailed {
    fn console(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.1).unwrap()).into_owned()
    }

    /// Waits until `more` further files are synced.
    fn wait_for_kept(&mut self, more: usize) -> String {
        let (had, started) = (journal::kept(&self.console()).len(), Instant::now());
        loop {
            let console = self.console();
            if journal::kept(&console).len() >= had + more {
                return console;
            }
            let ended = self.0.try_wait().unwrap();
            let over = ended.is_some() || started.elapsed() > PATIENCE;
            let kernel = || sh("dmesg | tail -n 30");
            assert!(!over, "{ended:?}\n{console}\n{}", kernel());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Jailed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(host: &Host, guest: &Guest) -> Jailed {
    let config = guest.write_config();
    let console = host.world.path("console");
    let mut command: Command = host.world.jailer("nfs");
    command
        .arg("--config-file")
        .arg(config)
        .args(["--", "--no-api"]);
    command
        .stdin(Stdio::null())
        .stdout(File::create(&console).unwrap());
    Jailed(command.spawn().unwrap(), console)
}

#[test]
fn a_guest_boots_from_nfs_and_keeps_what_it_synced_when_the_server_restarts() {
    needs_kvm();
    announce("storage nfs");
    let mut host = Host::new();
    let root = host.file_system("ext4", "1G");
    let exported = root.join("images");
    fs::create_dir(&exported).unwrap();
    host.ok(
        "pool define nas --type netfs --source-host 127.0.0.1 --source-path /images --source-options vers=4.2",
    );
    contains(
        &host.fails("pool start nas", 1),
        &["cannot mount 127.0.0.1:", "that the server runs"],
    );
    assert!(!Path::new("/var/lib/bantam/pools/nas").exists());

    let _server = Server::start(&mut host, &root);
    host.ok("pool start nas");
    host.at_end("umount -f -l /var/lib/bantam/pools/nas");
    host.ok("pool autostart nas");
    let conf =
        fs::read_to_string("/etc/systemd/system/bantam-pool@nas.service.d/pool.conf").unwrap();
    contains(&conf, &["After=network-online.target"]);
    let root = image("rootfs-cloud.ext4");
    host.ok(&format!(
        "volume import --pool nas root --from {}",
        root.display()
    ));
    // A partial volume, left by a killed command.
    fs::write(exported.join(".data.12345.new"), "half").unwrap();
    host.ok("volume create --pool nas data --size 64M");
    assert!(!exported.join(".data.12345.new").exists());
    sh("mkfs.ext4 -q /var/lib/bantam/pools/nas/data");
    let data = exported.join("data");

    let writeback = |more: serde_json::Value| {
        let mut keys = json!({"pool": "nas", "cache_type": "Writeback"});
        keys.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        keys
    };
    let guest = Guest::cloud()
        .drive(
            "root",
            Path::new("root"),
            writeback(json!({"is_root_device": true})),
        )
        .drive("data", Path::new("data"), writeback(json!({})))
        .script(journal::WRITER);
    sh(&format!(
        "chown -R {UID}:{GID} {}; chmod 711 {0}",
        guest.dir().display()
    ));
    let mut jailed = start(&host, &guest);
    jailed.wait_for_kept(5);
    // The lock holds for every client of the server.
    contains(
        &host.fails("volume delete --pool nas data", 152),
        &["in use"],
    );
    contains(
        &host.fails("pool stop nas", 152),
        &["in use by guests: data, root"],
    );

    announce("storage nfs restart");
    sh(&format!("rpc.nfsd 0; sleep 3; {SERVE}"));
    let console = jailed.wait_for_kept(20);
    contains(
        &host.fails("volume delete --pool nas data", 152),
        &["in use"],
    );
    drop(jailed);
    let kept = journal::kept(&console);
    journal::check(&data, &console);
    assert!(kept.len() >= 25, "{kept:?}");

    host.ok("volume delete --pool nas data");
    assert!(!data.exists());
    host.ok("pool stop nas");
    assert!(!sh("cat /proc/self/mountinfo").contains("127.0.0.1:"));
    // A mount that someone else made is not the pool's.
    let target = "/var/lib/bantam/pools/nas";
    sh(&format!("mount -t tmpfs other {target}"));
    let said = host.fails("pool start nas", 152);
    sh(&format!("umount {target}"));
    contains(&said, &["other is already mounted on"]);
}

#[test]
fn an_interrupted_mount_leaves_nothing() {
    needs_kvm();
    let host = Host::new();
    // Packets to this server are lost.
    sh(
        "modprobe nfsv4; modprobe dummy; ip link add d0 type dummy; ip link set d0 up
        ip addr add 192.0.2.1/24 dev d0; ip neigh add 192.0.2.9 lladdr 02:00:00:00:00:09 dev d0",
    );
    host.ok("pool define gone --type netfs --source-host 192.0.2.9 --source-path /images");
    let mut command = Command::new(bantamctl());
    command.args(["pool", "start", "gone"]).stdin(Stdio::null());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(3));
    assert!(child.try_wait().unwrap().is_none());
    let id = nix::unistd::Pid::from_raw(child.id().cast_signed());
    nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGINT).unwrap();
    let interrupted = Instant::now();
    let output = child.wait_with_output().unwrap();
    assert!(interrupted.elapsed() < Duration::from_secs(15));
    assert_eq!(output.status.signal(), Some(2), "{output:?}");
    assert!(!Path::new("/var/lib/bantam/pools/gone").exists());
    contains(&host.ok("pool list"), &["gone  inactive"]);
    assert!(!sh("ps -e -o comm").contains("mount.nfs"));
}
