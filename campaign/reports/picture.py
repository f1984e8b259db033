"""Timelines as SVG: lanes over virtual time, drawn for pages that give the classes their colours.

Widths follow the operations' durations, but the shortest must be seen and its number read: each is
at least `_NARROWEST` wide. Long waits are drawn short, with a zigzag. So the axis says what time it
is where each part begins.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from xml.etree import ElementTree as ET

from bootloader_model.layout import DEFAULT_LAYOUT, DEFAULT_SLOTS, FlashName
from campaign.cells import duration_ns
from campaign.images import Image
from campaign.reports.dump import Held
from campaign.reports.timeline import OperationView, SlotView, Stretch
from platforms.clock import NS_PER_MS, NS_PER_S
from platforms.devices.flash_memory import OperationKind

_NS_PER_UNIT = 8 * NS_PER_MS
_NARROWEST = 15.0
_WAIT_WIDTH = 60.0
_LABELS = 112.0
_CHARACTER = 7.4  # of bold text, 11 units high, in a wide font
_SCALE = 1.15  # pixels for each unit
_PADDING = 10.0
_TAIL = 18.0
_LINE = 14.0
_GAP = 8.0
_BAR = 24.0
_PROGRAM = 13.0
IMAGE_STYLES = 4
"""How many images have a look of their own."""


@dataclass(frozen=True, slots=True)
class _Placed:
    """A stretch, and where it and its operations are: left edge and width each."""

    stretch: Stretch
    left: float
    width: float
    start_ns: int
    operations: tuple[tuple[OperationView, float, float], ...]


def timeline_svg(
    stretches: Sequence[Stretch], images: Sequence[Image], title: str, *, is_story: bool
) -> str:
    """A timeline as an SVG element.

    Args:
        stretches: its parts; at least one.
        images: all images, whose order says how they look.
        title: what it shows, for those who do not see it.
        is_story: it is a story, which has endings; a golden run has ways tried and findings.
    """
    return _Drawing(stretches, images, title, is_story=is_story).text


def _text_width(text: str) -> float:
    return len(text) * _CHARACTER + _PADDING


def _operation_width(view: OperationView) -> float:
    return max(_NARROWEST, duration_ns(view.operation) / _NS_PER_UNIT)


def _place(stretches: Sequence[Stretch]) -> tuple[_Placed, ...]:
    placed, left, now = [], _LABELS, 0
    for stretch in stretches:
        position = left
        operations = []
        for view in stretch.operations:
            width = _operation_width(view)
            operations.append((view, position, width))
            position += width
        # What the last operation leaves is to be seen, too.
        position += _WAIT_WIDTH if stretch.wait_ns else _TAIL
        texts = (stretch.name, stretch.reset, *stretch.reasons, stretch.ending)
        width = max(
            position - left, *(_text_width(text) for text in texts), _text_width("999.9 ms")
        )
        placed.append(_Placed(stretch, left, width, now, tuple(operations)))
        left += width
        now += stretch.duration_ns
    return tuple(placed)


class _Drawing:
    def __init__(
        self, stretches: Sequence[Stretch], images: Sequence[Image], title: str, *, is_story: bool
    ) -> None:
        self._placed = _place(stretches)
        self._looks = {image.name: number % IMAGE_STYLES for number, image in enumerate(images)}
        last = self._placed[-1]
        self._right = last.left + last.width
        self._svg = ET.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "role": "img"})
        self._svg.set("aria-label", title)
        ET.SubElement(self._svg, "title").text = title
        self._y = 0.0
        self._draw(is_story=is_story)
        self._svg.set("viewBox", f"0 0 {self._right + _PADDING:g} {self._y:g}")
        self._svg.set("width", f"{_SCALE * (self._right + _PADDING):g}")
        self._svg.set("height", f"{_SCALE * self._y:g}")

    @property
    def text(self) -> str:
        """The SVG element."""
        return ET.tostring(self._svg, encoding="unicode")

    # -- what is drawn with -----------------------------------------------------------------------

    def _rect(
        self, look: str, left: float, top: float, width: float, height: float, told: str = ""
    ) -> None:
        place = {"x": f"{left:g}", "y": f"{top:g}", "width": f"{width:g}", "height": f"{height:g}"}
        rect = ET.SubElement(self._svg, "rect", {"class": look, **place})
        if told:
            ET.SubElement(rect, "title").text = told

    def _write(self, text: str, left: float, baseline: float, look: str = "") -> None:
        place = {"x": f"{left:g}", "y": f"{baseline:g}"}
        ET.SubElement(self._svg, "text", {**place, **({"class": look} if look else {})}).text = text

    def _path(self, look: str, points: str) -> None:
        ET.SubElement(self._svg, "path", {"class": look, "d": points})

    def _label(self, text: str, height: float) -> None:
        self._write(text, 0, self._y + height / 2 + 4, "label")

    # -- the lanes, from top to bottom ------------------------------------------------------------

    def _draw(self, *, is_story: bool) -> None:
        self._steps("story" if is_story else "step")
        self._boots()
        for flash in FlashName:
            self._operations(flash)
        self._numbers()
        if is_story:
            self._endings()
        else:
            self._ways()
            self._findings()
        for number in range(len(DEFAULT_SLOTS)):
            self._slot(number)
        self._axis()

    def _steps(self, label: str) -> None:
        height = _LINE + _GAP
        self._label(label, height)
        for number, placed in enumerate(self._placed):
            self._rect(f"step{number % 2}", placed.left, self._y, placed.width, height)
            self._write(placed.stretch.name, placed.left + 5, self._y + _LINE + 1, "strong")
        self._y += height + _GAP / 2

    def _boots(self) -> None:
        lines = max(2, *(1 + len(p.stretch.reasons) for p in self._placed))
        if not any(p.stretch.reset for p in self._placed):
            return
        self._label("boots: reset,", _LINE)
        self._write("decisions", 0, self._y + 2 * _LINE, "label")
        height = lines * _LINE + _GAP / 2
        for placed in self._placed:
            if not placed.stretch.reset:
                continue
            top, left = self._y, placed.left
            self._path("boot", f"M{left:g} {top:g}v{height:g}M{left:g} {top:g}l5 4l-5 4z")
            self._write(placed.stretch.reset, left + 8, top + _LINE - 3, "strong")
            for number, reason in enumerate(placed.stretch.reasons, start=1):
                self._write(reason, left + 8, top + (number + 1) * _LINE - 3)
        self._y += height + _GAP / 2

    def _operations(self, flash: FlashName) -> None:
        self._label({"nor": "NOR flash", "internal": "internal flash"}[flash.value], _BAR)
        bottom = self._y + _BAR
        self._path("base", f"M{_LABELS:g} {bottom:g}H{self._right:g}")
        for view, left, width in self._all_operations():
            if view.operation.flash is flash:
                height = _BAR if view.operation.kind is OperationKind.ERASE else _PROGRAM
                look = view.operation.kind.value
                if not view.is_begun:
                    look += " not-begun"
                self._rect(
                    look, left + 1, bottom - height, width - 2, height, _describe_operation(view)
                )
        self._waits(bottom)
        self._y = bottom + _GAP

    def _waits(self, bottom: float) -> None:
        for placed in self._placed:
            if placed.stretch.wait_ns:
                last = placed.operations[-1] if placed.operations else None
                left = placed.left if last is None else last[1] + last[2]
                zigzag = "l5 -8l5 16l5 -16l5 16l5 -16l5 8"
                self._path("wait", f"M{left + 15:g} {bottom - _BAR / 2:g}{zigzag}")

    def _numbers(self) -> None:
        self._label("operation", _LINE)
        for view, left, width in self._all_operations():
            text = str(view.number)
            self._centred(text, left + width / 2, "small")
            if view.cut is not None:
                self._cut_mark(left + view.progress * width)
        self._y += _LINE + _GAP / 2

    def _cut_mark(self, middle: float) -> None:
        top = self._y - 2 * (_BAR + _GAP) + _GAP / 2
        self._path("cut", f"M{middle:g} {top:g}V{self._y - _GAP / 2:g}")
        self._path("bolt", f"M{middle + 3:g} {top - 5:g}l-7 9h5l-3 8l8 -10h-5l4 -7z")

    def _endings(self) -> None:
        self._label("ends with", _LINE)
        for placed in self._placed:
            look = "bad" if placed.stretch.is_bad else "strong"
            mark = "✗ " if placed.stretch.is_bad else ""
            self._write(mark + placed.stretch.ending, placed.left + 3, self._y + _LINE - 3, look)
        self._y += _LINE + _GAP

    def _ways(self) -> None:
        self._label("ways tried", _LINE)
        for view, left, width in self._all_operations():
            if view.ways:
                self._centred(f"{view.ways:,}", left + width / 2, "small")
        self._y += _LINE

    def _findings(self) -> None:
        self._label("findings", _LINE)
        for view, left, width in self._all_operations():
            if view.findings:
                numbers = ",".join(map(str, view.findings))
                self._centred(f"✗{numbers}", left + width / 2, "bad")
        for placed in self._placed:
            if placed.stretch.is_bad:
                self._write(f"✗ {placed.stretch.ending}", placed.left + 3, self._y + 11, "bad")
        self._y += _LINE + _GAP

    def _centred(self, text: str, middle: float, look: str) -> None:
        self._write(text, middle, self._y + 11, f"{look} centred")

    def _slot(self, number: int) -> None:
        name = DEFAULT_SLOTS[number].configuration.app_dev
        flash = DEFAULT_LAYOUT.partition(name).flash.value
        self._label(f"slot {number} {name}", _BAR)
        parts = [(left, width, slots[number]) for left, width, slots in self._slots()]
        for _, group in groupby(parts, key=lambda part: _look_of(part[2])):
            run = list(group)
            left, right = run[0][0], run[-1][0] + run[-1][1]
            told = " ... ".join(dict.fromkeys(part[2].contents.text for part in (run[0], run[-1])))
            self._slot_bar(run[0][2], left, right - left, f"slot {number} ({flash}): {told}")
        self._y += _BAR + _GAP / 2

    def _slot_bar(self, view: SlotView, left: float, width: float, told: str) -> None:
        held = view.contents.held
        marks = _marks(view)
        look = held.value
        if held in (Held.IMAGE, Held.MARGINAL):
            look += f" image{self._looks.get(view.contents.image, 0)}"
        told = ", ".join([told, *marks])
        self._rect(look, left + 0.5, self._y, width - 1, _BAR, told)
        if view.is_active:
            self._rect("is-active", left + 2, self._y + 1.5, width - 4, _BAR - 3)
        short = view.contents.image if held is Held.IMAGE else held.value
        for text in (", ".join([short, *marks]), " ".join([short, *(m[0].upper() for m in marks)])):
            if _text_width(text) <= width:
                on = "on-empty" if held is Held.EMPTY else "on-bar"
                self._write(text, left + 5, self._y + 16, on)
                return

    def _axis(self) -> None:
        self._path("base", f"M{_LABELS:g} {self._y:g}H{self._right:g}")
        self._label("virtual time", _LINE + _GAP)
        for placed in self._placed:
            self._path("base", f"M{placed.left:g} {self._y:g}v4")
            self._write(_time(placed.start_ns), placed.left + 2, self._y + _LINE + 2, "small")
        self._y += _LINE + _GAP

    # -- what is where ----------------------------------------------------------------------------

    def _all_operations(self) -> Iterator[tuple[OperationView, float, float]]:
        for placed in self._placed:
            yield from placed.operations

    def _slots(self) -> Iterator[tuple[float, float, tuple[SlotView, ...]]]:
        """Left edge, width, and what is in the slots for so long."""
        for placed in self._placed:
            left = placed.left
            # What an operation does counts from its end on.
            for view, start, width in placed.operations:
                yield start, width, view.slots
                left = start + width
            if left < placed.left + placed.width:
                yield left, placed.left + placed.width - left, placed.stretch.slots


def _look_of(view: SlotView) -> tuple[Held, str, bool, bool]:
    """What of a slot can be seen: views alike in it, one behind the other, are one bar."""
    contents = view.contents
    name = contents.image if contents.held in (Held.IMAGE, Held.MARGINAL) else ""
    return contents.held, name, view.is_active, view.is_revert


def _marks(view: SlotView) -> list[str]:
    marks = (("active", view.is_active), ("revert", view.is_revert))
    return [name for name, applies in marks if applies]


def _describe_operation(view: OperationView) -> str:
    text = (
        f"operation {view.number}: {view.operation}, {duration_ns(view.operation) / NS_PER_MS:g} ms"
    )
    if view.ways:
        text += f", {view.ways:,} ways tried"
    return text if view.cut is None else f"{text}, here it strikes: {view.cut}"


def _time(at_ns: int) -> str:
    if at_ns >= NS_PER_S:
        return f"{at_ns / NS_PER_S:.3f} s"
    return f"{at_ns / NS_PER_MS:.4g} ms" if at_ns else "0 s"
