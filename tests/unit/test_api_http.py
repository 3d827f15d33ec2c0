"""The API over HTTP, on a cluster of four nodes: reads, guards of the door, the plan that is the deed."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from controlplane.api.app import ListenError, serve
from controlplane.api.guard import is_loopback
from controlplane.api.wishes import one_line
from tests.support import run
from tests.unit.api_cluster import ADDRESSES, Cluster, running

Doc = dict[str, Any]
DRAIN: Doc = {"author": "ana", "reason": "switch firmware", "command": "drain", "sites": ["site-b"], "for_s": 7200}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running(tmp_path_factory.mktemp("api")) as (found, _):
        yield found


def ask(
    cluster: Cluster, method: str, path: str, body: Doc | bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, Doc]:
    """(HTTP status, document)."""
    data = json.dumps(body).encode() if isinstance(body, dict) else body
    sent = {"Content-Type": "application/json"} if data is not None else {}
    request = urllib.request.Request(cluster.urls[0] + path, data, sent | (headers or {}), method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def audits(cluster: Cluster) -> list[tuple[str, str, str]]:
    return [(a.author, a.action, a.result) for a in cluster.nodes["site-a"].journal.audits]


def in_force(cluster: Cluster) -> list[str]:
    return [o["id"] for o in ask(cluster, "GET", "/v1/overrides")[1]["overrides"]]


def test_status(cluster: Cluster) -> None:
    code, doc = ask(cluster, "GET", "/v1/status")
    assert code == 200
    assert doc["source"]["node"] == "site-a" and doc["source"]["age_s"] < 3 and doc["source"]["current"]
    assert doc["leader"] in cluster.nodes and doc["token"] > 0
    www = doc["services"]["www"]
    assert www["shares"] == {"eu-west": {"site-a": 100}, "rest": {"site-b": 100}}
    assert www["verdicts"] == {"site-a": "up", "site-b": "up", "site-c": "up"}
    assert www["standing"]["site-a"] == {"rule": "ready", "reason": "up 3/3"}
    assert doc["sites"]["site-a"] | {"notes": []} == {
        "role": "active",
        "observed": "up",
        "load": 400,
        "usable": 900,
        "capacity": 1000,
        "vantage": "ok",
        "dns": "ok",
        "pool": None,
        "notes": [],
    }
    assert doc["sites"]["cloud"]["observed"] is None and doc["sites"]["cloud"]["vantage"] == "ok"
    assert set(doc["nodes"]) == set(cluster.config.sites)


def test_explain(cluster: Cluster) -> None:
    code, doc = ask(cluster, "GET", "/v1/explain/www")
    assert code == 200
    assert doc["service"] == "www" and doc["decision"].startswith("d-") and doc["at"]
    site = doc["sites"]["site-b"]
    assert (site["rule"], site["verdict"], site["tally"]) == ("ready", "up", "3/3")
    evidence = {e["vantage"]: e for e in site["evidence"]}
    assert set(evidence) == set(cluster.config.sites)
    assert evidence["cloud"]["health"] == "UP" and evidence["cloud"]["fresh"] and evidence["cloud"]["age_s"] < 3
    assert not evidence["site-b"]["votes"] and evidence["site-b"]["own"]
    code, recorded = ask(cluster, "GET", f"/v1/decisions/{doc['decision']}")
    assert code == 200 and recorded["decision"] == doc["decision"] and recorded["sites"]["site-b"]["rule"] == "ready"


@pytest.mark.parametrize("path", ["/v1/explain/nope", "/v1/decisions/d-999", "/v1/whatif?lose=nope", "/v1/nope"])
def test_what_is_not_there(cluster: Cluster, path: str) -> None:
    code, doc = ask(cluster, "GET", path)
    assert code == 404 and doc["ok"] is False and doc["error"]


def test_whatif_and_verify_and_health(cluster: Cluster) -> None:
    code, doc = ask(cluster, "GET", "/v1/whatif?lose=site-a&demand=1.0")
    assert code == 200
    assert doc["services"]["www"]["shares"] == {"eu-west": {"site-b": 100}, "rest": {"site-b": 100}}
    assert doc["services"]["www"]["was"]["eu-west"] == {"site-a": 100}
    assert doc["voters"] == {"left": 3, "needed": 2, "of": 4}
    assert ask(cluster, "GET", "/v1/whatif?demand=much")[0] == 400
    code, doc = ask(cluster, "GET", "/v1/verify?service=www")
    assert code == 200 and doc["ok"] is True and doc["reachable"] == len(ADDRESSES)
    doc = ask(cluster, "GET", "/v1/explain/www")[1]
    assert doc["next"] == {"lost": "site-a", "loads": {"site-b": 700}, "shortfall": 0, "tier": ""}
    assert ask(cluster, "GET", "/healthz") == (200, {"ok": True})
    assert ask(cluster, "GET", "/readyz")[0] == 200
    code, doc = ask(cluster, "GET", "/v1/config")
    assert code == 200 and doc["config"]["revision"] == 1 and doc["desired"]["www"]["generation"] > 0


def test_events_begin_with_the_status(cluster: Cluster) -> None:
    with urllib.request.urlopen(cluster.urls[0] + "/v1/events", timeout=10) as stream:
        assert stream.headers["Content-Type"] == "text/event-stream"
        first = json.loads(stream.readline().removeprefix(b"data: "))
        assert stream.readline() == b"\n"
        events = (json.loads(line.removeprefix(b"data: ")) for line in stream if line.startswith(b"data: "))
        second = next(event for event in events if event["type"] == "status")  # agents may still have something to say
    assert first["type"] == "status" and first["changed"] and first["services"]["www"]
    assert second["source"]["node"] == "site-a"


def events_after(cluster: Cluster, after: str) -> list[Doc]:
    """What a stream begins with, up to the first status document."""
    found: list[Doc] = []
    with urllib.request.urlopen(f"{cluster.urls[0]}/v1/events?after={after}", timeout=10) as stream:
        while not found or found[-1]["type"] != "status":
            line = stream.readline()
            if line.strip():
                found.append(json.loads(line.removeprefix(b"data: ")))
    return found


def test_what_was_missed_can_be_asked_for(cluster: Cluster) -> None:
    *missed, status = events_after(cluster, "d-0")
    decisions = [e for e in missed if e["type"] == "decision"]
    assert decisions[0]["decision"] == "d-1" and decisions[-1]["decision"] == status["decision"]
    assert all(e["replayed"] for e in missed)
    applied = [e for e in missed if e["type"] == "applied"]
    assert applied[-1]["text"].endswith(": 3/3 name servers agree") and applied[-1]["arriving"] > 0
    *missed, _ = events_after(cluster, status["decision"])
    assert not [e for e in missed if e["type"] == "decision"]
    assert ask(cluster, "GET", "/v1/events?after=yesterday")[0] == 400


# --- the door ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["evil.example.org", "evil.example.org:80", "127.0.0.1.evil.org", "10.0.0.1", ""])
def test_a_rebound_name_is_refused(cluster: Cluster, host: str) -> None:
    code, doc = ask(cluster, "GET", "/v1/status", headers={"Host": host})
    assert code == 403 and "Host" in doc["error"]


def test_mutations_have_to_be_json_from_here(cluster: Cluster) -> None:
    body = json.dumps(DRAIN).encode()
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        assert ask(cluster, "POST", "/v1/overrides", body, {"Content-Type": kind})[0] == 415
    for origin in ("https://evil.example.org", "http://[", "http://[::1", "null", ""):
        assert ask(cluster, "POST", "/v1/overrides", body, {"Origin": origin})[0] == 403
    assert in_force(cluster) == []


def test_what_is_not_understood_is_refused(cluster: Cluster) -> None:
    for body in (b"{", b"[]", b'{"author": 1}', json.dumps(DRAIN | {"sitez": []}).encode()):
        code, doc = ask(cluster, "POST", "/v1/overrides", body)
        assert code == 400 and "not understood" in doc["error"]
        assert audits(cluster)[-1] == ("?", "POST /v1/overrides", "refused")
    assert ask(cluster, "POST", "/v1/overrides", b" " * (5 * 1024 * 1024))[0] == 413


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        ({"sites": ["site-x"]}, 404, "there are site-a, site-b, site-c"),
        ({"sites": ["cloud"]}, 400, "witness"),
        ({"services": ["api"]}, 404, "there are www"),
        ({"sites": []}, 400, "needs a site"),
        ({"command": "explode"}, 400, "drain"),
        ({"command": "pin"}, 400, "in or out"),
        ({"for_s": 300_000}, 400, "72 h"),
        ({"author": " "}, 400, "author"),
        ({"accepts": ["luck"]}, 400, "there are min_sites, capacity, data"),
        ({"accepts": ["capacity", "never_empty"]}, 400, "cannot be accepted"),
    ],
)
def test_wishes_that_make_no_sense(cluster: Cluster, change: Doc, code: int, says: str) -> None:
    before = len(audits(cluster))
    found, doc = ask(cluster, "POST", "/v1/overrides", DRAIN | change)
    assert found == code and says in doc["error"]
    assert len(audits(cluster)) == before + 1 and audits(cluster)[-1][2] == "refused"
    ask(cluster, "POST", "/v1/overrides", DRAIN | change | {"dry_run": True})
    assert len(audits(cluster)) == before + 1, "a look at the plan is no mutation"


def test_a_view_that_is_not_current_judges_nothing_and_that_is_audited(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(cluster.nodes["site-a"].view), "current", property(lambda view: False))
    for method, path, body in (
        ("POST", "/v1/overrides", DRAIN),
        ("POST", "/v1/apply", {"author": "ana", "text": cluster.text}),
        ("POST", "/v1/unfreeze", {"author": "ana"}),
        ("DELETE", "/v1/overrides/ov-1", {"author": "ana"}),
    ):
        before = len(audits(cluster))
        code, doc = ask(cluster, method, path, body)
        assert code == 503 and "not current" in doc["error"]
        assert len(audits(cluster)) == before + 1 and audits(cluster)[-1][0::2] == ("ana", "refused")


def test_only_loopback_is_listened_on() -> None:
    from aiohttp import web

    async def listen(host: str) -> str:
        server = await serve(web.Application(), host, 0)
        await server.aclose()
        return server.url

    assert run(listen("127.0.0.1")).startswith("http://127.0.0.1:")
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org"):
        with pytest.raises(ListenError, match="loopback only"):
            run(listen(host))


def test_loopback_names() -> None:
    assert all(is_loopback(host) for host in ("localhost", "127.0.0.1", "127.8.9.1", "::1", "[::1]"))
    assert not any(is_loopback(host) for host in ("", "localhost.evil.org", "0.0.0.0", "128.0.0.1", "2130706433"))


# --- the plan is the deed ---------------------------------------------------------------------------------


def test_a_dry_run_changes_nothing(cluster: Cluster) -> None:
    before = audits(cluster)
    code, doc = ask(cluster, "POST", "/v1/overrides", DRAIN | {"dry_run": True})
    assert code == 200 and doc["ok"] and doc["basis"]
    assert [(m["region"], m["before"], m["after"]) for m in doc["preflight"]["plan"]] == [
        ("rest", {"site-b": 100}, {"site-a": 100})
    ]
    assert doc["preflight"]["typed"]
    assert in_force(cluster) == [] and audits(cluster) == before


def test_the_state_changed_since_the_plan(cluster: Cluster) -> None:
    code, doc = ask(cluster, "POST", "/v1/overrides", DRAIN | {"basis": "0" * 32})
    assert code == 409 and doc["changed"] and doc["preflight"]["plan"] and doc["basis"] != "0" * 32
    assert in_force(cluster) == []
    assert audits(cluster)[-1] == ("ana", "drain site-b", "conflict")


def test_a_guard_refuses_all_at_once_unless_it_is_named(cluster: Cluster) -> None:
    wish = DRAIN | {"sites": ["site-a", "site-b"]}
    code, doc = ask(cluster, "POST", "/v1/overrides", wish)
    assert code == 422 and "capacity" in doc["error"] and "--accept capacity" in doc["error"]
    assert audits(cluster)[-1] == ("ana", "drain site-a site-b", "refused")
    code, doc = ask(cluster, "POST", "/v1/overrides", wish | {"accepts": ["capacity"], "dry_run": True})
    assert code == 200 and not doc["preflight"]["refused"]
    everything = DRAIN | {"sites": ["site-a", "site-b", "site-c"], "accepts": ["capacity", "min_sites"]}
    code, doc = ask(cluster, "POST", "/v1/overrides", everything)
    assert code == 422 and "cannot be accepted" in doc["error"]
    assert in_force(cluster) == []


def test_an_override_from_plan_to_end(cluster: Cluster) -> None:
    basis = ask(cluster, "POST", "/v1/overrides", DRAIN | {"dry_run": True})[1]["basis"]
    code, doc = ask(cluster, "POST", "/v1/overrides", DRAIN | {"basis": basis, "reason": "one\nline\x1b[2J"})
    assert code == 201
    id_ = doc["override"]["id"]
    assert doc["override"]["left_s"] == 7200 and doc["override"]["reason"] == "one line [2J"
    assert audits(cluster)[-1] == ("ana", "drain site-b", "ok")
    cluster.until(lambda: in_force(cluster) == [id_])
    code, doc = ask(cluster, "POST", "/v1/overrides", DRAIN)
    assert code == 200 and doc["existing"]["id"] == id_, "a repeat creates no second one"
    cluster.until(lambda: ask(cluster, "GET", "/v1/status")[1]["services"]["www"]["overrides"] == [id_])
    www = ask(cluster, "GET", "/v1/status")[1]["services"]["www"]
    assert www["standing"]["site-b"]["rule"] == "out" and www["verdicts"]["site-b"] == "up"
    assert www["shares"]["rest"] == {"site-a": 100}
    code, doc = ask(cluster, "DELETE", f"/v1/overrides/{id_}", {"author": "bea", "dry_run": True})
    assert code == 200 and doc["ends"] == [id_]
    code, doc = ask(cluster, "DELETE", f"/v1/overrides/{id_}", {"author": "bea", "basis": doc["basis"]})
    assert code == 200 and doc["cancelled"] == [id_]
    assert audits(cluster)[-1] == ("bea", f"cancel {id_}", "ok")
    cluster.until(lambda: in_force(cluster) == [])
    assert ask(cluster, "DELETE", f"/v1/overrides/{id_}", {"author": "bea"})[0] == 404


def test_another_duration_or_another_accepted_guard_replaces_it(cluster: Cluster) -> None:
    code, doc = ask(cluster, "POST", "/v1/overrides", DRAIN)
    first = doc["override"]["id"]
    cluster.until(lambda: in_force(cluster) == [first])
    unsaid = {k: v for k, v in DRAIN.items() if k != "for_s"}
    code, doc = ask(cluster, "POST", "/v1/overrides", unsaid)
    assert code == 200 and doc["existing"]["id"] == first, "no duration was asked for"
    code, doc = ask(cluster, "POST", "/v1/overrides", DRAIN | {"for_s": 60, "dry_run": True})
    assert code == 200 and [o["id"] for o in doc["replaces"]] == [first] and doc["for_s"] == 60
    code, doc = ask(cluster, "POST", "/v1/overrides", DRAIN | {"for_s": 60, "basis": doc["basis"]})
    second = doc["override"]["id"]
    assert code == 201 and [o["id"] for o in doc["replaces"]] == [first]
    cluster.until(lambda: in_force(cluster) == [second])
    assert cluster.nodes["site-a"].journal.audits[-1].detail == f"switch firmware; in place of {first}"
    code, doc = ask(cluster, "POST", "/v1/overrides", unsaid | {"accepts": ["capacity"]})
    third = doc["override"]["id"]
    assert code == 201 and doc["override"]["left_s"] == 4 * 3600 and doc["override"]["accepts"] == ["capacity"]
    cluster.until(lambda: in_force(cluster) == [third])
    ask(cluster, "DELETE", f"/v1/overrides/{third}", {"author": "ana"})
    cluster.until(lambda: in_force(cluster) == [])


def test_freeze_and_unfreeze(cluster: Cluster) -> None:
    assert ask(cluster, "POST", "/v1/unfreeze", {"author": "ana"})[0] == 404
    wish: Doc = {"author": "ana", "reason": "r", "command": "freeze", "for_s": None}
    assert ask(cluster, "POST", "/v1/overrides", wish | {"sites": ["site-a"]})[0] == 400
    code, doc = ask(cluster, "POST", "/v1/overrides", wish)
    assert code == 201 and doc["override"]["left_s"] is None
    cluster.until(lambda: len(in_force(cluster)) == 1)
    notes = ask(cluster, "GET", "/v1/status")[1]["services"]["www"]["notes"]
    assert any("frozen" in note for note in notes)
    code, ended = ask(cluster, "POST", "/v1/unfreeze", {"author": "ana"})
    assert code == 200 and ended["cancelled"] == [doc["override"]["id"]]
    cluster.until(lambda: in_force(cluster) == [])


def test_apply(cluster: Cluster) -> None:
    same: Doc = {"author": "ana", "text": cluster.text, "file": "acme.yaml"}
    code, doc = ask(cluster, "POST", "/v1/apply", same)
    assert code == 200 and doc["changes"] == []
    other = same | {"text": cluster.text.replace("capacity: 200", "capacity: 250")}
    code, doc = ask(cluster, "POST", "/v1/apply", other | {"dry_run": True})
    assert code == 200
    assert doc["changes"] == [{"path": "sites.site-c.capacity", "before": 200.0, "after": 250.0}]
    assert ask(cluster, "POST", "/v1/apply", other | {"expect": 99})[0] == 409
    code, refused = ask(cluster, "POST", "/v1/apply", same | {"text": "version: 1"})
    assert code == 422 and refused["check"]["problems"]
    foreign = same | {"text": cluster.text.replace("cluster: acme", "cluster: other")}
    assert "is for cluster other" in ask(cluster, "POST", "/v1/apply", foreign)[1]["error"]
    code, doc = ask(cluster, "POST", "/v1/apply", other | {"expect": doc["revision"]})
    assert code == 201 and doc["revision"] == 2
    cluster.until(lambda: ask(cluster, "GET", "/v1/status")[1]["config_rev"] == 2)
    assert audits(cluster)[-1] == ("ana", "apply acme.yaml", "ok")
    ask(cluster, "POST", "/v1/apply", same)
    cluster.until(lambda: ask(cluster, "GET", "/v1/status")[1]["config_rev"] == 3)


def test_an_old_decision_is_explained_by_its_own_configuration(cluster: Cluster) -> None:
    decision = ask(cluster, "GET", "/v1/explain/www")[1]["decision"]
    before = ask(cluster, "GET", f"/v1/decisions/{decision}")[1]
    assert before["sites"]["site-a"]["load"] == 400 and before["shortfall"] == 0 and before["tier"] == ""
    revision = ask(cluster, "GET", "/v1/status")[1]["config_rev"]
    checks = "checks: [{tcp: {port: 8080}}, {tcp: {port: 8081}}]"
    other: Doc = {"author": "ana", "text": cluster.text.replace("checks: [{tcp: {port: 8080}}]", checks)}
    assert ask(cluster, "POST", "/v1/apply", other)[0] == 201
    cluster.until(lambda: ask(cluster, "GET", "/v1/status")[1]["config_rev"] == revision + 1)
    code, doc = ask(cluster, "GET", f"/v1/decisions/{decision}")
    assert code == 200 and doc["sites"] == before["sites"] and doc["guards"] == before["guards"]
    view = cluster.nodes["site-a"].view
    recorded = view.mirror.decisions[decision]
    view.mirror.decisions[decision] = replace(recorded, config_rev=777)
    code, doc = ask(cluster, "GET", f"/v1/decisions/{decision}")
    view.mirror.decisions[decision] = recorded
    assert code == 200 and "777" in doc["note"] and doc["shares"] == before["shares"] and doc["guards"] == []
    assert doc["sites"]["site-a"]["rule"] == before["sites"]["site-a"]["rule"]
    assert doc["sites"]["site-a"]["load"] is None and doc["sites"]["site-a"]["evidence"] == []
    ask(cluster, "POST", "/v1/apply", {"author": "ana", "text": cluster.text})
    cluster.until(lambda: ask(cluster, "GET", "/v1/status")[1]["config_rev"] == revision + 2)


def test_a_site_that_fails_is_shown_and_alarmed(cluster: Cluster) -> None:
    cluster.down.add("site-a")

    def moved() -> bool:
        doc = ask(cluster, "GET", "/v1/status")[1]
        www = doc["services"]["www"]
        return bool(www["shares"]["eu-west"] == {"site-b": 100} and www["state"] == "converged")

    cluster.until(moved)
    doc = ask(cluster, "GET", "/v1/status")[1]
    assert doc["sites"]["site-a"]["observed"] == "down" and doc["services"]["www"]["verdicts"]["site-a"] == "down"
    assert doc["summary"]["state"] == "degraded" and "site-a failed" in doc["summary"]["facts"]
    alarms = {a["name"]: a for a in doc["alarms"]}
    assert "site-b" in alarms["n_plus"]["remedy"] and alarms["n_plus"]["subject"] == "acme"
    doc = ask(cluster, "GET", "/v1/explain/www")[1]
    why = doc["sites"]["site-a"]
    assert why["rule"] == "failed"
    recorded = ask(cluster, "GET", f"/v1/decisions/{doc['decision']}")[1]
    assert recorded["sites"]["site-a"]["load"] == 0 and recorded["sites"]["site-b"]["load"] == 700
    assert {e["reason"] for e in why["evidence"] if e["votes"]} == {"timeout connect"}
    cluster.down.clear()
    cluster.until(lambda: ask(cluster, "GET", "/v1/status")[1]["summary"]["state"] == "ok")


def test_one_line() -> None:
    assert one_line("  a\r\nb\x00c ") == "a b c"
    assert len(one_line("x" * 2000)) == 500
