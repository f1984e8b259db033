/*
 * The sample application: says who it is and why it was reset, then feeds the watchdog and serves
 * its console. The variants that fail are this same program with one of the settings below.
 */
#include <stdbool.h>

#include "board.h"
#include "console.h"
#include "failures.h"
#include "self_test.h"

/* Each in milliseconds after start; 0 means never. */
#ifndef HANG_AFTER_MS
#define HANG_AFTER_MS 0
#endif
#ifndef FAULT_AFTER_MS
#define FAULT_AFTER_MS 0
#endif
#ifndef STOP_FEEDING_AFTER_MS
#define STOP_FEEDING_AFTER_MS 0
#endif

/* 1: initialisation never ends. */
#ifndef NO_MAIN_LOOP
#define NO_MAIN_LOOP 0
#endif

static void introduce(void)
{
    console_write_version();
    board_write(" starting, reset cause: ");
    board_write(board_take_reset_cause());
    board_write_character('\n');

    const char *failed = self_test();
    board_write("self-test: ");
    board_write(failed ? failed : "ok");
    board_write(failed ? " failed\n" : "\n");

    board_write("flash: JEDEC ID ");
    board_write_hex(board_read_jedec_id(), 6);
    board_write_character('\n');
}

static bool is_due(uint32_t after_ms, uint32_t uptime_ms)
{
    return after_ms != 0 && uptime_ms >= after_ms;
}

static void fail_when_due(uint32_t uptime_ms)
{
    if (is_due(HANG_AFTER_MS, uptime_ms)) {
        board_write("hanging\n");
        fail_by_hanging();
    }
    if (is_due(FAULT_AFTER_MS, uptime_ms)) {
        fail_by_hard_fault();
    }
}

/* A message a second shows that the application goes on, though nobody tells the watchdog. */
static void tell_that_unfed(uint32_t uptime_ms)
{
    static uint32_t told_ms;

    if (uptime_ms - told_ms >= 1000) {
        told_ms = uptime_ms;
        board_write("up ");
        board_write_decimal(uptime_ms);
        board_write(" ms, not feeding the watchdog\n");
    }
}

int main(void)
{
    board_start();
    introduce();
    if (NO_MAIN_LOOP) {
        board_write("initialising: waiting for a sensor that never answers\n");
        fail_by_hanging();
    }
    board_write("ready\n");

    /* One feed is one turn: whoever watches the watchdog being fed sees the main loop go round. */
    for (;;) {
        uint32_t uptime_ms = board_uptime_ms();

        fail_when_due(uptime_ms);
        if (is_due(STOP_FEEDING_AFTER_MS, uptime_ms)) {
            tell_that_unfed(uptime_ms);
        } else {
            board_feed_watchdog();
        }
        console_turn();
        /* A byte that comes in just before this waits for the next tick, no longer. */
        board_sleep();
    }
}
