/*
 * A kernel of a few hundred bytes for any /dev/kvm, also one that interprets instructions. build.sh compiles it; tests/api.rs
 * and tests/clients.sh boot it.
 *
 * On the serial port it prints "GUEST-READY" with its command line and the end of its memory, then "tick" and a number for
 * ever. It answers input with "RX:" and the byte. Ctrl-Alt-Del resets it.
 */
#include "guest.h"

enum {
    COM1_STATUS = 0x3fd,
    KEYBOARD_COMMAND = 0x64, /* read: status */
    HAS_INPUT = 1,           /* in both statuses */
    PULSE_RESET = 0xfe,
    TURNS_PER_TICK = 4096,
    RAM = 1,                 /* type of an e820 entry */
};

/* Fields of the zero page (Documentation/arch/x86/zero-page.rst). */
enum { E820_COUNT = 0x1e8, E820 = 0x2d0, E820_ENTRY = 20 };

static u8 in(u16 port) {
    u8 value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static void print(const char *text) {
    while (*text) out(COM1_DATA, *text++);
}

static void print_hex(u64 number) {
    for (int shift = 60; shift >= 0; shift -= 4) out(COM1_DATA, "0123456789abcdef"[number >> shift & 15]);
}

static u64 memory_end(const u8 *zero_page) {
    u64 end = 0;
    for (int i = 0; i < zero_page[E820_COUNT]; i++) {
        const u8 *entry = zero_page + E820 + i * E820_ENTRY;
        u64 entry_end = *(const u64 *)entry + *(const u64 *)(entry + 8);
        if (*(const u32 *)(entry + 16) == RAM && entry_end > end) end = entry_end;
    }
    return end;
}

void guest(const u8 *zero_page) {
    print("GUEST-READY memory=");
    print_hex(memory_end(zero_page));
    print(" cmdline=[");
    print(command_line(zero_page));
    print("]\n");
    for (u64 turn = 1, ticks = 0;; turn++) {
                /* The monitor sends three keys; any of them will do. */
        if (in(KEYBOARD_COMMAND) & HAS_INPUT) {
            print("reset by the keyboard\n");
            out(KEYBOARD_COMMAND, PULSE_RESET);
        }
        if (in(COM1_STATUS) & HAS_INPUT) {
            char echo[] = {'R', 'X', ':', in(COM1_DATA), '\n', 0};
            print(echo);
        }
        if (turn % TURNS_PER_TICK == 0) {
            print("tick ");
            print_hex(++ticks);
            print("\n");
        }
    }
}
