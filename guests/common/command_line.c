#include "command_line.h"

/* Behind the current word and the blanks after it. */
static const char *next_word(const char *text)
{
    while (*text && *text != ' ')
        text++;
    while (*text == ' ')
        text++;
    return text;
}

uint32_t decimal_argument(const struct multiboot_info *info, unsigned index, uint32_t otherwise)
{
    const char *text;
    uint32_t value = 0;

    if (!(info->flags & MULTIBOOT_INFO_CMDLINE))
        return otherwise;
    text = next_word(physical(info->cmdline));
    while (index--)
        text = next_word(text);
    if (*text < '0' || *text > '9')
        return otherwise;
    for (; *text >= '0' && *text <= '9'; text++)
        value = value * 10 + (uint32_t)(*text - '0');
    return value;
}
