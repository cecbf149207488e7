/*
 * int 10h: text in the buffer at 0xB8000, and the same text on the console.
 *
 * The console is a stream: it has no cursor to be set. `shown_row` and `shown_column` say where the stream is on the
 * screen. A character that stands elsewhere is preceded by what leads there: a new line, blanks, backspaces. Blanks that
 * a guest writes without moving the cursor (AH=09h, 0Ah: to clear the screen) are not sent.
 *
 * In graphics, graphics.c draws the characters. The registers of the VGA follow a service, so that a kernel that reads
 * the cursor of the CRT controller goes on where the boot sector stopped. At power-on they are those of mode 3.
 */
#include "bios.h"
#include "dispi.h"
#include "graphics.h"

enum { ATTRIBUTE = 0x07, PAGES = 8 };
enum { BEL = 7, BS = 8, LF = 10, CR = 13 };
enum { NOWHERE = 0xff };

static uint8_t shown_row, shown_column, shown;

/* --- The console ------------------------------------------------------------------------------------------ */

static void send(uint8_t character)
{
    outb(BIOS_TEXT, character);
}

static void lead_to(uint8_t row, uint8_t column)
{
    if (row != shown_row) {
        if (shown_column) {
            send(CR);
            send(LF);
        }
        shown_row = row;
        shown_column = 0;
    }
    for (; shown_column > column; shown_column--)
        send(BS);
    for (; shown_column < column; shown_column++)
        send(' ');
}

static void show(uint8_t row, uint8_t column, uint8_t character)
{
    /* AH=09h for the colour, then AH=0Eh to move on, is one character. */
    if (row == shown_row && column + 1 == shown_column && character == shown)
        return;
    lead_to(row, column);
    send(character);
    shown_column++;
    shown = character;
}

/* --- The screen ------------------------------------------------------------------------------------------- */

static uint16_t columns(void)
{
    return far16(BDA, BDA_COLUMNS);
}

static uint8_t rows(void)
{
    return (uint8_t)(far8(BDA, BDA_ROWS) + 1);
}

static uint16_t screen(void)
{
    return far8(BDA, BDA_MODE) == 7 ? 0xb000 : 0xb800;
}

static uint16_t cell(uint8_t page, uint8_t row, uint8_t column)
{
    return (uint16_t)((page & (PAGES - 1)) * far16(BDA, BDA_PAGE_SIZE) + 2 * (row * columns() + column));
}

static uint16_t cursor(uint8_t page)
{
    return far16(BDA, (uint16_t)(BDA_CURSOR + 2 * (page & (PAGES - 1))));
}

static void set_cursor(uint8_t page, uint8_t row, uint8_t column)
{
    set_far16(BDA, (uint16_t)(BDA_CURSOR + 2 * (page & (PAGES - 1))), (uint16_t)(row << 8 | column));
}

/* --- The CRT controller ------------------------------------------------------------------------------------ */

enum { CURSOR_START = 0x0a, CURSOR_END, START_HIGH, START_LOW, PLACE_HIGH, PLACE_LOW };
enum { LINES_OF_CGA = 8, CURSOR_OFF = 0x20 };

static void set_crtc(uint8_t index, uint8_t value)
{
    uint16_t port = far16(BDA, BDA_CRTC);

    outb(port, index);
    outb(port + 1, value);
}

static void show_page(void)
{
    uint16_t start = far16(BDA, BDA_PAGE_START) / 2;

    set_crtc(START_HIGH, (uint8_t)(start >> 8));
    set_crtc(START_LOW, (uint8_t)start);
}

static void show_cursor(void)
{
    uint16_t at = cursor(far8(BDA, BDA_PAGE));
    uint16_t place = (uint16_t)(far16(BDA, BDA_PAGE_START) / 2 + (at >> 8) * columns() + (at & 0xff));

    set_crtc(PLACE_HIGH, (uint8_t)(place >> 8));
    set_crtc(PLACE_LOW, (uint8_t)place);
}

