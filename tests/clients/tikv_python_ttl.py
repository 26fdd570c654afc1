"""PyPI tikv-python: time to live, against a cluster with storage.api=v1ttl.

Usage: tikv_python_ttl.py SCHEDULER_HOST:PORT
"""

import sys
import time

import tikv

from checks import Checks

# Longer than any of the waits below may take on a slow machine.
LONG = 600


def gone_within(client, key, seconds):
    """Whether the key expires before the time is over."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if client.get(key) is None:
            return True
        time.sleep(0.05)
    return False


def main():
    check = Checks()
    with tikv.RawClient(sys.argv[1]) as client:
        client.put(b"forever", b"v")
        check.equal("no ttl", client.ttl(b"forever"), None)
        client.put(b"long", b"v", ttl=LONG)
        check.equal("ttl", LONG - 60 < client.ttl(b"long") <= LONG, True)
        check.equal("a key with a ttl is there", client.get(b"long"), b"v")
        client.put(b"long", b"w")
        check.equal("a put without one takes it away", client.ttl(b"long"), None)
        client.put_many({b"many/1": b"v", b"many/2": b"w"}, ttl=LONG)
        check.equal("ttl of many", client.ttl(b"many/2") > LONG - 60, True)
        check.raises("ttl of nothing", KeyError, lambda: client.ttl(b"none"))

        client.put(b"short", b"v", ttl=1)
        check.equal("it expires", gone_within(client, b"short", 30), True)
        check.raises("an expired key is not found", KeyError, lambda: client.ttl(b"short"))
        check.equal("nor scanned", [key for key, _ in client.scan()], [b"forever", b"long", b"many/1", b"many/2"])
        check.equal("nor counted", client.checksum().keys, 4)
    with tikv.RawClient(sys.argv[1], atomic=True) as client:
        check.equal("a swap sees it as nothing", client.compare_and_swap(b"short", None, b"new", ttl=LONG),
                    (True, None))
        check.equal("ttl of a swap", client.ttl(b"short") > LONG - 60, True)
    check.done()


main()
