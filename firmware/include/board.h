/*
 * The board as the application sees it: console, tick, watchdog, SPI flash, reset.
 */
#ifndef BOARD_H
#define BOARD_H

#include <stdint.h>

#define TICK_MS 20U

/* Clocks, pins, console with its receive interrupt, SPI and the SysTick interrupt. Call it once. */
void board_start(void);

/* Why the chip was reset, from RCC_CSR, whose flags are cleared: call it once. */
const char *board_take_reset_cause(void);

/* Time since board_start() in steps of TICK_MS; wraps after 49 days. */
uint32_t board_uptime_ms(void);

void board_feed_watchdog(void);

/* Sleep until an interrupt has been served; SysTick brings one at least every TICK_MS. */
void board_sleep(void);

/* Request a system reset once the console has sent all that was written to it. */
_Noreturn void board_reboot(void);

/* The SPI flash's JEDEC ID: manufacturer, memory type and capacity in bits 23..0. */
uint32_t board_read_jedec_id(void);

/* The next byte received on the console, or -1 when there is none. */
int board_read_byte(void);

void board_write_character(char character);
void board_write(const char *text);
void board_write_decimal(uint32_t value);
void board_write_hex(uint32_t value, unsigned digits);

#endif