/* A shape for the 8 lines of a CGA is stretched to the lines that characters have. */
static void show_shape(void)
{
    uint16_t shape = far16(BDA, BDA_CURSOR_SHAPE);
    uint8_t first = (uint8_t)(shape >> 8), last = (uint8_t)shape, height = far8(BDA, BDA_CELL_HEIGHT);

    if (height > LINES_OF_CGA && last < LINES_OF_CGA && first < CURSOR_OFF) {
        uint8_t end = (uint8_t)((last + 1) * height / LINES_OF_CGA - 1);

        first = last == first + 1 ? (uint8_t)(end - 1) : (uint8_t)((first + 1) * height / LINES_OF_CGA - 1);
        last = end;
    }
    set_crtc(CURSOR_START, first);
    set_crtc(CURSOR_END, last);
}

/* The text that fits with characters of so many lines. */
static void set_cell_height(uint8_t height)
{
    uint8_t fits = (uint8_t)(400 / height);
    uint16_t shown_lines = (uint16_t)(fits * height - 1);

    set_far16(BDA, BDA_CELL_HEIGHT, height);
    set_far8(BDA, BDA_ROWS, (uint8_t)(fits - 1));
    set_far16(BDA, BDA_PAGE_SIZE, (uint16_t)((fits * columns() * 2 + 0x7ff) & ~0x7ff));
    set_crtc(0x09, (uint8_t)(0x40 | (height - 1)));
    set_crtc(0x12, (uint8_t)shown_lines);
    set_far16(BDA, BDA_CURSOR_SHAPE, (uint16_t)(height == 8 ? 0x0607 : (height - 3) << 8 | (height - 2)));
    show_shape();
}

/* --- The services' parts ----------------------------------------------------------------------------------- */

/* A window up (or down) by so many lines; 0: all of it is cleared. */
static void scroll(uint8_t page, uint8_t lines, uint8_t attribute, uint16_t from, uint16_t to, int down)
{
    uint16_t width = columns();
    uint8_t top = (uint8_t)(from >> 8), left = (uint8_t)from, bottom = (uint8_t)(to >> 8), right = (uint8_t)to;
    uint16_t count;

    if (bottom >= rows())
        bottom = (uint8_t)(rows() - 1);
    if (right >= width)
        right = (uint8_t)(width - 1);
    if (top > bottom || left > right)
        return;
    count = (uint16_t)(right - left + 1);
    if (lines == 0 || lines > bottom - top + 1)
        lines = (uint8_t)(bottom - top + 1);
    for (uint8_t i = 0; i < bottom - top + 1 - lines; i++) {
        uint8_t row = (uint8_t)(down ? bottom - i : top + i);
        uint8_t source = (uint8_t)(down ? row - lines : row + lines);

        if (in_graphics())
            move_cells(page, row, source, left, (uint8_t)count);
        else
            far_move16(screen(), cell(page, row, left), cell(page, source, left), count);
    }
    for (uint8_t i = 0; i < lines; i++) {
        uint8_t row = (uint8_t)(down ? top + i : bottom - i);

        if (in_graphics())
            fill_cells(page, row, left, (uint8_t)count, attribute);
        else
            far_fill16(screen(), cell(page, row, left), (uint16_t)(attribute << 8 | ' '), count);
    }
}

static void line_feed(uint8_t page, uint8_t *row)
{
    if (*row + 1 < rows()) {
        ++*row;
        return;
    }
    scroll(page, 1, in_graphics() ? 0 : far8(screen(), (uint16_t)(cell(page, *row, 0) + 1)), 0,
           (uint16_t)((rows() - 1) << 8 | (columns() - 1)), 0);
}

/* A character in a cell; `attribute` is kept as it is in the cell if that is negative. */
static void put(uint8_t page, uint8_t row, uint8_t column, uint8_t character, int attribute)
{
    if (in_graphics()) {
        draw_character(page, row, column, character, (uint8_t)attribute);
        return;
    }
    set_far8(screen(), cell(page, row, column), character);
    if (attribute >= 0)
        set_far8(screen(), (uint16_t)(cell(page, row, column) + 1), (uint8_t)attribute);
}

