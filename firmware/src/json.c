#include "json.h"

#include <stdint.h>

/* Each level takes some of the stack; no request needs many. */
#define MAX_NESTING 16U

static const char *skip_value(const char *at, unsigned levels);

static bool is_digit(char character)
{
    return character >= '0' && character <= '9';
}

static bool is_hex_digit(char character)
{
    return is_digit(character) || (character >= 'a' && character <= 'f') ||
           (character >= 'A' && character <= 'F');
}

static bool is_one_of(char character, const char *choice)
{
    while (*choice && *choice != character) {
        choice++;
    }
    return *choice != '\0';
}

const char *json_skip_space(const char *at)
{
    while (is_one_of(*at, " \t\r\n")) {
        at++;
    }
    return at;
}

static const char *skip_word(const char *at, const char *word)
{
    while (*word) {
        if (*at++ != *word++) {
            return 0;
        }
    }
    return at;
}

/* Behind an escape, whose backslash `at` is already behind. */
static const char *skip_escape(const char *at)
{
    if (*at != 'u') {
        return is_one_of(*at, "\"\\/bfnrt") ? at + 1 : 0;
    }
    for (unsigned i = 1; i <= 4; i++) {
        if (!is_hex_digit(at[i])) {
            return 0;
        }
    }
    return at + 5;
}

static const char *skip_string(const char *at)
{
    if (*at++ != '"') {
        return 0;
    }
    while (*at != '"') {
        if ((uint8_t) *at < ' ') {
            return 0;
        }
        if (*at++ == '\\') {
            at = skip_escape(at);
            if (!at) {
                return 0;
            }
        }
    }
    return at + 1;
}

/* At least one digit. */
static const char *skip_digits(const char *at)
{
    if (!is_digit(*at)) {
        return 0;
    }
    while (is_digit(*at)) {
        at++;
    }
    return at;
}

static const char *skip_number(const char *at)
{
    if (*at == '-') {
        at++;
    }
    /* A zero stands alone: 0.5 is a number, 05 is none. */
    at = *at == '0' ? at + 1 : skip_digits(at);
    if (at && *at == '.') {
        at = skip_digits(at + 1);
    }
    if (at && is_one_of(*at, "eE")) {
        at++;
        if (is_one_of(*at, "+-")) {
            at++;
        }
        at = skip_digits(at);
    }
    return at;
}

/* An object or a list, with so many levels allowed inside. */
static const char *skip_container(const char *at, unsigned levels)
{
    bool is_object = *at == '{';
    char closing = is_object ? '}' : ']';

    at = json_skip_space(at + 1);
    if (*at == closing) {
        return at + 1;
    }
    for (;;) {
        if (is_object) {
            at = skip_string(json_skip_space(at));
            if (!at) {
                return 0;
            }
            at = json_skip_space(at);
            if (*at++ != ':') {
                return 0;
            }
        }
        at = skip_value(at, levels);
        if (!at) {
            return 0;
        }
        at = json_skip_space(at);
        if (*at == closing) {
            return at + 1;
        }
        if (*at++ != ',') {
            return 0;
        }
    }
}

static const char *skip_value(const char *at, unsigned levels)
{
    at = json_skip_space(at);
    switch (*at) {
    case '"':
        return skip_string(at);
    case '{':
    case '[':
        return levels ? skip_container(at, levels - 1) : 0;
    case 't':
        return skip_word(at, "true");
    case 'f':
        return skip_word(at, "false");
    case 'n':
        return skip_word(at, "null");
    default:
        return skip_number(at);
    }
}

const char *json_skip_object(const char *at)
{
    return *at == '{' ? skip_value(at, MAX_NESTING) : 0;
}

bool json_is_string(struct json_text value, const char *expected)
{
    size_t i = 1;

    while (i < value.length && *expected && value.start[i] == *expected) {
        i++;
        expected++;
    }
    /* A string has its quotes with it: what is left is the closing one. */
    return !*expected && i + 1 == value.length && value.start[0] == '"';
}

struct json_text json_member(const char *object, const char *name)
{
    const char *at = json_skip_space(object + 1);

    while (*at != '}') {
        const char *end = skip_string(at);
        struct json_text key = {at, (size_t) (end - at)};
        const char *colon = json_skip_space(end);

        at = json_skip_space(colon + 1);
        end = skip_value(at, MAX_NESTING);
        if (json_is_string(key, name)) {
            return (struct json_text){at, (size_t) (end - at)};
        }
        at = json_skip_space(end);
        if (*at == ',') {
            at = json_skip_space(at + 1);
        }
    }
    return (struct json_text){0, 0};
}
