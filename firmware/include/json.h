/*
 * JSON as it stands in a buffer: checked, and looked up by where things begin and end. Nothing is
 * copied or converted, so an answer can repeat parts of its request exactly as they came.
 */
#ifndef JSON_H
#define JSON_H

#include <stdbool.h>
#include <stddef.h>

/* A piece of the buffer. A value that is not there has no start and no length. */
struct json_text {
    const char *start;
    size_t length;
};

/* Behind the spaces, tabs and line ends at `at`. */
const char *json_skip_space(const char *at);

/*
 * Behind the JSON object that starts at `at`, or a null pointer when there stands no valid one, or
 * one that is nested too deeply. The text around it ends with a NUL.
 */
const char *json_skip_object(const char *at);

/* The value of a member of an object that json_skip_object() has found valid. */
struct json_text json_member(const char *object, const char *name);

/* Whether the value is the string `expected`, which needs no escapes. */
bool json_is_string(struct json_text value, const char *expected);

#endif
