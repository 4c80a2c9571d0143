/*
 * Acts as a guest's user and swaps names while a jailer works: in the jail's root, which belongs to that user between two
 * starts, in its directories that the user made or holds open, and beside the user's images. races.rs compiles and runs it:
 *
 *     swap ROOT VICTIMS HOME
 *
 * Called like a monitor, it exits at once.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { KEPT = 256 };

static int kept[KEPT], next_kept;
static char victims[3000];

/* Holds a directory open, even when its name leads elsewhere or its mode forbids access. */
static void keep(int at, const char *name) {
    int fd = openat(at, name, O_PATH | O_DIRECTORY | O_NOFOLLOW);
    if (fd == -1) return;
    if (kept[next_kept] > 0) close(kept[next_kept]);
    kept[next_kept] = fd;
    next_kept = (next_kept + 1) % KEPT;
}

static void move_away(int at, const char *name) {
    char other[64];
    unlinkat(at, name, 0);
    unlinkat(at, name, AT_REMOVEDIR);
    snprintf(other, sizeof other, ".%d", rand() % 8);
    renameat2(at, name, at, other, RENAME_NOREPLACE);
    renameat2(at, name, at, other, RENAME_EXCHANGE);
}

/* Replaces `name` by one of many kinds of files; `victim` is the file with the same name among the victims. */
static void swap(int at, const char *name, const char *victim) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", victims, victim);
    move_away(at, name);
    switch (rand() % 7) {
    case 0: symlinkat(path, at, name); break;
    case 1: linkat(AT_FDCWD, path, at, name, 0); break;
    case 2: mkdirat(at, name, 0777); keep(at, name); break;
    case 3: mknodat(at, name, S_IFIFO | 0666, 0); break;
    case 4: mknodat(at, name, S_IFSOCK | 0666, 0); break;
    case 5: close(openat(at, name, O_CREAT | O_WRONLY, 0666)); break;
    /* Restores the former file. */
    default: snprintf(path, sizeof path, ".%d", rand() % 8); renameat2(at, path, at, name, RENAME_NOREPLACE);
    }
}

int main(int count, char **words) {
    if (count != 4) return 0;
    const char *root_names[] = {"run", "drives", "dev", "kernel", "vm.json", "swap", "swap.pid", "initrd"};
    const char *names[] = {"firecracker.socket", "root", "fixed", "net", "tun", "kvm", "urandom", "userfaultfd"};
    const size_t root_count = sizeof root_names / sizeof *root_names, name_count = sizeof names / sizeof *names;
    snprintf(victims, sizeof victims, "%s", words[2]);
    int home = open(words[3], O_PATH | O_DIRECTORY), root = -1;
    for (unsigned long turn = 0;; turn++) {
        int fd = open(words[1], O_PATH | O_DIRECTORY);
        if (fd != -1) {
            if (root != -1) close(root);
            root = fd;
        }
        const char *name = root_names[(size_t)rand() % root_count];
        swap(root, name, name);
        keep(root, root_names[(size_t)rand() % 3]);
        for (int i = 0; i < 4; i++) {
            name = names[(size_t)rand() % name_count];
            swap(kept[rand() % KEPT], name, name);
        }
        swap(home, "images", "images");
        int images = openat(home, "images", O_PATH | O_DIRECTORY | O_NOFOLLOW);
        for (int i = 0; i < 3 && images != -1; i++) swap(images, rand() % 2 ? "root" : "fixed", "root");
        close(images);
    }
}
