/* bantam-vsock: streams between the guest and its host over vsock, for scripts. See usage below.
 *
 * It stands alone, without a C library, as bantam-exit does: a few KiB in the images.
 */
enum { AF_VSOCK = 40, STREAM = 1, ANY = -1, HOST = 2 };
enum { READ = 0, WRITE = 1, POLL = 7, SOCKET = 41, CONNECT = 42, SHUTDOWN = 48, BIND = 49, LISTEN = 50,
       EXIT = 60, ACCEPT4 = 288, PRLIMIT = 302, CLOSE = 3 };
enum { POLLIN = 1, NOFILE = 7, MOST = 1100, CHUNK = 65536 };

struct address {
    unsigned short family, reserved;
    unsigned port, cid;
    unsigned char zero[4];
};
struct poll {
    int fd;
    short events, revents;
};

static char buffer[CHUNK];
static struct poll polls[MOST];

static long call(long number, long a, long b, long c, long d)
{
    long result;
    register long r10 __asm__("r10") = d;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
    return result;
}

static long length(const char *text)
{
    long n = 0;
    while (text[n])
        n++;
    return n;
}

static void say(int fd, const char *text) { call(WRITE, fd, (long)text, length(text), 0); }

static void die(const char *why)
{
    say(2, "bantam-vsock: ");
    say(2, why);
    say(2, "\n");
    call(EXIT, 1, 0, 0, 0);
}

static unsigned number(const char *text)
{
    unsigned n = 0;
    for (; *text >= '0' && *text <= '9'; text++)
        n = n * 10 + (unsigned)(*text - '0');
    return n;
}

static int equal(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

static void write_all(int fd, const char *bytes, long len)
{
    while (len > 0) {
        long done = call(WRITE, fd, (long)bytes, len, 0);
        if (done <= 0)
            die("cannot write");
        bytes += done;
        len -= done;
    }
}

static int to(unsigned cid, unsigned port)
{
    struct address address = {AF_VSOCK, 0, port, cid, {0}};
    long fd = call(SOCKET, AF_VSOCK, STREAM, 0, 0);
    if (fd < 0)
        die("no vsock: is the driver loaded?");
    if (call(CONNECT, fd, (long)&address, sizeof address, 0) < 0)
        die("cannot connect");
    return (int)fd;
}

/* Sends back what each client sends, until it ends. */
static void echo(unsigned port)
{
    struct address address = {AF_VSOCK, 0, port, (unsigned)ANY, {0}};
    int count = 1, listener = (int)call(SOCKET, AF_VSOCK, STREAM, 0, 0);
    if (listener < 0)
        die("no vsock: is the driver loaded?");
    if (call(BIND, listener, (long)&address, sizeof address, 0) < 0 || call(LISTEN, listener, 128, 0, 0) < 0)
        die("cannot listen");
    say(1, "vsock=listening\n");
    polls[0].fd = listener;
    polls[0].events = POLLIN;
    for (;;) {
        call(POLL, (long)polls, count, -1, 0);
        if (polls[0].revents && count < MOST) {
            long fd = call(ACCEPT4, listener, 0, 0, 0);
            if (fd >= 0) {
                polls[count].fd = (int)fd;
                polls[count].events = POLLIN;
                polls[count++].revents = 0;
            }
        }
        for (int i = 1; i < count; i++) {
            if (!polls[i].revents)
                continue;
            long len = call(READ, polls[i].fd, (long)buffer, CHUNK, 0);
            if (len > 0) {
                write_all(polls[i].fd, buffer, len);
            } else {
                call(CLOSE, polls[i].fd, 0, 0, 0);
                polls[i--] = polls[--count];
            }
        }
    }
}

/* Standard input to the peer, and what it sends to standard output, until it ends. */
static void stream(int fd)
{
    struct poll both[2] = {{fd, POLLIN, 0}, {0, POLLIN, 0}};
    int ends = 2;
    for (;;) {
        call(POLL, (long)both, ends, -1, 0);
        if (both[0].revents) {
            long len = call(READ, fd, (long)buffer, CHUNK, 0);
            if (len <= 0)
                call(EXIT, len < 0, 0, 0, 0);
            write_all(1, buffer, len);
        }
        if (ends == 2 && both[1].revents) {
            long len = call(READ, 0, (long)buffer, CHUNK, 0);
            if (len > 0) {
                write_all(fd, buffer, len);
            } else {
                call(SHUTDOWN, fd, 1, 0, 0);
                ends = 1;
            }
        }
    }
}

/* Opens `count` connections at once, and has a byte sent back over each. */
static void many(unsigned port, unsigned count)
{
    if (count > MOST)
        die("too many");
    for (unsigned i = 0; i < count; i++)
        polls[i].fd = to(HOST, port);
    for (unsigned i = 0; i < count; i++) {
        char byte = (char)i, back = (char)~i;
        write_all(polls[i].fd, &byte, 1);
        if (call(READ, polls[i].fd, (long)&back, 1, 0) != 1 || back != byte)
            die("another byte came back");
    }
    say(1, "vsock=many\n");
}

__attribute__((used)) static void start(long *stack)
{
    long argc = stack[0];
    char **argv = (char **)(stack + 1);
    unsigned long limit[2] = {MOST + 16, MOST + 16};
    call(PRLIMIT, 0, NOFILE, (long)limit, 0);
    if (argc == 3 && equal(argv[1], "echo"))
        echo(number(argv[2]));
    else if (argc == 4 && equal(argv[1], "connect"))
        stream(to(number(argv[2]), number(argv[3])));
    else if (argc == 4 && equal(argv[1], "many"))
        many(number(argv[2]), number(argv[3]));
    else
        die("usage: bantam-vsock echo PORT | connect CID PORT | many PORT COUNT");
    call(EXIT, 0, 0, 0, 0);
}

__asm__(".globl _start\n_start:\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall start\n");
