#include "board.h"

#include "stm32f405.h"

/* The high-speed internal oscillator drives everything after a reset, and is left in charge. */
#define CLOCK_HZ 16000000UL
#define BAUD_RATE 115200UL

/* 1: while no more can be received, RTS tells the sender so. */
#ifndef FLOW_CONTROL
#define FLOW_CONTROL 0
#endif

#define PIN_USART2_RTS 1U
#define PIN_USART2_TX 2U
#define PIN_USART2_RX 3U
#define PIN_FLASH_SELECT 4U
#define PIN_SPI1_SCK 5U
#define PIN_SPI1_MISO 6U
#define PIN_SPI1_MOSI 7U
#define ALTERNATE_SPI1 5U
#define ALTERNATE_USART2 7U

#define CONSOLE_ON (USART_CR1_UE | USART_CR1_TE | USART_CR1_RE)

#define FLASH_COMMAND_JEDEC_ID 0x9FU

static volatile uint32_t ticks;

/*
 * Received bytes between the interrupt, which alone moves `received_end`, and the main loop, which
 * alone moves `received_start`: so neither needs a lock. Both count modulo 256, the ring's size.
 */
static volatile uint8_t received[256];
static volatile uint8_t received_start;
static volatile uint8_t received_end;

void SysTick_Handler(void)
{
    ticks++;
}

void USART2_IRQHandler(void)
{
    if (FLOW_CONTROL && (uint8_t) (received_end + 1U) == received_start) {
        /* An unread byte raises RTS; board_read_byte() switches the interrupt on again. */
        USART2->CR1 = CONSOLE_ON;
        return;
    }

    /* Reading the status, then the data also clears an overrun, which would interrupt for ever. */
    uint32_t status = USART2->SR;
    uint8_t byte = (uint8_t) USART2->DR;
    uint8_t next = (uint8_t) (received_end + 1U);

    /* A full ring loses the newest byte, as a full receiver does. */
    if ((status & USART_SR_RXNE) && next != received_start) {
        received[received_end] = byte;
        received_end = next;
    }
}

static void enable_clocks(void)
{
    RCC_AHB1ENR |= RCC_AHB1ENR_GPIOAEN;
    RCC_APB1ENR |= RCC_APB1ENR_USART2EN | RCC_APB1ENR_PWREN;
    RCC_APB2ENR |= RCC_APB2ENR_SPI1EN;
    /* The errata want two cycles between a clock's enabling and its use: read back to be sure. */
    (void) RCC_APB2ENR;

    PWR_CR |= PWR_CR_VOS;
}

static void set_pin_mode(unsigned pin, uint32_t mode)
{
    GPIOA->OSPEEDR = (GPIOA->OSPEEDR & ~(3UL << (2 * pin))) | GPIO_SPEED_HIGH << (2 * pin);
    GPIOA->MODER = (GPIOA->MODER & ~(3UL << (2 * pin))) | mode << (2 * pin);
}

static void set_pin_alternate(unsigned pin, uint32_t alternate)
{
    GPIOA->AFRL = (GPIOA->AFRL & ~(15UL << (4 * pin))) | alternate << (4 * pin);
    set_pin_mode(pin, GPIO_MODE_ALTERNATE);
}

static void start_pins(void)
{
    set_pin_alternate(PIN_USART2_TX, ALTERNATE_USART2);
    set_pin_alternate(PIN_USART2_RX, ALTERNATE_USART2);
    /* An unconnected receiver must read as idle, which is high. */
    GPIOA->PUPDR |= GPIO_PULL_UP << (2 * PIN_USART2_RX);

    /* High before it becomes an output, or the flash would see a selection. */
    GPIOA->BSRR = BIT(PIN_FLASH_SELECT);
    set_pin_mode(PIN_FLASH_SELECT, GPIO_MODE_OUTPUT);
    set_pin_alternate(PIN_SPI1_SCK, ALTERNATE_SPI1);
    set_pin_alternate(PIN_SPI1_MISO, ALTERNATE_SPI1);
    set_pin_alternate(PIN_SPI1_MOSI, ALTERNATE_SPI1);
}

static void start_console(void)
{
    USART2->BRR = (CLOCK_HZ + BAUD_RATE / 2) / BAUD_RATE;
    if (FLOW_CONTROL) {
        set_pin_alternate(PIN_USART2_RTS, ALTERNATE_USART2);
        USART2->CR3 = USART_CR3_RTSE;
    }
    USART2->CR1 = CONSOLE_ON | USART_CR1_RXNEIE;
    NVIC_IPR[USART2_IRQ] = 0x40;
    NVIC_ISER[USART2_IRQ / 32] = BIT(USART2_IRQ % 32);
}

