"""Scenario files: what a good one becomes, in which words it is told, and that it is written as it was read."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from chaos.checkers import CHECKERS
from chaos.reading import UnknownScenario, find, read_scenario, shipped
from chaos.scenario import (
    CLIENTS,
    FENCES,
    HOW,
    MESSAGES,
    SAYS,
    VERBS,
    Condition,
    Expect,
    Fault,
    Resolvers,
    Scenario,
)
from chaos.writing import expect_text, fault_text, scenario_text, shown, worded
from controlplane.config import read_config

CONFIG = Path(__file__).parent / "bad_scenarios" / "config" / "acme.yaml"
_read = read_config(CONFIG).config
assert _read is not None
ACME = _read
DESIGN = """\
name: blackout-with-paused-leader
about: site-a goes dark and the leader
  freezes five seconds later
config: acme.yaml
duration: 40m
faults:
  - {at: 65s, pause: leader, for: 25s}
  - {at: 60s, cut: [site-a, "*"], for: 20m}
expect:
  - {by: 120s, answer: {www: [site-b]}}
  - {during: [120s, 20m], never: {serves: {www: [site-a, site-c]}}}
  - {outage: {www: 60s}}
  - {always: [fenced, never_empty, quorum_backed, hold_time, capacity]}
  - {after_heal: 10m, converged: true}
"""


def read(folder: Path, text: str) -> Scenario:
    (folder / "acme.yaml").write_bytes(CONFIG.read_bytes())
    file = folder / "scenario.yaml"
    file.write_text(text)
    found = read_scenario(file)
    assert found.problems == ()
    assert found.scenario is not None
    return found.scenario


def test_the_scenario_of_the_design(tmp_path: Path) -> None:
    scenario = read(tmp_path, DESIGN)
    assert scenario.about == "site-a goes dark and the leader freezes five seconds later"
    assert scenario.config == ACME
    assert scenario.config_text == CONFIG.read_text()
    assert scenario.duration_s == 2400.0
    cut, pause = scenario.faults  # in the order of their times
    assert cut == Fault(
        verb="cut", at_s=60.0, for_s=1200.0, one="site-a", other="*", text="cut site-a", line=8, column=5
    )
    assert (pause.text, pause.node, pause.ends_s, pause.line) == ("pause leader", "leader", 90.0, 7)
    assert scenario.healed_s == 1260.0
    assert [line.text for line in scenario.expect] == [
        "by 120s answer www=[site-b]",
        "120s-20m never serves www=site-a never serves www=site-c",
        "outage www <= 60s",
        "fenced never_empty quorum_backed hold_time capacity",
        "converged within 10m of heal",
    ]
    assert scenario.expect[1].conditions == (
        Condition("serves", "www", ("site-a",), True),
        Condition("serves", "www", ("site-c",), True),
    )


@pytest.mark.parametrize(
    ("line", "text", "fields"),
    [
        ("cut: [site-a, site-b]", "cut site-a site-b", {"one": "site-a", "other": "site-b"}),
        ("cut_one_way: ['*', site-b]", "cut_one_way all to site-b", {"one": "*", "other": "site-b"}),
        ("cut: [site-a, clients]", "cut site-a clients", {"other": CLIENTS}),
        ("loss: {between: [site-a, '*'], rate: 30%}", "loss 30% site-a", {"rate": 0.3, "one": "site-a"}),
        ("loss: {message: reply, node: site-a, rate: 0.2}", "loss 20% reply site-a", {"message": "reply"}),
        ("slow: {between: [site-a, site-b], by: 300ms}", "slow site-a site-b 300ms", {"by_s": 0.3}),
        ("slow: {service: www, site: site-a, by: 2s}", "slow www@site-a 2s", {"service": "www", "site": "site-a"}),
        ("delay: {message: dns_update, for: 20s}", "delay dns_update 20s", {"by_s": 20.0, "node": ""}),
        ("kill: store_leader", "kill store_leader", {"node": "store_leader"}),
        ("power_off: cloud", "power_off cloud", {"site": "cloud"}),
        ("stop: {service: www, site: site-a}", "stop www@site-a refuse", {"how": "refuse"}),
        ("flaky: {service: www, site: site-a, rate: 50 %}", "flaky www@site-a 50%", {"rate": 0.5}),
        ("reset: {service: www, site: site-a}", "reset www@site-a", {}),
        ("bandwidth: {service: www, site: site-a, rate: 10}", "bandwidth www@site-a 10 KB/s", {"rate": 10.0}),
        ("lie: {vantage: site-c, says: nothing}", "lie site-c says nothing", {"node": "site-c", "says": "nothing"}),
        ('clock_step: {node: site-a, by: "-24h"}', "clock_step site-a -1d", {"by_s": -86400.0}),
        ("clock_step: {node: leader, by: 90s}", "clock_step leader +90s", {"by_s": 90.0}),
        ("store_down: true", "store_down", {}),
        ("store_rewind: {to: 0}", "store_rewind to 0s", {"by_s": 0.0}),
        ("dns_api_down: site-a", "dns_api_down site-a", {"site": "site-a"}),
        (
            "edit_zone: {service: www, site: site-b, serve: site-c, fence: manual}",
            "edit_zone www@site-b serves site-c, fence manual",
            {"other": "site-c", "how": "manual"},
        ),
        (
            "operator: 'drain site-b --reason \"new switch\"', exit: 1",
            "operator drain site-b --reason 'new switch'",
            {"argv": ("drain", "site-b", "--reason", "new switch"), "code": 1},
        ),
        ("operator: [freeze, --reason, x]", "operator freeze --reason x", {"code": 0}),
    ],
)
def test_verbs(tmp_path: Path, line: str, text: str, fields: dict[str, object]) -> None:
    head = "name: one\nabout: One fault.\nconfig: acme.yaml\nduration: 10m\n"
    scenario = read(tmp_path, f"{head}faults:\n  - {{at: 60s, {line}}}\nexpect: [{{always: [fenced]}}]\n")
    (fault,) = scenario.faults
    assert fault.text == text
    assert {name: getattr(fault, name) for name in fields} == fields


def test_a_scenario_without_faults_and_with_all_else(tmp_path: Path) -> None:
    text = """\
