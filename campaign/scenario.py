"""Scenarios: lives of a device, as data.

A scenario is a list of steps. Each says what happens, and which images may run when the power goes
away in it: before its last flash operation, during that one, and after it. The rules behind them
are those of the product:

- never brick: some good image runs after any cut;
- a commit that was acknowledged stays;
- an update that was not committed is rolled back;
- the way back stays a good image;
- what was acknowledged about a file holds, for each version about its own files.

What an application does is written to flash in one last operation, the boot state record; that is
its point of no return. A loader may note the start of an update anywhere before it starts it, hence
the `trial` below.
"""

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from campaign.files import FileSet
from campaign.images import NEW, NEXT, OLD, Image, push_calls
from platforms.devices.reset_cause import ResetCause
from platforms.errors import InvalidArgumentError
from rpc_shim.frame import JsonValue


@dataclass(frozen=True, slots=True)
class Expectation:
    """Which images may run at the next complete boot, and what is to be expected after that.

    Attributes:
        runs: each image that may run, and what holds from then on; None = this same expectation.
        once_noted: what holds when the power goes during or after the last flash operation of a
            boot, or None when that makes no difference.
        forbidden: what it means when one of these images, by name, runs instead.
        files: for each of these images, which files it may find: one of the sets. Where an image is
            not named nobody looks at its files.
    """

    runs: tuple[tuple[Image, "Expectation | None"], ...]
    once_noted: "Expectation | None" = None
    forbidden: tuple[tuple[str, str], ...] = ()
    files: tuple[tuple[Image, tuple[FileSet, ...]], ...] = ()

    def after(self, image: Image) -> "Expectation | None":
        """What is to be expected once `image` has run; None when it may not run."""
        for allowed, then in self.runs:
            if allowed == image:
                return self if then is None else then
        return None

    def names(self) -> str:
        """The images that may run, for people."""
        return " or ".join(image.name for image, _ in self.runs)

    def files_of(self, image: Image) -> tuple[FileSet, ...]:
        """The sets of files of which `image` must find one; empty when any will do."""
        return next((allowed for owner, allowed in self.files if owner == image), ())

    def with_files(self, files: Callable[[Image], tuple[FileSet, ...]]) -> "Expectation":
        """The same, with the files that each image may find, now and at every later boot."""
        return replace(
            self,
            runs=tuple((image, then and then.with_files(files)) for image, then in self.runs),
            once_noted=self.once_noted and self.once_noted.with_files(files),
            files=tuple((image, files(image)) for image, _ in self.runs),
        )


def keeps(image: Image, **forbidden: str) -> Expectation:
    """`image` runs at this and every later boot.

    Args:
        image: the image.
        forbidden: name of another image = kind of finding when that one runs.
    """
    return Expectation(((image, None),), forbidden=tuple(forbidden.items()))


def rolled_back(update: Image, way_back: Image) -> Expectation:
    """`update` was started and never committed: only the way back may run."""
    return keeps(way_back, **{update.name: NOT_ROLLED_BACK})


def committed(image: Image, before: Image) -> Expectation:
    """The commit of `image` was acknowledged: `before` may never run again."""
    return keeps(image, **{before.name: COMMIT_LOST})


def either(image: Image, before: Image) -> Expectation:
    """A commit is under way: made or not made, but never one and then the other."""
    return Expectation(
        ((image, committed(image, before)), (before, rolled_back(image, before))),
    )


def trial(update: Image, way_back: Image) -> Expectation:
    """`update` is complete and has not been started: it runs once, and without a commit no more."""
    back = rolled_back(update, way_back)
    noted = Expectation(((update, back), (way_back, back)))
    return Expectation(
        ((update, back),), once_noted=noted, forbidden=((way_back.name, UPDATE_LOST),)
    )


def offered(update: Image, way_back: Image) -> Expectation:
    """The record that makes an update active is being written: it counts or it does not."""
    back = rolled_back(update, way_back)
    return Expectation(((update, back), (way_back, back)))


