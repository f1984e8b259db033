#include "console.h"

#include <stdbool.h>
#include <stddef.h>

#include "app_info.h"
#include "board.h"
#include "failures.h"
#include "rpc.h"

#define LINE_SIZE 64U

static char line[LINE_SIZE];
static unsigned line_length;

void console_write_version(void)
{
    board_write(app_info.name);
    board_write_character(' ');
    board_write(app_info.version);
    board_write(" (build ");
    board_write(app_info.build_id);
    board_write_character(')');
}

static void do_version(void)
{
    console_write_version();
    board_write_character('\n');
}

static void do_uptime(void)
{
    board_write("up ");
    board_write_decimal(board_uptime_ms());
    board_write(" ms\n");
}

static void do_reboot(void)
{
    board_write("rebooting\n");
    board_reboot();
}

static void do_hang(void)
{
    board_write("hanging\n");
    fail_by_hanging();
}

static void do_help(void);

static const struct command {
    const char *name;
    void (*run)(void);
} commands[] = {
    {"help", do_help},     {"version", do_version}, {"uptime", do_uptime},
    {"reboot", do_reboot}, {"hang", do_hang},       {"fault", fail_by_hard_fault},
};
#define COMMAND_COUNT (sizeof commands / sizeof commands[0])

static void do_help(void)
{
    board_write("commands:");
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        board_write_character(' ');
        board_write(commands[i].name);
    }
    board_write_character('\n');
}

static bool is_same(const char *one, const char *other)
{
    while (*one && *one == *other) {
        one++;
        other++;
    }
    return *one == *other;
}

static void obey(void)
{
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        if (is_same(line, commands[i].name)) {
            commands[i].run();
            return;
        }
    }
    board_write("unknown command: ");
    board_write(line);
    board_write(" (try help)\n");
}

static void end_line(void)
{
    board_write_character('\n');
    if (line_length == LINE_SIZE) {
        board_write("line too long\n");
    } else if (line_length > 0) {
        line[line_length] = '\0';
        obey();
    }
    line_length = 0;
}

static void take_byte(char byte)
{
    static char previous;

    /* Terminals end a line with CR, scripts with LF, some with both: which is one end, not two. */
    if (byte == '\r' || (byte == '\n' && previous != '\r')) {
        end_line();
    } else if (byte >= ' ' && byte <= '~') {
        board_write_character(byte);
        /* A line that fills the buffer leaves no room for its NUL: that marks it as too long. */
        if (line_length < LINE_SIZE) {
            line[line_length++] = byte;
        }
    }
    previous = byte;
}

void console_turn(void)
{
    for (int byte; (byte = board_read_byte()) >= 0;) {
        if (OWN_RPC) {
            rpc_take_byte((char) byte, take_byte);
        } else {
            take_byte((char) byte);
        }
    }
}
