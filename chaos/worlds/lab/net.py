"""Places in network namespaces around one router, and what can happen to the network between them. Needs root.

Nothing outside: the router is not connected to the host. All that was made is removed by a small shell that waits
for this process to end, however it ends.
"""

from __future__ import annotations

import ipaddress
import os
import secrets
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from pyroute2 import IPRoute, netns  # type: ignore[import-untyped]

from chaos.worlds.servers.process import program

PREFIX = "failover-lab"
ROUTER = "router"
ANYWHERE = "*"
_NETNS = Path("/run/netns")

# Not named `forward`: nft knows that word. `dark` comes first: what is dark is so whatever else is cut.
_RULES = """
table ip lab {
  set cut { type ipv4_addr . ipv4_addr; flags interval; }
  set dark { type ipv4_addr; flags interval; }
  chain between {
    type filter hook forward priority 0; policy accept;
    ip saddr @dark drop
    ip daddr @dark drop
    ip saddr . ip daddr @cut drop
    jump lossy
  }
  chain lossy {
  }
}
"""
# Ends when its standard input does. Processes first: a namespace lives for as long as one of its processes.
_CARETAKER = """
cat >/dev/null
for n in "$@"; do ip netns pids "$n" | xargs -r kill -9; done
for n in "$@"; do ip netns del "$n"; done
[ -z "$FILES" ] || rm -rf "$FILES"
"""


def leftovers() -> tuple[str, ...]:
    """Namespaces of lab runs whose process is gone."""
    found = []
    for path in sorted(_NETNS.glob(f"{PREFIX}-*")) if _NETNS.is_dir() else ():
        pid = path.name.removeprefix(PREFIX + "-").partition("-")[0]
        if not (pid.isdigit() and Path("/proc", pid).exists()):
            found.append(path.name)
    return tuple(found)


def _caretaker(names: Sequence[str], files: Path | None) -> subprocess.Popen[bytes]:
    """Removes these namespaces, what runs in them and the directory `files`, once its input is closed: by us, or
    by the kernel when we are gone."""
    return subprocess.Popen(
        (program("sh"), "-c", _CARETAKER, "caretaker", *names),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # a Ctrl-C is not meant for it
        env={**os.environ, "FILES": str(files or "")},
    )