/* A character as a teletype prints it; `attribute` as above. */
static void teletype(uint8_t page, uint8_t character, int attribute)
{
    uint8_t row = (uint8_t)(cursor(page) >> 8), column = (uint8_t)cursor(page);

    switch (character) {
    case BEL:
        send(BEL);
        return;
    case BS:
        if (column) {
            column--;
            if (row == shown_row && column + 1 == shown_column) {
                send(BS);
                shown_column--;
                shown = 0;
            }
        }
        break;
    case CR:
        column = 0;
        if (row == shown_row) {
            send(CR);
            shown_column = 0;
        }
        break;
    case LF:
        lead_to(row, column);
        send(LF);
        line_feed(page, &row);
        shown_row = row;
        shown = 0;
        break;
    default:
        put(page, row, column, character, attribute);
        if (character)
            show(row, column, character);
        if (++column == columns()) { /* the stream needs no new line where the screen does */
            int together = row == shown_row;

            column = 0;
            line_feed(page, &row);
            if (together) {
                shown_row = row;
                shown_column = 0;
                shown = 0;
            }
        }
    }
    set_cursor(page, row, column);
}

void print(const char *text)
{
    for (; *text; text++)
        teletype(far8(BDA, BDA_PAGE), (uint8_t)*text, in_graphics() ? ATTRIBUTE : -1);
}

/* AH=09h and 0Ah: so many characters from the cursor on, which stays. */
static void write_cells(const struct frame *f, int with_attribute)
{
    uint16_t at = cursor(f->b.h);
    uint8_t row = (uint8_t)(at >> 8), column = (uint8_t)at, character = f->a.l;
    uint16_t most = (uint16_t)(rows() * columns()), place = cell(f->b.h, row, column);
    uint16_t count = f->c.x < most ? f->c.x : most;
    int shows = character != ' ' && character != 0 && character != 0xff;

    if (in_graphics()) {
        uint8_t r = row, c = column;

        for (uint16_t i = 0; i < count && r < rows(); i++) {
            draw_character(f->b.h, r, c, character, f->b.l);
            if (++c == columns()) {
                c = 0;
                r++;
            }
        }
    } else if (with_attribute) {
        far_fill16(screen(), place, (uint16_t)(f->b.l << 8 | character), count);
    } else {
        for (uint16_t i = 0; i < count; i++)
            set_far8(screen(), (uint16_t)(place + 2 * i), character);
    }
    for (uint16_t i = 0; shows && i < count && row < rows(); i++) {
        show(row, column, character);
        if (++column == columns()) {
            column = 0;
            row++;
        }
    }
}

static void write_string(struct frame *f)
{
    uint16_t before = cursor(f->b.h);
    uint16_t at = f->bp.x;

    set_cursor(f->b.h, f->d.h, f->d.l);
    for (uint16_t i = 0; i < f->c.x; i++) {
        uint8_t character = far8(f->es, at++);

        teletype(f->b.h, character, f->a.l & 2 ? far8(f->es, at++) : f->b.l);
    }
    if (!(f->a.l & 1))
        set_cursor(f->b.h, (uint8_t)(before >> 8), (uint8_t)before);
}

void enter_mode(uint8_t mode)
{
    uint8_t number = mode & 0x7f;

    vbe_off();
    set_far8(BDA, BDA_MODE, number);
    set_far8(BDA, BDA_VIDEO_CONTROL, (uint8_t)(0x60 | (mode & 0x80)));
    describe_mode(number);
    set_far16(BDA, BDA_PAGE_START, 0);
    far_fill16(BDA, BDA_CURSOR, 0, PAGES);
    set_far16(BDA, BDA_CURSOR_SHAPE, 0x0607);
    set_far8(BDA, BDA_PAGE, 0);
    set_far16(BDA, BDA_CRTC, number == 7 ? 0x3b4 : 0x3d4);
    shown_row = NOWHERE;
}

static void clear_text(void)
{
    far_fill16(screen(), 0, ATTRIBUTE << 8 | ' ', 0x4000);
}

int set_vga_mode(uint8_t mode)
{
    uint8_t number = mode & 0x7f, graphics = (uint8_t)is_graphics(number);

    if (number > 3 && number != 7 && !graphics)
        return 0;
    enter_mode(mode);
    program_mode(number);
    if (!(mode & 0x80) && graphics)
        clear_graphics();
    else if (!(mode & 0x80))
        clear_text();
    return 1;
}