static void start_tick(void)
{
    SCB_SHPR[EXCEPTION_SYSTICK - 4] = 0x80;
    SYSTICK->LOAD = CLOCK_HZ / 1000 * TICK_MS - 1;
    SYSTICK->VAL = 0;
    SYSTICK->CTRL = SYSTICK_CTRL_CLKSOURCE | SYSTICK_CTRL_TICKINT | SYSTICK_CTRL_ENABLE;
}

void board_start(void)
{
    enable_clocks();
    start_pins();
    start_console();
    /* Master, mode 0, 8 bits, half the clock; the chip is selected by hand, so NSS is tied high. */
    SPI1->CR1 = SPI_CR1_MSTR | SPI_CR1_SSM | SPI_CR1_SSI | SPI_CR1_SPE;
    start_tick();
}

const char *board_take_reset_cause(void)
{
    uint32_t flags = RCC_CSR;
    RCC_CSR = flags | RCC_CSR_RMVF;

    /* Most telling first: every reset pulls the pin, a power-on trips the brown-out too. */
    if (flags & RCC_CSR_IWDGRSTF) {
        return "watchdog";
    }
    if (flags & RCC_CSR_WWDGRSTF) {
        return "window watchdog";
    }
    if (flags & RCC_CSR_SFTRSTF) {
        return "software";
    }
    if (flags & RCC_CSR_LPWRRSTF) {
        return "low-power";
    }
    if (flags & RCC_CSR_PORRSTF) {
        return "power-on";
    }
    if (flags & RCC_CSR_BORRSTF) {
        return "brown-out";
    }
    if (flags & RCC_CSR_PINRSTF) {
        return "pin";
    }
    return "unknown";
}

uint32_t board_uptime_ms(void)
{
    return ticks * TICK_MS;
}

void board_feed_watchdog(void)
{
    IWDG_KR = IWDG_KR_RELOAD;
}

void board_sleep(void)
{
    __asm volatile("wfi" ::: "memory");
}

_Noreturn void board_reboot(void)
{
    while (!(USART2->SR & USART_SR_TC)) {
    }
    SCB_AIRCR = SCB_AIRCR_VECTKEY | SCB_AIRCR_SYSRESETREQ;
    __asm volatile("dsb" ::: "memory");
    for (;;) {
    }
}

static uint8_t transfer(uint8_t byte)
{
    while (!(SPI1->SR & SPI_SR_TXE)) {
    }
    SPI1->DR = byte;
    while (!(SPI1->SR & SPI_SR_RXNE)) {
    }
    return (uint8_t) SPI1->DR;
}

uint32_t board_read_jedec_id(void)
{
    uint32_t id = 0;

    GPIOA->BSRR = BIT(PIN_FLASH_SELECT + 16);
    transfer(FLASH_COMMAND_JEDEC_ID);
    for (unsigned i = 0; i < 3; i++) {
        id = id << 8 | transfer(0xFF);
    }
    while (SPI1->SR & SPI_SR_BSY) {
    }
    GPIOA->BSRR = BIT(PIN_FLASH_SELECT);
    return id;
}

int board_read_byte(void)
{
    uint8_t start = received_start;

    if (start == received_end) {
        return -1;
    }
    uint8_t byte = received[start];
    received_start = (uint8_t) (start + 1U);
    if (FLOW_CONTROL) {
        USART2->CR1 = CONSOLE_ON | USART_CR1_RXNEIE;
    }
    return byte;
}

void board_write_character(char character)
{
    while (!(USART2->SR & USART_SR_TXE)) {
    }
    USART2->DR = (uint8_t) character;
}

void board_write(const char *text)
{
    while (*text) {
        board_write_character(*text++);
    }
}

void board_write_decimal(uint32_t value)
{
    char digits[11];
    char *first = &digits[sizeof digits - 1];

    *first = '\0';
    do {
        *--first = (char) ('0' + value % 10);
        value /= 10;
    } while (value);
    board_write(first);
}

void board_write_hex(uint32_t value, unsigned digits)
{
    while (digits--) {
        board_write_character("0123456789abcdef"[value >> (4 * digits) & 15]);
    }
}
