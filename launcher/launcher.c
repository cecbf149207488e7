/* The `kvmbox` command: what has to be right before a Python interpreter can be started.
 *
 * An interpreter answers by itself until our first line runs. To SIGINT, to a directory as stdin, to a limit
 * that is too low and to some environment variables its answer is status 1, or 127 of the dynamic linker, and
 * odd statuses are a guest's verdict. This program has no interpreter, no dynamic linker and no C library. It
 *
 * 1. blocks the signals that ask for an end, so that they wait until kvmbox's handlers stand;
 * 2. opens /dev/null where descriptor 0, 1 or 2 is closed, and refuses what Python dies of with status 1;
 * 3. becomes the interpreter that the script beside it names: NAME-python for a launcher called NAME.
 *
 * Whatever fails ends with status 4, one line that says why, and a hint. The script's first line was written
 * by whoever installed kvmbox (pip, uv, pipx, a distribution). It is read here rather than by the kernel,
 * because the kernel takes no blank in the interpreter's path, and none that is longer than 255 characters.
 */
#include "environment.h"
#include "linux.h"

enum { COULD_NOT_START = 4 };

static const char suffix[] = "-python";

/* --- Saying what is wrong ---------------------------------------------------------------------------- */

/* `parts` ends with NULL. One write, so that lines of several commands do not mix. */
static _Noreturn void die(const char *const *parts)
{
    char line[2048];
    size_t used = 0;
    for (; *parts; parts++)
        for (const char *text = *parts; *text && used < sizeof line - 1; text++)
            line[used++] = *text;
    line[used++] = '\n';
    /* Nobody may be there to read it; there is nothing left to do about that. */
    syscall3(SYS_WRITE, 2, (long)line, (long)used);
    for (;;)
        syscall3(SYS_EXIT_GROUP, COULD_NOT_START, 0, 0);
}

#define DIE(...) die((const char *const[]){"kvmbox: error: ", __VA_ARGS__, NULL})

static const char *reason(long result)
{
    switch (-result) {
    case ENOENT: return "No such file or directory";
    case E2BIG: return "Argument list too long";
    case ENOEXEC: return "Exec format error";
    case ENOMEM: return "Cannot allocate memory";
    case EACCES: return "Permission denied";
    case EMFILE: return "Too many open files";
    default: return "the kernel refuses it";
    }
}

/* --- 1. Signals -------------------------------------------------------------------------------------- */

#define BIT(number) (1ul << ((number) - 1))

/* All that kill by default and that somebody may send to end a command. Not among them: SIGKILL and SIGSTOP;
 * faults (4 ILL, 5 TRAP, 6 ABRT, 7 BUS, 8 FPE, 11 SEGV, 31 SYS); what stops, continues or is ignored (17 CHLD,
 * 18 CONT, 20 TSTP, 21 TTIN, 22 TTOU, 23 URG, 28 WINCH); what Python ignores (13 PIPE, 25 XFSZ); and the two
 * that glibc's threads use (32 and 33). */
static const sigset ending =
    ~(BIT(9) | BIT(19) | BIT(4) | BIT(5) | BIT(6) | BIT(7) | BIT(8) | BIT(11) | BIT(31) | BIT(17) | BIT(18) |
      BIT(20) | BIT(21) | BIT(22) | BIT(23) | BIT(28) | BIT(13) | BIT(25) | BIT(32) | BIT(33));

/* Block what asks for an end, but for what whoever started us ignores. Returns the mask that was found. */
static sigset hold_signals(void)
{
    sigset found = 0, held = ending;
    syscall4(SYS_RT_SIGPROCMASK, SIG_BLOCK, (long)&ending, (long)&found, sizeof found);
    for (int number = 1; number <= 64; number++) {
        struct sigaction action = {0};
        syscall4(SYS_RT_SIGACTION, number, 0, (long)&action, sizeof action.mask);
        if (action.handler == (void *)1)
            held &= ~BIT(number);
    }
    held |= found;
    syscall4(SYS_RT_SIGPROCMASK, SIG_SETMASK, (long)&held, 0, sizeof held);
    return found;
}

/* --- 2. What Python would die of --------------------------------------------------------------------- */

/* A closed stdout becomes one that cannot be written to: output that goes nowhere must not look written. */
static void check_descriptors(void)
{
    static const char *const names[] = {"stdin", "stdout", "stderr"};
    for (int number = 0; number < 3; number++) {
        struct stat status;
        long flags = syscall3(SYS_FCNTL, number, F_GETFL, 0);
        if (flags == -EBADF) {
            long opened = syscall3(SYS_OPEN, (long)"/dev/null", number == 2 ? O_WRONLY : O_RDONLY, 0);
            if (opened < 0)
                DIE(names[number], " is closed, and /dev/null cannot be opened: ", reason(opened),
                    "\nhint: redirect it, for example to a file");
            /* The lowest free number: those below are open by now, so this is `number`. */
            continue;
        }
        if (flags & O_PATH)
            DIE(names[number], " is a descriptor that only names a file (O_PATH)",
                "\nhint: redirect it, for example to /dev/null");
        if (!syscall3(SYS_FSTAT, number, (long)&status, 0) && (status.mode & S_IFMT) == S_IFDIR)
            DIE(names[number], " is a directory", "\nhint: redirect it, for example to /dev/null");
    }
}

/* With less than about a third of it no interpreter from 3.11 to 3.13 reached its first line. */
static const struct {
    int resource;
    unsigned long least;
    const char *text, *option;
} floors[] = {
    {RLIMIT_AS, 48ul << 20, "address space (RLIMIT_AS) is below 48 MiB", "-v"},
    {RLIMIT_DATA, 16ul << 20, "data (RLIMIT_DATA) is below 16 MiB", "-d"},
    {RLIMIT_STACK, 256ul << 10, "stack (RLIMIT_STACK) is below 256 KiB", "-s"},
    {RLIMIT_NOFILE, 16, "open files (RLIMIT_NOFILE) is below 16", "-n"},
};

