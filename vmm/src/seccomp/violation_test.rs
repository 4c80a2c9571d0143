use super::*;

fn text(number: libc::c_int, registers: &[libc::greg_t]) -> String {
    let text = describe(number, registers);
    String::from_utf8(text.bytes[..text.len].to_vec()).unwrap()
}

#[test]
fn a_call_is_named_with_its_thread_and_arguments() {
    call_this_thread("fc_vcpu 0");
    let mut registers = [0; 23];
    registers[usize::try_from(libc::REG_RDI).unwrap()] = 0x1234;
    let text = text(165, &registers);
    assert!(
        text.starts_with("bantam: error: thread fc_vcpu 0 made the system call mount (165), which its seccomp filter refuses"),
        "{text}"
    );
    assert!(text.ends_with(": 0x1234 0x0 0x0 0x0 0x0 0x0\n"), "{text}");
}

#[test]
fn a_number_without_a_name_and_a_thread_of_a_long_one_are_told_too() {
    call_this_thread(&"x".repeat(200));
    let text = text(9999, &[]);
    assert!(text.contains("that has no name (9999)"), "{text}");
    assert!(text.len() < 400 && text.ends_with('\n'), "{text}");
}
