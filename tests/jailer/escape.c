/*
 * A program that a jailer executes in the monitor's place, and that tries to escape. It prints a line for each attempt,
 * "NAME refused ERROR", "NAME through RESULT" or "NAME skipped REASON". escape.rs compiles and judges it.
 *
 * Its arguments KEY=VALUE describe the host: processes to touch, a port and a socket to reach.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/if_tun.h>
#include <linux/keyctl.h>
#include <linux/perf_event.h>
#include <linux/sched.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/fsuid.h>
#include <sys/io.h>
#include <sys/ioctl.h>
#include <grp.h>
#include <sys/klog.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef SYS_mount_setattr
#define SYS_mount_setattr 442
#endif

enum { DESCRIPTORS = 4096, HEADER = 0x20080522 };

static char **words;

/* Prints the result of an attempt, which was refused if `result` is -1. */
static void report(const char *name, long result) {
    if (result == -1)
        printf("%s refused %s\n", name, strerrorname_np(errno));
    else
        printf("%s through %ld\n", name, result);
}

static void judged(const char *name, int refused, const char *detail) {
    printf("%s %s %s\n", name, refused ? "refused" : "through", detail);
}

#define TRY(name, call) (errno = 0, report(name, (long)(call)))

static const char *word(const char *key) {
    size_t len = strlen(key);
    for (char **w = words; *w; w++)
        if (!strncmp(*w, key, len) && (*w)[len] == '=') return *w + len + 1;
    return "0";
}

static int number(const char *key) { return atoi(word(key)); }

/* Runs `act` in a child; returns the child's status, or -1 with its errno. */
static long in_child(long (*act)(void)) {
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        errno = 0;
        long result = act();
        _exit(result == -1 ? (errno ? errno : 255) : 0);
    }
    int status = 0;
    if (child == -1 || waitpid(child, &status, 0) == -1) return -1;
    if (status == 0) return 0;
    errno = WIFEXITED(status) ? WEXITSTATUS(status) : EINTR;
    return -1;
}

/* --- the root --- */

static long chroot_out(void) {
    mkdir("/below", 0700);
    if (chroot("/below") == -1) return -1;
    for (int i = 0; i < 64; i++) chdir("..");
    return chroot(".");
}

static int is_root(const char *path) {
    struct stat root, here;
    return !stat("/", &root) && !stat(path, &here) && root.st_ino == here.st_ino && root.st_dev == here.st_dev;
}

static void the_root(void) {
    report("chroot", in_child(chroot_out));
    chdir("/");
    for (int i = 0; i < 64; i++) chdir("..");
    judged("chdir-up", is_root("."), "");
    judged("path-up", is_root("/../../../../../../.."), "");
    TRY("pivot-root", syscall(SYS_pivot_root, ".", "."));
    for (int fd = 0, out = 0; fd < DESCRIPTORS; fd++) {
        struct stat found;
        if (fstat(fd, &found) == 0 && S_ISDIR(found.st_mode)) out = 1;
        if (fchdir(fd) == 0 || openat(fd, "..", O_PATH) != -1) out = 1;
        if (fd == DESCRIPTORS - 1) judged("fchdir", !out, "");
    }
    struct { struct file_handle head; unsigned char bytes[128]; } handle = {.head = {.handle_bytes = 128}};
    int mount_id;
    if (name_to_handle_at(AT_FDCWD, "/", &handle.head, &mount_id, 0) == -1) memset(&handle, 0, sizeof handle);
    int root = open("/", O_RDONLY);
    TRY("open-by-handle", open_by_handle_at(root, &handle.head, O_RDONLY));
    close(root);
}

/* --- descriptors: three streams, taps, and files that lock --- */

