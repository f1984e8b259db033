import select
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpc_shim.dispatch import Channel
from rpc_shim.links.mailbox import TAKEN_AT_ONCE, Boot, Mailbox, do_nothing

CHANNEL = Channel("TCP")


def at_once(function: Callable[..., None], /, *arguments: object) -> None:
    function(*arguments)


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    mailbox = Mailbox(at_once)
    yield mailbox
    mailbox.close()


def new_boot(mailbox: Mailbox) -> Boot:
    boot = Boot(mailbox, at_once, "dev", 4096)
    mailbox.let_in(boot)
    return boot


def is_readable(mailbox: Mailbox) -> bool:
    return bool(select.select([mailbox], [], [], 0)[0])


def test_what_comes_in_the_name_of_an_ended_boot_is_not_let_in(mailbox: Mailbox) -> None:
    old = new_boot(mailbox)
    old.post(b"before", CHANNEL, lambda _json: None, do_nothing)
    new = new_boot(mailbox)
    old.post(b"after", CHANNEL, lambda _json: None, do_nothing)
    new.post(b"new", CHANNEL, lambda _json: None, do_nothing)
    assert [request.frame for request in mailbox.take()] == [b"new"]
    mailbox.let_in(None)
    new.post(b"after", CHANNEL, lambda _json: None, do_nothing)
    assert mailbox.take() == []
    assert not is_readable(mailbox)


def test_an_answer_to_an_ended_boot_is_dropped(mailbox: Mailbox) -> None:
    boot = new_boot(mailbox)
    answers: list[bytes] = []
    for _ in range(2):
        boot.post(b"frame", CHANNEL, answers.append, do_nothing)
    first, second = mailbox.take()
    first.reply(b"in time")
    boot.ended.set()
    second.reply(b"too late")
    assert answers == [b"in time"]


def test_lines_are_bounded_and_outlive_the_boot(mailbox: Mailbox) -> None:
    boot = new_boot(mailbox)
    for number in range(1000):
        boot.log(str(number))
    mailbox.let_in(None)
    assert mailbox.take_lines() == [str(number) for number in range(900, 1000)]
    assert mailbox.take_lines() == []


STEPS = st.one_of(
    st.just("post"), st.tuples(st.just("withdraw"), st.integers(0, 200)), st.just("take"),
    st.just("acknowledge"), st.just("reset"), st.just("many"),
)  # fmt: skip


@given(st.lists(STEPS, max_size=40))
def test_a_queue_from_which_can_be_withdrawn(steps: list[str | tuple[str, int]]) -> None:
    mailbox = Mailbox(at_once)
    boot = new_boot(mailbox)
    model: list[bytes] = []
    taken: list[bytes] = []
    entries = {}
    news = False
    for number, step in enumerate(steps):
        match step:
            case "post" | "many":
                for each in range(1 if step == "post" else 100):
                    frame = b"%d.%d" % (number, each)
                    told = partial(taken.append, frame)
                    entries[frame] = boot.post(frame, CHANNEL, lambda _json: None, told)
                    model.append(frame)
                news = True
            case ("withdraw", place) if place < len(model):
                boot.withdraw(entries[model.pop(place)])
            case "take":
                expected, model = model[:TAKEN_AT_ONCE], model[TAKEN_AT_ONCE:]
                taken.clear()
                assert [request.frame for request in mailbox.take()] == expected == taken
                news = bool(model)
            case "acknowledge":
                mailbox.acknowledge()
                news = False
            case "reset":
                boot = new_boot(mailbox)
                model.clear()
                news = False
        assert is_readable(mailbox) == news
    mailbox.close()