name: quiet
about: Nothing happens.
config: acme.yaml
duration: 10m
resolvers: {stretch: 1, stretch_by: 20s, stale: 2, stale_for: 25s}
transfer: 2s
most_moves: 2
x-note: the user's own
expect:
  - {by: 0, answer: {www: [site-a], shop: [site-a]}, serves: {www: site-a}, converged: true}
  - {during: [1s, 10m], never: {answer: {www: [site-b]}, converged: true}}
"""
    scenario = read(tmp_path, text)
    assert scenario.faults == () and scenario.healed_s == 0.0
    assert scenario.resolvers == Resolvers(1, 20.0, 2, 25.0)
    assert (scenario.transfer_s, scenario.most_moves) == (2.0, 2)
    assert scenario.expect[0].text == "by 0s answer www=[site-a] answer shop=[site-a] serves www=site-a converged"
    assert scenario.expect[1].text == "1s-10m never answer www=[site-b] never converged"


def test_times_for_people() -> None:
    assert [shown(s) for s in (0, 60, 120, 179, 1200, 0.3, -86400, 92.5)] == [
        "0s", "60s", "120s", "179s", "20m", "300ms", "-1d", "1m32s500ms",
    ]  # fmt: skip


# --- written and read again -------------------------------------------------------------------------------------------

_SITES = ("site-a", "site-b", "site-c", "cloud")
_TIME = st.integers(1000, 500_000_000).map(lambda us: us / 1e6)
_SHARE = st.integers(1, 100).map(lambda percent: percent / 100)
_WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12)


def _ends() -> st.SearchStrategy[dict[str, object]]:
    pairs = [(a, b) for a in _SITES[:3] for b in (*_SITES, "*", CLIENTS) if a != b]
    return st.sampled_from(pairs).map(lambda pair: {"one": pair[0], "other": pair[1]})


def _at_service(**more: st.SearchStrategy[object]) -> st.SearchStrategy[dict[str, object]]:
    places = [("www", "site-a"), ("www", "site-c"), ("shop", "site-b"), ("search", "site-a")]
    return st.tuples(st.sampled_from(places), st.fixed_dictionaries(more)).map(
        lambda drawn: {"service": drawn[0][0], "site": drawn[0][1], **drawn[1]}
    )


def _fields(**of: st.SearchStrategy[object]) -> st.SearchStrategy[dict[str, object]]:
    return st.fixed_dictionaries(of)


def _both(
    a: st.SearchStrategy[dict[str, object]], **more: st.SearchStrategy[object]
) -> st.SearchStrategy[dict[str, object]]:
    return st.tuples(a, st.fixed_dictionaries(more)).map(lambda drawn: drawn[0] | drawn[1])


_NODES = st.sampled_from(_SITES)
_STEP = st.one_of(_TIME, _TIME.map(lambda s: -s))
FIELDS: dict[str, st.SearchStrategy[dict[str, object]]] = {
    "cut": _ends(),
    "cut_one_way": _ends(),
    "loss": st.one_of(
        _both(_ends(), rate=_SHARE), _fields(message=st.sampled_from(MESSAGES[1:]), node=_NODES, rate=_SHARE)
    ),
    "slow": st.one_of(_both(_ends(), by_s=_TIME), _at_service(by_s=_TIME)),
    "delay": _fields(message=st.sampled_from(MESSAGES), node=st.sampled_from(("", "leader", "site-a")), by_s=_TIME),
    "pause": _fields(node=st.sampled_from((*_SITES, "leader", "store_leader"))),
    "kill": _fields(node=st.sampled_from((*_SITES, "leader", "store_leader"))),
    "restart": _fields(node=_NODES),
    "power_off": _fields(site=_NODES),
    "stop": _at_service(how=st.sampled_from(HOW)),
    "flaky": _at_service(rate=_SHARE),
    "reset": _at_service(),
    "bandwidth": _at_service(rate=st.integers(1, 10_000).map(float)),
    "lie": _fields(node=_NODES, says=st.sampled_from(SAYS)),
    "clock_step": _fields(node=_NODES, by_s=_STEP),
    "store_down": _fields(),
    "store_compact": _fields(),
    "store_rewind": _fields(by_s=st.just(0.0)),
    "dns_api_down": _fields(site=st.sampled_from(("site-a", "site-b"))),
    "edit_zone": _fields(
        service=st.just("www"),
        site=st.sampled_from(("site-a", "site-b")),
        other=st.sampled_from(("site-a", "site-c")),
        how=st.sampled_from(FENCES),
    ),
    "operator": st.one_of(
        _fields(argv=st.lists(_WORDS, max_size=4).map(lambda words: ("drain", *words)), code=st.integers(1, 4)),
        _fields(argv=_WORDS.map(lambda word: ("drain", "site-b", "--reason", f"x{word}")), code=st.just(0)),
    ),
}


@st.composite
def faults(draw: st.DrawFn) -> Fault:
    verb = draw(st.sampled_from(sorted(FIELDS)))
    for_s = draw(st.one_of(st.none(), _TIME)) if VERBS[verb].heals else None
    return Fault(verb=verb, at_s=draw(_TIME), for_s=for_s, **draw(FIELDS[verb]))  # type: ignore[arg-type]


@st.composite
def conditions(draw: st.DrawFn) -> tuple[Condition, ...]:
    """In the order in which a file gives them."""
    found: list[Condition] = []
    for never in (False, True):
        services = [("www", draw(st.permutations(_SITES[:3]))), ("shop", draw(st.permutations(_SITES[:2])))]
        for kind in ("answer", "serves"):
            for name, sites in draw(st.lists(st.sampled_from(services), unique_by=lambda s: s[0], max_size=2)):
                some = tuple(sites[: draw(st.integers(1, len(sites)))])
                found += (
                    [Condition(kind, name, some, never)]
                    if kind == "answer"
                    else [Condition(kind, name, (site,), never) for site in some]
                )
        found += [Condition("converged", never=never)] if draw(st.booleans()) else []
    return tuple(found) or (Condition("converged"),)


@st.composite
def expectations(draw: st.DrawFn) -> Expect:
    kind = draw(st.sampled_from(("by", "during", "outage", "always")))
    if kind == "outage":
        return Expect(kind=kind, outages=draw(st.dictionaries(st.sampled_from(("www", "shop")), _TIME, min_size=1)))
    if kind == "always":
        checkers = draw(st.lists(st.sampled_from(sorted(CHECKERS)), min_size=1, unique=True))
        return Expect(kind=kind, checkers=tuple(checkers))
    from_s = draw(_TIME)
    to_s = from_s + draw(_TIME) if kind == "during" else 0.0
    return Expect(kind=kind, from_s=from_s, to_s=round(to_s, 6), conditions=draw(conditions()))


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    seen = draw(st.lists(faults(), max_size=6, unique_by=lambda f: (f.verb, f.node, f.site, f.one, f.other)))
    return worded(
        Scenario(
            name=draw(st.from_regex("[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?", fullmatch=True)),
            about=" ".join(draw(_WORDS).split()) or "x",
            config=ACME,
            config_text="",
            duration_s=2000.0,
            faults=tuple(sorted(seen, key=lambda f: f.at_s)),
            expect=tuple(draw(st.lists(expectations(), min_size=1, max_size=4, unique_by=expect_text))),
            resolvers=Resolvers(draw(st.integers(0, 3)), draw(_TIME) + 1, draw(st.integers(0, 3)), 12.5),
            transfer_s=draw(_TIME),
            most_moves=draw(st.integers(1, 9)),
        )
    )


def bare(scenario: Scenario) -> Scenario:
    """Without where it stood."""
    assert scenario.config == ACME
    return replace(
        scenario,
        file="",
        config_text="",
        faults=tuple(replace(fault, line=0, column=0) for fault in scenario.faults),
        expect=tuple(replace(line, line=0, column=0) for line in scenario.expect),
        resolvers=replace(scenario.resolvers, stretch_s=round(scenario.resolvers.stretch_s, 6)),
    )


@given(scenarios())
def test_what_is_written_reads_back_equal(scenario: Scenario) -> None:
    with tempfile.TemporaryDirectory() as folder:
        text = scenario_text(scenario, "acme.yaml")
        assert bare(read(Path(folder), text)) == bare(scenario)


def test_the_property_above_knows_all_verbs() -> None:
    assert set(VERBS) - set(FIELDS) == {"lag"}  # no kind of check measures it yet: no file can have such data


def test_lag_is_written_too() -> None:
    fault = Fault(verb="lag", at_s=5.0, service="www", site="site-b", by_s=3600.0)
    assert fault_text(fault) == "lag www@site-b 1h"


# --- those that ship --------------------------------------------------------------------------------------------------


def test_of_a_file_that_is_no_configuration_nothing_is_quoted(tmp_path: Path) -> None:
    """Nor is it in the scenario's place: messages end in the logs of a CI."""
    (tmp_path / "shadow").write_text("root:$6$secret:19000:0:99999:7:::\ndaemon:*:19000:0:99999:7:::\n")
    file = tmp_path / "scenario.yaml"
    file.write_text(DESIGN.replace("acme.yaml", "shadow"))
    said = [str(problem).removeprefix(f"{tmp_path}/") for problem in read_scenario(file).problems]
    assert said == [
        f"scenario.yaml:4:9: error: config: cannot be used: 1 error in {tmp_path}/shadow",
        "shadow:1:1: error: expected a mapping with version, cluster, sites, ...",
    ]
    said = [str(problem).removeprefix(f"{tmp_path}/") for problem in read_scenario(tmp_path / "shadow").problems]
    assert said == ["shadow:1:1: error: expected a mapping with name, about, config, ..."]


def test_of_a_key_that_is_a_whole_text_its_beginning_is_quoted(tmp_path: Path) -> None:
    file = tmp_path / "scenario.yaml"
    file.write_text(DESIGN.replace("acme.yaml", str(CONFIG)) + f"? {'word ' * 30}\n: 1\n")
    (problem,) = read_scenario(file).problems
    assert len(problem.message) < 200 and problem.message.startswith('unknown key "word word') and "..." in str(problem)


def test_a_scenario_is_found_by_its_name_or_its_path(tmp_path: Path) -> None:
    for name, file in shipped().items():
        assert find(name) == file
    mine = tmp_path / "mine.yaml"
    mine.write_text("name: mine\n")
    assert find(str(mine)) == mine


def test_a_name_that_nobody_knows() -> None:
    with pytest.raises(
        UnknownScenario, match='no scenario "xyzzy" ships, and there is no such file; failoverctl drill'
    ):
        find("xyzzy")
    near = next(iter(shipped())) + "s"
    with pytest.raises(UnknownScenario, match=f'did you mean "{near[:-1]}"'):
        find(near)
