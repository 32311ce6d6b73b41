"""What is learned of our own load and of the input's length: what is there is found, and nothing else."""

from __future__ import annotations

import math
import pickle
import random
from statistics import fmean, median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pointsman_server.decision.types import EndpointRuntime
from pointsman_server.runtime.endpoint import RUSH_MAX
from pointsman_server.runtime.estimators import DurationEstimator
from pointsman_server.runtime.level import COMMON_MAX, LEVEL_VARIANCE_MAX, CommonGrowth, LevelFilter
from pointsman_server.runtime.tracker import RuntimeTracker
from runtime.lane import NAME, Lane, Truth, charged, fair_share, waves

SEEDS = range(4)


def rush(load: float, duration: DurationEstimator) -> float:
    """How many times as much a load is charged for as the usual one of `duration` is."""
    return (load + 1.0) / (duration.usual_load + 1.0)


def elasticity(lane: Lane, runtime: EndpointRuntime) -> float:
    """By which share the time to first token grows when the load does by its own size, a little: what is charged, without
    what later calls and those of others lose."""
    assert runtime.ttft_s is not None
    times = min(RUSH_MAX, rush(runtime.in_flight_count, lane.tracker._endpoints[NAME]._ttft))
    return runtime.marginal_load_s / times / runtime.ttft_s.mean


def true_elasticity(slope: float, load: float) -> float:
    """The same of 1 + slope x load."""
    return slope * load / (1.0 + slope * load)


def mean_elasticity(lane: Lane, duration_s: float) -> tuple[float, float]:
    """What is charged over so long a time, and the calls that were under way."""
    found = [(elasticity(lane, runtime), runtime.in_flight_count) for runtime in lane.run(duration_s)]
    return fmean(share for share, _ in found), fmean(load for _, load in found)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("slope", [0.03, 0.1, 0.2])
def test_a_load_slope_is_found(seed: int, slope: float) -> None:
    """A thousand calls or so of ordinary traffic are enough to charge the load slope within a third, though it is taken to
    bend, and does not."""
    lane = Lane(seed, lambda _: Truth(load_slope=slope), rate_at=fair_share(slope))
    lane.ran(1200.0)
    actual, load = mean_elasticity(lane, 180.0)
    assert actual == pytest.approx(true_elasticity(slope, load), rel=0.34), f"seed {seed}"


@pytest.mark.parametrize("seed", SEEDS)
def test_an_elastic_endpoint_has_none(seed: int) -> None:
    """Where latency does not depend on load, one more call is charged less than a twentieth of its own latency."""
    lane = Lane(seed, lambda _: Truth(), rate_at=waves)
    lane.ran(300.0)
    assert mean_elasticity(lane, 600.0)[0] < 0.05, f"seed {seed}"


def brown_outs(slope: float, now_s: float) -> Truth:
    """Every 200 s the endpoint is ten times slower for 40 s, and calls pile up."""
    return Truth(ttft_s=4.0 if now_s % 200.0 > 160.0 else 0.4, load_slope=slope)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_change_of_regime_is_not_taken_for_load(seed: int) -> None:
    """Brown-outs, in which slowness brings load and not the other way, teach an elastic endpoint no load slope."""
    lane = Lane(seed, lambda now_s: brown_outs(0.0, now_s), rate_at=waves)
    lane.ran(400.0)
    assert mean_elasticity(lane, 600.0)[0] < 0.07, f"seed {seed}"


@pytest.mark.parametrize("seed", SEEDS)
def test_brown_outs_do_not_hide_a_load_slope(seed: int) -> None:
    """What is there is found in spite of them, at least a third of it and not half as much again."""
    lane = Lane(seed, lambda now_s: brown_outs(0.1, now_s), rate_at=fair_share(0.3))
    lane.ran(1600.0)
    actual, load = mean_elasticity(lane, 150.0)
    assert 0.33 < actual / true_elasticity(0.1, load) < 1.5, f"seed {seed}"


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_shown_is_what_the_next_call_meets(seed: int) -> None:
    """The median for one more call at the present load is right at low and at high load, within a quarter."""
    slope = 0.1
    lane = Lane(seed, lambda _: Truth(load_slope=slope), rate_at=fair_share(slope))
    lane.ran(600.0)
    ratios: dict[bool, list[float]] = {False: [], True: []}
    runtimes = list(lane.run(400.0))
    usual = median(runtime.in_flight_count for runtime in runtimes)
    for runtime in runtimes:
        assert runtime.ttft_s is not None
        expected_s = 0.4 * (1.0 + slope * runtime.in_flight_count)
        ratios[runtime.in_flight_count > usual].append(runtime.ttft_s.p50 / expected_s)
    for found in ratios.values():
        assert fmean(found) == pytest.approx(1.0, abs=0.25), f"seed {seed}"


