import pytest

from platforms.devices.reset_cause import ResetCause


@pytest.mark.parametrize(
    ("cause", "register"),
    [
        (ResetCause.POWER_ON, 0x0E00_0000),
        (ResetCause.PIN, 0x0400_0000),
        (ResetCause.SOFTWARE, 0x1400_0000),
        (ResetCause.WATCHDOG, 0x2400_0000),
        (ResetCause.BROWN_OUT, 0x0600_0000),
    ],
)
def test_a_cause_shows_in_the_register_and_is_read_back(cause: ResetCause, register: int) -> None:
    assert cause.rcc_csr_flags == register
    assert ResetCause.from_rcc_csr(register | 0x3) is cause


def test_cleared_flags_show_no_cause() -> None:
    assert ResetCause.from_rcc_csr(0x3) is None


def test_of_flags_that_have_piled_up_the_rarest_counts() -> None:
    assert ResetCause.from_rcc_csr(0x0E00_0000 | 0x2400_0000) is ResetCause.WATCHDOG
    assert ResetCause.from_rcc_csr(0x0E00_0000 | 0x1400_0000) is ResetCause.SOFTWARE
