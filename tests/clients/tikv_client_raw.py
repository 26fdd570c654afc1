"""PyPI tikv-client (bindings of the Rust client): the raw API, blocking and asynchronous, in API V1.

Usage: tikv_client_raw.py SCHEDULER_HOST:PORT
"""

import asyncio
import os
import sys

from tikv_client import RawClient, asynchronous

from checks import Checks


def blocking(check, endpoint):
    client = RawClient.connect([endpoint])
    check.equal("get of nothing", client.get(b"none"), None)
    client.put(b"k1", b"v1")
    check.equal("get", client.get(b"k1"), b"v1")
    client.put(b"k1", b"v1b")
    check.equal("overwrite", client.get(b"k1"), b"v1b")
    client.batch_put({b"k2": b"v2", b"k3": b"v3", b"k4": b"v4", b"k5": b"v5"})
    pairs = [(b"k1", b"v1b"), (b"k2", b"v2"), (b"k3", b"v3"), (b"k4", b"v4"), (b"k5", b"v5")]
    check.equal("batch get leaves out what is not there", sorted(client.batch_get([b"k4", b"none", b"k1"])),
                [pairs[0], pairs[3]])
    check.equal("scan", client.scan(b"k1", b"k9", 10), pairs)
    check.equal("scan with a limit", client.scan(b"k1", b"k9", 2), pairs[:2])
    check.equal("scan with other bounds",
                client.scan(b"k1", b"k4", 10, include_start=False, include_end=True), pairs[1:4])
    check.equal("scan without an end", client.scan(b"k4", None, 10), pairs[3:])
    check.equal("scan of keys", client.scan_keys(b"k1", b"k9", 10), [key for key, _ in pairs])
    client.delete(b"k1")
    check.equal("delete", client.get(b"k1"), None)
    client.delete(b"k1")
    check.equal("delete of nothing", client.get(b"k1"), None)
    client.batch_delete([b"k2", b"none"])
    check.equal("batch delete", client.scan_keys(b"k", b"l", 10), [b"k3", b"k4", b"k5"])
    client.delete_range(b"k3", b"k5")
    check.equal("delete range leaves its end", client.scan_keys(b"k", b"l", 10), [b"k5"])
    client.put(b"empty", b"")
    check.equal("an empty value is a value", client.scan(b"empty", b"f", 10), [(b"empty", b"")])
    client.put(b"family", b"of write", cf="write")
    check.equal("column families are apart", client.get(b"family"), None)
    check.equal("a column family", client.get(b"family", cf="write"), b"of write")
    binary = bytes(range(256))
    client.put(b"\x00" + binary, binary * 4096)
    check.equal("any bytes, a mebibyte of them", client.get(b"\x00" + binary), binary * 4096)


async def many(check, endpoint):
    client = await asynchronous.RawClient.connect([endpoint])
    keys = [f"async/{number:04}".encode() for number in range(500)]
    await asyncio.gather(*(client.put(key, key * 3) for key in keys))
    values = await asyncio.gather(*(client.get(key) for key in keys))
    check.equal("500 at once", values, [key * 3 for key in keys])
    check.equal("scan of them", await client.scan_keys(b"async/", b"async0", 1000), keys)
    await client.delete_range(b"async/", b"async0")
    check.equal("all gone", await client.scan_keys(b"async/", b"async0", 1000), [])


def main():
    check = Checks()
    blocking(check, sys.argv[1])
    asyncio.get_event_loop().run_until_complete(many(check, sys.argv[1]))
    check.done()
    # The bindings' own threads outlive the interpreter and now and then crash its end, after all checks.
    sys.stdout.flush()
    os._exit(0)


main()
