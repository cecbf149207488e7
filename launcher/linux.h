/* The few Linux system calls that the launcher makes, and text without a C library.
 *
 * Numbers and structures are those of the x86-64 kernel: <asm/unistd_64.h>, <asm/signal.h>, <linux/resource.h>.
 */
#ifndef LINUX_H
#define LINUX_H

#include <stddef.h>

enum call {
    SYS_READ = 0, SYS_WRITE = 1, SYS_OPEN = 2, SYS_CLOSE = 3, SYS_FSTAT = 5, SYS_RT_SIGACTION = 13,
    SYS_RT_SIGPROCMASK = 14, SYS_DUP2 = 33, SYS_EXECVE = 59, SYS_FCNTL = 72, SYS_READLINK = 89,
    SYS_EXIT_GROUP = 231, SYS_PRLIMIT64 = 302
};
enum { O_RDONLY = 0, O_WRONLY = 1, O_CLOEXEC = 02000000, O_PATH = 010000000 };
enum { F_GETFL = 3 };
enum { SIG_BLOCK = 0, SIG_SETMASK = 2 };
enum { RLIMIT_DATA = 2, RLIMIT_STACK = 3, RLIMIT_NOFILE = 7, RLIMIT_AS = 9 };
enum { AT_NULL = 0, AT_EXECFN = 31 };
enum { ENOENT = 2, E2BIG = 7, ENOEXEC = 8, EBADF = 9, ENOMEM = 12, EACCES = 13, EMFILE = 24 };
enum { S_IFMT = 0170000, S_IFDIR = 0040000 };
enum { PATH_SIZE = 4096 }; /* PATH_MAX of <linux/limits.h>, with the end */

typedef unsigned long sigset; /* bit n - 1 is signal n */

struct sigaction {
    void *handler; /* 1 is SIG_IGN */
    unsigned long flags;
    void *restorer;
    sigset mask;
};

struct rlimit {
    unsigned long soft, hard;
};

/* What fstat fills: only the mode counts here, and the whole has 144 bytes. */
struct stat {
    unsigned long dev, ino, nlink;
    unsigned int mode;
    char rest[144 - 28];
};
_Static_assert(sizeof(struct stat) == 144, "struct stat of <asm/stat.h>");
_Static_assert(offsetof(struct stat, mode) == 24, "struct stat of <asm/stat.h>");

static inline long syscall4(enum call number, long a, long b, long c, long d)
{
    long result;
    register long r10 __asm__("r10") = d;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "0"((long)number), "D"(a), "S"(b), "d"(c), "r"(r10)
                     : "rcx", "r11", "memory");
    return result;
}

static inline long syscall3(enum call number, long a, long b, long c)
{
    return syscall4(number, a, b, c, 0);
}

static inline size_t length(const char *text)
{
    size_t n = 0;
    while (text[n])
        n++;
    return n;
}

static inline int equal(const char *one, const char *other)
{
    while (*one && *one == *other)
        one++, other++;
    return *one == *other;
}

/* Whether `text` begins with `start`. */
static inline int begins(const char *text, const char *start)
{
    while (*start)
        if (*text++ != *start++)
            return 0;
    return 1;
}

/* Whether the `size` characters at `text` are one of `words`, which are separated by single blanks. */
static inline int among(const char *text, size_t size, const char *words)
{
    for (;;) {
        size_t n = 0;
        while (words[n] && words[n] != ' ')
            n++;
        if (n == size) {
            size_t i = 0;
            while (i < n && text[i] == words[i])
                i++;
            if (i == n)
                return 1;
        }
        if (!words[n])
            return 0;
        words += n + 1;
    }
}

#endif
