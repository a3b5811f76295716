"""Open-loop load: load.py ADDRESS PORT HOST REQUESTS RATE [HEADER:VALUE...]; prints what came of it as JSON.

Each request goes out at its time, whatever became of those before, until there were so many or SIGTERM comes; connections are kept.
One that was kept and is closed before anything of an answer arrived is what any HTTP client tries again on a new one."""

import asyncio
import collections
import json
import signal
import sys
import time

ADDRESS, PORT, HOST, REQUESTS, RATE = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), float(sys.argv[5])
HEADERS = "".join(f"{header}\r\n" for header in sys.argv[6:])
REQUEST = f"GET / HTTP/1.1\r\nhost: {HOST}\r\n{HEADERS}\r\n".encode()
idle, told = [], collections.Counter()
pods, tracks, failures = collections.Counter(), collections.Counter(), []


async def exchange(reader, writer):
    writer.write(REQUEST)
    await writer.drain()
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin1").split("\r\n")
    headers = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in head[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return int(head[0].split(" ")[1]), headers, body.decode("latin1")


async def one(number):
    while True:
        kept = bool(idle)
        try:
            reader, writer = idle.pop() if kept else await asyncio.wait_for(asyncio.open_connection(ADDRESS, PORT), 5)
            status, headers, body = await asyncio.wait_for(exchange(reader, writer), 15)
        except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError) as error:
            if kept and isinstance(error, (ConnectionError, asyncio.IncompleteReadError)):
                continue
            told[type(error).__name__] += 1
            failures.append([number, type(error).__name__, ""])
            return
        if headers.get("connection") == "close":
            writer.close()
        else:
            idle.append((reader, writer))
        told[status] += 1
        if status == 200:
            pods[headers.get("x-pod", "?")] += 1
            tracks[headers.get("x-track-seen", "?")] += 1
            told["steering header seen"] += headers.get("x-steering-header-seen") == "yes"
        else:
            failures.append([number, status, body[:120]])
        return


async def main():
    begun, tasks, ended = time.monotonic(), [], asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    for number in range(REQUESTS):
        await asyncio.sleep(begun + number / RATE - time.monotonic())
        if ended.is_set():
            break
        tasks.append(asyncio.create_task(one(number)))
    await asyncio.gather(*tasks)
    seen = told.pop("steering header seen", 0)
    failed = sum(count for status, count in told.items() if status != 200)
    print(json.dumps({"sent": len(tasks), "failed": failed, "statuses": {str(key): value for key, value in told.items()}, "pods": pods,
        "tracks": tracks, "steering_header_seen": seen, "failures": failures[:5]}))


asyncio.run(main())
