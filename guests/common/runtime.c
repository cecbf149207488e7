/* What the compiler may call on its own, even in freestanding code. */
#include <stddef.h>

void *memset(void *to, int byte, size_t count);
void *memcpy(void *restrict to, const void *restrict from, size_t count);

void *memset(void *to, int byte, size_t count)
{
    void *at = to;
    __asm__ volatile("cld; rep stosb" : "+D"(at), "+c"(count) : "a"(byte) : "memory");
    return to;
}

void *memcpy(void *restrict to, const void *restrict from, size_t count)
{
    void *at = to;
    __asm__ volatile("cld; rep movsb" : "+D"(at), "+S"(from), "+c"(count) : : "memory");
    return to;
}
