/* Code that the kernels of this directory share: entry, serial port, and boot parameters. Each kernel defines guest(). */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;

enum {
    COM1_DATA = 0x3f8,
    COMMAND_LINE = 0x228, /* in the zero page (Documentation/arch/x86/zero-page.rst) */
};

static void out(u16 port, u8 value) { __asm__ volatile("outb %0, %1" ::"a"(value), "Nd"(port)); }

static const char *command_line(const u8 *zero_page) { return (const char *)(u64)*(const u32 *)(zero_page + COMMAND_LINE); }

/* 64-bit entry: RSI is the zero page. */
__asm__(".section .text.entry, \"ax\"\n"
        ".globl entry\n"
        "entry: lea stack_end(%rip), %rsp\n"
        "mov %rsi, %rdi\n"
        "call guest\n"
        ".section .bss\n"
        ".balign 16\n"
        ".skip 4096\n"
        "stack_end:\n"
        ".text\n");
