"""Configurations that are applied at bad moments, or that give a name to another service."""

from __future__ import annotations

from msgspec.structs import replace

from tests.sim.setting import NAME, SITES, Story, config, twice

QUICK = config(soak_s=20.0, step_s=10.0, hold_s=5.0)


def renamed(w: Story) -> None:
    """The service gets another name in the configuration; its DNS name stays. Then its site dies."""
    w.drain("site-a")
    w.run(5.0)
    www = QUICK.services["www"]
    w.apply(replace(QUICK, services={"web": www}))
    w.run(20.0)
    w.marks["stayed"] = float(w.all_serve("site-b"))
    w.marks["notes"] = float(sum(len(node.notes) for node in w.nodes.values()))
    w.run(40.0)
    w.marks["later notes"] = float(sum(len(node.notes) for node in w.nodes.values()))
    w.begin("stopped", "site-b", "web")
    w.marks["left"] = w.run_until(w.left("site-b"), 10.0)
    w.run(5.0)


def test_a_renamed_service_goes_on_where_it_was() -> None:
    with twice(renamed, QUICK) as w:
        heir = w.now_desired("web")
        assert heir.name == NAME and heir.generation > 2, "generations of a name never go back"
        assert w.marks["stayed"] and w.marks["later notes"] == w.marks["notes"], "one service writes it, in peace"
        assert w.generations() == dict.fromkeys(SITES, heir.generation)
        assert not any(node.view.rewound for node in w.nodes.values()), "nothing was lost"
        assert w.marks["left"] < 3.0


def removed_and_back(w: Story) -> None:
    w.apply(replace(QUICK, services={}))
    w.run(10.0)
    w.begin("stopped", "site-a", "www")
    w.run(20.0)
    w.marks["left in place"] = float(w.all_serve("site-a"))
    w.apply(QUICK)
    w.marks["left"] = w.run_until(w.left("site-a"), 10.0)
    w.end_all()
    w.run(80.0)


def test_a_service_removed_and_added_again() -> None:
    with twice(removed_and_back, QUICK) as w:
        assert w.marks["left in place"], "nobody looks after it any more, and nothing is taken away"
        assert w.marks["left"] < 4.0
        assert w.all_serve("site-a") and w.generations() == dict.fromkeys(SITES, w.now_desired().generation)
