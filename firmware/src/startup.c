/*
 * From reset to main(): the vector table, RAM as C expects it, and default handlers.
 */
#include <stdint.h>

#include "stm32f405.h"

extern uint32_t stack_top[], data_load[], data_start[], data_end[], bss_start[], bss_end[];

int main(void);
void Reset_Handler(void);
void Default_Handler(void);

/* Waits for the watchdog: an exception nobody handles is a bug, and a reset the way out of it. */
__attribute__((weak)) void Default_Handler(void)
{
    for (;;) {
    }
}

/* A handler is the default one until some other file defines a function of its name. */
#define WEAK(name) void name(void) __attribute__((weak, alias("Default_Handler")));

#define SYSTEM_EXCEPTIONS(X)                                                                       \
    X(NMI_Handler) X(HardFault_Handler) X(MemManage_Handler) X(BusFault_Handler)                   \
    X(UsageFault_Handler) X(SVC_Handler) X(DebugMon_Handler) X(PendSV_Handler) X(SysTick_Handler)

/* External interrupts 0 to 81, RM0090 12.1.3; those the F405 lacks have the F407's names. */
#define INTERRUPTS(X)                                                                              \
    X(WWDG_IRQHandler) X(PVD_IRQHandler) X(TAMP_STAMP_IRQHandler) X(RTC_WKUP_IRQHandler)           \
    X(FLASH_IRQHandler) X(RCC_IRQHandler) X(EXTI0_IRQHandler) X(EXTI1_IRQHandler)                  \
    X(EXTI2_IRQHandler) X(EXTI3_IRQHandler) X(EXTI4_IRQHandler) X(DMA1_Stream0_IRQHandler)         \
    X(DMA1_Stream1_IRQHandler) X(DMA1_Stream2_IRQHandler) X(DMA1_Stream3_IRQHandler)               \
    X(DMA1_Stream4_IRQHandler) X(DMA1_Stream5_IRQHandler) X(DMA1_Stream6_IRQHandler)               \
    X(ADC_IRQHandler) X(CAN1_TX_IRQHandler) X(CAN1_RX0_IRQHandler) X(CAN1_RX1_IRQHandler)          \
    X(CAN1_SCE_IRQHandler) X(EXTI9_5_IRQHandler) X(TIM1_BRK_TIM9_IRQHandler)                       \
    X(TIM1_UP_TIM10_IRQHandler) X(TIM1_TRG_COM_TIM11_IRQHandler) X(TIM1_CC_IRQHandler)             \
    X(TIM2_IRQHandler) X(TIM3_IRQHandler) X(TIM4_IRQHandler) X(I2C1_EV_IRQHandler)                 \
    X(I2C1_ER_IRQHandler) X(I2C2_EV_IRQHandler) X(I2C2_ER_IRQHandler) X(SPI1_IRQHandler)           \
    X(SPI2_IRQHandler) X(USART1_IRQHandler) X(USART2_IRQHandler) X(USART3_IRQHandler)              \
    X(EXTI15_10_IRQHandler) X(RTC_Alarm_IRQHandler) X(OTG_FS_WKUP_IRQHandler)                      \
    X(TIM8_BRK_TIM12_IRQHandler) X(TIM8_UP_TIM13_IRQHandler) X(TIM8_TRG_COM_TIM14_IRQHandler)      \
    X(TIM8_CC_IRQHandler) X(DMA1_Stream7_IRQHandler) X(FSMC_IRQHandler) X(SDIO_IRQHandler)         \
    X(TIM5_IRQHandler) X(SPI3_IRQHandler) X(UART4_IRQHandler) X(UART5_IRQHandler)                  \
    X(TIM6_DAC_IRQHandler) X(TIM7_IRQHandler) X(DMA2_Stream0_IRQHandler)                           \
    X(DMA2_Stream1_IRQHandler) X(DMA2_Stream2_IRQHandler) X(DMA2_Stream3_IRQHandler)               \
    X(DMA2_Stream4_IRQHandler) X(ETH_IRQHandler) X(ETH_WKUP_IRQHandler) X(CAN2_TX_IRQHandler)      \
    X(CAN2_RX0_IRQHandler) X(CAN2_RX1_IRQHandler) X(CAN2_SCE_IRQHandler) X(OTG_FS_IRQHandler)      \
    X(DMA2_Stream5_IRQHandler) X(DMA2_Stream6_IRQHandler) X(DMA2_Stream7_IRQHandler)               \
    X(USART6_IRQHandler) X(I2C3_EV_IRQHandler) X(I2C3_ER_IRQHandler)                               \
    X(OTG_HS_EP1_OUT_IRQHandler) X(OTG_HS_EP1_IN_IRQHandler) X(OTG_HS_WKUP_IRQHandler)             \
    X(OTG_HS_IRQHandler) X(DCMI_IRQHandler) X(CRYP_IRQHandler) X(HASH_RNG_IRQHandler)              \
    X(FPU_IRQHandler)

SYSTEM_EXCEPTIONS(WEAK)
INTERRUPTS(WEAK)

typedef void (*handler)(void);
#define ENTRY(name) name,

struct vector_table {
    uint32_t *stack_pointer;
    handler system[15];
    handler interrupts[82];
};

__attribute__((section(".vectors"), used)) static const struct vector_table vectors = {
    .stack_pointer = stack_top,
    .system = {Reset_Handler, NMI_Handler, HardFault_Handler, MemManage_Handler, BusFault_Handler,
               UsageFault_Handler, 0, 0, 0, 0, SVC_Handler, DebugMon_Handler, 0, PendSV_Handler,
               SysTick_Handler},
    .interrupts = {INTERRUPTS(ENTRY)},
};
_Static_assert(sizeof(struct vector_table) == 4 * (16 + 82), "one entry for each exception");

/* The compiler may ask for these two wherever it copies or clears an object. */
void *memcpy(void *to, const void *from, __SIZE_TYPE__ length)
{
    uint8_t *target = to;
    const uint8_t *source = from;
    while (length--) {
        *target++ = *source++;
    }
    return to;
}

void *memset(void *start, int value, __SIZE_TYPE__ length)
{
    uint8_t *target = start;
    while (length--) {
        *target++ = (uint8_t) value;
    }
    return start;
}

void Reset_Handler(void)
{
    /* The loader has done so already; a debugger that starts the image by itself has not. */
    SCB_VTOR = (uint32_t) &vectors;

    const uint32_t *source = data_load;
    for (uint32_t *word = data_start; word < data_end; word++) {
        *word = *source++;
    }
    for (uint32_t *word = bss_start; word < bss_end; word++) {
        *word = 0;
    }
    main();
    Default_Handler();
}
