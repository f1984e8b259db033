/*
 * Registers of the STM32F405/407 that the sample uses, named as in the reference manual RM0090 and,
 * for the core's own, in the ARMv7-M architecture manual. Everything else is left out on purpose.
 */
#ifndef STM32F405_H
#define STM32F405_H

#include <stdint.h>

#define BIT(n) (1UL << (n))

/* General-purpose I/O, RM0090 8.4. */
struct gpio {
    volatile uint32_t MODER;
    volatile uint32_t OTYPER;
    volatile uint32_t OSPEEDR;
    volatile uint32_t PUPDR;
    volatile uint32_t IDR;
    volatile uint32_t ODR;
    volatile uint32_t BSRR;
    volatile uint32_t LCKR;
    volatile uint32_t AFRL;
    volatile uint32_t AFRH;
};
#define GPIOA ((struct gpio *) 0x40020000UL)

#define GPIO_MODE_OUTPUT 1UL
#define GPIO_MODE_ALTERNATE 2UL
#define GPIO_SPEED_HIGH 2UL
#define GPIO_PULL_UP 1UL

/* Universal synchronous asynchronous receiver transmitter, RM0090 30.6. */
struct usart {
    volatile uint32_t SR;
    volatile uint32_t DR;
    volatile uint32_t BRR;
    volatile uint32_t CR1;
    volatile uint32_t CR2;
    volatile uint32_t CR3;
    volatile uint32_t GTPR;
};
#define USART2 ((struct usart *) 0x40004400UL)

#define USART_SR_RXNE BIT(5)
#define USART_SR_TC BIT(6)
#define USART_SR_TXE BIT(7)
#define USART_CR1_RE BIT(2)
#define USART_CR1_TE BIT(3)
#define USART_CR1_RXNEIE BIT(5)
#define USART_CR1_UE BIT(13)
#define USART_CR3_RTSE BIT(8)
#define USART2_IRQ 38U

/* Serial peripheral interface, RM0090 28.5. */
struct spi {
    volatile uint32_t CR1;
    volatile uint32_t CR2;
    volatile uint32_t SR;
    volatile uint32_t DR;
};
#define SPI1 ((struct spi *) 0x40013000UL)

#define SPI_CR1_MSTR BIT(2)
#define SPI_CR1_SPE BIT(6)
#define SPI_CR1_SSI BIT(8)
#define SPI_CR1_SSM BIT(9)
#define SPI_SR_RXNE BIT(0)
#define SPI_SR_TXE BIT(1)
#define SPI_SR_BSY BIT(7)

/* Reset and clock control, RM0090 7.3. */
#define RCC_AHB1ENR (*(volatile uint32_t *) 0x40023830UL)
#define RCC_APB1ENR (*(volatile uint32_t *) 0x40023840UL)
#define RCC_APB2ENR (*(volatile uint32_t *) 0x40023844UL)
#define RCC_CSR (*(volatile uint32_t *) 0x40023874UL)

#define RCC_AHB1ENR_GPIOAEN BIT(0)
#define RCC_APB1ENR_USART2EN BIT(17)
#define RCC_APB1ENR_PWREN BIT(28)
#define RCC_APB2ENR_SPI1EN BIT(12)
#define RCC_CSR_RMVF BIT(24)
#define RCC_CSR_BORRSTF BIT(25)
#define RCC_CSR_PINRSTF BIT(26)
#define RCC_CSR_PORRSTF BIT(27)
#define RCC_CSR_SFTRSTF BIT(28)
#define RCC_CSR_IWDGRSTF BIT(29)
#define RCC_CSR_WWDGRSTF BIT(30)
#define RCC_CSR_LPWRRSTF BIT(31)

/* Power control, RM0090 5.4. */
#define PWR_CR (*(volatile uint32_t *) 0x40007000UL)
#define PWR_CR_VOS BIT(14)

/* Independent watchdog, RM0090 21.4. */
#define IWDG_KR (*(volatile uint32_t *) 0x40003000UL)
#define IWDG_KR_RELOAD 0xAAAAUL

/* SysTick timer, ARMv7-M B3.3. */
struct systick {
    volatile uint32_t CTRL;
    volatile uint32_t LOAD;
    volatile uint32_t VAL;
};
#define SYSTICK ((struct systick *) 0xE000E010UL)

#define SYSTICK_CTRL_ENABLE BIT(0)
#define SYSTICK_CTRL_TICKINT BIT(1)
#define SYSTICK_CTRL_CLKSOURCE BIT(2)

/* Nested vectored interrupt controller, ARMv7-M B3.4: priorities are the upper 4 bits of a byte. */
#define NVIC_ISER ((volatile uint32_t *) 0xE000E100UL)
#define NVIC_IPR ((volatile uint8_t *) 0xE000E400UL)

/* System control block, ARMv7-M B3.2. SHPR is counted from exception 4. */
#define SCB_ICSR (*(volatile uint32_t *) 0xE000ED04UL)
#define SCB_VTOR (*(volatile uint32_t *) 0xE000ED08UL)
#define SCB_AIRCR (*(volatile uint32_t *) 0xE000ED0CUL)
#define SCB_SHPR ((volatile uint8_t *) 0xE000ED18UL)

#define SCB_ICSR_PENDSVSET BIT(28)
#define SCB_AIRCR_VECTKEY 0x05FA0000UL
#define SCB_AIRCR_SYSRESETREQ BIT(2)
#define EXCEPTION_PENDSV 14U
#define EXCEPTION_SYSTICK 15U

#endif
