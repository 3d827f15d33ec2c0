"""What gRPC's core reads from the environment when it is first imported; whoever sets it otherwise is heard."""

import os

# Two lines on stderr for each connection that is refused: what matters of them is in our errors.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
# No child of ours uses gRPC between fork and exec, and to prepare for it costs a line on stderr each time.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