class Network:
    """`places`: name -> its addresses with prefix length ("198.51.100.2/27"). The first host of each network is the
    router's. `files`: a directory that goes when the network goes. Raises PermissionError without root.
    """

    def __init__(self, places: Mapping[str, Sequence[str]], files: Path | None = None) -> None:
        if os.geteuid() != 0:
            raise PermissionError("network namespaces need root")
        self.addresses = {
            place: tuple(ipaddress.IPv4Interface(text) for text in texts) for place, texts in places.items()
        }
        self.networks = {
            place: tuple(dict.fromkeys(address.network for address in addresses))
            for place, addresses in self.addresses.items()
        }
        self.run = f"{PREFIX}-{os.getpid()}-{secrets.token_hex(2)}"
        self._files = files
        self._keeper: subprocess.Popen[bytes] | None = None
        self._dark: set[str] = set()
        self._cut: Counter[tuple[str, str]] = Counter()  # (from, to) -> how many cuts there are
        self._lossy: list[tuple[str, str, float]] = []

    def namespace(self, place: str) -> str:
        """The name of its namespace."""
        return f"{self.run}-{place}"

    def up(self) -> None:
        gone = leftovers()
        if gone:
            _end(_caretaker(gone, None))
        everything = (ROUTER, *self.addresses)
        self._keeper = _caretaker([self.namespace(place) for place in everything], self._files)
        for place in everything:
            netns.create(self.namespace(place))
            with self.inside(place), IPRoute() as here:
                here.link("set", index=here.link_lookup(ifname="lo")[0], state="up")
        with self.inside(ROUTER):
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        for number, place in enumerate(self.addresses):
            self._connect(place, f"to{number}")
        self._nft(_RULES)

    def down(self) -> None:
        """Everything goes: namespaces, what runs in them, files."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            _end(keeper)

    @contextmanager
    def inside(self, place: str) -> Iterator[None]:
        """Sockets that this thread makes meanwhile are in the namespace, and stay there. No threads, no await."""
        netns.pushns(self.namespace(place))
        try:
            yield
        finally:
            netns.popns()

    # ---- what can happen to it

    def cut(self, one: str, other: str = ANYWHERE) -> None:
        """Nothing passes between them any more, live connections included; nobody is told (no ICMP)."""
        self.cut_one_way(one, other)
        self.cut_one_way(other, one)

    def cut_one_way(self, source: str, target: str) -> None:
        """Nothing passes from one to the other."""
        for pair in self._pairs(source, target):
            self._cut[pair] += 1
            if self._cut[pair] == 1:
                self._nft(f"add element ip lab cut {{ {self._elements(*pair)} }}")

    def mend(self, one: str, other: str = ANYWHERE) -> None:
        """End one cut; of two that overlap the other goes on."""
        self.mend_one_way(one, other)
        self.mend_one_way(other, one)

    def mend_one_way(self, source: str, target: str) -> None:
        """End one such cut."""
        for pair in self._pairs(source, target):
            self._cut[pair] -= 1
            if self._cut[pair] <= 0:
                del self._cut[pair]
                self._nft(f"delete element ip lab cut {{ {self._elements(*pair)} }}")

    def lose(self, one: str, other: str, rate: float) -> None:
        """So many packets between them get lost, both ways; 0: none any more."""
        self._lossy = [entry for entry in self._lossy if entry[:2] != (one, other)]
        self._lossy += [(one, other, rate)] if rate else []
        rules = [
            f"add rule ip lab lossy ip saddr . ip daddr {{ {self._elements(*pair)} }} "
            f"numgen random mod 1000 < {round(rate * 1000)} drop"
            for a, b, rate in self._lossy
            for pair in {*self._pairs(a, b), *self._pairs(b, a)}
        ]
        self._nft("\n".join(["flush chain ip lab lossy", *rules]))

    def heal(self) -> None:
        """End every cut and all loss; dark places stay dark."""
        self._cut.clear()
        self._lossy = []
        self._nft("flush set ip lab cut\nflush chain ip lab lossy")

    def dark(self, place: str) -> None:
        """As a power cut: silence from now on, and no carrier inside."""
        self._dark.add(place)
        self._nft(f"add element ip lab dark {{ {', '.join(map(str, self.networks[place]))} }}")
        self._carrier(place, "down")

    def light(self, place: str) -> None:
        if place not in self._dark:
            return
        self._dark.remove(place)
        self._carrier(place, "up")
        self._nft(f"delete element ip lab dark {{ {', '.join(map(str, self.networks[place]))} }}")

    # ---- inside

    def _pairs(self, source: str, target: str) -> list[tuple[str, str]]:
        """(from, to), place by place. ANYWHERE: everywhere but the other end."""

        def of(place: str, other: str) -> list[str]:
            return [p for p in self.networks if p != other] if place == ANYWHERE else [place]

        return [(a, b) for a in of(source, target) for b in of(target, source)]

    def _elements(self, source: str, target: str) -> str:
        # One by one: overlapping intervals would not be elements of one set.
        return ", ".join(f"{a} . {b}" for a in self.networks[source] for b in self.networks[target])

    def _connect(self, place: str, interface: str) -> None:
        with self.inside(ROUTER), IPRoute() as router:
            far = {"ifname": "eth0", "net_ns_fd": self.namespace(place)}
            router.link("add", ifname=interface, kind="veth", peer=far)
            index = router.link_lookup(ifname=interface)[0]
            for network in self.networks[place]:
                router.addr("add", index=index, address=str(network[1]), prefixlen=network.prefixlen)
            router.link("set", index=index, state="up")
        with self.inside(place), IPRoute() as here:
            index = here.link_lookup(ifname="eth0")[0]
            for address in self.addresses[place]:
                here.addr("add", index=index, address=str(address.ip), prefixlen=address.network.prefixlen)
        self._carrier(place, "up")

    def _carrier(self, place: str, state: str) -> None:
        with self.inside(place), IPRoute() as here:
            here.link("set", index=here.link_lookup(ifname="eth0")[0], state=state)
            if state == "up":  # the route went with the link
                here.route("replace", dst="default", gateway=str(self.networks[place][0][1]))

    def _nft(self, commands: str) -> None:
        argv = (program("ip"), "netns", "exec", self.namespace(ROUTER), program("nft"), "-f", "-")
        done = subprocess.run(argv, input=commands, capture_output=True, text=True, timeout=10, check=False)
        if done.returncode != 0:
            raise OSError(f"nft: {done.stderr.strip()}\n{commands}")


def _end(keeper: subprocess.Popen[bytes]) -> None:
    assert keeper.stdin is not None
    keeper.stdin.close()
    keeper.wait(20)
