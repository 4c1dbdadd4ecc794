/* A disk that remembers only what was synced, for a program that knows nothing of it (LD_PRELOAD).
 *
 * Owns: POWERCUT_SHADOW, the disk after a power cut: for everything below POWERCUT_ROOT, by identity of the file (inode
 * and time of birth): KEY has a file's content as of its last sync, KEY.names the names of a folder as of its last sync.
 * - fsync and fdatasync of a file make its whole content last; of a folder, its names.
 * - a write through a descriptor with O_DSYNC makes just these bytes last (LMDB writes its meta pages so).
 * - nothing else makes anything last: not close, msync, sync, syncfs, a rename, or the sync of a file inside a folder.
 * POWERCUT_SYNC_MICROSECONDS: how long a sync takes at least. Most cuts come in the middle of one then.
 * POWERCUT_IGNORE: syncs of paths that contain this are not remembered; a test shows with it that losses are noticed.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define CHUNK 65536
#define PAGE 4096

static const char *root, *shadow, *ignored;
static useconds_t sync_microseconds;
static int (*real_fsync)(int), (*real_fdatasync)(int);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static ssize_t (*real_pwritev)(int, const struct iovec *, int, off_t);

static void fail(const char *what)
{
    dprintf(2, "powercut: %s: %s\n", what, strerror(errno));
    abort();
}

__attribute__((constructor)) static void prepare(void)
{
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    real_pwrite = dlsym(RTLD_NEXT, "pwrite");
    real_pwritev = dlsym(RTLD_NEXT, "pwritev");
    root = getenv("POWERCUT_ROOT");
    shadow = getenv("POWERCUT_SHADOW");
    ignored = getenv("POWERCUT_IGNORE");
    const char *slow = getenv("POWERCUT_SYNC_MICROSECONDS");
    sync_microseconds = slow ? atoi(slow) : 0;
}

/* The identity of a file; returns its mode, 0 if it cannot be had. */
static int identify(int at, const char *name, char key[64])
{
    struct statx it;
    int flags = *name ? AT_SYMLINK_NOFOLLOW : AT_EMPTY_PATH;
    if (statx(at, name, flags, STATX_BASIC_STATS | STATX_BTIME, &it) < 0)
        return 0;
    snprintf(key, 64, "%llu-%lld.%09u", (unsigned long long)it.stx_ino, (long long)it.stx_btime.tv_sec,
             it.stx_btime.tv_nsec);
    return it.stx_mode;
}

int powercut_key(const char *path, char key[64])
{
    return identify(AT_FDCWD, path, key);
}

/* Whether a descriptor is of something whose syncs are remembered. */
static int is_ours(int fd)
{
    char link[64], path[PATH_MAX];
    if (!root || !shadow)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    size_t prefix = strlen(root);
    if (strncmp(path, root, prefix) || (path[prefix] && path[prefix] != '/'))
        return 0;
    return !(ignored && strstr(path, ignored));
}

/* The shadow of a file, locked until it is closed. */
static int open_shadow(const char *key)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", shadow, key);
    int out = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (out < 0 || flock(out, LOCK_EX) < 0)
        fail(path);
    return out;
}

static void put(int out, const char *from, size_t size, off_t at)
{
    while (size) {
        ssize_t put = real_pwrite(out, from, size, at);
        if (put < 0)
            fail("writing the shadow");
        from += put, size -= put, at += put;
    }
}

/* Only pages that differ are written: a death meanwhile leaves a sync that got half way, as on a disk. */
static void keep_content(int fd, const char *key)
{
    static __thread char now[CHUNK], then[CHUNK];
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    int in = open(link, O_RDONLY | O_CLOEXEC), out = open_shadow(key);
    struct stat is;
    if (in < 0 || fstat(in, &is) < 0 || ftruncate(out, is.st_size) < 0)
        fail("looking at a file");
    for (off_t at = 0; at < is.st_size; at += CHUNK) {
        ssize_t have = pread(in, now, CHUNK, at);
        if (have <= 0)
            break;
        memset(then, 0, CHUNK);
        if (pread(out, then, have, at) < 0)
            fail("reading the shadow");
        for (ssize_t page = 0; page < have; page += PAGE) {
            size_t size = have - page < PAGE ? have - page : PAGE;
            if (memcmp(now + page, then + page, size))
                put(out, now + page, size, at + page);
        }
    }
    close(in);
    close(out);
}

static void keep_names(int fd, const char *key)
{
    char link[64], part[PATH_MAX], whole[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    snprintf(whole, sizeof whole, "%s/%s.names", shadow, key);
    snprintf(part, sizeof part, "%s.%d.%lx", whole, getpid(), (unsigned long)(size_t)&link);
    DIR *folder = opendir(link);
    FILE *out = fopen(part, "we");
    if (!folder || !out)
        fail(whole);
    for (struct dirent *entry; (entry = readdir(folder));) {
        char of[64];
        int mode = identify(dirfd(folder), entry->d_name, of);
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..") || !mode)
            continue;
        fprintf(out, "%c %s %s\n", S_ISDIR(mode) ? 'd' : 'f', of, entry->d_name);
    }
    closedir(folder);
    if (fclose(out) || rename(part, whole) < 0)
        fail(whole);
}

static void keep(int fd)
{
    char key[64];
    int mode = identify(fd, "", key);
    usleep(sync_microseconds);
    if (S_ISDIR(mode))
        keep_names(fd, key);
    else if (S_ISREG(mode))
        keep_content(fd, key);
}

/* What was there when the sync was called is what it promises. */
int fsync(int fd)
{
    if (is_ours(fd))
        keep(fd);
    return real_fsync(fd);
}

int fdatasync(int fd)
{
    if (is_ours(fd))
        keep(fd);
    return real_fdatasync(fd);
}

static int open_if_synced(int fd)
{
    char key[64];
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || (flags & O_DSYNC) != O_DSYNC || !is_ours(fd) || !S_ISREG(identify(fd, "", key)))
        return -1;
    return open_shadow(key);
}

ssize_t pwrite(int fd, const void *from, size_t size, off_t at)
{
    int saved, out = root ? open_if_synced(fd) : -1;
    ssize_t written = real_pwrite(fd, from, size, at);
    saved = errno;
    if (out >= 0) {
        if (written > 0)
            put(out, from, written, at);
        close(out);
    }
    errno = saved;
    return written;
}

ssize_t pwrite64(int fd, const void *from, size_t size, off_t at)
{
    return pwrite(fd, from, size, at);
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at)
{
    int saved, out = root ? open_if_synced(fd) : -1;
    ssize_t written = real_pwritev(fd, parts, count, at), left = written;
    saved = errno;
    for (int each = 0; out >= 0 && each < count && left > 0; each++) {
        size_t size = (size_t)left < parts[each].iov_len ? (size_t)left : parts[each].iov_len;
        put(out, parts[each].iov_base, size, at);
        at += size, left -= size;
    }
    if (out >= 0)
        close(out);
    errno = saved;
    return written;
}

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off_t at)
{
    return pwritev(fd, parts, count, at);
}
