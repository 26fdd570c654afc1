"""PyPI tikv-python (pure Python on grpcio): the raw API, blocking and asyncio, in API V1.

Usage: tikv_python_raw.py SCHEDULER_HOST:PORT
"""

import asyncio
import sys

import tikv

from checks import Checks


def blocking(check, endpoint):
    with tikv.RawClient(endpoint) as client:
        check.equal("get of nothing", client.get(b"none"), None)
        client.put_many({f"user:{number}".encode(): b"value %d" % number for number in range(1, 6)})
        check.equal("get", client.get(b"user:2"), b"value 2")
        check.equal("get many", client.get_many([b"user:5", b"none", b"user:1"]),
                    {b"user:5": b"value 5", b"user:1": b"value 1"})
        check.equal("scan of a prefix", list(client.scan(prefix=b"user:", limit=2)),
                    [(b"user:1", b"value 1"), (b"user:2", b"value 2")])
        check.equal("scan of everything", [key for key, _ in client.scan()],
                    [f"user:{number}".encode() for number in range(1, 6)])
        check.equal("reverse scan", list(client.scan_keys(prefix=b"user:", reverse=True, limit=2)),
                    [b"user:5", b"user:4"])
        check.equal("reverse scan between bounds", list(client.scan_keys(b"user:2", b"user:4", reverse=True)),
                    [b"user:3", b"user:2"])
        client.delete_many([b"user:1", b"none"])
        client.delete(b"user:2")
        check.equal("deletes", list(client.scan_keys(prefix=b"user:")), [b"user:3", b"user:4", b"user:5"])
        client.put(b"empty", b"")
        check.equal("an empty value is a value", client.get(b"empty"), b"")

        before = client.checksum(prefix=b"user:")
        check.equal("checksum counts", (before.keys, before.size), (3, 3 * (6 + 7)))
        client.put(b"user:3", b"VALUE 3")
        check.equal("checksum sees a change", client.checksum(prefix=b"user:") == before, False)
        client.put(b"user:3", b"value 3")
        check.equal("checksum is a function of the data", client.checksum(prefix=b"user:"), before)

        check.equal("ttl of a key without one is refused or none", ttl_or_error(client, b"user:3"), None)
        check.raises("put with a ttl is refused", tikv.ServerError, lambda: client.put(b"t", b"v", ttl=60))
        check.raises("a key of 9 KiB is refused", tikv.TiKVError, lambda: client.put(b"k" * 9216, b"v"))

        # More pages than one, and more bytes than one answer may have.
        rows = {f"row/{number:06}".encode(): bytes([number % 256]) * 20_000 for number in range(1100)}
        client.put_many(rows)
        check.equal("long scan", dict(client.scan(prefix=b"row/")) == rows, True)
        check.equal("long reverse scan", list(client.scan_keys(prefix=b"row/", reverse=True)),
                    sorted(rows, reverse=True))
        check.equal("get many of all", client.get_many(rows) == rows, True)
        client.delete_range(prefix=b"row/")
        check.equal("delete range", list(client.scan_keys(prefix=b"row/")), [])
        check.equal("delete range leaves its neighbours", client.get(b"user:4"), b"value 4")


def ttl_or_error(client, key):
    try:
        return client.ttl(key)
    except tikv.ServerError:
        return None


def atomic(check, endpoint):
    with tikv.RawClient(endpoint, atomic=True) as client:
        check.equal("swap of nothing", client.compare_and_swap(b"lock", None, b"one"), (True, None))
        check.equal("swap that loses", client.compare_and_swap(b"lock", None, b"two"), (False, b"one"))
        check.equal("swap", client.compare_and_swap(b"lock", b"one", b"two"), (True, b"one"))
        check.equal("after the swap", client.get(b"lock"), b"two")
        client.delete(b"lock")
        check.equal("atomic delete", client.get(b"lock"), None)


async def many(check, endpoint):
    async with tikv.AsyncRawClient(endpoint) as client:
        keys = [f"async/{number:04}".encode() for number in range(1000)]
        await asyncio.gather(*(client.put(key, key) for key in keys))
        check.equal("1000 at once", await asyncio.gather(*(client.get(key) for key in keys)), keys)
        check.equal("scan of them", [key async for key in client.scan_keys(prefix=b"async/")], keys)

    async with tikv.AsyncRawClient(endpoint, atomic=True) as client:
        wins = await asyncio.gather(
            *(client.compare_and_swap(b"race", None, b"%d" % number) for number in range(50)))
        check.equal("one of 50 racers wins", sum(win.swapped for win in wins), 1)


def main():
    check = Checks()
    blocking(check, sys.argv[1])
    atomic(check, sys.argv[1])
    asyncio.run(many(check, sys.argv[1]))
    check.done()


main()
