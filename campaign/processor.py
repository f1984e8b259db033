"""What a campaign asks of a processor: whether what a loader has started answers, as itself.

A campaign computes what a loader does and judges the bytes that it starts. Whether they run is for
a processor to tell. It comes from outside (`otasim.campaign_processor`): campaigns know no engine.
"""

from typing import Protocol

from bootloader_model.app_info import SEARCH_LENGTH, read_app_info
from campaign.boot import BootRun, LoaderFactory
from campaign.images import Image
from campaign.judge import Kind, Problem
from campaign.real import RealBoot


class Processor(Protocol):
    """Runs the application's code after a boot."""

    def answer(self, boot: BootRun) -> str | Problem:
        """Run what a boot has started until it answers an RPC call.

        Args:
            boot: one that has started something.

        Returns:
            The version that answers, or why nothing does (Kind.NO_ANSWER).
        """
        ...


class WholeBoard(Protocol):
    """Makes boots on a whole board: the real drivers, the service, the processor."""

    def compare(
        self, story: str, state: RealBoot, loader: LoaderFactory, image: Image | None
    ) -> object:
        """Boot a state here and in the campaign; MismatchError when they differ.

        Args:
            story: identifier of the story that leads to the state.
            state: what the flash holds, and how the board boots.
            loader: makes the boot loader.
            image: what runs, as far as the campaign knows, and has to answer.
        """
        ...


def version_of(image: Image) -> str | None:
    """The version that an image answers with; None when its descriptor names none."""
    info = read_app_info(image.data[:SEARCH_LENGTH])
    return None if info is None else info.version


def answer_problem(processor: Processor, boot: BootRun, image: Image) -> Problem | None:
    """What is wrong with the answer after a boot that has started `image`; None: nothing."""
    answer = processor.answer(boot)
    if isinstance(answer, Problem):
        return answer
    expected = version_of(image)
    if expected in (None, answer):
        return None
    return Problem(Kind.NO_ANSWER, f"image {image} runs, but version {answer} answers")
