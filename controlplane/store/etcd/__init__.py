"""The Store port on etcd 3.4 and later, over gRPC: several endpoints, certificates, watches that resume.

store    reads and transactions: which may be tried again elsewhere, and which must not
watch    a watch that survives its endpoint
link     endpoints, and what an error means
credentials  certificate files, and what is wrong with them
silence  is a quiet watch alive?
health   what the members say of themselves
"""

import controlplane.store.etcd.environment  # noqa: F401  (before gRPC is imported)
from controlplane.store.etcd.credentials import Credentials, unfit, unreadable
from controlplane.store.etcd.health import MemberHealth, StoreHealth
from controlplane.store.etcd.link import PermissionDenied
from controlplane.store.etcd.store import EtcdStore

__all__ = ["Credentials", "EtcdStore", "MemberHealth", "PermissionDenied", "StoreHealth", "unfit", "unreadable"]
