"""The whole board does what a campaign has computed, and both are compared.

The same state, the same loader: on the real drivers and chip models, with the board's own service
and the processor of any engine. Whatever differs is an error of the campaign, never a finding about
the loader.

Where a campaign has left a file system's partition erased, as it does in scenarios that are not
about files, an empty file system is put there: a board without one rightly refuses all calls.
"""

from bootloader_model.protocol import Loader
from campaign.boot import Ending, LoaderFactory, run_boot
from campaign.files import with_file_systems
from campaign.images import Image
from campaign.judge import Kind, Problem
from campaign.processor import version_of
from campaign.real import MismatchError, RealBoot
from otasim.campaign_board import CampaignBoard, no_downloads
from otasim.device import DeviceSoftware
from otasim.settings import DeviceSettings
from platforms.machine import Machine
from rpc_shim.uart import HostOutput


def whole_device(machine: Machine, loader: Loader, output: HostOutput) -> DeviceSoftware:
    """All of the board's own software."""
    return DeviceSoftware(machine, loader, output, DeviceSettings(), no_downloads, None)


class BoardCheck:
    """Makes boots on the whole board.

    Args:
        engine: what runs the processor. There can be one board on Renode in a process.
    """

    def __init__(self, engine: str) -> None:
        self._engine = engine
        self._board = CampaignBoard(engine, whole_device)

    def compare(
        self, story: str, state: RealBoot, loader: LoaderFactory, image: Image | None
    ) -> str | Problem:
        """Boot a state here and in the campaign.

        Args:
            story: identifier of the story that leads to the state.
            state: what the flash holds, and how the board boots.
            loader: makes the boot loader. A boot that does not come to its end is not repeated.
            image: what runs, as far as the campaign knows; it has to answer. None: nothing does
                that is known, and what comes of it is not compared.

        Returns:
            The version that answers, or why none does.

        Raises:
            MismatchError: the board decides otherwise, ends otherwise, starts something else,
                leaves other flash contents behind, or another version answers.
        """
        contents = with_file_systems(state.contents)
        state = RealBoot(contents, state.cause, state.reading, state.seed)
        computed = run_boot(
            loader(), contents, cause=state.cause, reading=state.reading, seed=state.seed
        )
        if computed.ending is Ending.HUNG:
            return Problem(Kind.HANG, computed.problem)
        board = self._board.boot(state, loader(), computed.contents)
        for what, made, wanted in (
            ("ends:", board.ending.value, computed.ending.value),
            ("decides", board.reasons, computed.reasons),
            ("starts", board.target, computed.target),
        ):
            if made != wanted:
                self._distrust(story, f"{what} {made}, computed: {wanted}")
        if board.difference is not None:
            raise MismatchError(story, board.difference)
        answer = board.answer
        if image is not None and (isinstance(answer, Problem) or answer != version_of(image)):
            told = answer.text if isinstance(answer, Problem) else f"version {answer} answers"
            self._distrust(story, f"starts image {image}, but {told}")
        return answer

    def close(self) -> None:
        """Give back what the engine holds."""
        self._board.close()

    def _distrust(self, story: str, what: str) -> None:
        raise MismatchError(story, f"the board on engine {self._engine} {what}")
