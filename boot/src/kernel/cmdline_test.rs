//! Tests of checking the command line and appending to it.

use proptest::prelude::*;

use super::*;
use crate::fixtures::{bzimage, chain, elf, load_all, memory, proptest_config};

fn appended(line: &str, parameter: &str) -> String {
    let mut line = CommandLine::new(line).unwrap();
    line.append(parameter).unwrap();
    line.as_str().to_owned()
}

#[test]
fn a_line_is_kept_as_written() {
    for line in ["", "console=ttyS0  quiet", " -- init", "a=\"b -- c\" -- d"] {
        assert_eq!(CommandLine::new(line).unwrap().as_str(), line);
    }
}

#[test]
fn parameters_go_before_the_arguments_of_init() {
    assert_eq!(appended("", "pci=off"), "pci=off");
    assert_eq!(appended("quiet ", "pci=off"), "quiet pci=off");
    assert_eq!(
        appended("quiet -- single", "pci=off"),
        "quiet pci=off -- single"
    );
    assert_eq!(appended("quiet --", "pci=off"), "quiet pci=off --");
    assert_eq!(appended(" -- single", "pci=off"), "pci=off -- single");
    assert_eq!(
        appended("a=x--y \"b -- c\"", "pci=off"),
        "a=x--y \"b -- c\" pci=off"
    );
}

#[test]
fn virtio_mmio_parameters_have_the_syntax_of_the_kernel() {
    let mut line = CommandLine::new("quiet").unwrap();
    line.append_virtio_mmio(&layout::virtio_mmio_window(0).unwrap())
        .unwrap();
    line.append_virtio_mmio(&VirtioMmioWindow {
        base: 0xd000_0000,
        len: 0x200,
        gsi: 7,
    })
    .unwrap();
    assert_eq!(
        line.as_str(),
        "quiet virtio_mmio.device=4K@0xc0001000:5 virtio_mmio.device=512@0xd0000000:7"
    );
}

#[test]
fn parameters_are_recognised() {
    let line = CommandLine::new("console=ttyS0 acpi=off -- pci=off").unwrap();
    assert!(line.disables_acpi());
    assert!(line.has("console="));
    assert!(!line.has("pci=off"));
    assert!(
        !CommandLine::new("xacpi=off \"acpi=off x\"")
            .unwrap()
            .disables_acpi()
    );
}

#[test]
fn only_one_printable_line_is_allowed() {
    assert_eq!(
        CommandLine::new("quiet\nroot=/dev/vda")
            .unwrap_err()
            .to_string(),
        "byte 5 is '\\n': only printable ASCII is allowed, on one line"
    );
    assert!(CommandLine::new("a\0b").is_err());
    assert!(CommandLine::new("müsli").is_err());
}

#[test]
fn the_limit_is_that_of_the_kernel() {
    let longest = "x".repeat(DEFAULT_CAPACITY - 1);
    assert!(CommandLine::new(&longest).is_ok());
    assert!(CommandLine::new(&longest).unwrap().append("y").is_err());
    let longer = format!("{longest}x");
    assert_eq!(
        CommandLine::new(&longer).unwrap_err(),
        CmdlineError::TooLong {
            len: 2048,
            max: 2047
        }
    );

    let error = chain(&load_all(&memory(64), &elf(true), None, &longer).unwrap_err());
    assert_eq!(
        error,
        "invalid kernel command line: it has 2048 bytes, but the kernel takes at most 2047: shorten it"
    );
    let mut kernel = bzimage();
    kernel[0x238..0x23c].copy_from_slice(&3000u32.to_le_bytes());
    assert!(load_all(&memory(64), &kernel, None, &longer).is_ok());
    // A kernel that claims more cannot make the line leave its place.
    kernel[0x238..0x23c].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(load_all(&memory(64), &kernel, None, &"x".repeat(MAX_CAPACITY)).is_err());
}

proptest! {
    #![proptest_config(proptest_config())]

    #[test]
    fn appending_never_panics_and_keeps_the_line(line in "[a-c =\"-]{0,40}", parameter in "[a-c=]{1,8}") {
        let mut appended = CommandLine::new(&line).unwrap();
        appended.append(&parameter).unwrap();
        prop_assert!(appended.as_str().contains(&parameter));
        prop_assert_eq!(appended.as_str().replace(' ', "").len(), line.replace(' ', "").len() + parameter.len());
    }

    #[test]
    fn arbitrary_text_never_panics(line in any::<String>()) {
        if let Ok(mut line) = CommandLine::new(&line) {
            let _ = line.append("pci=off");
            let _ = line.disables_acpi();
        }
    }
}
