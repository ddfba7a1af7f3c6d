/* Preloaded into the binary under test: makes the calls by which a ledger gets onto its disk, and an answer to its
   client, fail, end the process, hold it still, or take for ever, as a control file says that the test writes.
   And, where FAULTS_DISK names a folder, keeps there what a power cut would leave of the database and its log: the
   bytes that a successful fsync confirmed, and nothing else. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { WRITE = 1, SYNC = 2, SEND = 4 };
enum { DATABASE = 1, LOG = 2 };
enum { ERROR = 1, KILL = 2, STOP = 3, HANG = 4 };

/* The control file. The test arms it by its last store to `armed`. */
struct rule { uint64_t armed, calls, files, skip, action, error, after, stays, hits; };
static volatile struct rule *rule;
static const char *disk;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("FAULTS");
    disk = getenv("FAULTS_DISK");
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *at = mmap(NULL, sizeof *rule, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (at != MAP_FAILED) rule = at;
    close(file);
}

#define REAL(name) \
    static __typeof__(name) *real; \
    if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

static uint64_t file_of(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    int kept = errno;
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = kept;
    if (length < 0) return 0;
    path[length] = 0;
    size_t n = (size_t)length;
    if (n >= 15 && !strcmp(path + n - 15, "hallpass.db-wal")) return LOG;
    if (n >= 11 && !strcmp(path + n - 11, "hallpass.db")) return DATABASE;
    return 0;
}

/* Whether the call at hand is the one; then it is done what the rule says, and answered whether the call fails. */
static int meet(uint64_t call, int fd, uint64_t after) {
    if (!rule || !rule->armed || !(rule->calls & call) || rule->after != after) return 0;
    if (call != SEND && !(rule->files & file_of(fd))) return 0;
    if (!__atomic_load_n(&rule->armed, __ATOMIC_SEQ_CST)) return 0;
    uint64_t left = __atomic_load_n(&rule->skip, __ATOMIC_SEQ_CST);
    while (left && !__atomic_compare_exchange_n(&rule->skip, &left, left - 1, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {}
    if (left) return 0;
    uint64_t action = rule->action, error = rule->error;
    if (!rule->stays && !__atomic_exchange_n(&rule->armed, 0, __ATOMIC_SEQ_CST)) return 0;
    __atomic_fetch_add(&rule->hits, 1, __ATOMIC_SEQ_CST);
    switch (action) {
    case KILL: kill(getpid(), SIGKILL); for (;;) pause();
    /* To this very thread, so that it does not get on before the others stand still too. */
    case STOP: raise(SIGSTOP); return 0;
    case HANG: while (__atomic_load_n(&rule->armed, __ATOMIC_SEQ_CST)) usleep(1000); return 0;
    default: errno = (int)error; return 1;
    }
}

/* What a power cut leaves. A list of written ranges stands beside each file's confirmed bytes, and outlives the
   process as the kernel's own memory does. */
static void path_of(char *to, size_t size, uint64_t file, const char *suffix) {
    /* Not by their own names, which the calls of this library would be taken for. */
    snprintf(to, size, "%s/%s%s", disk, file == LOG ? "log" : "database", suffix);
}

static ssize_t plain_write(int fd, const void *bytes, size_t count) {
    REAL(write);
    return real(fd, bytes, count);
}

static void wrote(int fd, uint64_t at, uint64_t count) {
    uint64_t file = disk ? file_of(fd) : 0, range[2] = {at, count};
    if (!file) return;
    char path[4096];
    path_of(path, sizeof path, file, ".unconfirmed");
    pthread_mutex_lock(&lock);
    int list = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (list < 0 || plain_write(list, range, sizeof range) != sizeof range) abort();
    close(list);
    pthread_mutex_unlock(&lock);
}

static void synced(int fd, int is_confirmed) {
    uint64_t file = disk ? file_of(fd) : 0, range[2];
    if (!file) return;
    char path[4096], source[64];
    int kept = errno;
    pthread_mutex_lock(&lock);
    path_of(path, sizeof path, file, ".unconfirmed");
    int list = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    path_of(path, sizeof path, file, "");
    int to = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    snprintf(source, sizeof source, "/proc/self/fd/%d", fd);
    int from = open(source, O_RDONLY | O_CLOEXEC);
    if (list < 0 || to < 0 || from < 0) abort();
    while (is_confirmed && read(list, range, sizeof range) == sizeof range) {
        if (range[1] == UINT64_MAX) {
            if (ftruncate(to, (off_t)range[0])) abort();
            continue;
        }
        char *bytes = malloc(range[1]);
        ssize_t count = pread(from, bytes, range[1], (off_t)range[0]);
        REAL(pwrite);
        if (count > 0 && real(to, bytes, (size_t)count, (off_t)range[0]) != count) abort();
        free(bytes);
    }
    if (ftruncate(list, 0)) abort();
    close(list); close(to); close(from);
    pthread_mutex_unlock(&lock);
    errno = kept;
}

ssize_t write(int fd, const void *bytes, size_t count) {
    if (meet(WRITE, fd, 0)) return -1;
    ssize_t done = plain_write(fd, bytes, count);
    if (done > 0 && disk) wrote(fd, (uint64_t)(lseek(fd, 0, SEEK_CUR) - done), (uint64_t)done);
    meet(WRITE, fd, 1);
    return done;
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) {
    REAL(pwrite);
    if (meet(WRITE, fd, 0)) return -1;
    ssize_t done = real(fd, bytes, count, at);
    if (done > 0) wrote(fd, (uint64_t)at, (uint64_t)done);
    meet(WRITE, fd, 1);
    return done;
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) { return pwrite(fd, bytes, count, at); }

static int truncated(int fd, off_t length, int done) {
    if (!done) wrote(fd, (uint64_t)length, UINT64_MAX);
    return done;
}

int ftruncate(int fd, off_t length) {
    static int (*real)(int, off_t);
    if (!real) real = (int (*)(int, off_t))dlsym(RTLD_NEXT, "ftruncate");
    return truncated(fd, length, real(fd, length));
}

int ftruncate64(int fd, off64_t length) { return ftruncate(fd, length); }

static int sync_by(int (*real)(int), int fd) {
    if (meet(SYNC, fd, 0)) { synced(fd, 0); return -1; }
    int done = real(fd);
    synced(fd, !done);
    if (meet(SYNC, fd, 1)) return -1;
    return done;
}

int fsync(int fd) { REAL(fsync); return sync_by(real, fd); }

int fdatasync(int fd) { REAL(fdatasync); return sync_by(real, fd); }

ssize_t send(int fd, const void *bytes, size_t count, int flags) {
    REAL(send);
    meet(SEND, fd, 0);
    ssize_t done = real(fd, bytes, count, flags);
    meet(SEND, fd, 1);
    return done;
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(writev);
    struct stat about;
    int is_socket = !fstat(fd, &about) && S_ISSOCK(about.st_mode);
    if (is_socket) meet(SEND, fd, 0);
    ssize_t done = real(fd, parts, count);
    if (is_socket) meet(SEND, fd, 1);
    return done;
}
