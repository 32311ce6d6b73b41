"""The drawing of the star plot: whole, legible, and safe to open."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import pairwise
from math import nan
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pointsman_server.training.frontier import EndpointPoint, Frontier, Point, RouterPoint
from pointsman_server.training.frontier_fields import frontier_fields
from pointsman_server.training.frontier_grid import Family
from pointsman_server.training.frontier_labels import Box, Label, place, text_width
from pointsman_server.training.frontier_page import page_html
from pointsman_server.training.frontier_picture import DARK, FONT_FILES, LIGHT, picture_png, picture_svg
from pointsman_server.training.frontier_plot import PAGE, PICTURE, Canvas, Scale, drawing
from pointsman_server.training.frontier_pool import Axis, LeftOut
from pointsman_server.training.frontier_questions import Selection
from pointsman_server.training.frontier_words import points, quality_range, shortened, x_text
from pointsman_server.training.resampling import Measured

SVG = "{http://www.w3.org/2000/svg}"


def measured(value: float, *, spread: float = 0.02) -> Measured:
    """A value with an interval of that share of it to each side."""
    return Measured(value, value * (1.0 - spread), value * (1.0 + spread))


def point(x: float, quality: float) -> Point:
    """A place with its intervals."""
    return Point(measured(x), measured(quality))


def router(text: str, x: float, quality: float, letter: str = "") -> RouterPoint:
    """A router at that place, which shares the prompts between two endpoints."""
    return RouterPoint(
        text=text,
        family=Family.WEIGHT,
        letter=letter,
        at=point(x, quality),
        gain_over_best_single=Measured(quality - 0.7, quality - 0.72, quality - 0.68),
        gain_over_mix=Measured(0.01, -0.01, 0.03),
        x_share_of_best_single=measured(x / 5.0),
        shares=(0.25, 0.75, 0.0, 0.0),
    )


ENDPOINTS = (
    EndpointPoint("small@north", "small", point(0.2, 0.5)),
    EndpointPoint("large@north", "large", point(5.0, 0.7)),
    EndpointPoint("large@south", "large", point(5.1, 0.7)),
    EndpointPoint("poor<b>&co@north", "poor<b>&co", point(1.0, 0.1)),
)
FRONTIER = Frontier(
    axis=Axis.COST,
    source="own",
    split="test",
    artifact="builtin 1",
    prompt_count=1234,
    selection=Selection.VAL,
    selection_prompt_count=567,
    endpoints=ENDPOINTS,
    best_single=1,
    routers=(
        router("router@lowest-rc", 0.2, 0.5, "A"),
        router("router@q:1|rc:40", 0.9, 0.62),
        router("router@q:1|rc:5", 2.0, 0.71, "B"),
        router("router@q:1|models:</script><script>alert(1)</script>", 4.0, 0.72, "C"),
    ),
    mix=((0.2, 0.5), (5.0, 0.7)),
    random=point(2.5, 0.5),
    oracle=point(0.6, 0.95),
    left_out=(LeftOut("odd", "the artifact does not know it"),),
)
"""Four endpoints, of which one is far below, and four routers, of which three are pointed out."""


def numbers(text: str) -> list[float]:
    """The numbers of a path."""
    return [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", text)]


def stars(root: ET.Element) -> dict[int, ET.Element]:
    """The group of each router, by its index."""
    return {int(group.attrib["data-router"]): group for group in root.iter(f"{SVG}g") if "data-router" in group.attrib}


class TestDrawing:
    """The SVG."""

    @pytest.mark.parametrize("canvas", [PICTURE, PAGE])
    def test_it_shows_every_router_and_endpoint(self, canvas: Canvas) -> None:
        """It is well-formed, and each router and each endpoint has its mark; those pointed out can be reached by keyboard
        and say what they are."""
        root = ET.fromstring(drawing(FRONTIER, canvas))
        found = stars(root)
        assert sorted(found) == [0, 1, 2, 3]
        assert [index for index in sorted(found) if found[index].get("tabindex") == "0"] == [0, 2, 3]
        assert "router@q:1|rc:5" in found[2].attrib["aria-label"]
        endpoints = [group for group in root.iter(f"{SVG}g") if "data-endpoint" in group.attrib]
        assert len(endpoints) == len(ENDPOINTS)

    def test_places_follow_the_numbers(self) -> None:
        """A star of higher cost lies further right, one of higher quality further up, and all within the drawing."""
        found = stars(ET.fromstring(drawing(FRONTIER, PICTURE)))
        places = []
        for index in sorted(found):
            path = found[index].findall(f"{SVG}path")[-1].attrib["d"]
            xs, ys = numbers(path)[::2], numbers(path)[1::2]
            places.append((sum(xs) / len(xs), sum(ys) / len(ys)))
        for (left_x, left_y), (right_x, right_y) in pairwise(places):
            assert left_x < right_x
            assert left_y > right_y
        assert all(0.0 < x < PICTURE.width and 0.0 < y < PICTURE.height for x, y in places)

    def test_what_is_far_below_or_above_is_at_the_edge(self) -> None:
        """An endpoint that would squeeze all others is a triangle at the lower edge with its value, and an oracle that
        is far above stands behind a break of the axis."""
        text = drawing(FRONTIER, PICTURE)
        assert "poor&lt;b&gt;&amp;co 10.0 %" in text
        assert 'class="break"' in text
        near = replace(FRONTIER, oracle=point(0.6, 0.75))
        assert 'class="break"' not in drawing(near, PICTURE)

    def test_names_are_text_and_never_markup(self) -> None:
        """A name with markup in it is shown as it is written."""
        root = ET.fromstring(drawing(FRONTIER, PICTURE))
        assert "poor<b>&co 10.0 %" in [text.text for text in root.iter(f"{SVG}text")]

    def test_endpoints_of_one_model_carry_their_provider(self) -> None:
        """A model alone names an endpoint only where no other provider has it."""
        shown = [text.text for text in ET.fromstring(drawing(FRONTIER, PICTURE)).iter(f"{SVG}text")]
        assert {"small", "large@north", "large@south"} <= set(shown)

    def test_a_plot_of_equal_endpoints_can_be_drawn(self) -> None:
        """Where nothing differs in price there is still a scale."""
        same = replace(
            FRONTIER,
            axis=Axis.PRICE,
            endpoints=tuple(replace(each, at=Point(measured(1.0), each.at.quality)) for each in ENDPOINTS),
            routers=(router("router@q:1", 1.0, 0.7, "A"),),
            mix=((1.0, 0.7),),
            random=point(1.0, 0.5),
            oracle=point(1.0, 0.9),
        )
        ET.fromstring(drawing(same, PICTURE))

    @given(low=st.floats(1e-6, 1e4), ratio=st.floats(1.05, 1e5), logarithmic=st.booleans())
    def test_ticks_lie_within_the_scale(self, low: float, ratio: float, logarithmic: bool) -> None:  # noqa: FBT001
        """Ticks ascend within the ends of their scale, and are few enough to be read."""
        scale = Scale(low, low * ratio, 0.0, 100.0, logarithmic)
        ticks = scale.ticks()
        assert ticks == sorted(ticks)
        assert len(ticks) <= 13
        for tick in ticks:
            assert -0.01 <= scale(tick) <= 100.01


class TestLabels:
    """Where labels go."""

    @given(
        marks=st.lists(
            st.tuples(st.floats(20, 380), st.floats(20, 280), st.text("abcdefghij", min_size=1, max_size=20)),
            max_size=25,
        )
    )
    def test_no_label_covers_a_mark_or_another_label(self, marks: list[tuple[float, float, str]]) -> None:
        """Labels that are not forced overlap nothing and lie within the room; the others are left out."""
        room = Box(0.0, 0.0, 400.0, 300.0)
        obstacles = [Box.around(x, y, 5.0) for x, y, _ in marks]
        placed = place([Label(text, x, y, 5.0, 12.0, "name") for x, y, text in marks], obstacles, room)
        boxes = [each.box for each in placed]
        for index, box in enumerate(boxes):
            assert box.within(room)
            assert not any(box.overlaps(other) for other in obstacles + boxes[index + 1 :])

    def test_a_label_that_must_be_shown_is(self) -> None:
        """A letter is shown even where all places are taken; a name is not."""
        room = Box(0.0, 0.0, 100.0, 100.0)
        for must, count in ((True, 1), (False, 0)):
            assert len(place([Label("A", 50.0, 50.0, 5.0, 12.0, "letter", must)], [room], room)) == count

    def test_what_is_to_be_avoided_is_covered_only_for_want_of_a_place(self) -> None:
        """A label goes elsewhere to leave a line free, and onto the line rather than nowhere."""
        room, label = Box(0.0, 0.0, 100.0, 100.0), Label("a", 50.0, 50.0, 5.0, 12.0, "name")
        right, everywhere = Box(55.0, 0.0, 100.0, 100.0), room
        (elsewhere,) = place([label], [], room, avoided=[right])
        assert not elsewhere.box.overlaps(right)
        assert len(place([label], [], room, avoided=[everywhere])) == 1

    def test_a_label_far_from_its_mark_is_led_to(self) -> None:
        """Where only a distant place is free, a line connects the label with its mark."""
        crowd = [Box.around(50.0, 50.0, 15.0)]
        (near,) = place([Label("a", 50.0, 50.0, 5.0, 12.0, "name")], [], Box(0.0, 0.0, 100.0, 100.0))
        (far,) = place([Label("a", 50.0, 50.0, 5.0, 12.0, "name")], crowd, Box(0.0, 0.0, 100.0, 100.0))
        assert (near.has_leader, far.has_leader) == (False, True)


class TestPictures:
    """SVG and PNG files."""

    def test_the_svg_is_light_and_dark(self) -> None:
        """The file has both sets of colours, and no variable is left in it."""
        text = picture_svg(FRONTIER)
        ET.fromstring(text)
        assert LIGHT["star"] in text
        assert DARK["star"] in text
        assert "var(" not in text

    def test_the_svg_lists_the_lettered_routers(self) -> None:
        """Whoever has only the picture can read which router each letter is."""
        shown = [text.text for text in ET.fromstring(picture_svg(FRONTIER)).iter(f"{SVG}text")]
        assert {"router@lowest-rc", "router@q:1|rc:5"} <= set(shown)
        assert "router@q:1|rc:40" not in shown

    def test_the_png_is_a_picture_with_letters(self) -> None:
        """It is a PNG of one and a half pixels per unit, and its text is drawn: without its fonts it would be another."""
        content = picture_png(FRONTIER)
        assert content[:8] == b"\x89PNG\r\n\x1a\n"
        assert int.from_bytes(content[16:20], "big") == 1.5 * PICTURE.width
        renamed = replace(FRONTIER, source="other")
        assert picture_png(renamed) != content

    def test_the_fonts_ship_with_their_licence(self) -> None:
        """Both weights are there, and beside them the licence that they are under."""
        for path in FONT_FILES:
            assert path.read_bytes()[:4] == b"OTTO"
            assert "SIL OPEN FONT LICENSE" in (path.parent / "OFL.txt").read_text(encoding="utf-8")


class TestPage:
    """The HTML file."""

    def test_it_needs_nothing_else(self) -> None:
        """There is no address in it but the name of SVG's namespace, nothing is loaded, and a policy forbids to try."""
        page = page_html(FRONTIER)
        assert set(re.findall(r"https?://[^\s\"'<]+", page)) == {"http://www.w3.org/2000/svg"}
        assert not re.search(r"<(?:link|img|iframe)\b|\bsrc=|@import|url\(", page)
        assert "default-src 'none'" in page

    def test_it_holds_all_numbers(self) -> None:
        """The numbers that its script reads are those of --json."""
        (embedded,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page_html(FRONTIER))
        assert json.loads(embedded)["frontier"] == json.loads(json.dumps(frontier_fields(FRONTIER)))

    def test_no_name_ends_the_script(self) -> None:
        """A router or a model with markup in its name stays text: the page has its own two scripts, and no other."""
        page = page_html(FRONTIER)
        assert page.count("<script") == page.count("</script>") == 2
        assert "alert(1)&lt;/script&gt;" in page

    def test_every_place_is_filled(self) -> None:
        """No placeholder is left, and each router has a row that can be chosen."""
        page = page_html(FRONTIER)
        assert "{{" not in page
        assert [int(index) for index in re.findall(r'<tr data-router="(\d+)"', page)] == [0, 1, 2, 3]

    def test_a_verdict_says_no_more_than_the_intervals(self) -> None:
        """Better, worse, or no difference that the prompts could show."""
        (embedded,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page_html(FRONTIER))
        verdicts = [each["verdict"] for each in json.loads(embedded)["words"]["routers"]]
        assert verdicts[0].startswith("Not as good as large@north")
        assert verdicts[2].startswith("No difference from large@north that these prompts could show")
        assert all(verdict.endswith("not beyond doubt better than a random mix of endpoints.") for verdict in verdicts)


