"""PyPI tikv-client (bindings of the Rust client): transactions, optimistic and pessimistic, in API V1.

Usage: tikv_client_txn.py SCHEDULER_HOST:PORT
"""

import asyncio
import os
import sys
import threading

from tikv_client import TransactionClient

from checks import Checks

ACCOUNTS = 10
BALANCE = 100
TRANSFERS = 40
THREADS = 4


def basics(check, client):
    txn = client.begin(pessimistic=False)
    txn.put(b"k1", b"v1")
    txn.put(b"k2", b"v2")
    check.equal("a transaction sees its own writes", txn.get(b"k1"), b"v1")
    check.equal("others don't", client.snapshot(client.current_timestamp(), pessimistic=False).get(b"k1"), None)
    txn.commit()
    before = client.current_timestamp()
    check.equal("get", client.snapshot(before, pessimistic=False).get(b"k1"), b"v1")
    txn = client.begin(pessimistic=False)
    check.equal("batch get", sorted(txn.batch_get([b"k1", b"k2", b"none"])), [(b"k1", b"v1"), (b"k2", b"v2")])
    check.equal("scan", list(txn.scan(b"k", b"l", 10)), [(b"k1", b"v1"), (b"k2", b"v2")])
    txn.delete(b"k1")
    txn.put(b"k3", b"x" * 100_000)
    txn.commit()
    now = client.snapshot(client.current_timestamp(), pessimistic=False)
    check.equal("delete", now.get(b"k1"), None)
    check.equal("a long value", now.get(b"k3"), b"x" * 100_000)
    check.equal("the past stays", client.snapshot(before, pessimistic=False).get(b"k1"), b"v1")
    txn = client.begin(pessimistic=False)
    txn.put(b"k4", b"v4")
    txn.rollback()
    check.equal("rollback", client.snapshot(client.current_timestamp(), pessimistic=False).get(b"k4"), None)


def conflict(check, client):
    one, other = client.begin(pessimistic=False), client.begin(pessimistic=False)
    one.put(b"c", b"1")
    other.put(b"c", b"2")
    one.commit()
    check.raises("the second of two writers loses", Exception, other.commit)
    check.equal("the first one has won", client.snapshot(client.current_timestamp(), pessimistic=False).get(b"c"), b"1")
    txn = client.begin(pessimistic=True)
    check.equal("get for update", txn.get_for_update(b"c"), b"1")
    txn.put(b"c", b"3")
    txn.commit()
    check.equal("a pessimistic one", client.snapshot(client.current_timestamp(), pessimistic=False).get(b"c"), b"3")


def key(number):
    return b"account-%02d" % number


def bank(check, endpoint, client):
    txn = client.begin(pessimistic=False)
    for number in range(ACCOUNTS):
        txn.put(key(number), b"%d" % BALANCE)
    txn.commit()
    done = []

    def transfer(seed):
        asyncio.set_event_loop(asyncio.new_event_loop())
        own = TransactionClient.connect([endpoint])
        for step in range(TRANSFERS):
            source, target = (seed + step) % ACCOUNTS, (seed * 3 + step * 7 + 1) % ACCOUNTS
            if source == target:
                continue
            txn = own.begin(pessimistic=False)
            try:
                there, here = int(txn.get(key(source))), int(txn.get(key(target)))
                txn.put(key(source), b"%d" % (there - 1))
                txn.put(key(target), b"%d" % (here + 1))
                txn.commit()
                done.append(1)
            except Exception:
                try:
                    txn.rollback()
                except Exception:
                    pass

    threads = [threading.Thread(target=transfer, args=(seed,)) for seed in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    now = client.snapshot(client.current_timestamp(), pessimistic=False)
    balances = [int(now.get(key(number))) for number in range(ACCOUNTS)]
    check.equal("money is neither made nor lost", sum(balances), ACCOUNTS * BALANCE)
    check.equal("some transfers were made", len(done) > TRANSFERS // 2, True)


def main():
    check = Checks()
    client = TransactionClient.connect([sys.argv[1]])
    basics(check, client)
    conflict(check, client)
    bank(check, sys.argv[1], client)
    check.done()
    # The bindings' threads may crash an interpreter that ends in an orderly way.
    sys.stdout.flush()
    os._exit(0)


main()