COMMIT_LOST = "commit-lost"
NOT_ROLLED_BACK = "not-rolled-back"
UPDATE_LOST = "update-lost"


@dataclass(frozen=True, slots=True)
class Boot:
    """A reset: the loader runs, and starts an application.

    Attributes:
        cause: what resets the board. SOFTWARE is a reset that the application has asked for: it is
            a finding when one runs that has not.
    """

    cause: ResetCause = ResetCause.SOFTWARE


@dataclass(frozen=True, slots=True)
class Start:
    """The application's first moments after a boot; for scenarios where they write to flash."""


@dataclass(frozen=True, slots=True)
class Update:
    """A host pushes an update.

    Attributes:
        image: what is in it.
        commit_timeout_s: seconds until it is rolled back; 0 = it commits itself at its start.
    """

    image: Image
    commit_timeout_s: int = 60


@dataclass(frozen=True, slots=True)
class Call:
    """A host calls an RPC method of the application.

    Attributes:
        method: its name.
        params: its arguments.
        times: how often.
    """

    method: str
    params: Mapping[str, JsonValue] = field(default_factory=dict)
    times: int = 1


@dataclass(frozen=True, slots=True)
class Wait:
    """Virtual time passes in the application."""

    seconds: float


Act = Boot | Start | Update | Call | Wait


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a device's life.

    Attributes:
        name: what it is, for reports.
        act: what happens.
        before: what may run when power goes before the last flash operation of this step.
        during: the same when power goes during that operation.
        after: the same when all of it is done.
        runs: for a Boot, the image that it starts when nothing goes wrong.
    """

    name: str
    act: Act
    before: Expectation
    during: Expectation
    after: Expectation
    runs: Image | None = None


@dataclass(frozen=True, slots=True)
class Scenario:
    """A life of a device.

    Attributes:
        name: what the command line calls it.
        title: one line for people.
        steps: what happens, in order. The first is a Boot.
        first: the image that the board leaves the factory with.
        factory: an image in the factory slot; None leaves that slot empty.
        has_file_system: whether the factory makes a file system for the first image. On a board
            without, no version has one.
    """

    name: str
    title: str
    steps: tuple[Step, ...]
    first: Image = OLD
    factory: Image | None = None
    has_file_system: bool = False

    def __post_init__(self) -> None:
        """Raises InvalidArgumentError for what is no life of a device."""
        if not self.steps or not isinstance(self.steps[0].act, Boot):
            raise InvalidArgumentError(
                f"scenario {self.name}: expected a Boot as its first step: no application runs yet"
            )

    @property
    def images(self) -> tuple[Image, ...]:
        """All images in it."""
        found = [self.first]
        if self.factory is not None:
            found.append(self.factory)
        found += [step.act.image for step in self.steps if isinstance(step.act, Update)]
        found += [step.runs for step in self.steps if step.runs is not None]
        return tuple(dict.fromkeys(found))


def expectations_of(scenario: Scenario) -> tuple[Expectation, ...]:
    """Everything that is ever expected in a scenario, every object in it, always in this order."""
    found: dict[int, Expectation] = {}

    def add(expectation: Expectation | None) -> None:
        if expectation is not None and id(expectation) not in found:
            found[id(expectation)] = expectation
            for _, then in expectation.runs:
                add(then)
            add(expectation.once_noted)

    for step in scenario.steps:
        for expectation in (step.before, step.during, step.after):
            add(expectation)
    return tuple(found.values())


def steady(name: str, act: Act, image: Image, before: Image | None = None) -> Step:
    """A step during all of which `image` is what runs.

    Args:
        name: what it is.
        act: what happens.
        image: what runs.
        before: the image that must never come back, if there is one.
    """
    holds = keeps(image) if before is None else committed(image, before)
    return Step(name, act, holds, holds, holds, image if isinstance(act, Boot) else None)


def take_update(new: Image, old: Image, *, commit_timeout_s: int = 60) -> tuple[Step, ...]:
    """`new` is pushed over `old`, and started for the first time."""
    on_trial, back = trial(new, old), rolled_back(new, old)
    noted = offered(new, old)
    return (
        Step("update", Update(new, commit_timeout_s), keeps(old), offered(new, old), on_trial),
        # The board starts `new` with the last operation done; whether or not power is gone by then,
        # nobody has committed it.
        Step("first boot", Boot(), on_trial, noted, noted, new),
        Step("first start", Wait(0), back, back, back),
    )


def commit(new: Image, old: Image) -> tuple[Step, ...]:
    """`new`, on trial, is committed, and the board reset."""
    back, stays = rolled_back(new, old), committed(new, old)
    return (
        Step("commit", Call("OTA.Commit"), back, either(new, old), stays),
        Step("boot after commit", Boot(ResetCause.PIN), stays, stays, stays, new),
    )


def roll_back(new: Image, old: Image, cause: ResetCause) -> tuple[Step, ...]:
    """`new`, on trial, is reset: the loader brings `old` back."""
    back = rolled_back(new, old)
    return (Step("rollback", Boot(cause), back, back, back, old),)


def give_up(name: str, act: Act, new: Image, old: Image) -> tuple[Step, ...]:
    """`new`, on trial, gives itself up, and the loader brings `old` back."""
    back = rolled_back(new, old)
    return (Step(name, act, back, back, back), *roll_back(new, old, ResetCause.SOFTWARE))


_POWER_ON = steady("power-on", Boot(ResetCause.POWER_ON), OLD)


def _wrap() -> tuple[Step, ...]:
    # One record each. The factory's is the first, so that the records of the update that follows
    # fill the first area and go on in the second, those of the next go back to the first.
    def fill(times: int, image: Image, before: Image | None = None) -> Step:
        call = Call("OTA.SetBootState", {"commit_timeout": 60}, times)
        return steady("fill the journal", call, image, before)

    return (
        _POWER_ON,
        fill(29, OLD),
        *take_update(NEW, OLD),
        *commit(NEW, OLD),
        fill(26, NEW, OLD),
        *take_update(NEXT, NEW),
        *roll_back(NEXT, NEW, ResetCause.WATCHDOG),
        fill(8, NEW),
    )


Stages = Callable[[FileSet], tuple[FileSet, ...]]
"""Given the files before a call: what may be found while it is under way besides those, the last of
it when the call is done."""


@dataclass(frozen=True, slots=True)
class FileStep:
    """A step in which the running image changes its files.

    Attributes:
        step: the step, with what may run.
        stages: what becomes of the files.
    """

    step: Step
    stages: Stages


def put(name: str, data: bytes, *, append: bool = False) -> tuple[Call, Stages]:
    """A host writes a file, or adds to its end."""

    def stages(files: FileSet) -> tuple[FileSet, ...]:
        before = dict(files)
        after = before | {name: before.get(name, b"") + data if append else data}
        done = frozenset(after.items())
        # A new file may be there and be empty: littlefs writes its name first, then what is in it,
        # each in a commit of its own, and FS.Put does no more about it than the original.
        return (done,) if name in before else (files | {(name, b"")}, done)

    params: dict[str, JsonValue] = {"filename": name, "data": base64.b64encode(data).decode()}
    return Call("FS.Put", params | {"append": append}), stages


def remove(name: str) -> tuple[Call, Stages]:
    """A host removes a file."""

    def stages(files: FileSet) -> tuple[FileSet, ...]:
        return (frozenset(file for file in files if file[0] != name),)

    return Call("FS.Remove", {"filename": name}), stages


def rename(source: str, destination: str) -> tuple[Call, Stages]:
    """A host renames a file: for a moment it has both names, never none."""

    def stages(files: FileSet) -> tuple[FileSet, ...]:
        before = dict(files)
        both = before | {destination: before[source]}
        moved = {name: data for name, data in both.items() if name != source}
        return frozenset(both.items()), frozenset(moved.items())

    return Call("FS.Rename", {"src": source, "dst": destination}), stages


def configure(device_id: str) -> tuple[Call, Stages]:
    """A host sets the device's name, and has it saved."""
    config: dict[str, JsonValue] = {"device": {"id": device_id}}
    saved = json.dumps(config, indent=2).encode()

    def stages(files: FileSet) -> tuple[FileSet, ...]:
        return (frozenset((dict(files) | {"conf9.json": saved}).items()),)

    return Call("Config.Set", {"config": config, "save": True}), stages