@pytest.mark.parametrize("seed", SEEDS)
def test_a_server_that_batches_bears_the_first_calls(seed: int) -> None:
    """Six calls cost nothing there, each further one a twelfth: below the knee and above it the next call's median is
    right within an eighth, and what one more takes from the others grows fivefold at least."""
    truth = Truth(load_slope=0.08, knee_count=6)
    lane = Lane(seed, lambda _: truth, rate_at=waves)
    lane.ran(600.0)
    ratios: dict[bool, list[float]] = {False: [], True: []}
    for runtime in lane.run(400.0):
        assert runtime.ttft_s is not None
        expected_s = truth.ttft_s * truth.slowed(runtime.in_flight_count)
        ratios[runtime.in_flight_count > truth.knee_count].append(runtime.ttft_s.p50 / expected_s)
    for found in ratios.values():
        assert len(found) > 50
        assert fmean(found) == pytest.approx(1.0, abs=0.125), f"seed {seed}"
    few = charged(lane, 4)
    for _ in range(8):
        lane.tracker.start(NAME, input_token_count=1000, now_s=lane.now_s)
    runtime = lane.tracker.snapshot(lane.now_s).of(NAME)
    assert runtime.ttft_s is not None
    assert runtime.marginal_load_s / runtime.ttft_s.mean > 5.0 * few, f"seed {seed}"


def trained(
    common: CommonGrowth | None, *, slope: float, load_max: int, count: int = 600, seed: int = 1
) -> LevelFilter:
    """A filter that has seen so many durations at loads up to that one, which bend from half of six calls on."""
    rng, found = random.Random(seed), LevelFilter(common_load=common)
    for number in range(count):
        load = rng.randrange(load_max + 1)
        log_value = math.log1p(slope * load * load / 6.0) + rng.gauss(0.0, 0.2)
        found.observe(log_value, now_s=0.5 * number, load=load)
    return found


def test_where_little_is_known_an_endpoint_is_like_the_others() -> None:
    """One that has been called ten times, alone, is expected to slow down as its fellows do, within a third; without
    fellows not at all; and what a fellow learns is no news to one that knows better."""
    common = CommonGrowth()
    fellows = [trained(common, slope=0.1, load_max=12, seed=seed) for seed in range(3)]
    expected = fmean(fellow.load.slope(8.0) for fellow in fellows)
    assert expected > 0.05
    few = trained(common, slope=0.1, load_max=0, count=10)
    assert few.load.slope(8.0) == pytest.approx(expected, rel=0.34)
    assert trained(None, slope=0.1, load_max=0, count=10).load.slope(8.0) == 0.0
    elastic = trained(common, slope=0.0, load_max=12)
    assert elastic.load.slope(8.0) < 0.2 * expected


def charged_newcomer(tracker: RuntimeTracker, now_s: float) -> tuple[float, float]:
    """What an endpoint charges, to the first token and for each later one, that was called five times, never beside
    another call, and now eight times at once."""
    for _ in range(5):
        attempt = tracker.start("new@p", input_token_count=1000, now_s=now_s)
        attempt.first_token(now_s + 0.4)
        attempt.succeed(output_token_count=100, now_s=now_s + 1.4)
        now_s += 2.0
    for _ in range(8):
        tracker.start("new@p", input_token_count=1000, now_s=now_s)
    runtime = tracker.snapshot(now_s).of("new@p")
    return runtime.marginal_load_s, runtime.marginal_load_s_per_token


