/*
 * Frames are lines of JSON, with a CRC-32 of it in hexadecimal behind it if the client likes. They
 * stand between newlines or triple quotes, which are taken for separators alike and never paired
 * up. An answer is framed as its request was.
 */
#include "rpc.h"

#include <stdbool.h>
#include <stdint.h>

#include "app_info.h"
#include "board.h"
#include "json.h"

#define FRAME_SIZE 512U
#define END_OF_TRANSMISSION '\x04'
#define QUOTES "\"\"\""

/* What stands between the last separator and here. */
static enum {
    NOTHING,
    HANDSHAKE, /* an end of transmission and nothing else */
    TEXT,
    FRAME,     /* what began with a brace is in `frame` */
    NOISE,     /* no ASCII: nothing counts until the next brace or separator */
    OVERRUN,   /* too long: nothing counts until the next separator */
} segment;

static char frame[FRAME_SIZE + 1]; /* with room for a NUL */
static unsigned frame_length;

/* -- the answer: written as it is made, the CRC goes along with it -- */

static uint32_t crc;

static uint32_t crc32_step(uint32_t value, char character)
{
    value ^= (uint8_t) character;
    for (unsigned bit = 0; bit < 8; bit++) {
        value = value >> 1 ^ (value & 1 ? 0xEDB88320UL : 0);
    }
    return value;
}

static void put_character(char character)
{
    crc = crc32_step(crc, character);
    board_write_character(character);
}

static void put(const char *text)
{
    while (*text) {
        put_character(*text++);
    }
}

static void put_json(struct json_text value)
{
    for (size_t i = 0; i < value.length; i++) {
        put_character(value.start[i]);
    }
}

static void put_decimal(uint32_t value)
{
    if (value >= 10) {
        put_decimal(value / 10);
    }
    put_character((char) ('0' + value % 10));
}

/* -- the methods: each writes its result -- */

static void do_list(struct json_text params);

static void do_echo(struct json_text params)
{
    if (params.length) {
        put_json(params);
    } else {
        put("null");
    }
}

static void do_ping(struct json_text params)
{
    (void) params;
    put("{\"channel_info\":\"UART2\"}");
}

static void do_get_info(struct json_text params)
{
    (void) params;
    put("{\"id\":\"");
    put(app_info.name);
    put("\",\"app\":\"");
    put(app_info.name);
    put("\",\"fw_version\":\"");
    put(app_info.version);
    put("\",\"fw_id\":\"");
    put(app_info.build_id);
    put("\",\"uptime\":");
    put_decimal(board_uptime_ms() / 1000);
    put(",\"answered_by\":\"firmware\"}");
}

static const struct method {
    const char *name;
    void (*run)(struct json_text params);
} methods[] = {
    {"Echo", do_echo},
    {"RPC.List", do_list},
    {"RPC.Ping", do_ping},
    {"Sys.GetInfo", do_get_info},
};
#define METHOD_COUNT (sizeof methods / sizeof methods[0])

static void do_list(struct json_text params)
{
    (void) params;
    for (size_t i = 0; i < METHOD_COUNT; i++) {
        put(i == 0 ? "[\"" : ",\"");
        put(methods[i].name);
        put("\"");
    }
    put("]");
}

/* -- the request -- */

static void put_outcome(struct json_text method)
{
    for (size_t i = 0; i < METHOD_COUNT; i++) {
        if (json_is_string(method, methods[i].name)) {
            struct json_text params = json_member(frame, "params");

            put(",\"result\":");
            methods[i].run(params.length ? params : json_member(frame, "args"));
            return;
        }
    }
    put(",\"error\":{\"code\":404,\"message\":\"No handler for ");
    /* Without its quotes, but with its escapes: it stands in a string again. */
    put_json((struct json_text){method.start + 1, method.length - 2});
    put("\"}");
}

static void put_member(const char *name, struct json_text value)
{
    if (value.length) {
        put(",\"");
        put(name);
        put("\":");
        put_json(value);
    }
}

static void answer(struct json_text id, struct json_text method, bool quoted, bool with_crc)
{
    /* A newline first, whatever stands on the line: an answer starts a line of its own. */
    board_write(quoted ? "\n" QUOTES : "\n");
    crc = 0xFFFFFFFFUL;
    put("{\"id\":");
    put_json(id);
    put(",\"src\":\"");
    put(app_info.name);
    put("\"");
    put_member("dst", json_member(frame, "src"));
    put_member("tag", json_member(frame, "tag"));
    put_outcome(method);
    put("}");
    if (with_crc) {
        board_write_hex(~crc, 8);
    }
    board_write(quoted ? QUOTES "\n" : "\n");
}