def with_files(*lived: Step | FileStep, first: Image = OLD) -> tuple[Step, ...]:
    """Steps with the files that each image must find at each of them.

    A board leaves the factory with `first` and an empty file system. A version that has not been
    started yet will find the files that its update brings, and those of the one that runs, which
    are brought over at its first start. From then on each has its own.
    """
    running = first
    own: dict[Image, FileSet] = {first: frozenset()}
    steps = []
    for each in lived:
        step = each.step if isinstance(each, FileStep) else each
        if step.runs is not None:
            own.setdefault(step.runs, _merged(own[running], step.runs))
            running = step.runs
        stages = each.stages(own[running]) if isinstance(each, FileStep) else (own[running],)
        under_way = _files_of(own, running, tuple(dict.fromkeys((own[running], *stages))))
        own = own | {running: stages[-1]}
        done = _files_of(own, running, stages[-1:])
        before, during = step.before.with_files(under_way), step.during.with_files(under_way)
        steps.append(replace(step, before=before, during=during, after=step.after.with_files(done)))
    return tuple(steps)


def _files_of(
    own: Mapping[Image, FileSet], running: Image, of_running: tuple[FileSet, ...]
) -> Callable[[Image], tuple[FileSet, ...]]:
    def files(image: Image) -> tuple[FileSet, ...]:
        if image == running:
            return of_running
        return (own[image],) if image in own else tuple(_merged(each, image) for each in of_running)

    return files


