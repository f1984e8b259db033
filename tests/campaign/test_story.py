"""Identifiers of stories: what is printed can be parsed, what cannot is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootloader_model.layout import FlashName
from campaign.cells import Reading, Tear
from campaign.faults import Fault
from campaign.story import Cut, Damage, Recovery, Story, StoryIdError
from platforms.devices.torn import TornShape

NUMBERS = st.integers(0, 10_000)
DAMAGES = st.none() | st.builds(Damage, st.sampled_from(FlashName), NUMBERS)
CUTS = st.one_of(
    st.builds(Cut, NUMBERS, damage=DAMAGES),
    st.builds(Cut, NUMBERS, is_after=st.just(True)),
    st.builds(
        Cut,
        NUMBERS,
        st.builds(
            Tear,
            st.sampled_from(TornShape),
            st.sampled_from([0.0, 0.02, 0.05, 0.5, 0.95, 0.99, 1.0]),
            st.integers(0, 2**32),
        ),
    ),
)
RECOVERIES = st.lists(st.builds(Recovery, st.sampled_from(Reading), st.none() | CUTS), max_size=4)


@given(
    name=st.sampled_from(["update-commit", "my.module:LIFE"]),
    cut=CUTS,
    rest=RECOVERIES,
    fault=st.sampled_from(Fault),
)
def test_an_identifier_says_everything(
    name: str, cut: Cut, rest: list[Recovery], fault: Fault
) -> None:
    story = Story(name, cut, tuple(rest), fault)
    assert Story.parse(story.identifier) == story


@given(st.text(alphabet="a1/:@~>.-+%", max_size=30))
def test_any_text_is_a_story_or_refused(text: str) -> None:
    try:
        story = Story.parse(text)
    except StoryIdError:
        return
    assert Story.parse(story.identifier) == story


@pytest.mark.parametrize(
    "identifier",
    [
        "",
        "a/x",
        "a/1:half@2~0",
        "a/1:half@0.5",
        "a/1:gone@0.5~0",
        "a/1:before/run",
        "a/1:before/odd>run",
        "a+no-fault/1:before",
        "a/1:ram.7%before",
    ],
)
def test_what_is_no_story_is_refused(identifier: str) -> None:
    with pytest.raises(StoryIdError):
        Story.parse(identifier)