def test_endpoints_of_one_tracker_are_fellows() -> None:
    """Where the others slow down under load a newcomer is charged as if it did; alone it is charged nothing."""
    lane = Lane(1, lambda _: Truth(load_slope=0.1), rate_at=fair_share(0.1))
    lane.ran(600.0)
    ttft_s, gap_s = charged_newcomer(lane.tracker, lane.now_s)
    assert ttft_s > 0.05
    assert gap_s > 0.001
    assert charged_newcomer(RuntimeTracker(), lane.now_s) == (0.0, 0.0)


def test_another_scale_says_the_same_at_the_usual_load() -> None:
    """When the scale moves, the median and how steeply it grows stay as they are there."""
    found = trained(None, slope=0.1, load_max=12)
    found.load.usual = 9.0
    scale, level, slope = found.load.scale, found.log_median, found.load.slope(9.0)
    assert level is not None
    found._rescale(found.load)
    assert found.load.scale != pytest.approx(scale, rel=0.01)
    assert found.log_median == pytest.approx(level)
    assert found.load.slope(9.0) == pytest.approx(slope)


def test_fellows_of_another_kind_are_not_believed_in_full() -> None:
    """Where every other endpoint serves one call at a time, a newcomer is taken to slow down, but not to
    stand still at its second call."""
    common = CommonGrowth()
    common.bend = 4.0
    assert 0.5 < LevelFilter(common_load=common).load.shrunk <= COMMON_MAX


def test_what_is_common_follows_those_that_are_called() -> None:
    """Of endpoints that are gone nothing stays: after a thousand observations it is the others' bend, within a fifth."""
    common = CommonGrowth()
    trained(common, slope=0.3, load_max=12)
    steep = common.bend
    trained(common, slope=0.05, load_max=12, count=1500)
    alone = CommonGrowth()
    trained(alone, slope=0.05, load_max=12, count=1500)
    assert steep > 3.0 * common.bend
    assert common.bend == pytest.approx(alone.bend, rel=0.2)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_a_call_takes_it_takes_from_every_replica(seed: int) -> None:
    """Three replicas charge three times as much as one for the same calls."""
    alone, shared = (
        Lane(seed, lambda _: Truth(load_slope=0.1), rate_at=fair_share(0.1), replica_count=count) for count in (1, 3)
    )
    for lane in (alone, shared):
        lane.ran(300.0)
    once = charged(alone, 5)
    assert once > 0.0
    assert charged(shared, 5) == pytest.approx(3.0 * once)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_streams_of_others_slow_a_stream_too(seed: int) -> None:
    """The load slope of the time between tokens is found on its own, from the load while the answer streamed."""
    slope = 0.1
    lane = Lane(seed, lambda _: Truth(load_slope=slope), rate_at=fair_share(slope))
    lane.ran(600.0)
    found, loads = [], []
    for runtime in lane.run(180.0):
        assert runtime.inter_token_latency_s is not None
        times = min(RUSH_MAX, rush(runtime.in_flight_count, lane.tracker._endpoints[NAME]._inter_token))
        found.append(runtime.marginal_load_s_per_token / times / runtime.inter_token_latency_s.mean)
        loads.append(runtime.in_flight_count)
    assert fmean(found) == pytest.approx(true_elasticity(slope, fmean(loads)), rel=0.35), f"seed {seed}"


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("times", [0.5, 2.0, 20.0])
def test_more_than_the_usual_load_counts_more(seed: int, times: float) -> None:
    """A load is charged for in proportion to the usual one, up to `RUSH_MAX` times: of twice the usual load each call is
    charged for twice as much, of half of it for half."""
    lane = Lane(seed, lambda _: Truth(load_slope=0.1), rate_at=fair_share(0.1))
    lane.ran(600.0)
    lane.finish()
    duration = lane.tracker._endpoints[NAME]._ttft
    load = round(times * (duration.usual_load + 1.0)) - 1
    expected = min(RUSH_MAX, rush(load, duration)) * load * duration.load_slope(load)
    assert charged(lane, load) == pytest.approx(expected), f"seed {seed}"
    assert rush(load, duration) == pytest.approx(times, rel=0.35)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("s_per_input_token", [0.0002, 0.001])