static void descriptors(void) {
    char wrong[1024] = "";
    for (int fd = 3; fd < DESCRIPTORS; fd++) {
        struct stat found;
        if (fstat(fd, &found) == -1) continue;
        int tap = S_ISCHR(found.st_mode) && found.st_rdev == makedev(10, 200);
        int lock = S_ISREG(found.st_mode) && found.st_size == 0 && (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDONLY;
        char text[64];
        snprintf(text, sizeof text, "%d:%o:%ld,", fd, found.st_mode, (long)found.st_size);
        if (!tap && !lock && strlen(wrong) < 900) strcat(wrong, text);
        if (lock && linkat(fd, "", AT_FDCWD, "/lock", AT_EMPTY_PATH) == 0) strcat(wrong, "linked,");
        if (lock && (fchmod(fd, 0666) == 0 || write(fd, "x", 1) != -1) && getuid() != 0) strcat(wrong, "changed,");
    }
    judged("descriptors", !*wrong, wrong);
}

/* --- mounts --- */

static void mounts(void) {
    mkdir("/m", 0700);
    TRY("mount-proc", mount("proc", "/m", "proc", 0, NULL));
    TRY("mount-sysfs", mount("sysfs", "/m", "sysfs", 0, NULL));
    TRY("mount-tmpfs", mount("tmpfs", "/m", "tmpfs", 0, NULL));
    TRY("mount-devtmpfs", mount("devtmpfs", "/m", "devtmpfs", 0, NULL));
    TRY("mount-cgroup", mount("cgroup", "/m", "cgroup", 0, "pids"));
    TRY("mount-cgroup2", mount("cgroup2", "/m", "cgroup2", 0, NULL));
    TRY("mount-bind", mount("/", "/m", NULL, MS_BIND, NULL));
    TRY("mount-move", mount("/kernel", "/vm.json", NULL, MS_MOVE, NULL));
    TRY("remount-kernel", mount(NULL, "/kernel", NULL, MS_REMOUNT | MS_BIND, NULL));
    TRY("umount-kernel", umount2("/kernel", MNT_DETACH));
    TRY("umount-root", umount2("/", MNT_DETACH));
    TRY("open-tree", syscall(SYS_open_tree, AT_FDCWD, "/", 1 /* OPEN_TREE_CLONE */));
    TRY("fsopen-proc", syscall(SYS_fsopen, "proc", 0));
    TRY("fsopen-tmpfs", syscall(SYS_fsopen, "tmpfs", 0));
    TRY("fspick", syscall(SYS_fspick, AT_FDCWD, "/", 0));
    TRY("move-mount", syscall(SYS_move_mount, AT_FDCWD, "/kernel", AT_FDCWD, "/vm.json", 0));
    unsigned long attributes[4] = {0, 1 /* MOUNT_ATTR_RDONLY */, 0, 0};
    TRY("mount-setattr", syscall(SYS_mount_setattr, AT_FDCWD, "/kernel", 0, attributes, sizeof attributes));
    rmdir("/m");
}

/* --- files and devices --- */

static void node(const char *name, mode_t kind, int major, int minor) {
    TRY(name, mknod("/node", kind | 0600, makedev(major, minor)));
    unlink("/node");
}

static long write_self(void) {
    char self[256];
    snprintf(self, sizeof self, "/%s", word("self"));
    /* A running program cannot be written to, but a file that another process may execute later can. */
    if (chmod(self, 0777) == 0) return 0;
    return open(self, O_WRONLY);
}

static void files(void) {
    node("mknod-disk", S_IFBLK, 8, 0);
    node("mknod-loop", S_IFBLK, 7, 0);
    node("mknod-mem", S_IFCHR, 1, 1);
    node("mknod-kvm", S_IFCHR, 10, 232);
    node("mknod-loop-control", S_IFCHR, 10, 237);
    for (const char **path = (const char *[]){"/proc/1/root", "/sys/kernel", "/dev/mem", "/dev/null", "/dev/vda",
                                              "/dev/sda", "/etc/passwd", "/dev/tty", "/dev/pts/0", NULL};
         *path; path++) {
        char name[64];
        snprintf(name, sizeof name, "open-%s", strrchr(*path, '/') + 1);
        TRY(name, open(*path, O_RDONLY));
    }
    TRY("write-self", write_self());
    TRY("write-kernel", open("/kernel", O_WRONLY));
    TRY("truncate-kernel", truncate("/kernel", 0));
    TRY("chmod-kernel", chmod("/kernel", 0777));
    TRY("link-kernel", link("/kernel", "/linked"));
    TRY("unlink-kernel", unlink("/kernel"));
    TRY("rename-kernel", rename("/kernel", "/renamed"));
    TRY("write-fixed-drive", open("/drives/fixed", O_WRONLY));
    TRY("link-drive", link("/drives/root", "/linked"));
    TRY("unlink-drive", unlink("/drives/root"));
    TRY("own-drives", chmod("/drives", 0777));
    TRY("own-dev", chmod("/dev", 0777));
    TRY("write-pid-file", open(word("pid-file"), O_WRONLY));
}

/* --- other processes --- */

static void signals_to(const char *whom, int pid) {
    char name[64];
    snprintf(name, sizeof name, "kill-%s", whom);
    TRY(name, kill(pid, 0));
    snprintf(name, sizeof name, "tgkill-%s", whom);
    TRY(name, syscall(SYS_tgkill, pid, pid, 0));
    snprintf(name, sizeof name, "pidfd-signal-%s", whom);
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    TRY(name, syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0));
    snprintf(name, sizeof name, "pidfd-getfd-%s", whom);
    TRY(name, syscall(SYS_pidfd_getfd, fd, 0, 0));
    snprintf(name, sizeof name, "setns-%s", whom);
    TRY(name, setns(fd, CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET));
    snprintf(name, sizeof name, "ptrace-%s", whom);
    TRY(name, ptrace(PTRACE_SEIZE, pid, NULL, NULL));
    snprintf(name, sizeof name, "read-memory-%s", whom);
    char byte;
    struct iovec to = {&byte, 1}, from = {(void *)0x400000, 1};
    TRY(name, syscall(SYS_process_vm_readv, pid, &to, 1, &from, 1, 0) == 1 || errno == EFAULT ? 1 : -1);
}