class TestWords:
    """How numbers are written."""

    def test_numbers_have_their_units(self) -> None:
        """USD and ms stand at their values, quality is in percent, and what is not defined is a question mark."""
        assert x_text(Axis.COST, 0.2114) == "$0.211"
        assert x_text(Axis.COST, 0.0000321) == "$3.21e-05"
        assert x_text(Axis.TTFT, 423.4) == "423 ms"
        assert x_text(Axis.ITL, 7.0, unit=False) == "7"
        assert x_text(Axis.PRICE, nan) == "?"
        assert quality_range(Measured(0.625, 0.595, 0.654)) == "62.5 % (59.5 to 65.4)"
        assert points(Measured(-0.019, -0.045, 0.005)) == "−1.9 (−4.5 to +0.5)"  # noqa: RUF001
        assert points(Measured(nan, nan, nan)) == "?"

    @given(text=st.text("abcMW|:.0", max_size=80), room=st.floats(40.0, 300.0))
    def test_a_text_is_cut_to_its_room(self, text: str, room: float) -> None:
        """What fits stays whole; what does not is its beginning with an ellipsis."""
        cut = shortened(text, room=room, size=12.0)
        if text_width(text, 12.0) <= room:
            assert cut == text
        else:
            assert cut.endswith("…")
            assert text.startswith(cut[:-1])
            assert text_width(cut[:-1], 12.0) <= room
