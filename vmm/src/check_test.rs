use super::*;
use std::fs;

fn found(config: &str, dir: &Path) -> String {
    let file = dir.join("vm.json");
    fs::write(&file, config.replace("DIR", &dir.display().to_string())).unwrap();
    let (problems, _) = problems(&file);
    report(&file, &problems)
}

#[test]
fn everything_wrong_is_told_at_once_with_the_file_and_the_key() {
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
    assert!(!text.contains("drives[1]"), "the jailer makes it:\n{text}");
}

#[test]
fn a_file_without_faults_has_none() {
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
fn a_kernel_that_would_be_waited_for_is_refused() {
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
