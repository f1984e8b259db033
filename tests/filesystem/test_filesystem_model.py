"""Any sequence of changes, remounts and power cuts against a dict, on the real chip model."""

from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from platforms.devices.torn import TornShape
from platforms.machine import ResetAsserted
from rpc_shim.filesystem import FileSystem, FileSystemError, Reason
from tests.filesystem.nor_rig import Contents, NorRig, contents, without_unfinished

NAMES = ("/a", "/b", "/long" + "g" * 200, "/d/a", "/d/b")
names = st.sampled_from(NAMES)


@dataclass(frozen=True)
class Cut:
    operation: int
    progress: float
    shape: TornShape
    seed: int


# Without weak bits: cells that read differently each time may bring the old content back later.
SHAPES = [shape for shape in TornShape if shape not in (TornShape.WEAK_BITS, TornShape.GARBLED)]
cuts = st.none() | st.builds(
    Cut,
    st.integers(0, 8),
    st.sampled_from((0.05, 0.5, 0.95)),
    st.sampled_from(SHAPES),
    st.integers(0, 2**16),
)
# Sizes around the bounds of the inline files, the pages and the blocks, and some to fill the flash.
data = st.builds(
    lambda size, byte: bytes([byte]) * size,
    st.sampled_from((0, 1, 128, 256, 257, 512, 4096, 4097, 9000, 70_000)),
    st.integers(0, 255),
)


class FileSystemModel(RuleBasedStateMachine):
    """The files as they should be, beside the files as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.rig = NorRig()
        self.files = self.rig.format()
        self.files.make_directory("d")
        self.model: Contents = {"/d": None}

    @rule(name=names, content=data, cut=cuts)
    def write(self, name: str, content: bytes, cut: Cut | None) -> None:
        created = () if name in self.model else (self.model | {name: b""},)
        self.change(lambda: self.files.write(name, content), {name: content}, cut, *created)

    @rule(name=names, content=data, cut=cuts)
    def append(self, name: str, content: bytes, cut: Cut | None) -> None:
        created = () if name in self.model else (self.model | {name: b""},)
        new = (self.model.get(name) or b"") + content
        self.change(lambda: self.files.append(name, content), {name: new}, cut, *created)

    @rule(name=names, content=data, share=st.floats(0, 1), cut=cuts)
    def write_at(self, name: str, content: bytes, share: float, cut: Cut | None) -> None:
        old = self.model.get(name)
        if old is not None:
            offset = round(len(old) * share)
            new = old[:offset] + content + old[offset + len(content) :]
            self.change(lambda: self.files.write_at(name, offset, content), {name: new}, cut)

    @rule(name=names, content=data, cut=cuts)
    def write_atomically(self, name: str, content: bytes, cut: Cut | None) -> None:
        self.change(lambda: self.files.write_atomically(name, content), {name: content}, cut)

    @precondition(lambda self: len(self.model) > 1)
    @rule(pick=st.integers(0), cut=cuts)
    def remove(self, pick: int, cut: Cut | None) -> None:
        name = self.pick(pick)
        self.change(lambda: self.files.remove(name), {name: None}, cut)

    @precondition(lambda self: len(self.model) > 1)
    @rule(pick=st.integers(0), to=names, cut=cuts)
    def rename(self, pick: int, to: str, cut: Cut | None) -> None:
        name = self.pick(pick)
        if name != to:
            new: Contents = {to: self.model[name], name: None}
            both = self.model | {to: self.model[name]}
            self.change(lambda: self.files.rename(name, to), new, cut, both)

    @rule()
    def remount(self) -> None:
        self.files = self.rig.mount()

    @invariant()
    def all_is_there(self) -> None:
        assert without_unfinished(contents(self.files)) == self.model
        assert 0 <= self.files.free_bytes < self.files.total_bytes

    def pick(self, number: int) -> str:
        present = sorted(self.model.keys() - {"/d"})
        return present[number % len(present)]

    def change(
        self,
        carry_out: Callable[[], object],
        new_files: Contents,
        cut: Cut | None,
        *between: Contents,
    ) -> None:
        """Carry a change out, perhaps cut short; a None in `new_files` is a file removed."""
        merged = self.model | new_files
        new = {name: data for name, data in merged.items() if data is not None or name == "/d"}
        if cut is not None:
            self.rig.cut_at(cut.operation, cut.progress, cut.shape, cut.seed)
        try:
            carry_out()
        except (FileSystemError, ResetAsserted) as error:
            if isinstance(error, FileSystemError):
                assert error.reason is Reason.FULL  # noqa: PT017 - whether it comes depends
            else:
                self.files = self.reboot()
            found = without_unfinished(contents(self.files))
            assert found in (self.model, new, *between)
            self.model = found
        else:
            self.model = new
        self.rig.power_on()

    def reboot(self) -> FileSystem:
        self.rig.power_on()
        return self.rig.mount()


TestFileSystemModel = FileSystemModel.TestCase
TestFileSystemModel.settings = settings(max_examples=60, stateful_step_count=40)