static int hex_digit(char character)
{
    if (character >= '0' && character <= '9') {
        return character - '0';
    }
    /* The bit that tells small letters from capital ones. */
    character |= 0x20;
    return character >= 'a' && character <= 'f' ? character - 'a' + 10 : -1;
}

/* Whether up to eight digits at `metadata`, and behind them nothing or a comma, are that CRC. */
static bool is_crc(const char *metadata, uint32_t expected)
{
    uint32_t value = 0;
    unsigned count = 0;

    for (int digit; count < 8 && (digit = hex_digit(*metadata)) >= 0; metadata++) {
        value = value << 4 | (uint32_t) digit;
        count++;
    }
    metadata = json_skip_space(metadata);
    return count > 0 && (*metadata == '\0' || *metadata == ',') && value == expected;
}

static uint32_t crc32_of(const char *start, const char *end)
{
    uint32_t value = 0xFFFFFFFFUL;

    while (start < end) {
        value = crc32_step(value, *start++);
    }
    return ~value;
}

static bool is_id(struct json_text value)
{
    return value.length > 0 && (*value.start == '"' || *value.start == '-' ||
                                (*value.start >= '0' && *value.start <= '9'));
}

/* Obey the frame; what was wrong with it, or a null pointer when nothing was. */
static const char *obey(bool quoted)
{
    frame[frame_length] = '\0';

    const char *end = json_skip_object(frame);
    if (!end) {
        return "not JSON";
    }
    const char *metadata = json_skip_space(end);
    bool with_crc = *metadata != '\0';
    if (with_crc && !is_crc(metadata, crc32_of(frame, end))) {
        return "wrong CRC";
    }
    struct json_text id = json_member(frame, "id");
    struct json_text method = json_member(frame, "method");
    if (!method.length || *method.start != '"') {
        return "no request";
    }
    if (!id.length) {
        /* A notification: nobody waits, and no method here does more than answer. */
        return 0;
    }
    if (!is_id(id)) {
        return "its id is no number or string";
    }
    answer(id, method, quoted, with_crc);
    return 0;
}

static void tell_dropped(const char *reason)
{
    board_write("rpc: frame dropped: ");
    board_write(reason);
    board_write_character('\n');
}

/* -- the line -- */

static void end_segment(bool quoted)
{
    if (segment == HANDSHAKE) {
        board_write("\n" QUOTES "\x04" QUOTES);
    } else if (segment == FRAME) {
        const char *problem = obey(quoted);
        if (problem) {
            tell_dropped(problem);
        }
    }
    segment = NOTHING;
}

static void take_frame_byte(char byte)
{
    if ((uint8_t) byte >= 0x80) {
        tell_dropped("not ASCII");
        segment = NOISE;
    } else if (frame_length == FRAME_SIZE) {
        tell_dropped("too long");
        segment = OVERRUN;
    } else {
        frame[frame_length++] = byte;
    }
}

static void take_content(char byte, void (*to_console)(char))
{
    if (byte == '{' && segment != FRAME && segment != OVERRUN) {
        segment = FRAME;
        frame_length = 0;
    }
    if (segment == FRAME) {
        take_frame_byte(byte);
    } else if (segment < FRAME) {
        segment = segment == NOTHING && byte == END_OF_TRANSMISSION ? HANDSHAKE : TEXT;
        to_console(byte);
    }
}

void rpc_take_byte(char byte, void (*to_console)(char))
{
    static unsigned quotes; /* held back until it is clear whether they are three */
    static bool after_quotes;

    if (byte == '"') {
        if (++quotes == 3) {
            quotes = 0;
            after_quotes = true;
            end_segment(true);
        }
        return;
    }
    while (quotes) {
        quotes--;
        take_content('"', to_console);
    }
    if (byte != '\n') {
        take_content(byte, to_console);
    } else {
        /* A newline that ends a frame, or stands behind one, is no Enter key. */
        if (segment == TEXT || (segment == NOTHING && !after_quotes)) {
            to_console(byte);
        }
        end_segment(false);
    }
    after_quotes = false;
}
