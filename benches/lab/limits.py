"""What a process may have."""

import resource


def raise_descriptors():
    """A thousand connections need more than what is usual, in every process that is started."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