def _merged(old: FileSet, image: Image) -> FileSet:
    """The files of an image that is started for the first time."""
    return frozenset((dict(old) | dict(image.files)).items())


def change(changed: tuple[Call, Stages], holds: Expectation) -> FileStep:
    """A call that changes a file, while `holds` is what may run."""
    call, stages = changed
    return FileStep(Step(call.method, call, holds, holds, holds), stages)


def take_update_between(
    new: Image, old: Image, *changes: tuple[Call, Stages]
) -> tuple[Step | FileStep, ...]:
    """`new` is pushed over `old` and started, and behind each call of the push a file changes."""
    *calls, end = (Call(method, params) for method, params in push_calls(new, 60))
    on_trial = trial(new, old)
    steps: list[Step | FileStep] = []
    for call, changed in zip(calls, changes[:-1], strict=True):
        steps += [steady(call.method, call, old), change(changed, keeps(old))]
    steps.append(Step(end.method, end, keeps(old), offered(new, old), on_trial))
    # The host has its answer, and the board goes on for a moment before it resets itself.
    steps.append(change(changes[-1], on_trial))
    return (*steps, *take_update(new, old)[1:])


_SMALL, _OTHER, _LARGE = b"volume=3\n" * 9, b"volume=11\n" * 12, bytes(range(256)) * 3

_FILES = with_files(
    _POWER_ON,
    change(put("settings", _SMALL), keeps(OLD)),
    change(put("log", _LARGE), keeps(OLD)),
    *take_update_between(
        NEW,
        OLD,
        put("settings", _OTHER),
        rename("log", "log.1"),
        configure("lab-7"),
        put("log.1", b"end\n", append=True),
    ),
    change(put("settings", _LARGE), rolled_back(NEW, OLD)),
    change(remove("log.1"), rolled_back(NEW, OLD)),
    *commit(NEW, OLD),
    change(put("settings", _SMALL), committed(NEW, OLD)),
)

_NEW_WITH_FILES = replace(NEW, files=(("page", b"<p>new</p>"), ("settings", _OTHER)))

