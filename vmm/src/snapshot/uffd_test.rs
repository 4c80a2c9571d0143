use super::*;

#[test]
fn the_message_to_handlers_has_firecracker_s_form() {
    let mapping = Mapping {
        base_host_virt_addr: 4096,
        size: 8192,
        offset: 1,
        page_size: 4096,
        page_size_kib: 4096,
    };
    let text = serde_json::to_string(&[mapping]).unwrap();
    assert_eq!(
        text,
        r#"[{"base_host_virt_addr":4096,"size":8192,"offset":1,"page_size":4096,"page_size_kib":4096}]"#
    );
}

#[test]
fn errors_tell_how_to_mend_them() {
    let error = io::Error::from_raw_os_error(libc::EPERM);
    let text = UffdError::NotPermitted(error).to_string();
    for part in [DEVICE, "jailer", "unprivileged_userfaultfd"] {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
}
