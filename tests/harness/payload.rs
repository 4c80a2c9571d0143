//! Kernels of a few instructions, which run on any `/dev/kvm`, also on one that interprets guests.

use std::fs;
use std::path::{Path, PathBuf};

/// Load address and entry point of the code.
const ENTRY: u64 = 0x10_0000;

/// Writes an ELF kernel that consists of `code`, entered in 64-bit mode. Returns its path.
pub fn write(dir: &Path, code: &[u8]) -> PathBuf {
    let path = dir.join("payload");
    let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    elf.extend(2_u16.to_le_bytes()); // executable
    elf.extend(62_u16.to_le_bytes()); // x86-64
    elf.extend(1_u32.to_le_bytes());
    elf.extend(ENTRY.to_le_bytes());
    elf.extend(64_u64.to_le_bytes()); // program headers
    elf.extend(0_u64.to_le_bytes());
    elf.extend(0_u32.to_le_bytes());
    for half in [64_u16, 56, 1, 0, 0, 0] {
        elf.extend(half.to_le_bytes());
    }
    elf.extend(1_u32.to_le_bytes()); // load
    elf.extend(5_u32.to_le_bytes()); // read, execute
    for field in [120, ENTRY, ENTRY, code.len() as u64, code.len() as u64, 1] {
        elf.extend(field.to_le_bytes());
    }
    elf.extend(code);
    fs::write(&path, elf).unwrap();
    path
}

/// Returns code that ends the guest with `status`: `mov al, status; out 0xf4, al; jmp $`.
pub fn exit(status: u8) -> Vec<u8> {
    vec![0xb0, status, 0xe6, 0xf4, 0xeb, 0xfe]
}

/// Returns code that writes `text` to the serial port.
pub fn print(text: &str) -> Vec<u8> {
    let mut code = vec![0x66, 0xba, 0xf8, 0x03]; // mov dx, 0x3f8
    for byte in text.bytes() {
        code.extend([0xb0, byte, 0xee]); // mov al, byte; out dx, al
    }
    code
}

/// Returns code that writes `text` to the serial port and then loops for ever.
pub fn endless(text: &str) -> Vec<u8> {
    let mut code = print(text);
    code.extend([0xeb, 0xfe]); // jmp $
    code
}

/// Address of the first device's registers, and the distance to the next device's.
const WINDOWS: (u32, u32) = (0xc000_1000, 0x1000);

/// Returns code that twice completes the initialization of each of `devices` without enabling a queue, with a reset in
/// between, and ends with the bitwise AND of all status registers.
pub fn idle_drivers(devices: u32) -> Vec<u8> {
    let (first, step) = WINDOWS;
    let mut code = vec![0xb9, 0xff, 0xff, 0xff, 0xff]; // mov ecx, -1
    for device in 0..devices {
        code.push(0xbb); // mov ebx, the window
        code.extend((first + device * step).to_le_bytes());
        for (register, value) in [
            (0x70, 1_u32),
            (0x70, 3),
            // VERSION_1, a feature of the upper half.
            (0x24, 1),
            (0x20, 1),
            (0x70, 0xb),
            (0x70, 0xf),
            (0x70, 0),
        ]
        .repeat(2)
        .into_iter()
        // DRIVER_OK at the end.
        .take(13)
        {
            code.extend([0xc7, 0x43, register]); // mov dword [rbx + register], value
            code.extend(value.to_le_bytes());
        }
        code.extend([0x8b, 0x43, 0x70, 0x21, 0xc1]); // mov eax, [rbx + 0x70]; and ecx, eax
    }
    code.extend([0x89, 0xc8, 0xe6, 0xf4, 0xeb, 0xfe]); // mov eax, ecx; out 0xf4, al; jmp $
    code
}
