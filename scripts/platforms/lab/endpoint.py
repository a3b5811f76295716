"""A pod's application: endpoint.py NAME MILLISECONDS [PORT [AT ONCE]] answers after so long and says where the request came out.
With the last of them so many requests are worked on at a time, and the others wait.

On port 9464, which a Prometheus scrapes, it tells the queue that the shipped files ask for. PUT /delay/MILLISECONDS there changes
how long it takes."""

import asyncio
import sys

NAME, DELAY = sys.argv[1], [float(sys.argv[2]) / 1000]
PORT = int(sys.argv[3]) if len(sys.argv) > 3 else 8080
AT_ONCE = asyncio.Semaphore(int(sys.argv[4]) if len(sys.argv) > 4 else 1_000_000)
waiting = 0


async def requests(reader):
    """Method, path and headers of one request after the other."""
    while True:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin1").split("\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        headers = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in head[1:] if line)}
        await reader.readexactly(int(headers.get("content-length", 0)))
        yield *head[0].split(" ")[:2], headers


def answer(body, *headers):
    lines = ["HTTP/1.1 200 OK", f"content-length: {len(body)}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


async def serve(reader, writer):
    global waiting
    async for _, _, headers in requests(reader):
        waiting += 1
        async with AT_ONCE:
            await asyncio.sleep(DELAY[0])
        waiting -= 1
        seen = "yes" if "x-evenkeel-endpoint" in headers else "no"
        writer.write(answer(NAME, f"x-pod: {NAME}", f"x-steering-header-seen: {seen}", f"x-track-seen: {headers.get('x-track', '-')}"))
        await writer.drain()
    writer.close()


async def tell(reader, writer):
    async for method, path, _ in requests(reader):
        if method == "PUT":
            DELAY[0] = float(path.rpartition("/")[2]) / 1000
        writer.write(answer(f"# TYPE task_queue_depth gauge\ntask_queue_depth {waiting}\n", "content-type: text/plain; version=0.0.4"))
        await writer.drain()
    writer.close()


async def main():
    await asyncio.start_server(serve, "0.0.0.0", PORT)
    await asyncio.start_server(tell, "0.0.0.0", 9464)
    await asyncio.Event().wait()


asyncio.run(main())
