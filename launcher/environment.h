/* Which variables of the environment the Python interpreter gets to see.
 *
 * With some values the interpreter ends with status 1 before it runs a line, and 1 is what a guest says that
 * wrote 0 to the debug-exit port. So variables that begin with PYTHON pass if they are known here:
 *
 * - with any value, where no value ends the interpreter;
 * - with the values that no interpreter from 3.11 to 3.13 refuses; others are refused here, with status 4.
 *
 * All the rest of PYTHON* is left out: it tells where the files of an interpreter are (PYTHONHOME,
 * PYTHONPLATLIBDIR, PYTHONEXECUTABLE), and kvmbox has its own, or it is of a later version, whose answer to a
 * wrong value nobody has tried. LC_ALL and LC_CTYPE are left out as well, for a locale may have an encoding that
 * Python has no codec for (ARMSCII-8 of hy_AM): kvmbox writes UTF-8. tests/integration/test_launcher.py tries them all.
 */
#ifndef ENVIRONMENT_H
#define ENVIRONMENT_H

#include "linux.h"

enum fate { PASSES, LEFT_OUT, REFUSED };

static const char any_value[] =
    "PYTHONASYNCIODEBUG PYTHONBREAKPOINT PYTHONCASEOK PYTHONCOERCECLOCALE PYTHONDEBUG PYTHONDEVMODE "
    "PYTHONDONTWRITEBYTECODE PYTHONFAULTHANDLER PYTHONMALLOCSTATS PYTHONNODEBUGRANGES PYTHONNOUSERSITE "
    "PYTHONOPTIMIZE PYTHONPATH PYTHONPERFSUPPORT PYTHONPROFILEIMPORTTIME PYTHONPYCACHEPREFIX PYTHONSAFEPATH "
    "PYTHONUNBUFFERED PYTHONUSERBASE PYTHONVERBOSE PYTHONWARNDEFAULTENCODING PYTHONWARNINGS PYTHON_COLORS";

static const char allocators[] = "default malloc malloc_debug pymalloc pymalloc_debug debug";
static const char encodings[] =
    "utf-8 utf8 utf_8 UTF-8 UTF8 ascii US-ASCII us-ascii latin-1 latin1 latin_1 iso-8859-1 ISO-8859-1 "
    "iso-8859-15 ISO-8859-15 cp437 cp850 cp1252";
static const char error_handlers[] =
    "strict ignore replace xmlcharrefreplace backslashreplace namereplace surrogateescape surrogatepass";

/* Whether `text` is a decimal number from `low` to `high`; the interpreter's other ways to write one are not
 * needed. */
static int is_number(const char *text, unsigned long low, unsigned long high)
{
    unsigned long value = 0;
    size_t digits = 0;
    for (; text[digits] >= '0' && text[digits] <= '9' && digits < 11; digits++)
        value = value * 10 + (unsigned long)(text[digits] - '0');
    return digits && !text[digits] && low <= value && value <= high;
}

/* "encoding", "encoding:errors" or ":errors". */
static int is_io_encoding(const char *text)
{
    size_t end = 0;
    while (text[end] && text[end] != ':')
        end++;
    if (end && !among(text, end, encodings))
        return 0;
    if (!text[end] || !text[end + 1])
        return 1;
    return among(text + end + 1, length(text + end + 1), error_handlers);
}

/* What becomes of "NAME=value"; where it is refused, `*accepted` says what would not be. */
static enum fate fate_of(const char *variable, const char **accepted)
{
    size_t size = 0;
    if (begins(variable, "__PYVENV_LAUNCHER__=") || begins(variable, "KVMBOX_SIGMASK=") ||
        begins(variable, "LC_ALL=") || begins(variable, "LC_CTYPE="))
        return LEFT_OUT;
    if (!begins(variable, "PYTHON"))
        return PASSES;
    while (variable[size] && variable[size] != '=')
        size++;
    if (!variable[size] || among(variable, size, any_value))
        return PASSES;
    const char *value = variable + size + 1;
    int fits;
    if (begins(variable, "PYTHONHASHSEED=")) {
        *accepted = "random, or a number from 0 to 4294967295";
        fits = equal(value, "random") || is_number(value, 0, 4294967295);
    } else if (begins(variable, "PYTHONINTMAXSTRDIGITS=")) {
        *accepted = "0, or a number from 640 to 2147483647";
        fits = is_number(value, 0, 0) || is_number(value, 640, 2147483647);
    } else if (begins(variable, "PYTHONIOENCODING=")) {
        *accepted = "utf-8, ascii, latin-1, and few others, with one of Python's error handlers";
        fits = is_io_encoding(value);
    } else if (begins(variable, "PYTHONMALLOC=")) {
        *accepted = allocators;
        fits = among(value, length(value), allocators);
    } else if (begins(variable, "PYTHONTRACEMALLOC=")) {
        *accepted = "a number from 0 to 65535";
        fits = is_number(value, 0, 65535);
    } else if (begins(variable, "PYTHONUTF8=")) {
        *accepted = "0 or 1";
        fits = is_number(value, 0, 1);
    } else {
        return LEFT_OUT;
    }
    if (!*value) /* the same as none */
        return LEFT_OUT;
    return fits ? PASSES : REFUSED;
}

#endif