/* The registers have mode 3 at power-on. */
void video_start(void)
{
    enter_mode(3);
    clear_text();
    shown_row = shown_column = shown = 0;
}

/* Services that change what the CRT controller shows of a text. */
static void show_changes(uint8_t function)
{
    if (in_graphics())
        return;
    if (function == 0x05)
        show_page();
    if (function == 0x01)
        show_shape();
    else
        show_cursor();
}

static enum action serve(struct frame *f)
{
    uint8_t page = f->b.h, mode = f->a.l & 0x7f;

    switch (f->a.h) {
    case 0x00:
        if (!set_vga_mode(f->a.l))
            break;
        f->a.l = mode == 6 ? 0x3f : mode > 7 ? 0x20 : 0x30;
        return DONE;
    case 0x01:
        set_far16(BDA, BDA_CURSOR_SHAPE, f->c.x);
        return DONE;
    case 0x02:
        set_cursor(page, f->d.h, f->d.l);
        return DONE;
    case 0x03:
        f->d.x = cursor(page);
        f->c.x = far16(BDA, BDA_CURSOR_SHAPE);
        return DONE;
    case 0x04: /* no light pen */
        f->a.h = 0;
        return DONE;
    case 0x05:
        if (f->a.l >= PAGES)
            return DONE;
        set_far8(BDA, BDA_PAGE, f->a.l);
        set_far16(BDA, BDA_PAGE_START, cell(f->a.l, 0, 0));
        return DONE;
    case 0x06:
    case 0x07:
        scroll(far8(BDA, BDA_PAGE), f->a.l, f->b.h, f->c.x, f->d.x, f->a.h == 0x07);
        if (f->a.l == 0)
            shown_row = NOWHERE;
        return DONE;
    case 0x08:
        f->a.x = far16(screen(), cell(page, (uint8_t)(cursor(page) >> 8), (uint8_t)cursor(page)));
        return DONE;
    case 0x09:
    case 0x0a:
        write_cells(f, f->a.h == 0x09);
        return DONE;
    case 0x0b: /* in text, the colour of the border */
        if (in_graphics())
            set_color(f->b.h, f->b.l);
        return DONE;
    case 0x0c:
        if (in_graphics())
            put_pixel(page, f->c.x, f->d.x, f->a.l);
        return DONE;
    case 0x0d:
        f->a.l = in_graphics() ? get_pixel(page, f->c.x, f->d.x) : 0;
        return DONE;
    case 0x0e:
        teletype(far8(BDA, BDA_PAGE), f->a.l, in_graphics() ? f->b.l : -1);
        return DONE;
    case 0x0f:
        f->a.x = (uint16_t)(columns() << 8 | far8(BDA, BDA_MODE) | (far8(BDA, BDA_VIDEO_CONTROL) & 0x80));
        f->b.h = far8(BDA, BDA_PAGE);
        return DONE;
    case 0x10:
        if (palette_function(f))
            return DONE;
        break;
    case 0x11:
        if (font_function(f))
            return DONE;
        if (in_graphics() || f->a.l < 0x11 || f->a.l > 0x14 || f->a.l == 0x13)
            break;
        set_cell_height(f->a.l == 0x11 ? 14 : f->a.l == 0x12 ? 8 : 16);
        return DONE;
    case 0x12:
        if (f->b.l == 0x10) {
            f->b.x = 0x0003;
            f->c.x = 0x0009;
        } else {
            f->a.l = 0x12;
        }
        return DONE;
    case 0x13:
        write_string(f);
        return DONE;
    case 0x1a:
        if (f->a.l == 0)
            f->b.x = 0x0008; /* a VGA with a colour monitor */
        f->a.l = 0x1a;
        return DONE;
    case 0x1b:
        tell_state(f);
        return DONE;
    default:
        report(f, REPORT_SERVICE);
        return DONE;
    }
    report(f, REPORT_FUNCTION);
    return DONE;
}

enum action video_service(struct frame *f)
{
    uint8_t function = f->a.h;
    enum action action = serve(f);

    switch (function) {
    case 0x01:
    case 0x02:
    case 0x05:
    case 0x0e:
    case 0x13:
        show_changes(function);
    }
    return action;
}