static void renice(const char *whom, int pid) {
    char name[64];
    struct rlimit limit;
    snprintf(name, sizeof name, "prlimit-%s", whom);
    TRY(name, prlimit(pid, RLIMIT_NOFILE, NULL, &limit));
    snprintf(name, sizeof name, "renice-%s", whom);
    TRY(name, setpriority(PRIO_PROCESS, (id_t)pid, 19));
}

static void processes(void) {
    signals_to("init", 1);
    signals_to("other", number("other"));
    renice("other", number("other"));
    signals_to("same", number("same"));
}

/* --- namespaces --- */

static long new_user(void) { return unshare(CLONE_NEWUSER); }
static long clone_user(void) { return syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, NULL, NULL, NULL, NULL); }
static long clone3_user(void) {
    struct clone_args arguments = {.flags = CLONE_NEWUSER | CLONE_NEWNS, .exit_signal = SIGCHLD};
    return syscall(SYS_clone3, &arguments, sizeof arguments);
}

static void namespaces(void) {
    report("unshare-user", in_child(new_user));
    report("clone-user", in_child(clone_user));
    report("clone3-user", in_child(clone3_user));
    struct { const char *name; int flag; } all[] = {
        {"unshare-mounts", CLONE_NEWNS},  {"unshare-network", CLONE_NEWNET}, {"unshare-processes", CLONE_NEWPID},
        {"unshare-names", CLONE_NEWUTS},  {"unshare-ipc", CLONE_NEWIPC},     {"unshare-cgroup", CLONE_NEWCGROUP},
        {"unshare-time", CLONE_NEWTIME},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) TRY(all[i].name, unshare(all[i].flag));
}

/* --- identity --- */

