use super::*;

#[test]
fn the_console_is_the_serial_port_unless_the_command_line_names_another() {
    let found = |line: &str| Found {
        command_line: line.into(),
        initrd: false,
    };
    for (line, more, expected) in [
        ("root=UUID=1 ro", None, "root=UUID=1 ro console=ttyS0"),
        ("ro", Some("quiet"), "ro quiet console=ttyS0"),
        ("console=tty0 ro", Some("quiet"), "console=tty0 ro quiet"),
        ("ro", Some("console=hvc0"), "ro console=hvc0"),
        ("", None, "console=ttyS0"),
        ("noconsole=1", Some(""), "noconsole=1 console=ttyS0"),
    ] {
        assert_eq!(found(line).with(more), expected);
    }
    assert!(found("ro root=/dev/vda1").names_root());
    assert!(!found("ro xroot=1").names_root());
}