static void check_limits(void)
{
    for (size_t i = 0; i < sizeof floors / sizeof *floors; i++) {
        struct rlimit limit;
        if (!syscall4(SYS_PRLIMIT64, 0, floors[i].resource, 0, (long)&limit) && limit.soft < floors[i].least)
            DIE("the limit of ", floors[i].text, ": too little for the interpreter",
                "\nhint: raise it: 'ulimit ", floors[i].option, "'");
    }
}

/* Copy what the interpreter may see of `from` to `to`, and add what it is told: the signal mask to go back
 * to, and an encoding that it knows. Where there is no C.UTF-8, Python falls back to C, and to UTF-8. */
static void copy_environment(char **from, char **to, char *mask_variable)
{
    for (; *from; from++) {
        const char *accepted = "";
        switch (fate_of(*from, &accepted)) {
        case PASSES:
            *to++ = *from;
            break;
        case REFUSED:
            DIE("the environment has ", *from, ", which Python does not know",
                "\nhint: unset it, or give it one of: ", accepted);
        case LEFT_OUT:
            break;
        }
    }
    *to++ = "LC_CTYPE=C.UTF-8";
    *to++ = mask_variable;
    *to = NULL;
}

/* --- 3. The interpreter ------------------------------------------------------------------------------ */

/* Open NAME-python beside this program; its path is left in `path`. */
static long open_script(char path[PATH_SIZE], const char *executed)
{
    long size = syscall3(SYS_READLINK, (long)"/proc/self/exe", (long)path, PATH_SIZE - (long)sizeof suffix);
    if (size < 0) { /* no /proc */
        size = (long)length(executed);
        if (size > PATH_SIZE - (long)sizeof suffix)
            return -ENOENT;
        for (long i = 0; i < size; i++)
            path[i] = executed[i];
    }
    for (size_t i = 0; i < sizeof suffix; i++)
        path[size + (long)i] = suffix[i];
    return syscall3(SYS_OPEN, (long)path, O_RDONLY | O_CLOEXEC, 0);
}

/* The interpreter that the script's first line names, or NULL. `line` is where it is read to. */
static char *interpreter_of(long script, char line[PATH_SIZE])
{
    long size = syscall3(SYS_READ, script, (long)line, PATH_SIZE - 1);
    long end = 0;
    while (end < size && line[end] != '\n')
        end++;
    if (end >= size || !begins(line, "#!"))
        return NULL;
    char *path = line + 2;
    while (*path == ' ' || *path == '\t') /* as the kernel does; installers of Debian write one */
        path++;
    if (*path != '/')
        return NULL;
    while (line[end - 1] == ' ' || line[end - 1] == '\r')
        end--;
    line[end] = 0;
    return path;
}

/* A process that is replaced, or that ends with 4. `stack` is what the kernel left: argc, argv, envp, auxv. */
__attribute__((used)) static _Noreturn void launch(long *stack)
{
    sigset found = hold_signals();
    char mask_variable[] = "KVMBOX_SIGMASK=0000000000000000";
    for (int i = 0; i < 16; i++)
        mask_variable[sizeof mask_variable - 2 - (size_t)i] = "0123456789abcdef"[found >> 4 * i & 15];

    long count = stack[0];
    char **arguments = (char **)(stack + 1);
    char **environment = arguments + count + 1;
    size_t variables = 0;
    while (environment[variables])
        variables++;
    const char *executed = "";
    for (long *auxiliary = (long *)(environment + variables + 1); *auxiliary != AT_NULL; auxiliary += 2)
        if (*auxiliary == AT_EXECFN)
            executed = (const char *)auxiliary[1];

    check_descriptors();
    check_limits();
    /* Both are as long as what the kernel has put on this stack, which is a quarter of its limit at most. */
    char *allowed[variables + 3];
    copy_environment(environment, allowed, mask_variable);

    char path[PATH_SIZE], line[PATH_SIZE];
    long script = open_script(path, executed);
    if (script < 0)
        DIE("cannot read '", path, "': ", reason(script),
            "\nhint: it belongs beside this program; install kvmbox anew");
    char *interpreter = interpreter_of(script, line);
    if (!interpreter)
        DIE("'", path, "' names no interpreter in its first line", "\nhint: install kvmbox anew");
    /* Some installers write a line for the shell, which finds the interpreter; then the kernel shall read it. */
    int by_shell = equal(interpreter, "/bin/sh");
    char *words[count + 4], **word = words;
    if (!by_shell) {
        *word++ = interpreter;
        *word++ = "-P"; /* what lies in the script's directory is nothing to import */
    }
    *word++ = path;
    for (long i = 1; i < count; i++)
        *word++ = arguments[i];
    *word = NULL;
    const char *program = by_shell ? path : interpreter;
    long result = syscall3(SYS_EXECVE, (long)program, (long)words, (long)allowed);
    DIE("cannot start '", program, "': ", reason(result),
        result == -E2BIG   ? "\nhint: give it fewer or shorter arguments"
        : result == -EACCES ? "\nhint: this user may not run it; install kvmbox with a Python that all may run"
                            : "\nhint: the Python that kvmbox was installed for is gone; install kvmbox anew");
}

__asm__(".globl _start\n"
        "_start:\n"
        "    xor %ebp, %ebp\n"
        "    mov %rsp, %rdi\n"
        "    and $-16, %rsp\n"
        "    call launch\n"
        "    ud2\n");