static void identity(void) {
    struct { unsigned version; int pid; } header = {HEADER, 0};
    struct { unsigned effective, permitted, inheritable; } full[2] = {{~0u, ~0u, ~0u}, {~0u, ~0u, ~0u}}, now[2];
    TRY("capset", syscall(SYS_capset, &header, full));
    syscall(SYS_capget, &header, now);
    judged("capabilities", !(now[0].effective | now[0].permitted | now[0].inheritable | now[1].permitted), "");
    int bounded = 1;
    for (int cap = 0; cap < 64; cap++) {
        if (prctl(PR_CAPBSET_READ, cap, 0, 0, 0) == 1) bounded = 0;
        if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0) == 0) bounded = 0;
    }
    judged("bounding-set", bounded, "");
    TRY("new-privileges", prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0));
    judged("no-new-privileges", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1, "");
    TRY("securebits", prctl(PR_SET_SECUREBITS, 0x2f, 0, 0, 0));
    gid_t wheel = 0;
    TRY("setgroups", setgroups(1, &wheel));
    judged("groups", getgroups(0, NULL) == 0, "");
    TRY("setuid-other", setuid(1));
    TRY("setgid-other", setgid(1));
    if (getuid() != 0) {
        TRY("setuid-root", setuid(0));
        TRY("setreuid-root", setreuid((uid_t)-1, 0));
        TRY("setgid-root", setgid(0));
        setfsuid(0);
        judged("setfsuid-root", setfsuid((uid_t)-1) != 0, "");
    }
}

/* --- programs --- */

static const char *program;
static long execute(void) {
    char *none[] = {NULL}, *arguments[] = {(char *)program, "am-i-root", NULL};
    return execve(program, arguments, none);
}

static void programs(void) {
    program = "/suid";
    long ended = in_child(execute);
    /* Its exit status says whether it was root. */
    judged("exec-set-uid", ended == -1, strerrorname_np(errno) ? strerrorname_np(errno) : "?");
    char self[256], buffer[4096];
    snprintf(self, sizeof self, "/%s", word("self"));
    int from = open(self, O_RDONLY), to = open("/copy", O_WRONLY | O_CREAT | O_TRUNC, 0755);
    for (ssize_t len; (len = read(from, buffer, sizeof buffer)) > 0;) write(to, buffer, (size_t)len);
    fchmod(to, 0755);
    close(to);
    close(from);
    /* An exit status of its own means that it ran. */
    program = "/copy";
    ended = in_child(execute);
    judged("exec-copy", ended == -1 && errno == EACCES, "");
    unlink("/copy");
}

/* --- the network --- */

static long reach(int family, const struct sockaddr *address, socklen_t len, int listening) {
    int fd = socket(family, SOCK_STREAM, 0);
    long result = listening ? bind(fd, address, len) : connect(fd, address, len);
    int error = errno;
    close(fd);
    errno = error;
    return result;
}

static void network(void) {
    struct sockaddr_in address = {AF_INET, htons((uint16_t)number("port")), {htonl(INADDR_LOOPBACK)}, {0}};
    TRY("tcp-connect", reach(AF_INET, (struct sockaddr *)&address, sizeof address, 0));
    address.sin_port = htons(20022);
    TRY("tcp-bind", reach(AF_INET, (struct sockaddr *)&address, sizeof address, 1));
    struct sockaddr_un name = {AF_UNIX, ""};
    strncpy(name.sun_path + 1, word("socket"), sizeof name.sun_path - 2);
    socklen_t len = (socklen_t)(sizeof(sa_family_t) + 1 + strlen(word("socket")));
    TRY("abstract-socket", reach(AF_UNIX, (struct sockaddr *)&name, len, 0));
    TRY("raw-socket", socket(AF_INET, SOCK_RAW, 1));
    TRY("packet-socket", socket(AF_PACKET, SOCK_RAW, 0));
    int any = socket(AF_INET, SOCK_DGRAM, 0);
    struct ifreq request = {.ifr_name = "lo"};
    TRY("switch-device", ioctl(any, SIOCSIFFLAGS, &request));
    int tun = open("/dev/net/tun", O_RDWR);
    struct ifreq tap = {.ifr_name = "evil0"};
    tap.ifr_flags = IFF_TAP | IFF_NO_PI;
    TRY("new-tap", ioctl(tun, TUNSETIFF, &tap));
    strcpy(tap.ifr_name, "other0");
    TRY("tap-of-another", ioctl(tun, TUNSETIFF, &tap));
}