def test_the_time_of_each_input_token_is_found(seed: int, s_per_input_token: float) -> None:
    """Within a third, from ten minutes of ordinary traffic, with load or without."""
    truth = Truth(ttft_s=0.3, s_per_input_token=s_per_input_token, load_slope=0.02 * (seed % 2))
    lane = Lane(seed, lambda _: truth, rate_at=waves)
    lane.ran(600.0)
    runtimes = list(lane.run(60.0))
    found = fmean(
        runtime.ttft_s_per_input_token / (1.0 + truth.load_slope * runtime.in_flight_count) for runtime in runtimes
    )
    assert found == pytest.approx(s_per_input_token, rel=0.34), f"seed {seed}"
    assert runtimes[-1].reference_input_token_count == pytest.approx(1000.0, rel=0.6), f"seed {seed}"


@pytest.mark.parametrize("seed", SEEDS)
def test_where_length_does_not_matter_none_is_charged(seed: int) -> None:
    """An endpoint that reads any prompt at once is expected to: 1,000 tokens more cost it under 5 % of its latency."""
    runtime = Lane(seed, lambda _: Truth(), rate_at=waves).ran(300.0)
    assert runtime.ttft_s is not None
    assert 1000.0 * runtime.ttft_s_per_input_token < 0.05 * runtime.ttft_s.mean, f"seed {seed}"


def test_an_idle_endpoint_charges_nothing() -> None:
    """Nobody is there to be delayed: the marginal cost is that of the calls under way."""
    lane = Lane(1, lambda _: Truth(load_slope=0.1), rate_at=waves)
    lane.ran(300.0)
    assert lane.ran(30.0).marginal_load_s > 0.0
    lane.finish()
    idle = lane.tracker.snapshot(lane.now_s).of(NAME)
    assert (idle.in_flight_count, idle.marginal_load_s, idle.marginal_load_s_per_token) == (0, 0.0, 0.0)


OBSERVATIONS = st.lists(
    st.tuples(
        st.floats(-12.0, 8.2), st.floats(0.0, 100.0), st.integers(0, 500), st.integers(0, 100_000), st.booleans()
    ),
    min_size=1,
    max_size=120,
)


@given(OBSERVATIONS)
@settings(max_examples=60)
def test_the_filter_stays_sane(observations: list[tuple[float, float, int, int, bool]]) -> None:
    """Whatever is observed at whatever load and length: no variance is negative, no figure infinite, no slope below 0."""
    common = CommonGrowth()
    level_filter, now_s = LevelFilter(common_load=common), 0.0
    for log_value, gap_s, load, length, is_whole in observations:
        now_s += gap_s
        observe = level_filter.observe if is_whole else level_filter.observe_at_least
        observe(log_value, now_s=now_s, load=load, length=length)
        for growth in (level_filter.load, level_filter.length):
            assert growth.scale_min <= growth.scale <= growth.scale_max
            assert growth.variance >= 0.0
            assert 0.0 <= growth.slope(0.0) < math.inf
        assert math.isfinite(common.bend)
        level = level_filter.at(now_s, load=load, length=length)
        if level is not None:
            assert math.isfinite(level.log_median)
            assert 0.0 <= level.log_standard_error <= math.sqrt(LEVEL_VARIANCE_MAX)


def test_reading_the_load_costs_no_certainty_where_none_is_known() -> None:
    """A load that was never seen to matter widens no quantile."""
    tracker = RuntimeTracker()
    for second in range(50):
        attempt = tracker.start("a@p", input_token_count=10, now_s=float(second))
        attempt.first_token(second + 0.4)
        attempt.succeed(output_token_count=50, now_s=second + 0.9)
    before = tracker.snapshot(60.0).of("a@p")
    for _ in range(20):
        tracker.start("a@p", input_token_count=10, now_s=60.0)
    loaded = tracker.snapshot(60.0).of("a@p")
    assert (loaded.ttft_s, loaded.in_flight_count) == (before.ttft_s, 20)


def test_memory_is_bounded() -> None:
    """An endpoint that has seen ten times as much takes no more room, and less than 40 kB as it is saved by pickle."""
    lane = Lane(1, lambda _: Truth(load_slope=0.05), rate_at=waves)
    lane.ran(200.0)
    early = len(pickle.dumps(lane.tracker._endpoints[NAME]))
    lane.ran(2000.0)
    late = len(pickle.dumps(lane.tracker._endpoints[NAME]))
    assert late < 1.3 * early
    assert late < 40_000
