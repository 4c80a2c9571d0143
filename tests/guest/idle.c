/*
 * A kernel of a few hundred bytes that touches memory and then idles: it halts until its timer interrupts it after ten
 * milliseconds, and writes a mark to the serial port each time. It runs on any /dev/kvm. build.sh compiles it; tests/bench has
 * a copy.
 *
 * "touch=N" on the command line makes it write to each page of N MiB from 32 MiB first.
 */
#include "guest.h"

enum {
    MARK = 0xa5, /* no ASCII, so that no monitor's message has it */
    VECTOR = 32,
    PAGE = 4096,
    FIRST = 32 << 20,
};

/* Registers of the local APIC (Intel SDM, volume 3, chapter 11). Its clock has a nanosecond period under KVM. */
enum {
    APIC = 0xfee00000u,
    APIC_EOI = 0xb0,
    APIC_SPURIOUS = 0xf0,
    APIC_TIMER = 0x320,
    APIC_INITIAL_COUNT = 0x380,
    APIC_DIVIDE = 0x3e0,
    ENABLED = 0x1ff,
    PERIODIC = 1 << 17,
    BY_ONE = 0xb,
    TEN_MILLISECONDS = 10000000,
};

static void apic(u32 reg, u32 value) { *(volatile u32 *)(u64)(APIC + reg) = value; }

/* Saves what it uses, and ends the interrupt. */
__asm__(".globl interrupted\n"
        "interrupted: push %rax\n"
        "mov $0xfee000b0, %eax\n"
        "movl $0, (%rax)\n"
        "pop %rax\n"
        "iretq\n");
extern const u8 interrupted[];

static struct __attribute__((packed)) {
    u16 low, segment;
    u8 stack, kind;
    u16 middle;
    u32 high, zero;
} gates[VECTOR + 1];

static void set_up_timer(void) {
    u64 handler = (u64)interrupted;
    struct __attribute__((packed)) {
        u16 limit;
        u64 base;
    } table = {sizeof(gates) - 1, (u64)gates};
    u16 code;
    __asm__ volatile("mov %%cs, %0" : "=r"(code));
    gates[VECTOR].low = handler;
    gates[VECTOR].middle = handler >> 16;
    gates[VECTOR].high = handler >> 32;
    gates[VECTOR].segment = code;
    gates[VECTOR].kind = 0x8e; /* present, a 64-bit interrupt gate */
    __asm__ volatile("lidt %0" ::"m"(table));
    apic(APIC_SPURIOUS, ENABLED);
    apic(APIC_DIVIDE, BY_ONE);
    apic(APIC_TIMER, PERIODIC | VECTOR);
    apic(APIC_INITIAL_COUNT, TEN_MILLISECONDS);
}

static u64 mib_to_touch(const char *line) {
    u64 mib = 0;
    for (; *line; line++) {
        if (line[0] == 't' && line[1] == 'o' && line[5] == '=') {
            for (line += 6; *line >= '0' && *line <= '9'; line++) mib = mib * 10 + *line - '0';
            break;
        }
    }
    return mib;
}

void guest(const u8 *zero_page) {
    u64 bytes = mib_to_touch(command_line(zero_page)) << 20;
    for (u64 at = 0; at < bytes; at += PAGE) *(volatile u8 *)(FIRST + at) = 1;
    set_up_timer();
    for (;;) {
        out(COM1_DATA, MARK);
        __asm__ volatile("sti; hlt; cli");
    }
}
