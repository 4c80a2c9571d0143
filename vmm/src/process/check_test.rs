use super::*;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

fn found(config: &str, dir: &Path) -> String {
    let file = dir.join("vm.json");
    fs::write(&file, config.replace("DIR", &dir.display().to_string())).unwrap();
    let (problems, _) = problems(&file);
    report(&file, &problems)
}

#[test]
fn all_problems_are_reported_at_once_with_file_and_key() {
    let dir = tempfile::tempdir().unwrap();
    let text = found(
        r#"{"boot-source":{"kernel_image_path":"DIR/nokernel","initrd_path":"DIR/noinitrd"},
        "drives":[{"drive_id":"a","is_root_device":false,"path_on_host":"DIR/noimage"},
                  {"drive_id":"b","is_root_device":false,"path_on_host":"DIR/made","size_mib":5},
                  {"drive_id":"c","is_root_device":false,"path_on_host":"DIR"}],
        "machine-config":{"vcpu_count":40,"mem_size_mib":64},
        "balloon":{"amount_mib":100,"deflate_on_oom":true},
        "mmds-config":{"network_interfaces":["none"]},
        "vsock":{"guest_cid":0,"uds_path":"v"},
        "pmem":[{"id":"p","path_on_host":"x"}]}"#,
        dir.path(),
    );
    for key in [
        "boot-source.kernel_image_path: cannot open",
        "boot-source.initrd_path: cannot open",
        "drives[0].path_on_host: cannot open",
        "drives[2].path_on_host",
        "machine-config.vcpu_count: is 40",
        "balloon.amount_mib",
        "mmds-config.network_interfaces",
        "vsock.guest_cid",
        "pmem: is not supported",
    ] {
        assert!(
            text.contains(&format!("vm.json: {key}")),
            "`{key}` is not in\n{text}"
        );
    }
    assert!(
        !text.contains("drives[1]"),
        "the jailer creates it:\n{text}"
    );
}

#[test]
fn a_correct_file_has_no_problems() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["kernel", "image"] {
        fs::write(dir.path().join(name), [0; 512]).unwrap();
    }
    let text = found(
        r#"{"boot-source":{"kernel_image_path":"DIR/kernel"},
        "drives":[{"drive_id":"a","is_root_device":false,"path_on_host":"DIR/image"}]}"#,
        dir.path(),
    );
    assert_eq!(text, "");
    let text = found("{", dir.path());
    assert!(
        text.contains("vm.json: ") && text.contains("ends early"),
        "{text}"
    );
    assert_eq!(text.lines().count(), 1);
}

#[test]
fn a_fifo_as_kernel_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    nix::unistd::mkfifo(
        &dir.path().join("fifo"),
        nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR,
    )
    .unwrap();
    let text = found(
        r#"{"boot-source":{"kernel_image_path":"DIR/fifo"},"drives":[]}"#,
        dir.path(),
    );
    assert!(text.contains("is not a regular file"), "{text}");
}

/// Returns a configuration that names six paths in DIR.
fn with_paths(places: [&str; 6]) -> String {
    let [log, metrics, prometheus, out, console, vsock] = places;
    format!(
        r#"{{"boot-source":{{"kernel_image_path":"DIR/kernel"}},"drives":[],
        "logger":{{"log_path":"DIR/{log}"}},
        "metrics":{{"metrics_path":"DIR/{metrics}","prometheus_path":"DIR/{prometheus}"}},
        "serial":{{"serial_out_path":"DIR/{out}","socket":"DIR/{console}"}},
        "vsock":{{"guest_cid":3,"uds_path":"DIR/{vsock}"}}}}"#
    )
}

const KEYS: [&str; 6] = [
    "logger.log_path",
    "metrics.metrics_path",
    "metrics.prometheus_path",
    "serial.serial_out_path",
    "serial.socket",
    "vsock.uds_path",
];

#[test]
fn a_path_in_a_missing_directory_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("kernel"), [0; 512]).unwrap();
    for (place, why) in [
        ("none/x", "/none does not exist"),
        ("kernel/x", "/kernel is not a directory"),
    ] {
        let text = found(&with_paths([place; 6]), dir.path());
        for (line, key) in text.lines().zip(KEYS) {
            let good = line.contains(&format!("{key}: ")) && line.contains(why);
            assert!(good, "{key}: {why}: {line}");
        }
        assert_eq!(text.lines().count(), 6, "{text}");
    }
}

#[test]
fn a_path_that_is_in_use_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("kernel"), [0; 512]).unwrap();
    fs::create_dir(dir.path().join("d")).unwrap();
    let _alive = unix_socket::listen(&dir.path().join("alive")).unwrap();
    let text = found(
        &with_paths(["d", "d", "d", "d", "kernel", "alive"]),
        dir.path(),
    );
    for (line, key) in text.lines().zip(KEYS) {
        let good = line.contains(key) && line.contains("something else, or is in use");
        assert!(good, "{key}: {line}");
    }
    assert_eq!(text.lines().count(), 6, "{text}");
    assert_eq!(fs::read(dir.path().join("kernel")).unwrap(), [0; 512]);
}

#[test]
fn a_read_only_directory_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o555)).unwrap();
    let path = dir.path().join("x");
    let result = check_directory(&path).map_err(|e| e.to_string());
    // The superuser may write anywhere.
    match fs::write(&path, "") {
        Ok(()) => assert_eq!(result, Ok(())),
        Err(_) => assert!(
            result
                .unwrap_err()
                .contains("cannot write to the directory")
        ),
    }
}

#[test]
fn usable_paths_are_accepted_and_nothing_is_created() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("kernel"), [0; 512]).unwrap();
    fs::write(path("log"), "before").unwrap();
    nix::unistd::mkfifo(&path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    drop(unix_socket::listen(&path("dead")).unwrap());
    let text = found(
        &with_paths(["log", "fifo", "log", "new1", "dead", "new2"]),
        dir.path(),
    );
    assert_eq!(text, "");
    assert_eq!(fs::read(path("log")).unwrap(), b"before");
    assert!(!path("new1").exists() && !path("new2").exists());
}

#[test]
fn paths_in_a_future_jail_are_not_checked() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("kernel"), [0; 512]).unwrap();
    let drive =
        r#""drives":[{"drive_id":"a","is_root_device":false,"path_on_host":"DIR/a","size_mib":5}]"#;
    let config = with_paths(["none/x"; 6]).replace(r#""drives":[]"#, drive);
    assert_eq!(found(&config, dir.path()), "");
}