_FILES_ROLLED_BACK = with_files(
    _POWER_ON,
    change(put("settings", _SMALL), keeps(OLD)),
    change(put("log", _LARGE), keeps(OLD)),
    *take_update(_NEW_WITH_FILES, OLD),
    change(remove("log"), rolled_back(_NEW_WITH_FILES, OLD)),
    change(put("settings", _LARGE), rolled_back(_NEW_WITH_FILES, OLD)),
    *roll_back(_NEW_WITH_FILES, OLD, ResetCause.WATCHDOG),
    change(remove("settings"), rolled_back(_NEW_WITH_FILES, OLD)),
    # What `new` has left in the file system that `next` gets must not come back.
    *take_update(NEXT, OLD, commit_timeout_s=0)[:2],
    Step("first start", Start(), rolled_back(NEXT, OLD), either(NEXT, OLD), committed(NEXT, OLD)),
    commit(NEXT, OLD)[1],
)

_FILES_SNAPSHOT = with_files(
    _POWER_ON,
    change(put("settings", _SMALL), keeps(OLD)),
    steady("snapshot", Call("OTA.CreateSnapshot", {"set_as_revert": True}), OLD),
    # Not committed: the next reset brings the snapshot back, with its own files.
    steady("FS.Put", put("settings", _OTHER)[0], OLD),
    steady("FS.Put", put("more", _OTHER)[0], OLD),
    steady("revert", Call("OTA.Revert"), OLD),
    steady("boot after revert", Boot(), OLD),
    change(put("settings", _LARGE), keeps(OLD)),
)


SCENARIOS = (
    Scenario(
        "update-commit",
        "An update arrives, is started and committed",
        (_POWER_ON, *take_update(NEW, OLD), *commit(NEW, OLD)),
    ),
    Scenario(
        "update-no-timeout",
        "An update without a commit timeout commits itself",
        (
            _POWER_ON,
            *take_update(NEW, OLD, commit_timeout_s=0)[:2],
            Step(
                "first start", Start(), rolled_back(NEW, OLD), either(NEW, OLD), committed(NEW, OLD)
            ),
            commit(NEW, OLD)[1],
        ),
    ),
    Scenario(
        "update-timeout",
        "An update is never committed: its timer runs out",
        (_POWER_ON, *take_update(NEW, OLD), *give_up("commit timeout", Wait(61), NEW, OLD)),
    ),
    Scenario(
        "update-watchdog",
        "An update hangs: the watchdog bites",
        (_POWER_ON, *take_update(NEW, OLD), *roll_back(NEW, OLD, ResetCause.WATCHDOG)),
    ),
    Scenario(
        "revert",
        "The host reverts an update",
        (_POWER_ON, *take_update(NEW, OLD), *give_up("revert", Call("OTA.Revert"), NEW, OLD)),
    ),
    Scenario(
        "snapshot",
        "A snapshot becomes the way back, and is taken",
        (
            _POWER_ON,
            steady("snapshot", Call("OTA.CreateSnapshot", {"set_as_revert": True}), OLD),
            steady("revert", Call("OTA.Revert"), OLD),
            steady("boot after revert", Boot(), OLD),
        ),
    ),
    Scenario(
        "second-update",
        "An update is rolled back, and the next one is taken and committed",
        (
            _POWER_ON,
            *take_update(NEW, OLD),
            *roll_back(NEW, OLD, ResetCause.WATCHDOG),
            *take_update(NEXT, OLD),
            *commit(NEXT, OLD),
        ),
    ),
    Scenario(
        "journal-wrap", "More than 64 records: both areas are used up, one in a swap", _wrap()
    ),
    Scenario(
        "files",
        "Files change before, during and after an update, which is committed",
        _FILES,
        has_file_system=True,
    ),
    Scenario(
        "files-rollback",
        "An update that brings files is rolled back, the next one commits itself",
        _FILES_ROLLED_BACK,
        has_file_system=True,
    ),
    Scenario(
        "files-snapshot",
        "A snapshot brings the files back that were there when it was taken",
        _FILES_SNAPSHOT,
        has_file_system=True,
    ),
)
