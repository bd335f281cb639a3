/* A disk that fails, and one that forgets at a loss of power what was not synced; preloaded before libc.
 *
 * It looks at files below DISK_FOLDER only, which may also be one database. From the DISK_FAIL_AT-th operation that
 * changes one, DISK_FAILURES of them (0: all that follow) fail with the error number DISK_ERROR, and the file DISK_TOLD
 * is made. With DISK_UNDO, the path of a log, it writes there what each change replaces, each new file or folder, and
 * each sync, for `disk.py` to undo. The environment is read again after a fork.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

static pid_t owner;
static const char *folder, *told;
static long fail_at, failures;
static int error_number, undo = -1;
static long operations;

static void configure(void) {
    if (owner == getpid()) return;
    owner = getpid();
    const char *log = getenv("DISK_UNDO"), *at = getenv("DISK_FAIL_AT"), *count = getenv("DISK_FAILURES"),
               *number = getenv("DISK_ERROR");
    folder = getenv("DISK_FOLDER");
    told = getenv("DISK_TOLD");
    fail_at = at ? atol(at) : 0;
    failures = count ? atol(count) : 0;
    error_number = number ? atoi(number) : EIO;
    operations = 0;
    undo = log ? (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND, 0600) : -1;
}

/* Whether that name lies below the folder, or is that of the file itself or of one that SQLite keeps beside it. */
static int is_below(const char *path) {
    configure();
    if (!folder) return 0;
    size_t given = strlen(folder);
    if (strncmp(path, folder, given) || strstr(path, "-shm")) return 0;
    return path[given] == 0 || path[given] == '/' || path[given] == '-';
}

/* Whether the file is to be looked at; `path` gets its name. */
static int is_watched(int fd, char path[PATH_MAX]) {
    char link[64];
    configure();
    if (!folder) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return is_below(path);
}

static int fails(void) {
    if (!fail_at) return 0;
    long now = __sync_add_and_fetch(&operations, 1);
    if (now < fail_at || (failures && now >= fail_at + failures)) return 0;
    if (told) syscall(SYS_close, syscall(SYS_openat, AT_FDCWD, told, O_WRONLY | O_CREAT, 0600));
    errno = error_number;
    return 1;
}

/* One line of the log: what a change of `length` bytes at `offset` replaces ('W'), or that the file or folder was synced
 * ('S'). */
static void note(char kind, const char *path, int fd, off_t offset, size_t length) {
    if (undo < 0) return;
    struct stat found;
    if (fstat(fd, &found)) return;
    size_t kept = 0, name = strlen(path);
    if (kind == 'W' && offset < found.st_size)
        kept = (size_t)(found.st_size - offset) < length ? (size_t)(found.st_size - offset) : length;
    char *line = malloc(name + kept + 128);
    int head = sprintf(line, "%c %zu %lld %zu %zu\n", kind, name, (long long)offset, kept, length);
    memcpy(line + head, path, name);
    if (kept) kept = (size_t)syscall(SYS_pread64, fd, line + head + name, kept, offset);
    syscall(SYS_write, undo, line, head + name + kept);
    free(line);
}

#define REAL(name) static __typeof__(name) *real; if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset) {
    REAL(pwrite64);
    char path[PATH_MAX];
    if (is_watched(fd, path)) {
        if (fails()) return -1;
        note('W', path, fd, offset, length);
    }
    return real(fd, data, length, offset);
}

ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) { return pwrite64(fd, data, length, offset); }

ssize_t write(int fd, const void *data, size_t length) {
    REAL(write);
    char path[PATH_MAX];
    if (is_watched(fd, path)) {
        if (fails()) return -1;
        note('W', path, fd, lseek(fd, 0, SEEK_CUR), length);
    }
    return real(fd, data, length);
}

int ftruncate64(int fd, off64_t size) {
    REAL(ftruncate64);
    char path[PATH_MAX];
    if (is_watched(fd, path)) {
        if (fails()) return -1;
        struct stat found;
        if (!fstat(fd, &found) && found.st_size > size) note('W', path, fd, size, (size_t)(found.st_size - size));
    }
    return real(fd, size);
}

int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

static int synced(int fd, int (*real)(int)) {
    char path[PATH_MAX];
    int watched = is_watched(fd, path);
    if (watched && fails()) return -1;
    int result = real(fd);
    if (watched && !result) note('S', path, fd, 0, 0);
    return result;
}

int fsync(int fd) { REAL(fsync); return synced(fd, real); }

int fdatasync(int fd) { REAL(fdatasync); return synced(fd, real); }

/* One line of the log: there is a file or folder of a new name, which is lost with its power until the folder that it is
 * in was synced. */
static void note_new(const char *path) {
    if (undo < 0) return;
    char line[PATH_MAX + 64];
    int length = snprintf(line, sizeof line, "N %zu 0 0 0\n%s", strlen(path), path);
    syscall(SYS_write, undo, line, (size_t)length);
}

static int opened(const char *path, int flags, mode_t mode, int (*real)(const char *, int, ...)) {
    int is_new = (flags & O_CREAT) && is_below(path) && access(path, F_OK);
    int fd = real(path, flags, mode);
    if (is_new && fd >= 0) note_new(path);
    return fd;
}

#define MODE(flags, mode)                       \
    mode_t mode = 0;                            \
    if (flags & O_CREAT) {                      \
        va_list rest;                           \
        va_start(rest, flags);                  \
        mode = va_arg(rest, mode_t);            \
        va_end(rest);                           \
    }

int open(const char *path, int flags, ...) {
    REAL(open);
    MODE(flags, mode)
    return opened(path, flags, mode, real);
}

int open64(const char *path, int flags, ...) {
    REAL(open64);
    MODE(flags, mode)
    return opened(path, flags, mode, real);
}

int mkdir(const char *path, mode_t mode) {
    REAL(mkdir);
    int result = real(path, mode);
    if (!result && is_below(path)) note_new(path);
    return result;
}