/* --- the kernel --- */

static void kernel(void) {
    union bpf_attr map = {.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 4, .max_entries = 1};
    TRY("bpf", syscall(SYS_bpf, BPF_MAP_CREATE, &map, sizeof map));
    struct perf_event_attr event = {.type = PERF_TYPE_SOFTWARE, .size = sizeof event};
    TRY("perf", syscall(SYS_perf_event_open, &event, -1, 0, -1, 0));
    TRY("iopl", iopl(3));
    TRY("ioperm", ioperm(0x80, 1, 1));
    TRY("init-module", syscall(SYS_init_module, "x", 1, ""));
    TRY("kexec", syscall(SYS_kexec_load, 0, 0, NULL, 0));
    TRY("reboot", reboot(RB_DISABLE_CAD));
    TRY("sethostname", sethostname("x", 1));
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    TRY("set-clock", clock_settime(CLOCK_REALTIME, &now));
    TRY("swapon", swapon("/kernel", 0));
    TRY("clear-log", klogctl(5, NULL, 0));
    TRY("fanotify", fanotify_init(FAN_CLASS_CONTENT, O_RDONLY));
    TRY("fifo-scheduling", sched_setscheduler(0, SCHED_FIFO, &(struct sched_param){1}));
    TRY("nice", setpriority(PRIO_PROCESS, 0, -20));
    TRY("limit", setrlimit(RLIMIT_NOFILE, &(struct rlimit){1 << 19, 1 << 19}));
    /* A key in the session keyring of the process that started the jailer. */
    long key = syscall(SYS_keyctl, KEYCTL_SEARCH, KEY_SPEC_SESSION_KEYRING, "user", word("key"), 0);
    report("key-of-session", key);
}

/* --- the terminal at which the jailer was started --- */

static long inject_as_32_bits(void) {
    /* A 32-bit pointer, for a 32-bit system call. */
    char *byte = mmap((void *)0x10000000, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    *byte = 'x';
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(54), "b"(0), "c"(TIOCSTI), "d"(byte) : "memory", "r8", "r9", "r10", "r11");
    if ((int)result >= 0) return result;
    errno = -(int)result;
    return -1;
}

static void terminal(void) {
    if (!isatty(0)) return;
    TRY("terminal-input", ioctl(0, TIOCSTI, "x"));
    /* The kernel ignores the upper half of a request. */
    TRY("terminal-input-wide", syscall(SYS_ioctl, 0, TIOCSTI | 1UL << 32, "x"));
    TRY("terminal-input-x32", syscall(SYS_ioctl | 0x40000000, 0, TIOCSTI, "x"));
    report("terminal-input-32", in_child(inject_as_32_bits));
    TRY("terminal-paste", ioctl(0, TIOCLINUX, "\3"));
    int discipline = 21; /* N_GSM0710, the one with a history */
    TRY("terminal-discipline", ioctl(0, TIOCSETD, &discipline));
}

int main(int count, char **arguments) {
    words = arguments;
    if (count == 2 && !strcmp(arguments[1], "am-i-root")) return geteuid() == 0 ? 0 : 1;
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("landlock is %ld\n", syscall(SYS_landlock_create_ruleset, NULL, 0, 1));
    descriptors();
    the_root();
    mounts();
    files();
    processes();
    namespaces();
    identity();
    programs();
    network();
    kernel();
    terminal();
    puts("done");
    return 0;
}
